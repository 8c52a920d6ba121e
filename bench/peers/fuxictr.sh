#!/bin/sh
# Makes the environment in which bench/peers/fuxictr_train.py runs: FuxiCTR 2.3.10 beside the torch that we train with.
set -eu
cd "$(dirname "$0")/../.."
sh bench/peers/environment.sh fuxictr fuxictr==2.3.10
.venv-fuxictr/bin/python -c 'import fuxictr.pytorch.models, fuxictr, torch; print("FuxiCTR", fuxictr.__version__, "torch", torch.__version__)'
