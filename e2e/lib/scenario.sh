# shellcheck shell=bash
# A scenario is a file in e2e/scenarios: its second line is a comment with one sentence, ALONE that `make test` leaves it to
# `e2e/run NAME` on a machine without other work, NEEDS says what it stands on
# (cluster or vm), and `check NAME "SENTENCE"` registers a function with that name (- written as _). Each check runs in a
# process of its own, in a namespace of its own, and removes what it made with `later`.

NEEDS=cluster
CHECKS=() SENTENCES=() TIMEOUTS=()
check() { # NAME SENTENCE [SECONDS]
  CHECKS+=("$1") SENTENCES+=("$2") TIMEOUTS+=("${3:-180}")
}
scenario_load() { # NAME
  CHECKS=() SENTENCES=() TIMEOUTS=()
  scenario_end() { :; } # what a scenario has to clean after its last check, if it has
  [ -f "$E2E/scenarios/$1.sh" ] || die "no scenario $1: make e2e LIST=1 lists them"
  # shellcheck disable=SC1090
  . "$E2E/scenarios/$1.sh"
}
scenario_names() { (cd "$E2E/scenarios" && ls ./*.sh) | sed 's|^\./||; s|\.sh$||'; }
scenario_sentence() { sed -n '2s/^# //p' "$E2E/scenarios/$1.sh"; }

LATER=()
later() { LATER+=("$*"); } # COMMAND...: runs at the end of the check, in reverse order, whatever happened
run_later() {
  local i
  set +e
  for ((i = ${#LATER[@]} - 1; i >= 0; i--)); do
    echo "+ ${SECONDS}s later: ${LATER[i]}"
    eval "${LATER[i]}"
  done
  echo "+ ${SECONDS}s cleaned"
}
collect() { # DIRECTORY NAMESPACE: what the cluster looks like after a failure
  mkdir -p "$1"
  local p
  {
    k get targets,nvmenamespaces,nvmeattachments,nvmehosts,transportpolicies,pv,volumeattachments -o wide
    k get pods,pvc -A -o wide
  } >"$1/objects.txt" 2>&1 || true
  k get targets,nvmenamespaces,nvmeattachments,nvmehosts,transportpolicies -o yaml >"$1/objects.yaml" 2>&1 || true
  k get events -A --sort-by=.lastTimestamp >"$1/events.txt" 2>&1 || true
  k describe pods -n "$2" >"$1/pods.txt" 2>&1 || true
  for p in $(k get pods -n "$NS" -o name); do
    k logs -n "$NS" "$p" --all-containers --prefix --tail=2000 >"$1/${p#pod/}.log" 2>&1 || true
  done
}

skip() { # REASON: ends the check
  echo "$*" >"$SKIP_FILE"
  exit 77
}
