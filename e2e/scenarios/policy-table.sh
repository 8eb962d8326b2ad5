#!/bin/bash
# Transport policy: what is decided on this cluster for each row of the table and each workload, with the reason on the object.
NEEDS=cluster
check rows "For each row of the table a pod gets its volume, over the transport that fits or with the reason why not." 300
check workloads "For each workload class the same; the decision is in an Event, in metrics and in kubectl roadstead explain."
check by-name "transport: roce waits with the reason where there is no RDMA, takes TCP where fallback: tcp allows it, and says so." 240
check words "Unknown words are refused with the list of those that are known: in a claim, a class, a volume and a policy."
check other-policy "A namespace names another policy; one that does not exist is not replaced; a changed one does not interrupt." 240
check own-node "A pod on the volume's own node: without the network, unless a transport is asked for by name."

# claim NAME ANNOTATIONS: a claim of the private class; it goes at the end
claim() {
  k apply -f - <<Y
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: $1, annotations: {$2}}
spec: {storageClassName: $ID, accessModes: [ReadWriteOnce], resources: {requests: {storage: 64Mi}}}
Y
  later k delete pvc "$1" --ignore-not-found --timeout=60s
}
# user NAME NODE: a pod with the claim of the same name
user() {
  toolbox "$1" "$2" "$1"
  later k delete pod "$1" --ignore-not-found --timeout=60s
}
has_rdma() { [ -n "$(field nvmehost/node1 .status.rdma)" ] && [ -n "$(field nvmehost/node2 .status.rdma)" ]; }
# decided CLAIM FITS-TCP FITS-ROCE FIRST TITLE: the attachment of the claim's volume says what must be decided here
decided() {
  local a chosen why=$5
  a=nvmeattachment/$(attachment_of "$(volume_of "$1")")
  if has_rdma && [ "$3" = yes ] && { [ "$4" = roce ] || [ "$2" = no ]; }; then chosen=roce; else chosen=tcp; fi
  [ "$chosen" = roce ] || [ "$2" = yes ] || why="taken as the fallback, although .*does not fit '$5'; RoCE rejected: node2 has no RDMA device"
  wait_field "$a" .status.chosenTransport "^$chosen$"
  wait_field "$a" .status.reason "$why"
  wait_field "$a" .status.policy '^default$'
  # What is in use is what the node says.
  wait_field "$a" .status.transport "^$chosen$"
  wait_condition "$a" PreferredPath '^True AsChosen'
  echo "$1: $(field "$a" '.status.chosenTransport}: {.status.reason')"
}

# NEED | TCP | RoCE | as people read it
TABLE='standard-driver-and-nic|yes|no|standard driver and NIC
direct-connect|yes|yes|direct connect
latency-as-local-ssd|no|yes|latency as a local NVMe SSD
minimise-cpu-load|no|yes|minimise CPU load
replaces-iscsi|yes|no|replaces iSCSI
replaces-infiniband|no|yes|replaces InfiniBand
alternative-to-fc|yes|yes|alternative to FC'

rows() {
  local need tcp roce title
  wait_condition transportpolicy/default Ready '^True InForce: RoCE for high-performance, low-latency; else TCP'
  private_target 1Gi
  while IFS='|' read -r need tcp roce title; do
    claim "$need" "roadstead.io/needs: $need"
    user "$need" 2
  done <<<"$TABLE"
  while IFS='|' read -r need tcp roce title; do
    wait_pod "$need"
    in_pod "$need" sh -c 'echo kept >/data/f && sync'
    decided "$need" "$tcp" "$roce" tcp "$title"
  done <<<"$TABLE"
}

workloads() {
  local w first a v text
  private_target 1Gi
  for w in general capacity high-performance low-latency; do
    claim "$w" "roadstead.io/workload: $w"
    user "$w" 2
  done
  for w in general capacity high-performance low-latency; do
    wait_pod "$w"
    case $w in general | capacity) first=tcp ;; *) first=roce ;; esac
    v=$(volume_of "$w")
    a=$(attachment_of "$v")
    wait_field "nvmeattachment/$a" .status.transport '^(tcp|roce)$'
    if has_rdma || [ $first = tcp ]; then
      wait_field "nvmeattachment/$a" .status.reason "policy default prefers it for workload $w"
    else
      wait_field "nvmeattachment/$a" .status.reason 'the preferred one cannot be used; RoCE rejected: node2 has no RDMA device'
    fi
    wait_event "$a" '^TransportChosen: (TCP|RoCE): '
  done
  # The claim of the last one, explained while it writes.
  in_pod low-latency sh -c 'while :; do dd if=/dev/zero of=/data/f bs=64k count=64 conv=fsync,notrunc status=none; done' &
  later "kill $!"
  sleep 1
  ln -sf "$TARGET/$PROFILE/roadstead" "$OUT/kubectl-roadstead-policy"
  text=$("$OUT/kubectl-roadstead-policy" explain pvc/low-latency -n "$ID")
  echo "$text"
  expect_text "$text" 'uses +(tcp|roce) \(policy default chose (tcp|roce)\)' "what is used"
  has_rdma || expect_text "$text" '- RoCE rejected: node2 has no RDMA device' "what is not"
  expect_text "$text" 'now +[0-9]+ reads/s .*, [1-9][0-9]* writes/s of [0-9.]+[KMG]iB/s' "live rates"
  curl -sS -m 5 "http://$(k get pod -n "$NS" -l app.kubernetes.io/component=operator -o jsonpath='{.items[0].status.podIP}'):7424/metrics" >"$OUT/policy-metrics"
  expect_text "$(cat "$OUT/policy-metrics")" '^roadstead_operator_attachments\{chosen="(tcp|roce)",transport="(tcp|roce)"\} [1-9]' "the operator's metrics"
}

