#!/bin/bash
# A foreign appliance, the Linux kernel's own target in a virtual machine on the cluster's network: its namespaces as volumes.
NEEDS=cluster
. "$E2E/lib/standalone.sh"
check discovery "A Target by discovery shows what the appliance has; a namespace by UUID is a static volume in a pod: verified I/O over both portals, of which one goes away and comes back. Deletion leaves the data, and a new object finds it again." 600
check names "A Target by NQN and portals; namespaces by NGUID and by identifier, attached by what was recorded; one that is another than was bound is not used; none is bound twice." 420
check refusals "What cannot be is refused with a sentence: a volume made there, growth, sizes, names that are not there, mixed Targets. Growth at the appliance shows in the status." 420
check hosts "The appliance lets one host in: the nodes are that host by a Secret, which no status shows." 420
check authentication "The appliance demands DH-HMAC-CHAP: no key, a damaged one and a wrong one are refused with a sentence, the right one is let in, without a group, and with ffdhe2048 and a key that the appliance has to prove; verified I/O. No status, Event or log shows a key." 540
scenario_end() {
  guest_down
  ip link del $TAP 2>/dev/null || true
}

TAP=rsext
ARRAY=$CLUSTER_NET.50
ARRAY_NQN=nqn.2014-08.com.example:array
UUID=6f1c2b4e-8a55-4f0e-9a57-0d6e2d6f4f41
NGUID=6f1c2b4e8a554f0e9a570d6e2d6f4f52

array() { guest_check external.sh "$@"; } # FUNCTION [ARGUMENT...]
array_up() {
  if ! ip link show $TAP >/dev/null 2>&1; then
    ip tuntap add dev $TAP mode tap
    ip link set $TAP master rscl0 up
  fi
  guest_up array -a "$E2E/guest/nvmet.sh" \
    -q "-netdev tap,id=n1,ifname=$TAP,script=no,downscript=no -device virtio-net-pci,netdev=n1,mac=52:54:00:c7:01:01,romfile="
  array "as_at_first $ARRAY"
}
# appliance LINE OF YAML...: a Target, named as the check's namespace, with these lines in spec.external
appliance() {
  {
    printf 'apiVersion: roadstead.io/v1alpha1\nkind: Target\nmetadata: {name: %s}\nspec:\n  external:\n' "$ID"
    printf '    %s\n' "$@"
  } | k apply -f -
  later k delete target "$ID" --ignore-not-found --timeout=60s
}
BY_PORTALS=("nqn: $ARRAY_NQN" "portals: [{address: $ARRAY}, {address: $ARRAY, port: 4421}]")
BY_DISCOVERY=("discovery: [{address: $ARRAY, port: 4420}, {address: $ARRAY, port: 4421}]") # each port of nvmet tells of itself alone
# bind NAME EXTERNAL: an NVMeNamespace for what EXTERNAL, a mapping of YAML, names
bind() {
  k apply -f - <<Y
apiVersion: roadstead.io/v1alpha1
kind: NVMeNamespace
metadata: {name: $1}
spec: {target: $ID, external: $2}
Y
  later k delete nvmenamespace "$1" --ignore-not-found --timeout=60s
}
# static NAME [CLASS]: a PersistentVolume for that NVMeNamespace and a claim bound to it
static() {
  k apply -f - <<Y
apiVersion: v1
kind: PersistentVolume
metadata: {name: $1}
spec:
  capacity: {storage: 160Mi}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: "${2:-}"
  csi: {driver: csi.roadstead.io, volumeHandle: $1, fsType: ext4}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: $1}
spec: {storageClassName: "${2:-}", volumeName: $1, accessModes: [ReadWriteOnce], resources: {requests: {storage: 160Mi}}}
Y
  later k delete pv "$1" --ignore-not-found --timeout=60s
  later k delete pvc "$1" --ignore-not-found --timeout=60s
}
pod() { # NAME NODE: with that claim
  toolbox "$1" "$2" "$1"
  later k delete pod "$1" --ignore-not-found --timeout=60s
  wait_pod "$1" 120
}
verified_fio() { # POD FILE SECONDS
  in_pod "$1" fio --name=v --filename="/data/$2" --size=16M --rw=randrw --bs=4k --direct=1 --ioengine=libaio --iodepth=8 --time_based \
    --runtime="$3" --verify=crc32c --verify_fatal=1 --verify_backlog=64 --verify_state_save=0 --minimal
}
# secret LITERAL...: this check's Secret has these from now on
secret() {
  k create secret generic "$ID" -n "$NS" --type=roadstead.io/external "${@/#/--from-literal=}" --dry-run=client -o yaml | k apply -f -
  later k delete secret "$ID" -n "$NS" --ignore-not-found
}
hidden() { # WORD...: no status, Event or log shows one of these
  local words=("${@/#/-e}")
  if {
    k get targets,nvmenamespaces,nvmeattachments,nvmehosts,volumeattachments -o yaml
    k get events -A -o yaml
  } | grep -F "${words[@]}"; then die "an object shows what the Secret says"; fi
  k logs -n "$NS" -l app.kubernetes.io/name=roadstead --all-containers --tail=-1 --prefix >"$OUT/$ID.logs"
  later rm -f "$OUT/$ID.logs"
  grep -q "$ID" "$OUT/$ID.logs" || die "the logs do not speak of this check"
  if grep -F "${words[@]}" "$OUT/$ID.logs"; then die "a log shows what the Secret says"; fi
}
dhchap_key() { # a new one
  python3 -c 'import base64, os, struct, zlib
k = os.urandom(32)
print("DHHC-1:01:" + base64.b64encode(k + struct.pack("<I", zlib.crc32(k))).decode() + ":")'
}
live_paths() { k get "nvmeattachment/$1" -o jsonpath='{.status.paths[?(@.state=="Live")].port}'; }
paths_are() { [ "$(live_paths "$1" | tr ' ' '\n' | sort -n | tr '\n' ' ')" = "$2 " ]; } # ATTACHMENT "PORT..."

