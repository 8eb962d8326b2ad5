#!/bin/bash
# test.sh - everything that must hold: formatting, lints, dependencies, unit tests, chart, virtual machine and cluster
# scenarios. Goes on after a failure and ends with a summary; exits with 1 when something failed.
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"
for lib in prereq kube; do . "$E2E/lib/$lib.sh"; done
cd "$ROOT"
export RESULTS=$OUT/results
rm -rf "$OUT"
mkdir -p "$OUT"
: >"$RESULTS"
PARTS=$OUT/parts
: >"$PARTS"

# part NAME COMMAND...: one line in the summary; a failure does not stop the others
part() {
  local name=$1 t0=$SECONDS rc
  shift
  set +e
  (set -e; step "$name" "$@")
  rc=$?
  set -e
  printf '%s\t%s\t%s\n' "$([ $rc = 0 ] && echo ok || echo FAIL)" "$name" $((SECONDS - t0)) >>"$PARTS"
  [ $rc = 0 ] || [ -n "${COUNTED:-}" ] || printf 'FAIL\t%s\t%s\t\n' "$name" $((SECONDS - t0)) >>"$RESULTS"
}
# counted PART: a part that counts as one check
counted() {
  COUNTED=1 part "$@"
  awk -F'\t' -v n="$1" '$2 == n {printf "%s\t%s\t%s\t\n", $1, $2, $3}' "$PARTS" >>"$RESULTS"
}
UNIT_LOG=$OUT/step-unit-and-property-tests.log # where `step` keeps the output
unit_tests() { # every Rust test is a check of its own
  cargo test --locked --profile "$PROFILE" --workspace --no-fail-fast && return
  echo "What failed, in short:"
  # Indented, for `count_unit_tests` reads the same log.
  grep -E -A 2 ' panicked at |^test .* FAILED$|^test result: FAILED' "$UNIT_LOG" | sed 's/^/  /' | tail -n 38 || true
  return 1
}
count_unit_tests() {
  sed -nE 's/^test (.*) \.\.\. (ok|FAILED|ignored).*/\2\t\1/p' "$UNIT_LOG" |
    sed -E 's/^FAILED/FAIL/; s/^ignored/skip/; s/$/\t0\t/' >"$RESULTS.unit"
  cat "$RESULTS.unit" >>"$RESULTS" # in one write: scenarios append at the same time
}

build_lane() {
  counted "formatting" cargo fmt --all --check
  # With the tests' features, for which every library is needed anyway: without --tests half of them would be built again.
  part "the four programs and the tests" cargo build --locked --profile "$PROFILE" --workspace --bins --tests
}
other_lane() {
  # shellcheck disable=SC2046
  counted "shell scripts (shellcheck)" shellcheck -x $(e2e/shell-files)
  part "test cluster's programs" "$E2E/cluster/cluster" build
  counted "Helm chart" e2e/chart.sh
  counted "licences, bans, duplicates (cargo-deny)" e2e/deny.sh
  part "virtual machines' kernels and user lands" vm_suites --disk
  part "images with PostgreSQL and tools" "$E2E/images.sh" postgres toolbox
}
# Beside the scenarios, which mostly wait. The lints take what is left of the cores.
cargo_lane() {
  part "unit and property tests" unit_tests
  count_unit_tests
  counted "lints (clippy, warnings are errors)" \
    nice -n 19 cargo clippy --locked --workspace --all-targets --profile "$PROFILE" -- -D warnings
  TIME=5 counted "fuzzing, a short run (cargo-fuzz)" nice -n 19 e2e/fuzz.sh
}

# Virtual machines and the cluster share nothing but the cores. The cluster's own virtual machine takes minutes to start.
vm_lane() {
  local names
  part "the cluster's node with a stock kernel" kernel_node 11
  mapfile -t names < <(cd e2e/scenarios && grep -l '^NEEDS=vm' ./*.sh | xargs grep -L '^ALONE=' | sed 's|^./||; s|.sh$||')
  scenarios "virtual machine scenarios" "${names[@]}"
}
cluster_lane() {
  local names
  mapfile -t names < <(cd e2e/scenarios && grep -l '^NEEDS=cluster' ./*.sh | xargs grep -L '^ALONE=' | sed 's|^./||; s|.sh$||')
  scenarios "cluster scenarios" "${names[@]}"
  # At last: two more virtual machines beside those of the other lane would be slow.
  scenarios "two nodes with stock kernels" vm-node
}
scenarios() { # PART NAME...
  local part=$1 s0=$SECONDS rc=0
  shift
  NO_CARGO=1 "$E2E/run" "$@" || rc=$?
  printf '%s\t%s\t%s\n' "$([ $rc = 0 ] && echo ok || echo FAIL)" "$part" $((SECONDS - s0)) >>"$PARTS"
  # A run that ended without a failed check failed before its first one.
  if [ $rc != 0 ] && ! grep -q '^FAIL' "$RESULTS"; then
    printf 'FAIL\t%s\t%s\tended early\n' "$part" $((SECONDS - s0)) >>"$RESULTS"
  fi
}

t0=$SECONDS
step "prerequisites" prereqs
side_by_side build_lane other_lane
was_up=0
[ ! -f "$CLUSTER_DIR/run/up" ] || was_up=1
NO_CARGO=1 "$E2E/up.sh" || true # the lanes fail then, and are counted
side_by_side vm_lane cluster_lane cargo_lane
[ $was_up = 1 ] || "$E2E/cluster/cluster" down

echo
echo "Parts:"
awk -F'\t' '{printf "  %-4s %-44s %5d s\n", $1, $2, $3}' "$PARTS"
if grep -qE '^(FAIL|skip)' "$RESULTS"; then
  echo "Failed or skipped:"
  awk -F'\t' '$1 != "ok" {printf "  %-4s %s%s\n", $1, $2, $4 == "" ? "" : "  (" $4 ")"}' "$RESULTS"
fi
echo
printf 'after %d s: ' $((SECONDS - t0))
awk -F'\t' '{n[$1]++} END {printf "%d passed, %d failed, %d skipped\n", n["ok"], n["FAIL"], n["skip"]; exit n["FAIL"] > 0 || n["ok"] == 0}' "$RESULTS"
