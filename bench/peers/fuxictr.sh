#!/bin/sh
# Makes the environment in which bench/peers/fuxictr_train.py, bench/peers/fuxictr.py and tests/adaptors/test_fuxictr.py
# run: FuxiCTR 2.3.10 beside slimrank and the torch that we train with. It is one of its own because FuxiCTR brings ray.
set -eu
cd "$(dirname "$0")/../.."
sh bench/peers/environment.sh fuxictr --editable '.[prune,serve]' fuxictr==2.3.10 pytest
.venv-fuxictr/bin/python -c 'import fuxictr.pytorch.models, fuxictr, torch; print("FuxiCTR", fuxictr.__version__, "torch", torch.__version__)'
