#!/bin/bash
# one-check.sh SCENARIO FUNCTION ID - runs one check of a scenario; e2e/run starts it.
. "$(dirname "$(readlink -f "$0")")/common.sh"
for lib in kube roadstead database scenario; do . "$E2E/lib/$lib.sh"; done
SCENARIO=$1 ID=$3
scenario_load "$SCENARIO"
finish() {
  local rc=$?
  set +x
  if [ $rc != 0 ] && [ $rc != 77 ] && [ "$NEEDS" = cluster ]; then collect "$OUT/${ID#e2e-}.d" "$ID"; fi
  run_later
  exit $rc
}
trap finish EXIT
trap 'exit 143' TERM
if [ "$NEEDS" = cluster ]; then
  # kubectl's namespace is the check's own, by a kubeconfig of its own.
  cp "$KUBECONFIG" "$OUT/$ID.kubeconfig"
  export KUBECONFIG=$OUT/$ID.kubeconfig
  later rm -f "$KUBECONFIG"
  k delete namespace "$ID" --ignore-not-found --timeout=90s
  k create namespace "$ID"
  later k delete namespace "$ID" --wait=false
  kubectl config set-context --current --namespace="$ID" >/dev/null
fi
# The trace of the commands goes to a file of its own.
exec 19>"$OUT/${ID#e2e-}.trace"
BASH_XTRACEFD=19 PS4='+ ${SECONDS}s '
set -x
"$2"
