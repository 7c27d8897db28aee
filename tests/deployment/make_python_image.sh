#!/bin/sh
# Make a stand-in for Docker's official Python image from Debian's packages, where no registry is reachable.
# usage: make_python_image.sh TAG CACHE_FOLDER
set -eu
tag=$1
cache=$2
mkdir -p "$cache"
. /etc/os-release
key=$(cat "$0" /etc/ssl/certs/ca-certificates.crt | sha256sum | cut -c 1-16)
tar=$cache/python-$VERSION_CODENAME-$key.tar
if [ ! -s "$tar" ]; then
    mirror=$(sed -n -E 's/^URIs: *([^ ]+).*/\1/p; s/^deb +(\[[^]]*\] +)?([^ ]+) .*/\2/p' \
        /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null | head -n 1)
    mmdebstrap --quiet --variant=minbase --mode=root --format=tar \
        --include=ca-certificates,netbase,python3,python3-pip,python3-venv,tzdata \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --customize-hook='for name in python python3; do ln -s /usr/bin/python3 "$1/usr/local/bin/$name"; done' \
        --customize-hook='upload /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt' \
        --customize-hook='rm -rf "$1"/usr/lib/python3*/EXTERNALLY-MANAGED "$1"/var/lib/apt/lists/*' \
        "$VERSION_CODENAME" "$tar.part" "$mirror"
    mv "$tar.part" "$tar"
fi
"${DOCKER:-docker}" import --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' \
    --change 'ENV LANG=C.UTF-8' --change 'ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt' \
    --change 'CMD ["python3"]' "$tar" "$tag" >/dev/null
