#!/bin/sh
# Build stage of an image: install one hashed set of requirements into /opt/venv, without what never runs.
# It ends up below /layers/packages, to be copied onto the root of the image.
# usage: install.sh SET
set -eu
python -m venv --without-pip /opt/venv
python -m pip --python /opt/venv/bin/python install --disable-pip-version-check --no-compile --quiet \
    --root-user-action ignore --no-deps --require-hashes -r "requirements/$1.txt"

packages=$(echo /opt/venv/lib/python3.*/site-packages)
find "$packages" -type d \( -name tests -o -name __pycache__ \) -prune -exec rm -rf {} +
find "$packages" -type f \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.[ah]' \) -delete
# Of NumPy, what it loads but when asked, and SciPy alone asks; the previous Pydantic; pip's own lists.
[ -d "$packages/scipy" ] || for part in distutils f2py polynomial testing; do
    rm -rf "$packages/numpy/$part"
done
rm -rf "$packages/pydantic/v1" "$packages"/*.dist-info/RECORD
# Of Google's messages, those of errors alone; of FAISS, what is of the library itself.
find "$packages/google" -mindepth 1 -maxdepth 1 -type d ! -name protobuf ! -name rpc ! -name _upb \
    -exec rm -rf {} +
rm -rf "$packages/faiss/contrib"
# Of all of AWS, what reads from S3, and what a role's credentials come by.
[ ! -d "$packages/botocore" ] ||
    find "$packages/botocore/data" -mindepth 1 -maxdepth 1 -type d ! -name s3 ! -name sts -exec rm -rf {} +
# LiteRT on a CPU, as a library: neither its GPU, nor those of phones, nor its command-line tools.
litert="$packages/ai_edge_litert"
rm -rf "$litert"/*Accelerator*.so "$litert/tools" "$litert/vendors"

mkdir -p /layers/packages/opt
mv /opt/venv /layers/packages/opt
deploy/image/settle.sh /layers/packages
