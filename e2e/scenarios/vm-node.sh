#!/bin/bash
# Two nodes with stock kernels and RDMA devices: the policy chooses RoCE, the kernel's host uses it, TCP stands by.
NEEDS=cluster
# shellcheck disable=SC2034 # read by test.sh
ALONE=yes # test.sh has it after the other scenarios of the cluster
check roce "A pod's claim that wants low latency is attached over RoCE by the kernel's host, with TCP as the second path; RoCE's Ethernet goes dark during verified I/O, which goes on over TCP without an error, and RoCE is used again when it is back." 1500

TARGET_NODE=12 POD_NODE=13
roce_ip() { echo "10.7.0.$((10 + $1))"; }
vm() { "$CLUSTER" vm exec "$@"; } # N COMMAND...: in the guest

roce() {
  local n io
  two_nodes
  for n in $TARGET_NODE $POD_NODE; do
    until_ok 120 "a node daemon on node$n" k wait --for=condition=Ready -n "$NS" pod -l app.kubernetes.io/component=node \
      --field-selector "spec.nodeName=node$n" --timeout=5s
    until_ok 60 "node$n says that it speaks RDMA" matches "nvmehost/node$n" .status.transports rdma
  done
  expect_text "$(field nvmehost/node$POD_NODE '.status.rdmaDevices[0]')" '"driver":"rdma_rxe"' "the RDMA device"
  expect_text "$(field nvmehost/node$POD_NODE '.status.rdmaDevices[0]')" '"mtuBytes":4096' "the RDMA device"
  expect_text "$(field nvmehost/node$POD_NODE .status.netdevs)" "$(node_ip $POD_NODE)/24" "the node's interfaces"

  file_target "$ID" $TARGET_NODE d=2Gi
  later remove_target "$ID" $TARGET_NODE
  wait_target "$ID" 120
  storage_class "$ID" "$ID" ext4 "workload: low-latency"
  later k delete storageclass "$ID" --ignore-not-found
  until_ok 60 "an RDMA portal" matches "target/$ID" .status.portals "$(roce_ip $TARGET_NODE)"
  volume_pod p $POD_NODE data 512Mi
  A=$(attachment_of "$(volume_of data)")
  wait_field "nvmeattachment/$A" .status.chosenTransport '^roce$'
  wait_field "nvmeattachment/$A" .status.attachMethod '^kernel$'
  wait_field "nvmeattachment/$A" .status.transport '^roce$'
  wait_field "nvmeattachment/$A" "$(path 0)" "^rdma $(roce_ip $TARGET_NODE) Live optimized$"
  wait_field "nvmeattachment/$A" "$(path 1)" "^tcp $(node_ip $TARGET_NODE) Live non-optimized$"

  (in_pod p bash -c "$WRITES") &
  io=$!
  until_ok 60 "RoCE carries the I/O" carries rdma
  ! carries tcp || die "TCP carries I/O, too"
  darken
  wait_field "nvmeattachment/$A" .status.transport '^tcp$' 90
  until_ok 60 "TCP carries the I/O" carries tcp
  wait_condition "nvmeattachment/$A" PreferredPath '^False'
  explained 'uses +tcp \(policy default chose roce\)'
  explained "rdma $(roce_ip $TARGET_NODE):4420 \(Connecting"
  explained "tcp $(node_ip $TARGET_NODE):4420 \(Live, non-optimized\)"
  lighten
  wait_field "nvmeattachment/$A" .status.transport '^roce$' 120
  until_ok 60 "RoCE carries the I/O again" carries rdma
  explained 'uses +roce \(policy default chose roce\)'
  in_pod p touch /data/enough
  wait $io
  if vm $POD_NODE dmesg | grep -E 'I/O error|BUG:|Call Trace'; then die "the kernel complains"; fi
  k delete pod p --timeout=120s
  until_ok 150 "no NVMe device is left" vm $POD_NODE sh -c '! ls /sys/class/nvme/* 2>/dev/null'
}

# fio, again and again, until there is a file `enough`; it ends with an error at the first one.
WRITES='
  set -e
  for ((i = 1; ; i++)); do
    fio --name=v --filename=/data/f --size=8M --rw=randrw --bs=4k --direct=1 --ioengine=libaio --iodepth=4 --rate_iops=200 \
      --verify=crc32c --verify_fatal=1 --verify_state_save=0 --randseed=$i --minimal >/data/log
    [ ! -e /data/enough ] || break
  done
  echo "$i rounds"'

# two_nodes: both boot at the same time, joined by an Ethernet of their own, whose frames carry RoCE packets of 4096 bytes.
ETHERNET=rsroce
two_nodes() {
  local n first
  ip link del ${ETHERNET}0 2>/dev/null || true # of a run that was broken off
  ip link add ${ETHERNET}0 mtu 4500 type bridge
  later ip link del ${ETHERNET}0
  ip link set ${ETHERNET}0 up
  for n in $TARGET_NODE $POD_NODE; do
    ip link del "$ETHERNET$n" 2>/dev/null || true
    ip tuntap add dev "$ETHERNET$n" mode tap
    later ip link del "$ETHERNET$n"
    ip link set "$ETHERNET$n" mtu 4500 master ${ETHERNET}0 up
    later "$CLUSTER" vm rm "$n"
  done
  (kernel_node $TARGET_NODE -q "$(ethernet $TARGET_NODE)") &
  first=$!
  kernel_node $POD_NODE -q "$(ethernet $POD_NODE)"
  wait $first
  for n in $TARGET_NODE $POD_NODE; do
    kernel_node_open "$n"
    vm "$n" modprobe nvme-tcp
  done
}
ethernet() { # NODE: the options of QEMU
  echo "-netdev tap,id=roce,ifname=$ETHERNET$1,script=no,downscript=no -device virtio-net-pci,netdev=roce,mac=52:54:00:07:00:$1,romfile="
}
path() { # NUMBER
  local p=".status.paths[$1]"
  echo "$p.transport} {$p.address} {$p.state} {$p.anaState"
}
explained() { # REGEX
  until_ok 30 "kubectl roadstead explain with /$1/" explains "$1"
}
explains() {
  local text
  ln -sfn "$TARGET/$PROFILE/roadstead" "$OUT/kubectl-roadstead-vm"
  text=$("$OUT/kubectl-roadstead-vm" explain pvc/data -n "$ID")
  echo "$text"
  grep -qE -- "$1" <<<"$text"
}
# What is sent over RoCE's Ethernet arrives nowhere, as with a cable that is pulled behind the switch.
darken() {
  vm $TARGET_NODE ip neigh replace "$(roce_ip $POD_NODE)" lladdr 02:00:00:00:00:99 dev eth2 nud permanent
  vm $POD_NODE ip neigh replace "$(roce_ip $TARGET_NODE)" lladdr 02:00:00:00:00:99 dev eth2 nud permanent
}
lighten() {
  vm $TARGET_NODE ip neigh del "$(roce_ip $POD_NODE)" dev eth2
  vm $POD_NODE ip neigh del "$(roce_ip $TARGET_NODE)" dev eth2
}
# carries TRANSPORT: the kernel of the pod's node does I/O over it
carries() {
  local before
  before=$(sent "$1")
  sleep 1
  [ "$(sent "$1")" -gt "$before" ]
}
sent() {
  vm $POD_NODE sh -c "for c in /sys/class/nvme/nvme*; do
    if [ \"\$(cat \$c/transport)\" = $1 ]; then awk '{print \$1 + \$5}' \$c/nvme*c*n*/stat; fi
  done"
}
