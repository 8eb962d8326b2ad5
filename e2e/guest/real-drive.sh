#!/bin/bash
# In the guest: drives are (emulated) NVMe SSDs. The daemon finds them by serial number and model, keeps off the one in use,
# and survives that one is unplugged during I/O and plugged in again.
. /usr/local/bin/lib.sh
NQN=nqn.2026-11.io.roadstead:real
S=/run/roadstead/roadsteadd.sock
modprobe -a nvme nvme-tcp ext4
by_serial() { local d; for d in /sys/class/nvme/nvme*; do grep -q "^$1 *$" "$d/serial" && { echo "/dev/${d##*/}n1"; return; }; done; }
for _ in $(seq 50); do [ -b "$(by_serial POOL)" ] && [ -b "$(by_serial USED)" ] && break; sleep 0.1; done
pool=$(by_serial POOL) used=$(by_serial USED)
mkfs.ext4 -q "$used"
mount "$used" /mnt
cat >/tmp/config.yaml <<Y
portals: [{address: 127.0.0.1, port: 4420}]
drives:
  - {name: pool, serial: POOL}
  - {name: used, path: $used, force: true}
subsystems:
  - nqn: $NQN
    allowAnyHost: true
    namespaces: [{name: v, drive: pool, size: 128MiB}]
Y
start() {
  roadsteadd --config /tmp/config.yaml >>/tmp/log 2>&1 &
  daemon=$!
}
drive() { roadstead --socket $S -o json drives | tr -d '\n ' | grep -oE "\{[^{}]*\"name\":\"$1\"[^{}]*\}"; }
wait_drive() { # NAME REGEX
  local i
  for ((i = 0; i < 300; i++)); do drive "$1" 2>/dev/null | grep -qiE "$2" && return; sleep 0.1; done
  die "drive $1 is not like $2: $(roadstead --socket $S drives; tail -n 20 /tmp/log)"
}
start
wait_drive pool online
wait_drive used mounted
roadstead --socket $S drives
nvme connect -t tcp -a 127.0.0.1 -s 4420 -n $NQN -i 1 --reconnect-delay=1
dev=$(nsof $NQN)
fio --name=verify --filename="$dev" --rw=randrw --bs=4k --size=32M --direct=1 --ioengine=io_uring --iodepth=8 --verify=crc32c --verify_fatal=1 --minimal >/dev/null
dd if=/dev/urandom of=/tmp/data bs=1M count=8 status=none
dd if=/tmp/data of="$dev" bs=1M seek=64 oflag=direct conv=fsync status=none

kill -KILL $daemon
wait $daemon || true
start
wait_drive pool online
dd if="$dev" bs=1M skip=64 count=8 iflag=direct status=none | cmp - /tmp/data || die "the data differ after kill -9"

pci=$(readlink -f "/sys/block/${pool##*/}/device/device")
echo 1 >"$pci/remove"
wait_drive pool 'missing|failed'
# Whatever the host is told, it is told: nothing hangs, and the daemon lives.
timeout 60 dd if="$dev" of=/dev/null bs=4k count=1 iflag=direct status=none && die "a read of an unplugged drive succeeded"
kill -0 $daemon || die "the daemon died: $(tail -n 20 /tmp/log)"
echo 1 >/sys/bus/pci/rescan
wait_drive pool online
for _ in $(seq 300); do dd if="$dev" of=/dev/null bs=4k count=1 iflag=direct status=none 2>/dev/null && break; sleep 0.1; done
dd if="$dev" bs=1M skip=64 count=8 iflag=direct status=none | cmp - /tmp/data || die "the data differ after the drive is back"
nvme disconnect -n $NQN
umount /mnt