by_name() {
  local a
  has_rdma && skip "this cluster has RDMA: nothing has to wait for it"
  private_target 512Mi
  claim waits "roadstead.io/transport: roce"
  user waits 2
  claim falls "roadstead.io/transport: roce, roadstead.io/fallback: tcp"
  user falls 2
  wait_pod falls
  a=nvmeattachment/$(attachment_of "$(volume_of falls)")
  wait_field "$a" .status.reason '^TCP: taken as the fallback, although the volume asks for transport roce; RoCE rejected: node2 has no RDMA device'
  wait_field "$a" .status.transport '^tcp$'
  wait_event "${a#*/}" '^TransportChosen: TCP: taken as the fallback'
  # The other one waits, and says why, on the object and to the pod's owner.
  a=nvmeattachment/$(attachment_of "$(volume_of waits)")
  wait_condition "$a" Ready '^False NoTransport: .*RoCE rejected: node2 has no RDMA device'
  [ -z "$(field "$a" '.status.transport}{.status.chosenTransport')" ] || die "it says that it uses a transport"
  wait_event waits 'FailedAttachVolume.*RoCE rejected: node2 has no RDMA device' 90
  # Allowed to fall back it goes on by itself.
  k patch nvmenamespace "$(volume_of waits)" --type merge -p '{"spec":{"fallback":"tcp"}}'
  wait_pod waits 120
}

words() {
  private_target 512Mi
  claim bad "roadstead.io/workload: fast"
  user bad 2
  wait_event bad "ProvisioningFailed.*annotation roadstead.io/workload: 'fast' is no workload; known are: general, capacity, high-performance, low-latency"
  refused 'supported values: "auto", "tcp", "roce"' k apply -f - <<Y
apiVersion: roadstead.io/v1alpha1
kind: NVMeNamespace
metadata: {name: $ID-bad}
spec: {size: 64Mi, transport: rdma}
Y
  refused 'supported values: .*"minimise-cpu-load"' k apply -f - <<Y
apiVersion: roadstead.io/v1alpha1
kind: TransportPolicy
metadata: {name: $ID-bad}
spec: {rows: [{need: speed, tcp: true, roce: true}]}
Y
  refused 'a row must fit tcp or roce' k apply -f - <<Y
apiVersion: roadstead.io/v1alpha1
kind: TransportPolicy
metadata: {name: $ID-bad}
spec: {rows: [{need: direct-connect, tcp: false, roce: false}]}
Y
}

other_policy() {
  local a v
  private_target 512Mi
  k annotate namespace "$ID" "roadstead.io/transport-policy=$ID"
  claim data "roadstead.io/needs: replaces-iscsi"
  user data 2
  until_ok 60 "an attachment" attached data
  v=$(volume_of data)
  a=nvmeattachment/$(attachment_of "$v")
  wait_condition "$a" Ready "^False PolicyNotFound: there is no TransportPolicy $ID"
  k apply -f - <<Y
apiVersion: roadstead.io/v1alpha1
kind: TransportPolicy
metadata: {name: $ID}
spec: {rows: [{need: replaces-iscsi, tcp: true, roce: true}], workloads: [{workload: general, prefer: tcp}], local: false}
Y
  later k delete transportpolicy "$ID" --ignore-not-found
  wait_pod data 120
  wait_field "$a" .status.policy "^$ID$"
  # Now TCP does not fit any more: what exists stays, and says so.
  k patch transportpolicy "$ID" --type merge -p '{"spec":{"rows":[{"need":"replaces-iscsi","tcp":false,"roce":true}]}}'
  k patch nvmenamespace "$v" --type merge -p '{"spec":{"fallback":"none"}}'
  has_rdma || wait_field "$a" .status.superseded 'a new attachment would wait: .*; this one stays with TCP'
  has_rdma || wait_event "${a#*/}" '^TransportSuperseded: '
  in_pod data sh -c 'echo still >/data/f && sync && cat /data/f'
  wait_field "$a" .status.transport '^tcp$'
}
attached() { [ -n "$(attachment_of "$(volume_of "$1")")" ]; }

own_node() {
  local a
  private_target 512Mi
  claim home "roadstead.io/workload: general"
  user home 1
  wait_pod home
  a=nvmeattachment/$(attachment_of "$(volume_of home)")
  [ "$(field nvmehost/node1 .status.localAttach)" = true ] || die "the dataplane of node1 does not offer it"
  wait_field "$a" .status.transport '^local$'
  wait_field "$a" .status.reason '^local: the volume is on node1 itself: no network between'
  expect_text "$("$TARGET/$PROFILE/roadstead" explain "pvc/home" -n "$ID")" 'local \(Live' "the path as explain shows it"
  in_pod home sh -c 'echo here >/data/f && sync'
  # Asked for by name it is the network.
  claim net "roadstead.io/transport: tcp"
  user net 1
  wait_pod net
  a=nvmeattachment/$(attachment_of "$(volume_of net)")
  wait_field "$a" .status.transport '^tcp$'
  wait_field "$a" '.status.candidates[*].reason' 'local rejected: the volume asks for transport tcp'
}
