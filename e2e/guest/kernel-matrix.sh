# shellcheck shell=bash
# In the guest: the checks of the kernel matrix, one function each. The target is a daemon on the machine.
. /usr/local/bin/lib.sh
NQN=nqn.2026-11.io.roadstead:lab
AT=(-t tcp -a 198.51.100.1 -s 4420)
modprobe nvme-tcp

connected() { # [ARGUMENT OF nvme connect...]
  nvme connect "${AT[@]}" -n $NQN -i 1 --reconnect-delay=1 --keep-alive-tmo=5 "$@"
  D1=$(nsof $NQN 1) D2=$(nsof $NQN 2) C=$(ctrlof $NQN)
}
disconnected() { prints 'disconnected 1 controller' nvme disconnect -n $NQN; }

discovery() {
  local before
  prints "subnqn: +$NQN" nvme discover "${AT[@]}"
  printed 'trtype: +tcp' 'adrfam: +ipv4' 'subtype: +nvme subsystem' 'trsvcid: +4420' 'traddr: +198\.51\.100\.1' 'Generation counter [0-9]+'
  prints '"genctr"' nvme discover "${AT[@]}" -o json
  prints '' nvme connect-all "${AT[@]}"
  nsof $NQN 1
  prints "$NQN" nvme list-subsys
  printed 'tcp.*traddr=198\.51\.100\.1.*live'
  prints "LAB.*Roadstead" nvme list
  nvme disconnect-all
  # A controller that stays, whose log can be read again.
  prints '' nvme discover "${AT[@]}" -p --keep-alive-tmo=5
  C=$(ctrlof nqn.2014-08.org.nvmexpress.discovery)
  prints 'cntrltype +: 2' nvme id-ctrl "$C"
  prints "subnqn: +$NQN" nvme discover "${AT[@]}" -d "${C#/dev/}"
  nvme disconnect-all
  calm
}

identify() {
  prints 'mn +: Roadstead' nvme id-ctrl "$C"
  printed 'sn +: LAB' "subnqn +: $NQN" 'cntrltype +: 1' 'mdts +: [1-9]' 'sqes +: 0x66' 'cqes +: 0x44' 'nn +: [1-9]' \
    'ver +: 0x[12]0' 'ioccsz +: [1-9]' 'iorcsz +: 1$' 'kas +: [1-9]' 'vwc +: 0x[157]' 'sgls +: 0x[1-9a-f]' 'maxcmd +: [1-9]'
  prints 'wzsl +: [0-9]' nvme nvm-id-ctrl "$C"
  prints "0\]:0x1$" nvme list-ns "$C"
  printed '1\]:0x2$'
  prints 'uuid +: 6f1c2b4e-8a55-4f0e-9a57-0d6e2d6f4f20' nvme ns-descs "$C" -n 1
  prints 'nsze +: 0x4000$' nvme id-ns "$C" -n 1
  printed 'ncap +: 0x4000$' 'nuse +: 0x' 'nmic +: 0x1' 'lbaf +0 : ms:0 +lbads:12 .*in use'
  prints 'nsze +: 0x20000$' nvme id-ns "$C" -n 2
  printed 'lbaf +0 : ms:0 +lbads:9 .*in use'
  prints 'nstat +: 0x1' nvme cmdset-ind-id-ns "$C" -n 1
  prints 'nsze +: 0$' nvme id-ns "$C" -n 77
  refused 'invalid.(ns|namespace)' nvme id-ns "$C" -n 5000
}

logs() {
  prints 'critical_warning +: 0' nvme smart-log "$C"
  printed 'available_spare +: 100%' 'percentage_used +: 0%' 'media_errors +: 0'
  prints 'Error Log Entries' nvme error-log "$C" -e 4
  prints 'afi +: 0x1' nvme fw-log "$C"
  printed 'frs1'
  prints 'ACS2 .*Get Log Page' nvme effects-log "$C" -c 0
  printed 'ACS6 .*Identify' 'ACS24 .*Keep Alive' 'IOCS1 .*Write' 'IOCS2 .*Read' 'IOCS8 .*Write Zeroes' 'IOCS9 .*Dataset'
  prints '' nvme changed-ns-list-log "$C"
  # Parts of a log: any offset and length in dwords.
  prints '' nvme get-log "$C" -i 2 -l 512 -b
  cp /tmp/printed /tmp/whole
  prints '' nvme get-log "$C" -i 2 --lpo=32 -l 100 -b
  cmp /tmp/printed <(tail -c +33 /tmp/whole | head -c 100) || die "a part of the SMART log differs from the whole"
  refused 'invalid.(log.page|field)' nvme get-log "$C" -i 0xfe -l 512
}

