#!/bin/sh
# Make what docker-compose.yml keeps in secrets/, where it is not there yet: a key and a certificate of this
# machine's own for gRPC over TLS, and Grafana's password. What is there is left as it is.
# usage: secrets.sh [NAME...]    (the names that clients call this machine by; localhost is always one)
set -eu
umask 077
mkdir -p secrets
# The folder keeps others out; the containers, whose user is none of this machine's, see the files alone.
chmod 700 secrets
names=DNS:localhost,IP:127.0.0.1
for name in "$@"; do
    case $name in
        *:* | *[0-9].[0-9]*.[0-9]*.[0-9]*) names=$names,IP:$name ;;
        *) names=$names,DNS:$name ;;
    esac
done
if [ -e secrets/tls.key ] || [ -e secrets/tls.crt ]; then
    if ! [ -e secrets/tls.key ] || ! [ -e secrets/tls.crt ]; then
        echo "error: secrets/ has a tls.key or a tls.crt without the other; remove it, or add the other" >&2
        exit 1
    fi
    [ $# -eq 0 ] || echo "secrets/tls.crt stands already: the names given are not in it unless they were before"
else
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 -subj /CN=twotower \
        -addext "subjectAltName=$names" -keyout secrets/tls.key -out secrets/tls.crt
    chmod 644 secrets/tls.key secrets/tls.crt
    echo "secrets/tls.crt: for $names, 365 days; clients need it to trust this machine"
fi
if [ ! -e secrets/grafana_password ]; then
    openssl rand -hex 16 >secrets/grafana_password
    chmod 644 secrets/grafana_password
    echo "secrets/grafana_password: of Grafana's user admin"
fi
