#!/bin/bash
# A stock kernel with two paths to a stand-alone roadsteadd: paths are cut and come back during verified I/O.
# shellcheck disable=SC2119 # lab_reload without arguments is meant
NEEDS=vm
. "$E2E/lib/standalone.sh"
check path-cut "The network of the path in use goes dark: I/O goes on over the other one, without an error; mended, both are used."
check portal-lost "A portal is taken from the daemon during I/O, and its connections end: no error; it comes back and is used again."
check ana-switch "The ANA states of two portals are switched through all five during I/O: the host sees each, and follows without an error."
check initiator "Our initiator finds both portals by discovery and uses both; a portal whose address goes, and comes back, and each ANA state cost no error."
check cache-lost "A daemon that dies costs a device of ours nothing; after a boot, which may have lost what was not flushed, its next fsync fails, and the one after that succeeds."
scenario_end() { guest_down; }

on_host() { guest_check tcp-multipath.sh "$@"; } # FUNCTION [ARGUMENT...]
with_io() { # COMMAND...: while the host writes and verifies
  local io
  lab
  guest_up trixie
  on_host "both_paths; policy round-robin"
  (on_host io) &
  io=$!
  until_ok 30 "the host writes" test -e "$GUEST/running"
  on_host "is_used 198.51.100.1; is_used 198.51.100.2"
  "$@"
  touch "$GUEST/enough"
  wait $io
  on_host ends
}

path_cut() { with_io cut_and_mend; }
cut_and_mend() {
  on_host "cut 198.51.100.1; is_lost 198.51.100.1; is_used 198.51.100.2"
  on_host "mended 198.51.100.1; is_live 198.51.100.1; is_used 198.51.100.1"
}

portal_lost() { with_io lose_and_return; }
lose_and_return() {
  LAB_PORTALS=("address: 198.51.100.1")
  lab_reload
  until_ok 10 "nothing listens at 198.51.100.2" silent
  on_host "is_lost 198.51.100.2; is_used 198.51.100.1"
  LAB_PORTALS+=("address: 198.51.100.2")
  lab_reload
  on_host "is_live 198.51.100.2; is_used 198.51.100.2; is_used 198.51.100.1"
}

# How many connections there are to a portal; an initiator has two for a path.
connections() { ss -Htn state established dst "$1:4420" | wc -l; } # ADDRESS
has_connections() { [ "$(connections "$1")" = "$2" ]; } # ADDRESS NUMBER
initiator() {
  local load out=$OUT/bench
  lab
  "$TARGET/$PROFILE/roadstead" -o json bench --discover 198.51.100.1:4420 --nqn "$LAB_NQN" --nsid 1 --policy round-robin --rw randrw --mix 40 --verify --sleep \
    --ramp 0 --size 16m -b 4k -q 8 -T 20 >"$out.json" 2>"$out.log" &
  load=$!
  until_ok 10 "both paths are connected" has_connections 198.51.100.2 2
  has_connections 198.51.100.1 2
  ip addr del 198.51.100.2/32 dev lo
  ss -K dst 198.51.100.2 >/dev/null
  sleep 1
  ip addr add 198.51.100.2/32 dev lo
  until_ok 10 "the second path is connected again" has_connections 198.51.100.2 2
  switch optimized nonOptimized
  sleep 0.5
  switch inaccessible optimized
  sleep 0.5
  switch optimized persistentLoss
  sleep 0.5
  switch change change
  sleep 0.5
  switch nonOptimized optimized
  wait $load || die "the load failed: $(tail -n 5 "$out.log")"
  cat "$out.json"
  grep -q 'connection lost' "$out.log" || die "no connection was lost"
  [ "$(jq .errors "$out.json")" = 0 ] || die "requests failed"
  [ "$(jq .verified_blocks "$out.json")" -ge 4000 ] || die "fewer than 4000 blocks were verified"
}

cache_lost() {
  local device pid a=$OUT/attacher
  lab
  rm -rf "$a"
  mkdir -p "$a"
  printf 'stateDir: %s/state\nsocket: %s/socket\nportals: []\ndrives: []\n' "$a" "$a" >"$a/config.yaml"
  "$TARGET/$PROFILE/roadsteadd" --config "$a/config.yaml" >"$a/log" 2>&1 &
  pid=$!
  later kill $pid
  until_ok 10 "the daemon that attaches is up (log: $a/log)" test -S "$a/socket"
  device=$(attacher attach v --method fuse --nqn "$LAB_NQN" --uuid 6f1c2b4e-8a55-4f0e-9a57-0d6e2d6f4f20 --address 198.51.100.1)
  later attacher detach v
  write_and_kill "$device"
  standalone_start "$SA/config.yaml"
  fsync "$device" || die "fsync fails although nothing was lost"
  write_and_kill "$device"
  sed -i 's/\t[^\t]*$/\tanother boot/' "$SA/state/caches"
  standalone_start "$SA/config.yaml"
  if fsync "$device"; then die "fsync succeeds although the cache was lost"; fi
  fsync "$device" || die "fsync fails for ever"
  grep 'lost acknowledged writes' "$a/log"
}
attacher() { "$TARGET/$PROFILE/roadstead" --socket "$OUT/attacher/socket" "$@"; }
write_and_kill() { # DEVICE: a write that no flush covers
  dd if=/dev/urandom of="$1" bs=4k count=1 oflag=direct status=none
  standalone_stop KILL
}
fsync() { python3 -c 'import os, sys; os.fsync(os.open(sys.argv[1], os.O_RDWR))' "$1"; } # DEVICE

silent() { [ -z "$(ss -Hltn src 198.51.100.2:4420)" ]; }

ana_switch() { with_io switch_states; }
switch() { # STATE STATE: of the two portals, as the configuration calls them
  LAB_PORTALS=("address: 198.51.100.1, anaState: $1" "address: 198.51.100.2, anaState: $2")
  lab_reload
}
switch_states() {
  switch optimized nonOptimized
  on_host "ana_is 198.51.100.2 non-optimized; is_unused 198.51.100.2; is_used 198.51.100.1"
  switch inaccessible optimized
  on_host "ana_is 198.51.100.1 inaccessible; is_unused 198.51.100.1; is_used 198.51.100.2"
  switch optimized persistentLoss
  on_host "ana_is 198.51.100.2 persistent-loss; is_unused 198.51.100.2; is_used 198.51.100.1"
  switch change change
  on_host "ana_is 198.51.100.1 change; is_unused 198.51.100.1"
  switch nonOptimized optimized
  on_host "ana_is 198.51.100.2 optimized; is_used 198.51.100.2; is_unused 198.51.100.1"
}
