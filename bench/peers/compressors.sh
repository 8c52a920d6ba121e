#!/bin/sh
# Makes the environment in which bench/peers/compressors.py runs: torchao 0.18 and neural-compressor 3.10 beside slimrank
# and the torch that we train with. neural-compressor does not name all that it imports; the last packages do.
set -eu
cd "$(dirname "$0")/../.."
sh bench/peers/environment.sh compressors --editable '.[train]' torchao==0.18.0 neural-compressor==3.10 \
    accelerate pandas prettytable psutil py-cpuinfo
.venv-compressors/bin/python -c 'import neural_compressor, torchao; print("torchao", torchao.__version__, "neural-compressor", neural_compressor.__version__)'
