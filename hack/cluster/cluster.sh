#!/bin/sh
# Builds the cluster tool, which takes a moment when nothing has changed, and runs it with the given arguments.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
cache=${LETHE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lethe}
# Checkouts do not share the built tool: they may differ.
tool=$cache/bin/tool-$(printf %s "$here" | cksum | cut -d' ' -f1)/cluster
mkdir -p "${tool%/*}"
(cd "$here" && GOFLAGS='' GOWORK=off CGO_ENABLED=0 go build -trimpath -buildvcs=false -o "$tool" .)
LETHE_CLUSTER_SOURCE=$here
export LETHE_CLUSTER_SOURCE
exec "$tool" "$@"
