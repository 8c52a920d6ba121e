#!/bin/sh
# Makes the environment in which bench/peers/compressors.py runs: torchao 0.18 and neural-compressor 3.10 beside slimrank
# and the torch that we train with. neural-compressor does not name all that it imports; the last line does.
set -eu
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
[ -x .venv-compressors/bin/python ] || "$python" -m venv .venv-compressors
pip=".venv-compressors/bin/pip install --quiet --constraint constraints.txt"
$pip torch==2.13.0
$pip --editable '.[train]' torchao==0.18.0 neural-compressor==3.10
$pip accelerate pandas prettytable psutil py-cpuinfo
.venv-compressors/bin/python -c 'import neural_compressor, torchao; print("torchao", torchao.__version__, "neural-compressor", neural_compressor.__version__)'
