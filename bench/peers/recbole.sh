#!/bin/sh
# Makes the environment in which bench/peers/recbole.py, bench/peers/recbole_models.py and
# tests/adaptors/test_recbole.py run: RecBole 1.2.1 beside slimrank and the torch that we train
# with. RecBole asks numpy and pandas for what their versions 2 no longer do; the ray that it imports asks setuptools
# for what 81 no longer has.
set -eu
cd "$(dirname "$0")/../.."
sh bench/peers/environment.sh recbole --editable '.[train,serve]' recbole==1.2.1 'numpy<2' 'pandas<2' 'setuptools<81' pytest
.venv-recbole/bin/python -c 'import importlib.metadata as m, recbole.quick_start; print("RecBole", m.version("recbole"))'
