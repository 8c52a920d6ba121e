#!/bin/sh
# Makes an environment of its own for peers: sh environment.sh NAME [--without-torch] REQUIREMENT..., called by the
# scripts beside it. torch is asked for first and pinned, because a range, or a peer that names none, brings gigabytes
# of CUDA.
set -eu
cd "$(dirname "$0")/../.."
environment=.venv-$1
shift
[ -x "$environment/bin/python" ] || "${PYTHON:-python3}" -m venv "$environment"
if [ "$1" = --without-torch ]; then
    shift
else
    "$environment/bin/pip" install --quiet --constraint constraints.txt torch==2.13.0
fi
"$environment/bin/pip" install --quiet --constraint constraints.txt "$@"
