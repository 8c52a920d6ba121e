#!/bin/sh
# Makes the environment in which bench/peers/tensorflow.py runs: TensorFlow 2.21 and tf2onnx 1.17 beside the part of
# slimrank that compresses ONNX files, which needs no torch.
set -eu
cd "$(dirname "$0")/../.."
sh bench/peers/environment.sh tensorflow --without-torch --editable '.[graphs]' tensorflow-cpu==2.21.0 tf2onnx==1.17.0
.venv-tensorflow/bin/python -c 'import importlib.metadata as m, tensorflow, tf2onnx.convert; print("TensorFlow", tensorflow.__version__, "tf2onnx", m.version("tf2onnx"))'
