#!/bin/sh
# Makes the environment in which bench/peers/deepctr.py and tests/adaptors/test_deepctr_torch.py run: DeepCTR-Torch 0.3.0
# beside slimrank and the torch that we train with. The library does not name requests, which it imports.
set -eu
cd "$(dirname "$0")/../.."
sh bench/peers/environment.sh deepctr --editable '.[prune,serve]' deepctr-torch==0.3.0 requests pytest
.venv-deepctr/bin/python -c 'import importlib.metadata as m; print("DeepCTR-Torch", m.version("deepctr-torch"))'
