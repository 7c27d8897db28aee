#!/bin/sh
# Build stage of an image: compile twotower/loops.c, by a compiler that stays out of the image.
set -eu
python -m pip install --disable-pip-version-check --no-compile --quiet --root-user-action ignore --no-deps \
    --require-hashes --target /opt/compiler -r requirements/compiler.txt
PYTHONPATH=/opt/compiler twotower/compile_loops.sh python twotower/libloops.so
