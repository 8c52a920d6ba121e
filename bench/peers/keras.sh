#!/bin/sh
# Makes the environment in which bench/peers/keras.py and tests/adaptors/test_keras.py run: Keras 3 beside slimrank and
# the torch that we train with.
set -eu
cd "$(dirname "$0")/../.."
sh bench/peers/environment.sh keras --editable '.[train]' keras==3.15.1 h5py pytest
KERAS_BACKEND=torch .venv-keras/bin/python -c 'import keras; print("Keras", keras.__version__)'
