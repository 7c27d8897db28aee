#!/bin/sh
# Build stage of an image: put the Python packages named and the gRPC stubs into app, below /layers/code.
# usage: assemble.sh PACKAGE...
set -eu
python -m venv /opt/stubs
/opt/stubs/bin/pip install --disable-pip-version-check --quiet --no-deps --require-hashes -r requirements/stubs.txt
app=/layers/code/app
mkdir -p "$app"
cp -R "$@" "$app"
/opt/stubs/bin/python -m grpc_tools.protoc -I protos --python_out="$app" --grpc_python_out="$app" \
    protos/twotower/v1/*.proto
touch "$app/twotower/v1/__init__.py"
# By what the image will have: stubs that it does not take must fail the build, not the start.
(cd "$app" && PYTHONDONTWRITEBYTECODE=1 /layers/packages/opt/venv/bin/python -W error -c \
    'from twotower.v1 import embedding_pb2, retrieval_pb2_grpc, user_tower_pb2_grpc')

deploy/image/settle.sh /layers/code
