#!/bin/sh
# Makes sure that Prometheus and promtool are there, for the tests of the alerts, and prints their folder. It takes
# what is in PATH; otherwise it unpacks Debian's package into the tools' cache. Nothing is installed: the package
# would start a server and have it started with the machine.
#
# LETHE_CACHE changes the cache's folder (default: $XDG_CACHE_HOME/lethe or ~/.cache/lethe).
set -eu

if command -v promtool >/dev/null 2>&1 && command -v prometheus >/dev/null 2>&1; then
    dirname "$(command -v promtool)"
    exit 0
fi
cache=${LETHE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lethe}
folder=$cache/prometheus
if [ -x "$folder/usr/bin/promtool" ] && [ -x "$folder/usr/bin/prometheus" ]; then
    echo "$folder/usr/bin"
    exit 0
fi
if ! command -v apt-get >/dev/null 2>&1 || ! command -v dpkg-deb >/dev/null 2>&1; then
    echo "Prometheus is missing: put prometheus and promtool into PATH" >&2
    exit 1
fi
mkdir -p "$cache"
temporary=$(mktemp -d "$cache/.prometheus.XXXXXX")
trap 'rm -rf "$temporary"' EXIT
chmod 0755 "$temporary"
# apt checks what it downloads against the signed list. As root it gets a fresh list where it has none.
if ! (cd "$temporary" && apt-get download -q prometheus >&2); then
    if [ "$(id -u)" -ne 0 ]; then
        echo "The Debian package prometheus cannot be downloaded. Get apt's lists with: sudo apt-get update" >&2
        exit 1
    fi
    apt-get update -q >&2
    (cd "$temporary" && apt-get download -q prometheus >&2)
fi
dpkg-deb -x "$temporary"/prometheus_*.deb "$temporary/tree"
"$temporary/tree/usr/bin/promtool" --version >/dev/null
# The name appears only when the folder is whole.
rm -rf "$folder"
mv "$temporary/tree" "$folder"
echo "$folder/usr/bin"
