#!/usr/bin/env bash
# All tests, in two lanes. What measures time goes one after the other, with the machine's whole attention: who gets
# in beside an attack, what drives a real node (a kubelet on a busy machine says late that a program has ended); and
# what starts a node of its own, of which there is one at a time. All that is without the race detector: they drive
# programs. Beside it, only with processors that the first lane leaves (SCHED_IDLE), goes everything else, with the race
# detector, three packages at once: most of a package's time it waits for an API server of its own. Every package is
# run, whatever failed before it. Called by `make test`. hack/gotest counts what ran: a package none of whose tests
# ran fails, a test that skips itself fails, and fewer tests than hack/tests.floor fail.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

logs="$(mktemp -d)"
trap 'rm -rf "$logs"' EXIT
go build -o "$logs/gotest" ./hack/gotest || exit 1
gotest() { "$logs/gotest" -tally "$logs/tally" "$@"; }

stranger=./test/e2e/stranger
mapfile -t node < <(go list ./test/e2e/... | grep -vxF -e "$(go list "$stranger")")
if [ "${#node[@]}" -lt 1 ]; then
  echo "no package is left that drives a node: go list says something unexpected" >&2
  exit 1
fi
# Those that take longest come first, so that at the end none goes on alone.
long=(./internal/keyserver ./controllers/bot ./controllers/steady ./controllers ./controllers/datastore
  ./internal/stores/postgres ./controllers/lives ./controllers/orphans ./controllers/tenant ./internal/sweep)
mapfile -t first < <(go list "${long[@]}")
mapfile -t rest < <(go list ./... | grep -vxF -e "$(go list ./internal/doors/... ./test/e2e/...)" -e "$(printf '%s\n' "${first[@]}")")
if [ "${#first[@]}" -ne "${#long[@]}" ] || [ "${#rest[@]}" -lt 60 ]; then
  echo "only ${#first[@]} and ${#rest[@]} packages are left for the other lane: go list says something unexpected" >&2
  exit 1
fi

# TestMemoryUnderAttack measures memory, of which the detector takes several times as much. An API server and etcd that
# collect their garbage less often: memory is there, processors are what is short.
beside() {
  local failed=0
  GOGC=400 gotest -race -p 3 -timeout 60m -skip '^TestMemoryUnderAttack$' "${first[@]}" "${rest[@]}" || failed=1
  gotest -C test/programs -race ./... || failed=1
  gotest -timeout 10m -run '^TestMemoryUnderAttack$' ./internal/keyserver || failed=1
  return $failed
}

(
  # Where there is no chrt the other lane is merely polite.
  chrt --idle --pid 0 "$BASHPID" || renice -n 19 -p "$BASHPID"
  beside
) >"$logs/beside" 2>&1 &
pid=$!

failed=0
gotest -C hack/cluster ./... || failed=1
gotest -race -timeout 10m ./internal/doors/... || failed=1
gotest -timeout 40m -p 1 "${node[@]}" || failed=1
gotest -timeout 20m "$stranger" || failed=1
wait "$pid" || failed=1
cat "$logs/beside"
"$logs/gotest" -tally "$logs/tally" -floor hack/tests.floor || failed=1
if [ "$failed" -ne 0 ]; then
  echo "FAIL: see above" >&2
  grep -E '^(FAIL|--- FAIL|panic)' "$logs/beside" >&2
fi
exit "$failed"
