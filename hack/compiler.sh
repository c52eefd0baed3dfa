#!/bin/sh
# Makes sure that a C compiler is there: Go's race detector needs cgo. As root it installs Debian's package; otherwise
# it names it.
set -eu

if command -v "${CC:-gcc}" >/dev/null 2>&1; then
    exit 0
fi
if ! command -v apt-get >/dev/null 2>&1; then
    echo "A C compiler is missing: install gcc and the headers of the C library" >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "The Debian packages gcc and libc6-dev are missing. Install them with: sudo $0" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -q -y --no-install-recommends gcc libc6-dev
