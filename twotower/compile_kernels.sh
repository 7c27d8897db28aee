#!/bin/sh
# Compile kernels.c, for any processor of this machine's kind, by a compiler that comes as a Python package.
# usage: compile_kernels.sh PYTHON OUTPUT; PYTHON has ziglang
set -eu
cache=$(mktemp -d)
trap 'rm -rf "$cache"' EXIT
# No additions and multiplications in one: they would round otherwise than apart, and not all processors have them.
ZIG_GLOBAL_CACHE_DIR=$cache ZIG_LOCAL_CACHE_DIR=$cache "$1" -m ziglang cc -std=gnu11 -mcpu=baseline -O3 \
    -ffp-contract=off -fno-math-errno -ffreestanding -nostdlib -shared -fPIC -s -Wall -Wextra -Werror -Wno-psabi \
    -o "$cache/libkernels.so" "$(dirname "$0")/kernels.c"
mv "$cache/libkernels.so" "$2"