discovery() {
  local v=$ID-v a io marker
  array_up
  appliance "${BY_DISCOVERY[@]}"
  wait_condition "target/$ID" Ready '^True Reachable: 1 subsystem with 3 namespaces at 2 portals'
  wait_field "target/$ID" .status.subsystems[0].namespaces[0].uuid "^$UUID\$"
  wait_field "target/$ID" .status.subsystems[0].namespaces[0].size '^160Mi$'
  bind "$v" "{uuid: $UUID}"
  wait_condition "nvmenamespace/$v" Ready '^True Online'
  wait_field "nvmenamespace/$v" .status.capacityBytes "^$((160 << 20))\$"
  wait_field "nvmenamespace/$v" .status.size '^160Mi$'
  wait_field "target/$ID" .status.subsystems[0].namespaces[0].bound "^$v\$"
  static "$v"
  pod "$v" 2
  a=$(attachment_of "$v")
  wait_field "nvmeattachment/$a" .status.transport '^tcp$'
  until_ok 30 "both paths are live" paths_are "$a" "4420 4421"
  "$TARGET/$PROFILE/roadstead" explain "pvc/$v"
  verified_fio "$v" f 25 &
  io=$!
  sleep 3
  array "silence 1"
  until_ok 60 "one path is live" paths_are "$a" 4421
  array "listen 1"
  until_ok 60 "both paths are live again" paths_are "$a" "4420 4421"
  wait $io
  marker=roadstead-$RANDOM-$RANDOM
  in_pod "$v" sh -c "echo $marker >/data/marker && sync"
  k delete target "$ID" --wait=false
  wait_condition "target/$ID" Deleting "^True WaitingForVolumes: .*$v"
  k delete nvmenamespace "$v" --wait=false
  wait_condition "nvmenamespace/$v" Deleting '^True WaitingForAttachments'
  k delete pod "$v" --timeout=90s
  wait_gone "nvmenamespace/$v" 90
  wait_event "$v" 'LeftInPlace: .*stays'
  wait_gone "target/$ID"
  array "holds 1 $marker"
  k delete pvc "$v" --timeout=60s
  k delete pv "$v" --timeout=60s
  appliance "${BY_DISCOVERY[@]}"
  bind "$v" "{nsid: 1}"
  static "$v"
  pod "$v" 3
  [ "$(in_pod "$v" cat /data/marker)" = "$marker" ] || die "the data is another one"
  wait_field "nvmenamespace/$v" .status.uuid "^$UUID\$"
}

names() {
  local by
  array_up
  appliance "${BY_PORTALS[@]}"
  wait_condition "target/$ID" Ready '^True Reachable: 1 subsystem with 3 namespaces at 2 portals'
  bind "$ID-nguid" "{nguid: $NGUID}"
  bind "$ID-nsid" "{nsid: 3}"
  for by in nguid nsid; do
    wait_condition "nvmenamespace/$ID-$by" Ready '^True Online'
    static "$ID-$by"
    pod "$ID-$by" 2
    verified_fio "$ID-$by" f 3
  done
  [ -z "$(field "nvmenamespace/$ID-nsid" .status.uuid)" ] || die "a namespace without a UUID has one"
  bind "$ID-again" "{nsid: 2}"
  wait_condition "nvmenamespace/$ID-again" Ready "^False AlreadyBound: NVMeNamespace $ID-nguid is this"
  k delete pod "$ID-nsid" --timeout=90s
  until_ok 90 "the volume is detached" detached "$ID-nsid"
  array "names 3 6f1c2b4e-8a55-4f0e-9a57-0d6e2d6f4f43 \$NONE"
  wait_condition "nvmenamespace/$ID-nsid" Ready '^False NotOnAppliance: .*it is another one' 60
  array named
  wait_condition "nvmenamespace/$ID-nsid" Ready '^True Online' 60
  pod "$ID-nsid" 3
}

