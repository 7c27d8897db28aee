#!/bin/sh
# Replace every container of a service by new ones of the image and settings that now stand, without a gap:
# the new ones come first, and the old ones go once those are healthy. If they do not become healthy, they go.
# usage: roll.sh SERVICE    (COMPOSE, `docker compose` by default, and DOCKER are what it is done with)
set -eu
service=$1
compose=${COMPOSE:-docker compose}
docker=${DOCKER:-docker}
patience=${PATIENCE_SECONDS:-120}

fail() {
    echo "error: $service: $1; the old containers go on" >&2
    exit 1
}

remove() {
    # All at once: each may take its time to end what is under way.
    echo "$1" | xargs -r "$docker" stop --time 20 >/dev/null
    echo "$1" | xargs -r "$docker" rm --force >/dev/null
}

# Compose would count a container that has stopped, and start it in place of a new one.
$compose rm --force "$service" >/dev/null 2>&1 || true
old=$($compose ps -q "$service")
count=$(echo "$old" | grep -c . || true)
if [ "$count" -eq 0 ]; then
    echo "error: no container of $service runs; start it by: $compose up -d $service" >&2
    exit 1
fi

# By label, since Compose v2 lists what runs, and 1.29 all.
label() { $docker inspect --format "{{index .Config.Labels \"com.docker.compose.$1\"}}" "$2"; }
project=$(label project "$(echo "$old" | head -n 1)")
added() {
    $docker ps --all --quiet --no-trunc --filter "label=com.docker.compose.project=$project" \
        --filter "label=com.docker.compose.service=$service" \
        --filter "label=com.docker.compose.oneoff=False" | grep -v -x -F "$old" || true
}
trap 'remove "$(added)"; fail "interrupted"' INT TERM HUP

if ! said=$($compose up -d --no-deps --no-recreate --scale "$service=$((count * 2))" "$service" 2>&1); then
    echo "$said" >&2
    remove "$(added)"
    fail "no new ones could be started"
fi
waited=0
until [ "$(added | xargs -r "$docker" inspect --format '{{.State.Health.Status}}' | grep -c -x healthy)" -eq "$count" ]; do
    if [ "$waited" -ge "$patience" ]; then
        $docker logs --tail 5 "$(added | head -n 1)" >&2 || true
        remove "$(added)"
        fail "the new ones are not healthy after $patience s"
    fi
    sleep 1
    waited=$((waited + 1))
done
trap - INT TERM HUP
remove "$old"
echo "$service: $count replaced"