features() {
  prints '0x0*7 .*current value: ?(0x)?0*[0-9a-f]+' nvme get-feature "$C" -f 7
  prints 'current value: ?(0x)?0*1$' nvme get-feature "$C" -f 6
  prints 'current value: ?(0x)?0*1388$' nvme get-feature "$C" -f 0xf
  prints 'set-feature:(0x)?0*b' nvme set-feature "$C" -f 0xb --value=0x100
  prints 'current value: ?(0x)?0*100$' nvme get-feature "$C" -f 0xb
  prints 'capabilit|changeable' nvme get-feature "$C" -f 0xb -s 3
  refused 'invalid.field' nvme get-feature "$C" -f 0x7f
  refused 'not.saveable' nvme set-feature "$C" -f 0xb --value=0x100 -s
}

properties() {
  prints 'cap +: ' nvme show-regs "$C"
  printed 'version +: 0x[12]0|version +: [12]0' 'cc +: (0x)?46' 'csts +: (0x)?1'
  prints 'value: ?(0x)?1$' nvme get-property "$C" --offset=0x1c
}

admin() {
  connected
  identify
  logs
  features
  properties
  # The controller is reset: queues are made again, the host goes on.
  prints '' nvme reset "$C"
  eventually 10 grep -q live "/sys/class/nvme/${C#/dev/}/state"
  dd if="$D1" of=/dev/null bs=64k count=4 iflag=direct status=none
  disconnected
  calm
}

commands() {
  local d bs
  connected
  for d in "$D1 4096" "$D2 512"; do
    bs=${d#* } d=${d% *}
    dd if=/dev/urandom of=/tmp/out bs=8k count=1 status=none
    prints 'write: Success' nvme write "$d" -s 16 -c $((8192 / bs - 1)) -z 8192 -d /tmp/out
    prints 'read: Success' nvme read "$d" -s 16 -c $((8192 / bs - 1)) -z 8192 -d /tmp/in
    cmp /tmp/out /tmp/in || die "what was read is not what was written"
    cmp -n 8192 /tmp/out <(dd if="$d" bs=8k count=1 skip=$((16 * bs)) iflag=skip_bytes,direct status=none) || die "the block device reads other data"
    prints success nvme flush "$d" -n "$([ "$bs" = 4096 ] && echo 1 || echo 2)"
    prints success nvme write-zeroes "$d" -s 16 -c 0
    prints 'read: Success' nvme read "$d" -s 16 -c $((8192 / bs - 1)) -z 8192 -d /tmp/in
    cmp <(head -c "$bs" /dev/zero; tail -c +$((bs + 1)) /tmp/out) /tmp/in || die "write-zeroes cleared something else"
    prints success nvme write-zeroes "$d" -s 16 -c 0 --deac
    prints success nvme dsm "$d" --ad --slbs=16,100 --blocks=2,4
    prints 'write: Success' nvme write "$d" -s 16 -c $((8192 / bs - 1)) -z 8192 -d /tmp/out --force-unit-access
    refused 'LBA.*range' nvme read "$d" -s $((64 << 20)) -c 0 -z "$bs" -d /tmp/in
  done
  disconnected
}

digests() {
  local d
  for d in --hdr-digest --data-digest '--hdr-digest --data-digest'; do
      # shellcheck disable=SC2086 # two options at once
    connected $d
    verified "$D1" --name=4k --rw=randrw --bs=4k --size=2M --iodepth=16
    verified "$D2" --name=mixed --rw=randrw --bsrange=512-256k --size=4M --iodepth=8
    disconnected
  done
  calm
}

# Every size has 4 MiB of its own; all are written and verified at the same time.
sizes_on() { # DEVICE BLOCK-SIZE...
  local bs size device=$1 at=0 jobs=()
  shift
  for bs; do
    case $bs in *m | 512k) size=4m ;; ???k | 64k) size=1m ;; *) size=128k ;; esac
    jobs+=(--name="$bs" --bs="$bs" --offset="${at}m" --size="$size")
    at=$((at + 4))
  done
  verified "$device" --thread --rw=randwrite --iodepth=4 "${jobs[@]}"
}
sizes() {
  connected
  sizes_on "$D1" 4k 8k 16k 32k 64k 128k 256k 512k 1m 2m 4m
  sizes_on "$D2" 512 1k 2k 4k 8k 16k 32k 64k 128k 256k 512k 1m 2m 4m
  disconnected
  calm
}

