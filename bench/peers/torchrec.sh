#!/bin/sh
# Makes the environment in which bench/peers/torchrec.py and tests/adaptors/test_torchrec.py run: TorchRec 1.8.0 with
# fbgemm 1.8.0, the pair for the torch that we train with. TorchRec asks for fbgemm's build with CUDA, so it comes alone
# and what else it asks for is named.
set -eu
cd "$(dirname "$0")/../.."
sh bench/peers/environment.sh torchrec --editable '.[prune,serve]' fbgemm-gpu-cpu==1.8.0 tensordict torchmetrics==1.0.3 \
    pyre-extensions tqdm pytest
.venv-torchrec/bin/pip install --quiet --no-deps torchrec==1.8.0
.venv-torchrec/bin/python -c 'import importlib.metadata as m, torchrec; print("TorchRec", m.version("torchrec"))'
