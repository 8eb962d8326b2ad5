#!/bin/bash
# In the guest: the stock kernel's NVMe/TCP host against a daemon on the machine's loopback.
. /usr/local/bin/lib.sh
NQN=nqn.2026-11.io.roadstead:example
modprobe nvme-tcp
nvme discover -t tcp -a 10.0.2.2 -s 4420 | tee /tmp/discovered
grep -q "$NQN" /tmp/discovered || die "the discovery log does not name $NQN"
nvme connect -t tcp -a 10.0.2.2 -s 4420 -n $NQN -i 2
dev=$(nsof $NQN)
nvme list
nvme id-ctrl "$dev" | head -n 12
nvme id-ns "$dev" | head -n 6
[ "$(blockdev --getsize64 "$dev")" = $((1 << 30)) ] || die "the size of $dev is $(blockdev --getsize64 "$dev")"
for bs in 4k 64k; do
  fio --name=verify-$bs --filename="$dev" --rw=randrw --bs=$bs --size=64M --direct=1 --ioengine=io_uring --iodepth=16 \
    --verify=crc32c --verify_fatal=1 --do_verify=1 --minimal >/tmp/fio-$bs || die "fio $bs: $(tail -n 3 /tmp/fio-$bs)"
done
blkdiscard -o 0 -l 16777216 "$dev"
blkdiscard -z -o 16777216 -l 1048576 "$dev"
cmp -n 1048576 "$dev" /dev/zero || die "discarded blocks are not zero"
mkfs.ext4 -q "$dev"
mount "$dev" /mnt
dd if=/dev/urandom of=/mnt/file bs=1M count=48 status=none
sum=$(sha256sum </mnt/file)
umount /mnt
nvme disconnect -n $NQN
nvme connect -t tcp -a 10.0.2.2 -s 4420 -n $NQN -i 2
dev=$(nsof $NQN)
e2fsck -fn "$dev" >/dev/null || die "the file system is damaged"
mount "$dev" /mnt
[ "$(sha256sum </mnt/file)" = "$sum" ] || die "the file differs after a reconnect"
umount /mnt
nvme disconnect -n $NQN
if dmesg | grep -iE 'I/O error|timeout|protocol error'; then die "the kernel complains"; fi