# has_size NSID BYTES BLOCK-SIZE
has_size() {
  local d
  d=$(nsof $NQN "$1") && [ "$(blockdev --getsize64 "$d")" = "$2" ] && [ "$(blockdev --getss "$d")" = "$3" ]
}
appeared() { eventually 15 has_size "$@"; }
grown_is_usable() { # NSID
  verified "$(nsof $NQN "$1")" --name=grown --rw=write --bs=64k --offset=40m --size=4m --iodepth=4
}
has_gone() { local f; for f in /sys/class/nvme-subsystem/*/nvme*n*/nsid; do if [ "$(cat "$f")" = "$1" ]; then return 1; fi; done; }
went() { eventually 15 has_gone "$1"; }
unharmed() {
  verified "$(nsof $NQN 1)" --name=rest --rw=randrw --bs=4k --size=1m --iodepth=4
  C=$(ctrlof $NQN)
  prints '0\]:0x1$' nvme list-ns "$C"
  disconnected
  calm
}

io_over_restarts() {
  D1=$(nsof $NQN 1)
  rm -f /host/running /host/restarted
  (sleep 0.5; touch /host/running) &
  verified "$D1" --name=restarts --rw=randwrite --bs=4k --size=16M --iodepth=8 --rate_iops=400 --verify_backlog=1024 --fsync=64
  [ -e /host/restarted ] || die "the I/O ended before the daemon was killed"
  if dmesg | grep -E 'I/O error'; then die "the kernel saw an I/O error"; fi
  dmesg | grep -c 'Successfully reconnected'
  disconnected
}

