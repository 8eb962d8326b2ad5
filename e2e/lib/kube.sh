# shellcheck shell=bash
# kubectl with waits on conditions, and the nodes of the test cluster. After common.sh.

CLUSTER=$E2E/cluster/cluster
# Kubelets tell the API server what they unmounted every 2 s instead of 10, which detaching waits for; they look at grown
# volumes every 10 s instead of 60, measure volumes as often, and start a container that was killed again within 2 s.
export KUBELET_CONFIG=$'nodeStatusUpdateFrequency: 2s\nsyncFrequency: 10s\nvolumeStatsAggPeriod: 10s\ncrashLoopBackOff: {maxContainerRestartPeriod: 2s}'
k() { kubectl --request-timeout=30s "$@"; }
node() { "$CLUSTER" node exec "$@"; }            # N COMMAND...: in the node's namespaces
node_ip() { echo "$CLUSTER_NET.$((10 + $1))"; }
# kernel_node N [OPTION OF vm.sh...]: a virtual machine with a stock kernel as a node, with the images that a pod with a volume needs. It is
# slow, so only daemons run there until `kernel_node_open N`.
kernel_node() {
  VM_IMAGES="roadstead toolbox" KUBELET_ARGS="--register-with-taints=e2e/slow=true:NoSchedule" "$CLUSTER" vm start "$1" -m 2048 "${@:2}"
}
kernel_node_open() { k taint node "node$1" e2e/slow-; }
cluster_is_up() { [ -f "$CLUSTER_DIR/run/up" ] && k get --raw /readyz >/dev/null 2>&1; }

# field OBJECT JSONPATH: for example field pvc/data .status.phase
# shellcheck disable=SC2086
field() { k get $1 -o "jsonpath={$2}"; } # OBJECT may be "pod/x -n namespace"
matches() { grep -qE -- "$3" <<<"$(field "$1" "$2")"; }
# wait_field OBJECT JSONPATH REGEX [SECONDS]
wait_field() {
  until_ok "${4:-60}" "$1 $2 like /$3/, it is '$(field "$1" "$2" 2>&1)'" matches "$1" "$2" "$3"
}
# condition OBJECT TYPE: "Status Reason: Message"
condition() {
  local c=".status.conditions[?(@.type==\"$2\")]"
  k get "$1" -o "jsonpath={$c.status} {$c.reason}: {$c.message}"
}
condition_like() { grep -qE -- "$3" <<<"$(condition "$1" "$2")"; }
# wait_condition OBJECT TYPE REGEX [SECONDS]: REGEX is matched against "Status Reason: Message"
wait_condition() {
  local end=$((SECONDS + ${4:-60}))
  until condition_like "$1" "$2" "$3" 2>/dev/null; do
    [ "$SECONDS" -lt "$end" ] || die "$1: condition $2 is '$(condition "$1" "$2" 2>&1)', expected /$3/"
    sleep 0.3
  done
}
is_gone() { [ -z "$(k get "$1" --ignore-not-found -o name)" ]; }
wait_gone() { until_ok "${2:-60}" "$1 is gone" is_gone "$1"; } # OBJECT [SECONDS]
wait_pod() { # POD [SECONDS]: Ready; at the end of the time its description is shown
  k wait --for=condition=Ready "pod/$1" --timeout="${2:-90}s" >/dev/null || {
    k describe "pod/$1" | tail -n 30 >&2
    die "pod $1 is not Ready"
  }
}
# refused REGEX COMMAND...: the command must fail with a message like REGEX; prints the message.
refused() {
  local want=$1 out
  shift
  if out=$("$@" 2>&1); then die "was accepted, and must not: $*"; fi
  expect_text "$out" "$want" "the refusal"
  echo "refused as it should be: $out"
}
# event_like OBJECT-NAME REGEX: an Event about that object, "Reason: message"
event_like() {
  k get events -A --field-selector "involvedObject.name=$1" -o jsonpath='{range .items[*]}{.reason}{": "}{.message}{"\n"}{end}' |
    grep -qE -- "$2"
}
wait_event() { until_ok "${3:-60}" "an Event of $1 like /$2/" event_like "$1" "$2"; } # OBJECT-NAME REGEX [SECONDS]
