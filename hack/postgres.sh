#!/bin/sh
# Makes sure that a PostgreSQL server is installed, for tests, benches and the demo. As root it installs Debian's
# package; otherwise it names it. It never starts Debian's own cluster, and leaves alone what is already installed.
set -eu

if ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null 2>&1; then
    exit 0
fi
if ! command -v apt-get >/dev/null 2>&1; then
    echo "PostgreSQL is missing: install its server so that initdb is in PATH" >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "The Debian package postgresql is missing. Install it with: sudo $0" >&2
    exit 1
fi

# postgresql-common makes and starts a cluster for each version that is installed, unless this file says no.
conf=/etc/postgresql-common/createcluster.conf
made=
if [ ! -e "$conf" ]; then
    mkdir -p "$(dirname "$conf")"
    printf 'create_main_cluster = false\n' >"$conf"
    made=yes
fi
# It is Debian's file: what we put there only for the installation goes again.
trap '[ -z "$made" ] || rm -f "$conf"' EXIT

export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -q -y --no-install-recommends -o Dpkg::Options::=--force-confold postgresql
ls /usr/lib/postgresql/*/bin/initdb >/dev/null

# Where the file was there before and wanted a cluster, Debian has started one: stop it by Debian's own means.
if [ -z "$made" ] && command -v pg_lsclusters >/dev/null 2>&1; then
    pg_lsclusters --no-header | while read -r version name _ state _; do
        [ "$state" != online ] || pg_ctlcluster "$version" "$name" stop
    done
fi