optional() { # Compare, Verify, Copy
  local d bs oncs
  connected
  prints 'oncs +: ' nvme id-ctrl "$C"
  oncs=$(sed -n 's/^oncs *: *//p' /tmp/printed)
  (((oncs & 1) && (oncs & 0x80) && (oncs & 0x100))) || die "ONCS is $oncs: Compare, Verify or Copy is missing"
  for d in "$D1 4096" "$D2 512"; do
    bs=${d#* } d=${d% *}
    dd if=/dev/urandom of=/tmp/out bs=8k count=1 status=none
    prints 'write: Success' nvme write "$d" -s 64 -c $((8192 / bs - 1)) -z 8192 -d /tmp/out
    prints 'compare: Success' nvme compare "$d" -s 64 -c $((8192 / bs - 1)) -z 8192 -d /tmp/out
    tail -c 4096 /tmp/out | cat - /tmp/out | head -c 8192 >/tmp/other
    refused 'compare.fail' nvme compare "$d" -s 64 -c $((8192 / bs - 1)) -z 8192 -d /tmp/other
    prints success nvme verify "$d" -s 64 -c $((8192 / bs - 1))
    refused 'LBA.*range' nvme verify "$d" -s $((64 << 20)) -c 0
    # Two ranges to one place, in their order.
    prints success nvme copy "$d" --sdlba=200 --slbs=$((64 + 4096 / bs)),64 --blocks=$((4096 / bs - 1)),$((4096 / bs - 1))
    prints 'read: Success' nvme read "$d" -s 200 -c $((8192 / bs - 1)) -z 8192 -d /tmp/in
    cmp /tmp/in <(tail -c 4096 /tmp/out; head -c 4096 /tmp/out) || die "copy made other data"
  done
  disconnected
}

# Two hosts: without multipath the kernel keeps their controllers, and namespaces, apart.
HOST_A=11111111-2222-3333-4444-0000000000aa HOST_B=11111111-2222-3333-4444-0000000000bb
two_hosts() { # sets A and B, each host's device of namespace 1
  local h
  modprobe -r nvme-tcp nvme-fabrics nvme-core
  modprobe nvme-core multipath=N
  modprobe nvme-tcp
  for h in $HOST_A $HOST_B; do
    # By hand: nvme-cli 2.3 takes the second host's controller for the first one's.
    echo "nqn=$NQN,transport=tcp,traddr=198.51.100.1,trsvcid=4420,hostnqn=nqn.2014-08.org.nvmexpress:uuid:$h,hostid=$h,nr_io_queues=1,reconnect_delay=1,keep_alive_tmo=5" >/dev/nvme-fabrics
  done
  A=$(nsofhost $HOST_A) B=$(nsofhost $HOST_B)
  [ "$A" != "$B" ] || die "both hosts have $A"
}
nsofhost() { # HOST-ID
  local c i n
  for ((i = 0; i < 100; i++)); do
    for c in /sys/class/nvme/nvme*; do
      grep -q "$1" "$c/hostid" || continue
      for n in "$c"/nvme*n*; do if [ "$(cat "$n/nsid" 2>/dev/null)" = 1 ]; then echo "/dev/${n##*/}"; return; fi; done
    done
    sleep 0.1
  done
  die "no namespace 1 of host $1"
}
one_host_again() {
  nvme disconnect-all
  modprobe -r nvme-tcp nvme-fabrics nvme-core
}
writes_to() { nvme write "$1" -s 0 -c 0 -z 4096 -d /tmp/block; }
reads_from() { nvme read "$1" -s 0 -c 0 -z 4096 -d /tmp/in; }
CONFLICT='reservation.conflict'
reservations() {
  two_hosts
  head -c 4096 /dev/urandom >/tmp/block
  prints success nvme resv-register "$A" -n 1 --nrkey=0xa1 --rrega=0 --cptpl=3
  prints success nvme resv-register "$B" -n 1 --nrkey=0xb1 --rrega=0 --cptpl=0
  refused "$CONFLICT" nvme resv-acquire "$A" -n 1 --crkey=0xbad --rtype=1 --racqa=0
  prints success nvme resv-acquire "$A" -n 1 --crkey=0xa1 --rtype=1 --racqa=0
  prints 'regctl +: 2' nvme resv-report "$B" -n 1 --eds
  printed 'rtype +: 1' 'rkey +: (0x)?a1' 'rkey +: (0x)?b1' 'ptpls +: 1'
  # Write Exclusive: B reads, and does not write.
  prints success writes_to "$A"
  prints success reads_from "$B"
  refused "$CONFLICT" writes_to "$B"
  if dd if=/tmp/block of="$B" bs=4096 count=1 oflag=direct status=none 2>/dev/null; then die "the block device wrote past a reservation"; fi
  refused "$CONFLICT" nvme resv-release "$B" -n 1 --crkey=0xbad --rtype=1 --rrela=0
  # B takes it away from A, as Exclusive Access.
  prints success nvme resv-acquire "$B" -n 1 --crkey=0xb1 --prkey=0xa1 --rtype=2 --racqa=1
  refused "$CONFLICT" reads_from "$A"
  refused "$CONFLICT" writes_to "$A"
  prints success writes_to "$B"
  prints 'regctl +: 1' nvme resv-report "$B" -n 1 --eds
  printed 'rtype +: 2' 'rkey +: (0x)?b1'
}
reservations_after_restart() {
  A=$(nsofhost $HOST_A) B=$(nsofhost $HOST_B)
  eventually 20 reads_from "$B"
  prints 'regctl +: 1' nvme resv-report "$B" -n 1 --eds
  printed 'rtype +: 2' 'rkey +: (0x)?b1'
  refused "$CONFLICT" writes_to "$A"
  prints success nvme resv-release "$B" -n 1 --crkey=0xb1 --rtype=2 --rrela=0
  prints success writes_to "$A"
  prints success nvme resv-register "$B" -n 1 --crkey=0xb1 --rrega=1
  prints 'regctl +: 0' nvme resv-report "$A" -n 1 --eds
  one_host_again
}
