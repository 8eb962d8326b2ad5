#!/bin/bash
# The initiator against the Linux kernel's own target, nvmet, in a virtual machine: digests, block sizes, resize, target lost and back.
NEEDS=vm
. "$E2E/lib/standalone.sh"
check discovery "The discovery service of nvmet, asked by our command: its subsystem and both portals."
check digests "Verified random reads and writes without digests and with both, on blocks of 512 and of 4096 bytes, one queue and four."
check sizes "Verified requests of every size from 512 bytes to 4 MiB."
check target-restarted "nvmet ends all connections and listens no more, for a while, during verified I/O: no error."
check path-lost "One of two portals goes and comes back, then the other, during verified I/O: no error."
check ana-switch "The ANA states of the two ports of nvmet change during verified I/O: requests go where they should, none fails."
check resize "A namespace grows while its device by FUSE is in use: the device has the new size, and the new space works."
scenario_end() { guest_down; }

NVMET_NQN=nqn.2026-11.io.roadstead:nvmet
PORTS=(127.0.0.1:14420 127.0.0.1:14421) # forwarded to the guest's ports 4420 and 4421
nvmet() { guest_check nvmet.sh "$@"; } # FUNCTION [ARGUMENT...]
nvmet_up() {
  guest_up nvmet -f 14420:4420 -f 14421:4421
  nvmet served
}
bench() { # ARGUMENT...: a short load that reads back all it has written
  "$TARGET/$PROFILE/roadstead" -o json bench --connect "${PATHS:-${PORTS[0]}}" --nqn $NVMET_NQN --rw randrw --mix 40 --verify --sleep --ramp 0 "$@"
}
# verified_at_least NUMBER JSON: so many requests were checked, none failed
verified_at_least() {
  echo "$2"
  [ "$(jq .errors <<<"$2")" = 0 ] || die "requests failed"
  [ "$(jq .verified_blocks <<<"$2")" -ge "$1" ] || die "fewer than $1 requests were verified"
}

discovery() {
  local port found
  nvmet_up
  found=$("$TARGET/$PROFILE/roadstead" -o json discover "${PORTS[@]}")
  echo "$found"
  for port in 4420 4421; do
    jq -e ".[] | select(.subsystem_nqn == \"$NVMET_NQN\" and .address == \"10.0.2.15:$port\")" <<<"$found" >/dev/null || die "it does not tell of port $port"
  done
}

digests() {
  local nsid digest out
  nvmet_up
  for nsid in 1 2; do
    for digest in "" --digest; do
      out=$(bench --nsid $nsid --size 8m -b 4k -q 16 -T 1 $digest)
      verified_at_least 50 "$out"
    done
  done
  out=$(bench --nsid 2 --size 8m -b 512 -q 16 --queues 4 -T 1 --digest)
  verified_at_least 50 "$out"
}

sizes() {
  local bs out
  nvmet_up
  for bs in 512 1k 2k; do
    out=$(bench --nsid 2 --size 512k -b $bs -q 8 -T 0.4)
    verified_at_least 20 "$out"
  done
  for bs in 4k 8k 16k 32k 64k 128k 256k 512k; do
    out=$(bench --nsid 1 --size 4m -b $bs -q 8 -T 0.4)
    verified_at_least 4 "$out"
  done
  for bs in 1m 2m 4m; do
    out=$(bench --nsid 1 --size 16m -b $bs -q 4 -T 0.4)
    verified_at_least 1 "$out"
  done
}

# under_load SECONDS COMMAND...: runs it one second after the beginning of a load of that time
under_load() {
  local load out=$OUT/bench
  bench --nsid 1 --size 16m -b 4k -q 8 -T "$1" >"$out.json" 2>"$out.log" &
  load=$!
  shift
  sleep 1
  "$@"
  wait $load || die "the load failed: $(tail -n 5 "$out.log")"
  verified_at_least 100 "$(cat "$out.json")"
}
has_lost_connections() { grep -qi 'connection lost' "$OUT/bench.log"; }
target_restarted() { nvmet_up; under_load 5 away_and_back; has_lost_connections; }
away_and_back() {
  nvmet "silence 1"
  sleep 1
  nvmet "listen 1"
}
path_lost() { nvmet_up; PATHS=${PORTS[0]},${PORTS[1]}; under_load 7 each_path; has_lost_connections; }
each_path() {
  nvmet "silence 1"
  sleep 1.5
  nvmet "listen 1"
  sleep 1
  nvmet "silence 2"
  sleep 1
  nvmet "listen 2"
}

ana_switch() { nvmet_up; PATHS=${PORTS[0]},${PORTS[1]}; under_load 12 ana_states; }
# bytes_to PORT: what was sent there
bytes_to() { ss -Htin state established dst "127.0.0.1:$1" | grep -oE 'bytes_sent:[0-9]+' | awk -F: '{n += $2} END {print n + 0}'; }
moves() { # PORT: more than Keep Alives go there
  local before
  before=$(bytes_to "$1")
  sleep 0.5
  [ "$(bytes_to "$1")" -gt $((before + 20000)) ]
}
rests() { ! moves "$1"; }
ana_states() {
  nvmet "ana 1 inaccessible"
  until_ok 5 "requests go over the second port" moves 14421
  rests 14420
  nvmet "ana 2 non-optimized; ana 1 optimized"
  until_ok 5 "requests go over the first port" moves 14420
  rests 14421
  nvmet "ana 1 change"
  until_ok 5 "requests go over the second port, which is not optimized" moves 14421
  nvmet "ana 2 optimized; ana 1 optimized"
}

# A device by FUSE on this machine, made by a daemon of its own.
resize() {
  local device
  nvmet_up
  rm -rf "$SA"
  mkdir -p "$SA"
  standalone_config "memory: {size: 64MiB}" 32MiB >"$SA/config.yaml"
  later standalone_stop
  standalone_start "$SA/config.yaml"
  nvmet "grow 64M"
  control attach v --method fuse --nqn $NVMET_NQN --uuid 6f1c2b4e-8a55-4f0e-9a57-0d6e2d6f4f31 --address "${PORTS[0]}"
  later control detach v
  device=$(control attachments | grep -oE '/dev/loop[0-9]+')
  [ "$(blockdev --getsize64 "$device")" = $((64 << 20)) ] || die "$device is not of 64 MiB"
  nvmet "grow 96M"
  until_ok 20 "the device has grown" grown "$device" $((96 << 20))
  dd if=/dev/urandom of="$SA/data" bs=1M count=8 status=none
  dd if="$SA/data" of="$device" bs=1M seek=80 oflag=direct conv=fsync status=none
  dd if="$device" bs=1M skip=80 count=8 iflag=direct status=none | cmp - "$SA/data"
}
control() { "$TARGET/$PROFILE/roadstead" --socket "$SA/roadsteadd.sock" "$@"; }
grown() { # DEVICE BYTES
  [ "$(blockdev --getsize64 "$1")" = "$2" ]
}
