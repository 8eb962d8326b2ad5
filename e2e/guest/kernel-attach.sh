#!/bin/bash
# In the guest: the daemon makes block devices through the kernel's own NVMe/TCP host, by its control API alone.
. /usr/local/bin/lib.sh
NQN=nqn.2026-11.io.roadstead:attached
S=/run/roadstead/roadsteadd.sock
modprobe -a nvme-tcp
cat >/tmp/config.yaml <<Y
portals: [{address: 127.0.0.1, port: 4420}]
drives: [{name: d, memory: {size: 256MiB}}]
subsystems:
  - nqn: $NQN
    allowAnyHost: true
    namespaces: [{name: v, drive: d, size: 128MiB, uuid: 6f1c2b4e-8a55-4f0e-9a57-0d6e2d6f4f10}]
Y
start() {
  roadsteadd --config /tmp/config.yaml >>/tmp/log 2>&1 &
  for _ in $(seq 100); do roadstead --socket $S status >/dev/null 2>&1 && return; sleep 0.1; done
  die "the daemon does not become ready: $(tail -n 20 /tmp/log)"
}
start
ADDRESS=127.0.0.1:4420
attach() { roadstead --socket $S attach "$@" a --nqn $NQN --uuid 6f1c2b4e-8a55-4f0e-9a57-0d6e2d6f4f10 --address $ADDRESS; }
attach --method kernel || die "attach: $(tail -n 20 /tmp/log)"
attach --method kernel >/dev/null || die "the same attach again fails"
dev=$(nsof $NQN)
roadstead --socket $S attachments | tee /tmp/list
grep -q "kernel.*$dev\|$dev.*kernel" /tmp/list || die "the list does not say kernel and $dev"
fio --name=verify --filename="$dev" --rw=randrw --bs=4k --size=32M --direct=1 --ioengine=io_uring --iodepth=8 --verify=crc32c --verify_fatal=1 --minimal >/dev/null
roadstead --socket $S detach a
for _ in $(seq 50); do [ -b "$dev" ] || break; sleep 0.1; done
[ ! -b "$dev" ] || die "the device is still there after detach"
roadstead --socket $S detach a || die "detach of what is gone fails"

# Where the kernel has no NVMe host the same call gives a device of another driver.
modprobe -a ublk_drv nbd fuse loop
each() { # over ADDRESS
  local method dev
  for method in ublk nbd fuse; do
    dev=$(attach --method $method) || die "attach by $method: $(tail -n 20 /tmp/log)"
    roadstead --socket $S attachments | grep "$method" | grep -q "$dev" || die "the list does not say $method and $dev"
    fio --name=verify --filename="$dev" --rw=randrw --bs=4k --size=16M --direct=1 --ioengine=libaio --iodepth=8 --verify=crc32c --verify_fatal=1 --minimal >/dev/null
    dd if=/dev/urandom of="$dev" bs=1M count=4 oflag=direct conv=fsync status=none
    blkdiscard -z -o 1M -l 1M "$dev"
    cmp -n 1048576 "$dev" /dev/zero 1048576 || die "zeroes written by $method do not read as zeroes"
    roadstead --socket $S detach a
  done
}
each
# The same without a network, as the target is in this daemon.
ADDRESS=local
each
refused 'kernel' attach --method kernel
[ -z "$(losetup -n -l)" ] || die "a loop device is left: $(losetup -l)"
[ ! -e /sys/block/nbd0/pid ] || die "an nbd device is left"
[ -z "$(ls /sys/class/ublk-char)" ] || die "a ublk device is left"
