#!/bin/sh
# Makes the environment in which bench/peers/tuning.py runs: Olive 0.13 and torchao 0.18 beside slimrank and the torch
# that we train with. Olive does not name requests, which it imports.
set -eu
cd "$(dirname "$0")/../.."
sh bench/peers/environment.sh tuning --editable '.[train]' olive-ai==0.13.0 requests torchao==0.18.0
OLIVE_DISABLE_TELEMETRY=1 .venv-tuning/bin/python -c 'import importlib.metadata as m, olive; print("olive-ai", m.version("olive-ai"), "torchao", m.version("torchao"))'
