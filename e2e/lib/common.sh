# shellcheck shell=bash
# What every script of e2e/ starts with: paths, messages, steps with times. Source it; it changes nothing.
set -euo pipefail

ROOT=$(dirname "$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")")
E2E=$ROOT/e2e
OUT=$E2E/.out                                              # logs and results of the last run
TOOLS=$ROOT/.cache/tools                                   # pinned tools built from crates.io
CLUSTER_DIR=${ROADSTEAD_CLUSTER_DIR:-/var/tmp/roadstead-cluster}
CLUSTER_CACHE=${ROADSTEAD_CLUSTER_CACHE:-$CLUSTER_DIR/cache}
CLUSTER_NET=${ROADSTEAD_CLUSTER_NET:-10.199.0}
APP_IMAGES=$CLUSTER_CACHE/app-images                       # images made by e2e/images, with the key of their content
PROFILE=${PROFILE:-ci}                                     # cargo profile of the programs under test
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
NS=roadstead-system                                        # where the chart is installed
export ROADSTEAD_CLUSTER_DIR=$CLUSTER_DIR ROADSTEAD_CLUSTER_NET=$CLUSTER_NET
export KUBECONFIG=$CLUSTER_DIR/kubeconfig
for d in "$HOME/.cargo/bin" /usr/local/go/bin /usr/sbin /sbin "$CLUSTER_CACHE/bin"; do
  case :$PATH: in *":$d:"*) ;; *) PATH=$PATH:$d ;; esac
done
export PATH

# Stock kernels and user lands of the virtual machines, made on the first use and kept: 6.12, 6.1 and 7.x.
VM_SUITES="trixie bookworm forky"
vm_suite() { # SUITE: the options of vm.sh for it
  echo "-S $1"
  if [ "$1" = bookworm ]; then echo "-k 6.1"; fi
}
vm_suites() { # [OPTION OF vm.sh...]: the options are for the first
  local s
  for s in $VM_SUITES; do
    # shellcheck disable=SC2046 # several words
    "$E2E/vm.sh" --build $(vm_suite "$s") "$@"
    shift $#
  done
}

say() { echo "$*" >&2; }
die() {
  echo "error: $*" >&2
  exit 1
}

# step WHAT COMMAND...: runs it and says how long it took; its output goes to a log that is shown when it fails.
# Not to be used as a condition (`if`, `||`): bash would go on after errors inside functions then.
step() {
  local what=$1 t0=$SECONDS log hint rc
  shift
  mkdir -p "$OUT"
  log=$OUT/step-$(tr -cs 'a-zA-Z0-9\n' - <<<"$what").log
  (sleep 3 && say "        ... $what") &
  hint=$!
  set +e
  (set -e; "$@") >"$log" 2>&1 </dev/null
  rc=$?
  set -e
  kill $hint 2>/dev/null || true
  wait $hint 2>/dev/null || true
  if [ $rc != 0 ]; then
    say "FAILED  $what ($((SECONDS - t0)) s)"
    tail -n 40 "$log" | sed 's/^/        | /' >&2
    say "        all of it is in $log"
    return $rc
  fi
  printf '%5d s %s\n' $((SECONDS - t0)) "$what" >&2
}

# side_by_side COMMAND COMMAND...: runs functions at the same time; fails when one fails.
side_by_side() {
  local f pids=() rc=0
  for f; do
    (set -e; "$f") &
    pids+=($!)
  done
  for f in "${pids[@]}"; do wait "$f" || rc=1; done
  return $rc
}

# until_ok SECONDS WHAT COMMAND...: repeats the command until it succeeds; dies with WHAT when the time is over.
until_ok() {
  local end=$((SECONDS + $1)) what=$2 out
  shift 2
  until out=$("$@" 2>&1); do
    [ "$SECONDS" -lt "$end" ] || die "not in time: $what; the last try said: ${out:-nothing}"
    sleep 0.3
  done
}

# never_within SECONDS WHAT COMMAND...: dies when the command succeeds once within that time.
never_within() {
  local end=$((SECONDS + $1)) what=$2
  shift 2
  while [ "$SECONDS" -lt "$end" ]; do
    if "$@" >/dev/null 2>&1; then die "happened, and must not: $what"; fi
    sleep 0.3
  done
}

# expect_text TEXT REGEX WHAT: the text must match.
expect_text() { grep -qE -- "$2" <<<"$1" || die "$3: expected /$2/, got: $1"; }

# key FILE-OR-TEXT...: a key of the contents of these files (and of the names of what is not a file).
content_key() {
  local f
  for f; do
    if [ -d "$f" ]; then find "$f" -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
    elif [ -f "$f" ]; then sha256sum "$f"
    else echo "$f"; fi
  done | sha256sum | cut -c1-32
}
