#!/bin/sh
# Makes the environments in which the deployment targets litert and executorch convert and run: .venv-edge-litert with
# litert-torch 0.10, .venv-edge-executorch with ExecuTorch 1.5, each with the torch that we train with. slimrank need not
# be in them: `--target litert:python=.venv-edge-litert/bin/python` starts the part of it that they need. The file
# `ready` tells tests that an environment is whole.
set -eu
cd "$(dirname "$0")/../.."
sh bench/peers/environment.sh edge-litert litert-torch==0.10.0 onnx
.venv-edge-litert/bin/python -c 'import importlib.metadata as m; print(*(f"{n} {m.version(n)}" for n in ("litert-torch", "ai-edge-litert", "torch")))'
touch .venv-edge-litert/ready
sh bench/peers/environment.sh edge-executorch executorch==1.5.1 onnx
.venv-edge-executorch/bin/python -c 'import importlib.metadata as m; print(*(f"{n} {m.version(n)}" for n in ("executorch", "torch")))'
touch .venv-edge-executorch/ready
