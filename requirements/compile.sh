#!/usr/bin/env bash
# Pin every requirement set, for Python 3.11 to 3.13 on any platform, so that all sets agree. Needs uv.
set -euo pipefail
cd "$(dirname "$0")"
compile() {
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
        --no-annotate --custom-compile-command requirements/compile.sh "$@"
}
compile --constraint constraints.in dev.in --output-file dev.txt
for set in user_tower retrieval gateway training evaluation stubs compiler aws deploy bench; do
    compile --constraint dev.txt "$set.in" --output-file "$set.txt"
done
