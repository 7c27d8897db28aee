#!/bin/sh
# Compile all that is Python, which a read-only container could not keep, and make two builds the same.
# usage: settle.sh FOLDER
set -eu
PYTHONHASHSEED=0 python -m compileall -q -s "$1" -p / --invalidation-mode unchecked-hash "$1"
find "$1" -exec touch --no-dereference --date "@${SOURCE_DATE_EPOCH:-0}" {} +
