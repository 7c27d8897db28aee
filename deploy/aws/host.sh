#!/bin/sh
# Runs Twotower on a host of AWS. It lies in the release that runs: /opt/twotower/app, unpacked from S3.
# usage: host.sh up             have the stack run, of the tag that last ran here, or else of the first one
#        host.sh release TAG    replace what runs by another tag without a gap, or leave it as it is
#        host.sh status         what runs, and whether it answers
#        host.sh report         the same to CloudWatch, as a number: 1 where it does not
set -eu
home=${TWOTOWER_HOME:-/opt/twotower}
app=$home/app
before=$home/app.before
patience=${PATIENCE_SECONDS:-180}
serving="user_tower_svc retrieval_svc gateway"

# shellcheck source=/dev/null
. "$home/env"

main() {
    case ${1:-} in
        up)
            alone
            up
            ;;
        release)
            [ -n "${2:-}" ] || fail "usage: host.sh release TAG"
            alone
            release "$2"
            ;;
        status) status ;;
        report) report ;;
        *) fail "usage: host.sh up | release TAG | status | report" ;;
    esac
}

fail() {
    echo "error: $1" >&2
    exit 1
}

# One at a time. What an interrupted release has left is taken back.
alone() {
    exec 9>"$home/lock"
    flock --nonblock 9 || fail "another host.sh is at work here"
    DOCKER_CONFIG=$(mktemp -d)
    export DOCKER_CONFIG
    trap 'rm -rf "$DOCKER_CONFIG"' EXIT
    if [ -d "$before" ]; then
        rm -rf "$app"
        mv "$before" "$app"
    fi
}

# What docker-compose.yml of a folder takes to be of a tag.
use() {
    cd "$1"
    export TWOTOWER_REGISTRY="$REGISTRY" TWOTOWER_TAG="$2" BUNDLES REGION
    export TWOTOWER_ADDRESS="${TWOTOWER_ADDRESS:-0.0.0.0}"
    export COMPOSE_PROJECT_NAME="${COMPOSE_PROJECT_NAME:-twotower}"
    export COMPOSE_FILE=docker-compose.yml:deploy/aws/compose.yml
    # What this host alone has otherwise, such as replicas.
    [ ! -e "$home/local.yml" ] || COMPOSE_FILE=$COMPOSE_FILE:$home/local.yml
    if [ "$GRPC" = true ]; then
        export COMPOSE_PROFILES=grpc
        (cd "$home" && "$1/deploy/secrets.sh" "$ADDRESS")
        ln -sfn "$home/secrets" secrets
    fi
    if docker compose version >/dev/null 2>&1; then
        COMPOSE="docker compose"
    else
        COMPOSE=docker-compose
    fi
    export COMPOSE
}

# Tags stay with their images, so those that are here are right, even while ECR is away.
pull() {
    for service in $serving; do
        image=$REGISTRY/$service:$TWOTOWER_TAG
        if ! docker image inspect "$image" >/dev/null 2>&1; then
            log_in
            docker pull --quiet "$image" >/dev/null || fail "$image cannot be pulled"
        fi
        check_processor "$image"
    done
}

# Docker pulls and starts images of any processor; all that those of another say is `exec format error`.
check_processor() {
    case $(uname -m) in
        x86_64) here=linux/amd64 ;;
        aarch64) here=linux/arm64 ;;
        *) here=linux/$(uname -m) ;;
    esac
    built=$(docker image inspect --format '{{.Os}}/{{.Architecture}}' "$1")
    [ "$built" = "$here" ] || fail "$1 is for $built, and this host is $here: push images for $here"
}

# By the role. The password is gone when this script ends.
log_in() {
    aws ecr get-login-password --region "$REGION" |
        docker login --username AWS --password-stdin "${REGISTRY%%/*}" >/dev/null 2>&1 ||
        fail "ECR does not let this host in: is $REGISTRY right, and may its role pull?"
}

