#!/bin/sh
# Makes the environment in which bench/peers/fuxictr_train.py runs: FuxiCTR 2.3.10 beside the torch that we train with.
# torch is asked for first and pinned, because FuxiCTR does not name it and a plain `torch` brings several GB of CUDA.
set -eu
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
[ -x .venv-fuxictr/bin/python ] || "$python" -m venv .venv-fuxictr
.venv-fuxictr/bin/pip install --quiet --constraint constraints.txt torch
.venv-fuxictr/bin/pip install --quiet --constraint constraints.txt fuxictr==2.3.10
.venv-fuxictr/bin/python -c 'import fuxictr.pytorch.models, fuxictr, torch; print("FuxiCTR", fuxictr.__version__, "torch", torch.__version__)'
