#!/bin/sh
# Builds Docker Compose 2 from its Go module into the cache, once; prints the program's path. For the compose lab, whose
# own docker-compose is 1.29: people have Compose 2. Needs go 1.23 or later; takes some two minutes on two cores.
set -eu

version=v2.40.3
sum="h1:XeYkQu1svDtyfZPv5nTwFryQ25ZJMkIlc4pz9HalMPI=" # of the module, as go.sum would have it; it names all that it needs
program="${XDG_CACHE_HOME:-$HOME/.cache}/fediwarden/docker-compose-$version"

if [ ! -x "$program" ]; then
    command -v go >/dev/null || { echo "compose2.sh: go is missing: install it (https://go.dev/dl)" >&2; exit 1; }
    scratch=$(mktemp -d)
    trap 'chmod -R u+w "$scratch"; rm -rf "$scratch"' EXIT
    go mod download -json "github.com/docker/compose/v2@$version" >"$scratch/module"
    grep -qF "\"Sum\": \"$sum\"" "$scratch/module" || { echo "compose2.sh: $version is not what it was" >&2; exit 1; }
    cp -r "$(sed -n 's/.*"Dir": "\(.*\)".*/\1/p' "$scratch/module")" "$scratch/source"
    chmod -R u+w "$scratch/source"
    cd "$scratch/source"
    CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X github.com/docker/compose/v2/internal.Version=$version" \
        -o "$scratch/docker-compose" ./cmd >&2
    mkdir -p "$(dirname "$program")"
    mv "$scratch/docker-compose" "$program"
fi
echo "$program"
