#!/usr/bin/env bash
# All tests. Those of controllers take as long as those of all other packages together, and wait for an API server
# much of the time: the two go on beside each other. What drives a real node comes last, alone: a kubelet on a busy
# machine says late that a program has ended. The demo on a cluster that is somebody's waits for outcomes and measures
# no time: it goes on after the controllers, beside the rest. Every package is run, whatever failed before it. Called
# by `make test`. hack/gotest counts what ran: a package none of whose tests ran fails, a test that skips itself
# fails, and fewer tests than hack/tests.floor fail.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

logs="$(mktemp -d)"
trap 'rm -rf "$logs"' EXIT
go build -o "$logs/gotest" ./hack/gotest || exit 1
gotest() { "$logs/gotest" -tally "$logs/tally" "$@"; }

# With the race detector: where many goroutines share what must not be mixed up. TestMemoryUnderAttack measures
# memory, of which the detector takes several times as much.
race=(./internal/fair/... ./internal/keyserver/... ./internal/keystore/... ./internal/authority/... ./internal/memo/... ./internal/keyclient/... ./internal/sweep/...)
stranger=./test/e2e/stranger
mapfile -t node < <(go list ./test/e2e/... | grep -vxF -e "$(go list "$stranger")")
mapfile -t others < <(go list ./... | grep -vxF -e "$(go list ./controllers/... ./internal/reconcile ./internal/doors/... "${race[@]}" ./test/e2e/...)")
if [ "${#node[@]}" -lt 1 ]; then
  echo "no package is left that drives a node: go list says something unexpected" >&2
  exit 1
fi
if [ "${#others[@]}" -lt 20 ]; then
  echo "only ${#others[@]} packages are left for the last part: go list says something unexpected" >&2
  exit 1
fi

beside() {
  local failed=0
  gotest -race -timeout 40m -p 1 -skip '^TestMemoryUnderAttack$' "${race[@]}" || failed=1
  gotest -timeout 10m -run '^TestMemoryUnderAttack$' ./internal/keyserver || failed=1
  gotest -timeout 40m -p 1 "${others[@]}" || failed=1
  return $failed
}

failed=0
gotest -C hack/cluster ./... || failed=1
gotest -C test/programs ./... || failed=1
# Who gets in beside an attack from the same address is a matter of turns: on a machine that is busy with other tests
# there are too few of them.
gotest -race -timeout 10m ./internal/doors/... || failed=1
beside >"$logs/beside" 2>&1 &
pid=$!
# An API server and etcd that collect their garbage less often: memory is there, processors are what is short. Each
# package has an API server of its own, and waits for it much of the time: three go on at once.
GOGC=400 gotest -race -p 3 -timeout 60m ./controllers/... ./internal/reconcile || failed=1
gotest -timeout 20m "$stranger" || failed=1
wait "$pid" || failed=1
cat "$logs/beside"
gotest -timeout 40m -p 1 "${node[@]}" || failed=1
"$logs/gotest" -tally "$logs/tally" -floor hack/tests.floor || failed=1
if [ "$failed" -ne 0 ]; then
  echo "FAIL: see above" >&2
  grep -E '^(FAIL|--- FAIL|panic)' "$logs/beside" >&2
fi
exit "$failed"
