#!/bin/bash
# What a volume can be: raw block, xfs, read-only, 512-byte blocks, on its own node; expansion and statistics.
NEEDS=cluster
check raw-block "A raw block volume keeps its bytes on another node."
check xfs "An xfs volume is made, used and grown."
check read-only "A pod that mounts read-only reads and cannot write."
check expand "A raw block volume grows while a pod uses it, and the pod sees the size. (ext4: see kernel-node.)"
check small-blocks "A volume with 512-byte blocks."
check same-node "A pod on the volume's own node has it without the network."
check stats "The kubelet reports capacity and use of the volume."
check verified-io "fio with crc32c in a pod, and the space is given back when the volume is deleted." 240

block_pod() { # NODE
  k apply -f - <<Y
apiVersion: v1
kind: Pod
metadata: {name: raw}
spec:
  nodeSelector: {kubernetes.io/hostname: node$1}
  terminationGracePeriodSeconds: 0
  containers:
  - {name: c, image: "$(image_ref toolbox)", imagePullPolicy: IfNotPresent, volumeDevices: [{name: v, devicePath: /dev/volume}]}
  volumes: [{name: v, persistentVolumeClaim: {claimName: raw}}]
Y
  wait_pod raw
}

raw_block() {
  private_target 512Mi
  pvc raw 128Mi "$ID" Block
  later k delete pvc raw --timeout=60s
  later k delete pod raw --ignore-not-found --timeout=60s
  block_pod 2
  [ "$(in_pod raw blockdev --getsize64 /dev/volume)" = $((128 << 20)) ] || die "the size is $(in_pod raw blockdev --getsize64 /dev/volume)"
  in_pod raw dd if=/dev/urandom of=/dev/volume bs=1M count=128 oflag=direct status=none
  local sum
  sum=$(in_pod raw sha256sum /dev/volume)
  k delete pod raw --timeout=60s
  block_pod 3
  [ "$(in_pod raw sha256sum /dev/volume)" = "$sum" ] || die "the bytes differ on the other node"
}

xfs() {
  private_target 3Gi xfs
  volume_pod p 2 data 512Mi
  expect_text "$(in_pod p grep ' /data ' /proc/mounts)" " xfs " "the mount"
  in_pod p sh -c 'dd if=/dev/urandom of=/data/f bs=1M count=32 status=none; sync; sha256sum /data/f >/data/sum'
  k patch pvc/data -p '{"spec":{"resources":{"requests":{"storage":"1Gi"}}}}'
  wait_field pvc/data .status.capacity.storage '^1Gi$' 120
  [ "$(in_pod p df -m /data | awk 'NR == 2 {print $2}')" -ge 900 ] || die "df in the pod says $(in_pod p df -m /data)"
  in_pod p sha256sum -c /data/sum
}

# Not ext4: its growth while mounted needs CAP_SYS_RESOURCE, which even root does not have on some machines.
expand() {
  private_target 1Gi
  pvc raw 128Mi "$ID" Block
  later k delete pvc raw --timeout=60s
  later k delete pod raw --ignore-not-found --timeout=60s
  block_pod 2
  in_pod raw dd if=/dev/urandom of=/dev/volume bs=1M count=128 oflag=direct status=none
  local sum
  sum=$(in_pod raw head -c $((128 << 20)) /dev/volume | sha256sum)
  k patch pvc/raw -p '{"spec":{"resources":{"requests":{"storage":"256Mi"}}}}'
  wait_field pvc/raw .status.capacity.storage '^256Mi$' 120
  [ "$(in_pod raw blockdev --getsize64 /dev/volume)" = $((256 << 20)) ] || die "the pod sees $(in_pod raw blockdev --getsize64 /dev/volume)"
  [ "$(in_pod raw head -c $((128 << 20)) /dev/volume | sha256sum)" = "$sum" ] || die "the old bytes differ"
}

read_only() {
  private_target 512Mi
  volume_pod writer 2 data
  in_pod writer sh -c 'echo kept >/data/f; sync'
  k delete pod writer --timeout=60s
  toolbox reader 2 data true
  later k delete pod reader --ignore-not-found --timeout=60s
  wait_pod reader
  [ "$(in_pod reader cat /data/f)" = kept ] || die "it cannot read"
  refused 'Read-only file system' in_pod reader sh -c 'echo no >/data/g'
}

small_blocks() {
  private_target 512Mi
  k delete storageclass "$ID"
  k apply -f - <<Y
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: $ID}
provisioner: csi.roadstead.io
volumeBindingMode: WaitForFirstConsumer
parameters: {target: $ID, blockSize: "512"}
Y
  volume_pod p 2 data
  [ "$(field "nvmenamespace/$(volume_of data)" .spec.blockSize)" = 512 ] || die "the volume has other blocks"
  in_pod p sh -c 'echo good >/data/f; sync; cat /data/f'
}

same_node() {
  local a
  private_target 512Mi
  volume_pod p 1 data
  in_pod p sh -c 'echo good >/data/f; sync; cat /data/f'
  a=nvmeattachment/$(attachment_of "$(volume_of data)")
  wait_field "$a" '.status.paths[*].transport' '^local$'
  wait_field "$a" '.status.paths[0].state' '^Live$'
}

stats() {
  private_target 512Mi
  volume_pod p 2 data
  in_pod p sh -c 'dd if=/dev/zero of=/data/f bs=1M count=64 status=none; sync'
  reported() {
    k get --raw /api/v1/nodes/node2/proxy/stats/summary |
      jq -e --arg ns "$ID" '.pods[] | select(.podRef.namespace == $ns) | .volume[] | select(.pvcRef.name == "data") | .usedBytes > 60000000 and .capacityBytes > 200000000'
  }
  until_ok 120 "the kubelet's statistics of the volume" reported
}

verified_io() {
  local before v
  private_target 1Gi
  before=$(field "target/$ID" '.status.drives[0].allocatedBytes')
  before=${before:-0}
  volume_pod p 2 data 512Mi
  v=$(volume_of data)
  in_pod p fio --name=v --filename=/data/f --size=128M --rw=randrw --bs=4k --direct=1 --ioengine=libaio --iodepth=16 \
    --verify=crc32c --verify_fatal=1 --verify_state_save=0 --minimal
  until_ok 60 "the drive's allocated bytes grow" allocated_between $((64 << 20)) $((1 << 30))
  k delete pod p --timeout=60s
  k delete pvc data --timeout=60s
  wait_gone "nvmenamespace/$v"
  until_ok 60 "the space is given back" allocated_between 0 "$before"
}
allocated_between() {
  local n
  n=$(field "target/$ID" '.status.drives[0].allocatedBytes')
  [ "${n:-0}" -ge "$1" ] && [ "${n:-0}" -le "$2" ]
}
