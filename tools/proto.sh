#!/bin/sh
# Regenerates fluobook/wire/generated from fluobook/wire/proto (`make proto`).
# PYTHON names the interpreter of the virtual environment; grpcio-tools and grpclib bring protoc and its plugin.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
out=fluobook/wire/generated
rm -f "$out"/*_pb2.py "$out"/*_pb2.pyi "$out"/*_grpc.py
PATH="$(dirname "$("$python" -c 'import sys; print(sys.executable)')"):$PATH" \
  "$python" -m grpc_tools.protoc "-I$out=fluobook/wire/proto" \
  --python_out=. --pyi_out=. --grpclib_python_out=. fluobook/wire/proto/*.proto
