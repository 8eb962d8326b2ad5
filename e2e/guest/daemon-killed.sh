#!/bin/bash
# In the guest: I/O goes on, without an error, over the death and return of the daemon. /host is shared with the machine.
. /usr/local/bin/lib.sh
NQN=nqn.2026-11.io.roadstead:e2e
modprobe nvme-tcp
nvme connect -t tcp -a 10.0.2.2 -s 4420 -n $NQN -i 1 --ctrl-loss-tmo=300 --reconnect-delay=1 --keep-alive-tmo=5
dev=$(nsof $NQN)
fio --name=warm --filename="$dev" --rw=write --bs=128k --size=32M --direct=1 --ioengine=io_uring --iodepth=4 --minimal >/dev/null
touch /host/running
# The writes go on until the daemon has died and come back; then all of them are verified.
fio --name=verify --filename="$dev" --rw=randwrite --bs=4k --size=64M --direct=1 --ioengine=io_uring --iodepth=8 --rate_iops=400 \
  --verify=crc32c --verify_fatal=1 --do_verify=1 --verify_backlog=2048 --fsync=64 --minimal >/tmp/fio || die "fio failed: $(tail -n 5 /tmp/fio)"
[ -e /host/restarted ] || die "the I/O ended before the daemon was killed"
dmesg | grep -i 'reconnect' | tail -n 3
if dmesg | grep -E 'I/O error'; then die "the kernel saw an I/O error"; fi
nvme disconnect -n $NQN
