#!/bin/sh
# Builds the images and runs tests/compose with them: run.sh PYTHON [PYTEST_ARGUMENTS...]
# With the compose lab (COMPOSE_LAB_COMMAND, or beside this checkout) no container engine is needed; it wants root. Else with
# Docker. The image holds the models: the lab has no network while it runs.
set -eu
cd "$(dirname "$0")/../.."
python=$1
shift
lab=${COMPOSE_LAB_COMMAND:-../shared/containers/compose-lab}
image=localhost/fediwarden:0.1.0-cpu

if [ -x "$lab" ]; then
    "$lab" prepare
    build() { tag=$1 folder=$2; shift 2; "$lab" build "$tag" "$folder" "$@"; }
elif docker info >/dev/null 2>&1; then
    build() { tag=$1 folder=$2; shift 2; docker build --tag "$tag" "$@" "$folder"; }
else
    echo "make test-compose needs Docker, or COMPOSE_LAB_COMMAND: there is neither here." >&2
    exit 1
fi

build "$image" . --target cpu --build-arg MODELS="safety-s open-nsfw"
if [ -x "$lab" ] || ! docker image inspect apache/kafka:4.4.0 >/dev/null 2>&1; then
    # The embedded launcher's own jars and Java, so that the stand-in changes when they do and not with our code.
    "$python" -m tests.compose.kafka.gather dist/kafka-image
    build docker.io/apache/kafka:4.4.0 dist/kafka-image
fi
if [ -x "$lab" ]; then
    rm -rf dist/pict-rs-image
    mkdir -p dist/pict-rs-image
    cp -r "$(sh tests/pictrs/build.sh)" tests/compose/pict-rs/Dockerfile dist/pict-rs-image
    build docker.io/asonix/pictrs:0.5.24 dist/pict-rs-image
    "$python" -m tests.compose.postgres.gather dist/postgres-image
    build docker.io/library/postgres:18-alpine dist/postgres-image
    build docker.io/prom/prometheus:v3.5.0 tests/compose/prometheus
    COMPOSE_COMMAND=$(sh tests/compose/compose2.sh)
    export COMPOSE_COMMAND
    # What podman remembers of networks is kept where a run that was killed, or another at the same time, leaves its own.
    mkdir -p /run/containers
    exec unshare --mount --propagation private sh -c 'mount -t tmpfs tmpfs /run/containers && exec "$@"' sh \
        "$lab" run tests/compose/inside.sh "$python" "$@"
fi
exec "$python" -m pytest -m compose tests/compose "$@"