fetch() {
    aws s3 cp --region "$REGION" --only-show-errors "$RELEASES/$1.tar.gz" "$home/release.tar.gz" ||
        fail "$RELEASES/$1.tar.gz cannot be fetched; it says Forbidden too where there is none"
    rm -rf "$home/app.next" "$home/app.old"
    mkdir "$home/app.next"
    tar -xzf "$home/release.tar.gz" -C "$home/app.next"
}

ready() {
    curl --silent --show-error --fail-with-body --noproxy '*' --max-time 5 \
        "http://127.0.0.1:${TWOTOWER_PORT:-8000}/readyz" 2>&1
}

wait_until_ready() {
    waited=0
    until ready >/dev/null; do
        [ "$waited" -lt "$patience" ] || return 1
        sleep 1
        waited=$((waited + 1))
    done
}

# It lies in the release, so that both change at once.
running() { cat "$app/tag" 2>/dev/null || true; }

up() {
    tag=$(running)
    use "$app" "${tag:-$TAG}"
    pull
    $COMPOSE up -d --remove-orphans || fail "the stack does not come up"
    wait_until_ready || fail "$TWOTOWER_TAG does not answer after $patience s: $(ready || true)"
    echo "$TWOTOWER_TAG" >tag
    echo "$TWOTOWER_TAG runs"
}

release() {
    was=$(running)
    [ -n "$was" ] || fail "nothing runs here yet: $home/start"
    forget_images_but "$was"
    fetch "$1"
    use "$home/app.next" "$1"
    pull
    mv "$app" "$before"
    mv "$home/app.next" "$app"
    use "$app" "$1"
    rolled=
    for service in $serving; do
        # It has removed what it started, where that did not become healthy.
        PATIENCE_SECONDS=$patience deploy/compose/roll.sh "$service" || back "$was" "$service is not healthy"
        rolled="$service $rolled"
    done
    renew_edges
    wait_until_ready || back "$was" "it does not answer"
    echo "$1" >tag
    mv "$before" "$home/app.old"
    rm -rf "$home/app.old"
    echo "$1 runs in place of $was"
}

# To the tag before, and end. What was replaced last goes first, so that no one meets a service of later.
back() {
    rm -rf "$home/app.failed"
    mv "$app" "$home/app.failed"
    mv "$before" "$app"
    use "$app" "$1"
    for service in $rolled; do
        deploy/compose/roll.sh "$service" ||
            fail "$2; going back to $1 has failed too, at $service: look at host.sh status"
    done
    renew_edges "$home/app.failed"
    rm -rf "$home/app.failed"
    fail "not released: $2; $1 runs as before"
}

# Envoy reads its settings when it starts: only where they differ is it started again, in about a second.
renew_edges() {
    other=${1:-$before}
    cmp -s deploy/compose/edge.yaml "$other/deploy/compose/edge.yaml" || $COMPOSE restart edge
    [ "$GRPC" != true ] ||
        cmp -s deploy/compose/grpc_edge.yaml "$other/deploy/compose/grpc_edge.yaml" || $COMPOSE restart grpc_edge
}

# A disk holds only so many: those that run stay.
forget_images_but() {
    docker images --format '{{.Repository}}:{{.Tag}}' | grep -F "$REGISTRY/" | grep -v ":$1\$" |
        xargs -r docker rmi >/dev/null 2>&1 || true
}

status() {
    [ -n "$(running)" ] || fail "nothing runs here yet: $home/start"
    use "$app" "$(running)"
    echo "tag: $TWOTOWER_TAG"
    $COMPOSE ps
    ready || fail "it does not answer"
    echo
}

report() {
    if ready >/dev/null; then unhealthy=0; else unhealthy=1; fi
    aws cloudwatch put-metric-data --region "$REGION" --namespace Twotower --metric-name Unhealthy \
        --dimensions "Stack=$STACK" --value "$unhealthy"
}

main "$@"
