#!/bin/sh
# Makes the environments in which bench/peers/serving_*.py serve, one for each, as their needs do not go together: kserve,
# MLServer, LitServe, and Triton in the form of nvidia-pytriton, with the ONNX Runtime that we run on. Triton itself is
# not on PyPI. What nvidia-pytriton starts loads a shared libpython and the library that goes with it: it runs with
# Debian's Python (SYSTEM_PYTHON), and not with one that is built without a shared library, as pyenv's are.
set -eu
cd "$(dirname "$0")/../.."
for peer in kserve==0.21.0 mlserver==1.7.1 litserve==0.2.19; do
    sh bench/peers/environment.sh "serving-${peer%%==*}" --without-torch "$peer" onnxruntime==1.32.0 uvloop
done
python=.venv-serving-pytriton/bin/python
[ -x "$python" ] || "${SYSTEM_PYTHON:-/usr/bin/python3}" -m venv --without-pip .venv-serving-pytriton
"${PYTHON:-python3}" -m pip --python "$python" install --quiet --constraint constraints.txt \
    nvidia-pytriton==0.7.0 onnxruntime==1.32.0
