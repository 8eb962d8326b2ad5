#!/bin/bash
# A node with a stock kernel joins the cluster: its pods get volumes through the kernel's own NVMe/TCP host.
NEEDS=cluster
check pod "A pod on a node with nvme-tcp: attach method kernel, verified I/O, expansion, and nothing is left behind." 900

pod() {
  private_target 2Gi
  kernel_node 11 # runs already in `make test`
  later "$CLUSTER" vm rm 11
  kernel_node_open 11
  "$CLUSTER" vm exec 11 modprobe nvme-tcp
  until_ok 120 "a node daemon on node11" k wait --for=condition=Ready -n "$NS" pod -l app.kubernetes.io/component=node \
    --field-selector spec.nodeName=node11 --timeout=5s
  until_ok 60 "node11 can attach by the kernel" matches nvmehost/node11 .status.attachMethods kernel
  volume_pod p 11 data 512Mi
  local v a
  v=$(volume_of data)
  a=$(attachment_of "$v")
  wait_field "nvmeattachment/$a" .status.attachMethod '^kernel$'
  wait_field "nvmeattachment/$a" .status.device '^/dev/nvme'
  in_pod p fio --name=v --filename=/data/f --size=32M --rw=randrw --bs=4k --direct=1 --ioengine=libaio --iodepth=8 \
    --verify=crc32c --verify_fatal=1 --verify_state_save=0 --minimal
  k patch pvc/data -p '{"spec":{"resources":{"requests":{"storage":"1Gi"}}}}'
  wait_field pvc/data .status.capacity.storage '^1Gi$' 120
  kill_in_node 1 roadsteadd
  in_pod p sh -c 'dd if=/dev/urandom of=/data/g bs=1M count=8 conv=fsync status=none && sha256sum /data/g'
  k delete pod p --timeout=120s
  until_ok 150 "no NVMe device is left" no_device # its machine is emulated and shares two cores
  # A node that went before the attachment would hold the volume for six minutes.
  until_ok 90 "the volume is detached" detached "$v"
}
no_device() { "$CLUSTER" vm exec 11 sh -c '! ls /sys/class/nvme/* 2>/dev/null'; }
