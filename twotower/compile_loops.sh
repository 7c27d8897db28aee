#!/bin/sh
# Compile loops.c, for any processor of this machine's kind, by a compiler that comes as a Python package.
# usage: compile_loops.sh PYTHON OUTPUT; PYTHON has ziglang
set -eu
source=$(dirname "$0")/loops.c
digest=$(cat "$source" "$0" | "$1" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')
cache=$(mktemp -d)
trap 'rm -rf "$cache"' EXIT
# No additions and multiplications in one: they would round otherwise than apart, and not all processors have them.
ZIG_GLOBAL_CACHE_DIR=$cache ZIG_LOCAL_CACHE_DIR=$cache "$1" -m ziglang cc -std=gnu11 -mcpu=baseline -O3 \
    -ffp-contract=off -fno-math-errno -ffreestanding -nostdlib -shared -fPIC -s -Wall -Wextra -Werror -Wno-psabi \
    "-DSOURCE=\"$digest\"" -o "$cache/libloops.so" "$source"
# A process that starts meanwhile finds the old one, or the new.
mv "$cache/libloops.so" "$2.new"
mv "$2.new" "$2"