refusals() {
  local v=$ID-v
  array_up
  appliance "${BY_PORTALS[@]}"
  wait_target "$ID"
  refused "either the drives of a node" k patch "target/$ID" --type merge -p '{"spec":{"node":"node1","drives":[]}}'
  refused "stays with its subsystem" k patch "target/$ID" --type merge -p '{"spec":{"external":{"nqn":"nqn.2014-08.com.example:other"}}}'
  storage_class "$ID" "$ID"
  later k delete storageclass "$ID" --ignore-not-found
  pvc made 64Mi "$ID"
  later k delete pvc made --ignore-not-found --timeout=60s
  toolbox made 2 made
  later k delete pod made --ignore-not-found --timeout=60s
  wait_event made "foreign appliance, where Roadstead makes no volumes"
  k apply -f - <<Y
apiVersion: roadstead.io/v1alpha1
kind: NVMeNamespace
metadata: {name: $ID-made}
spec: {target: $ID, size: 64Mi}
Y
  later k delete nvmenamespace "$ID-made" --ignore-not-found --timeout=60s
  wait_condition "nvmenamespace/$ID-made" Ready '^False InvalidSpec: .*foreign appliance'
  bind "$ID-none" "{nsid: 9}"
  wait_condition "nvmenamespace/$ID-none" Ready '^False NotOnAppliance: .*identifier 9'
  bind "$v" "{uuid: $UUID}"
  wait_condition "nvmenamespace/$v" Ready '^True Online'
  refused "the size of an appliance's namespace is the appliance's" k patch "nvmenamespace/$v" --type merge -p '{"spec":{"size":"1Gi"}}'
  refused "external cannot be changed" k patch "nvmenamespace/$v" --type merge -p "{\"spec\":{\"external\":{\"uuid\":\"${UUID%41}42\"}}}"
  static "$v" "$ID"
  pod "$v" 2
  k patch "pvc/$v" -p '{"spec":{"resources":{"requests":{"storage":"200Mi"}}}}'
  wait_event "$v" "foreign appliance, which Roadstead does not grow"
  array "grown 1 200M"
  wait_field "nvmenamespace/$v" .status.size '^200Mi$' 60
}

hosts() {
  local v=$ID-v host=nqn.2014-08.com.example:cluster-$RANDOM
  array_up
  array "only $host"
  appliance "${BY_PORTALS[@]}"
  wait_condition "target/$ID" Ready '^False Unreachable: .*host is not allowed'
  k patch "target/$ID" --type merge -p "{\"spec\":{\"external\":{\"secretRef\":{\"name\":\"$ID\"}}}}"
  wait_condition "target/$ID" Ready '^False SecretNotFound'
  secret hostNqn="$host" hostId="$(cat /proc/sys/kernel/random/uuid)"
  wait_condition "target/$ID" Ready '^True Reachable'
  bind "$v" "{uuid: $UUID}"
  static "$v"
  pod "$v" 3
  verified_fio "$v" f 3
  hidden "$host"
}

authentication() {
  local v=$ID-v host=nqn.2014-08.com.example:known-$RANDOM key ctrl wrong marker whom
  key=$(dhchap_key)
  ctrl=$(dhchap_key)
  wrong=$(dhchap_key)
  whom=(hostNqn="$host" hostId="$(cat /proc/sys/kernel/random/uuid)")
  array_up
  array "demand $host $key null"
  appliance "${BY_PORTALS[@]}" "secretRef: {name: $ID}"
  secret "${whom[@]}"
  wait_condition "target/$ID" Ready '^False Unreachable: .*no key'
  secret "${whom[@]}" dhchapKey="${key:0:40}"
  wait_condition "target/$ID" Ready '^False InvalidSecret: .*dhchapKey cannot be used'
  secret "${whom[@]}" dhchapKey="$wrong"
  wait_condition "target/$ID" Ready '^False Unreachable: .*authentication failed'
  secret "${whom[@]}" dhchapKey="$key"
  wait_condition "target/$ID" Ready '^True Reachable: 1 subsystem with 3 namespaces at 2 portals'
  bind "$v" "{uuid: $UUID}"
  wait_condition "nvmenamespace/$v" Ready '^True Online'
  static "$v"
  pod "$v" 2
  verified_fio "$v" f 5
  marker=roadstead-$RANDOM-$RANDOM
  in_pod "$v" sh -c "echo $marker >/data/marker && sync"
  k delete pod "$v" --timeout=90s
  until_ok 90 "the volume is detached" detached "$v"
  array "demand $host $key ffdhe2048 $ctrl"
  secret "${whom[@]}" dhchapKey="$key" dhchapCtrlKey="$wrong"
  wait_condition "target/$ID" Ready '^False Unreachable: .*does not have the controller key'
  secret "${whom[@]}" dhchapKey="$key" dhchapCtrlKey="$ctrl"
  wait_condition "target/$ID" Ready '^True Reachable: 1 subsystem with 3 namespaces at 2 portals'
  pod "$v" 3
  verified_fio "$v" f 5
  [ "$(in_pod "$v" cat /data/marker)" = "$marker" ] || die "the data is another one"
  until_ok 30 "both paths are live" paths_are "$(attachment_of "$v")" "4420 4421"
  # Of each the part that no other key has.
  hidden "$host" "${key:10:40}" "${ctrl:10:40}" "${wrong:10:40}"
}
