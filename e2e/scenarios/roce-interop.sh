#!/bin/bash
# NVMe/RDMA over RoCE v2 between two virtual machines with the soft device: a stock kernel's host and a daemon of ours.
NEEDS=vm
. "$E2E/lib/standalone.sh"
check kernel-host "A stock kernel's nvme-rdma host finds our target by discovery and connects; verified I/O of every size and depth, on blocks of 512 and 4096 bytes; a namespace that grows is told at once; nothing of the device is left after it." 420
check link-cut "The Ethernet of the RoCE devices goes dark and comes back during verified I/O: the host reconnects, no error." 240
check daemon-killed "The daemon is killed during verified I/O and starts again: the host reconnects over RDMA, no error." 240
check both-transports "One namespace over RoCE and TCP, the latter non-optimized, both connected by connect-all: RoCE is used; its Ethernet goes dark and I/O goes on over TCP without an error; it comes back and is used again." 300
check initiator "Our initiator against our target: discovery over RDMA, verified I/O of every size and depth; the Ethernet goes dark and comes back, the daemon is killed and starts again, during verified I/O: no error." 420
check initiator-nvmet "Our initiator against the stock kernel's target: the same, where nvmet ends its connections instead of being killed." 420
scenario_end() { guest_down; }

LINKS=$OUT/links
pair() { # the two guests, booted
  local n=0 g args
  GUEST=$OUT/guest/target
  if guest_is_there; then
    GUEST=$OUT/guest/host
    if guest_is_there; then return; fi
  fi
  guest_down
  mkdir -p "$LINKS"
  rm -f "$LINKS"/*
  for g in target host; do
    n=$((n + 1))
    args=()
    for link in 1 2; do
      args+=(-q "-netdev stream,id=n$link,server=$([ $g = target ] && echo on || echo off),addr.type=unix,addr.path=$LINKS/$link -device virtio-net-pci,netdev=n$link,mac=52:54:00:00:0$link:0$n,romfile=")
    done
    guest_boot $g -n $g -a "$E2E/guest/rxe.sh" "${args[@]}" -a "$TARGET/$PROFILE/roadsteadd" -a "$TARGET/$PROFILE/roadstead"
    if [ $g = target ]; then until_ok 60 "the target's Ethernets are there" test -S "$LINKS/2"; fi
  done
  for g in target host; do
    GUEST=$OUT/guest/$g
    guest_booted
  done
  on host "network 2"
}
on() { # GUEST FUNCTION [ARGUMENT...]
  GUEST=$OUT/guest/$1
  guest_check roce.sh "${@:2}"
}
RDMA_PORTAL="address: 10.7.0.1, port: 4420, transport: rdma"
TCP_PORTAL="address: 10.8.0.1, port: 4420"
ready() { # PORTAL...: the guests, and a new daemon with these portals
  pair
  on target "serve $(printf "'%s' " "$@")"
}
with_io() { # COMMAND...: while the host writes and verifies
  local io
  (on host io) &
  io=$!
  until_ok 60 "the host writes" test -e "$OUT/guest/host/running"
  "$@"
  touch "$OUT/guest/host/enough"
  wait $io || {
    on target daemon_log
    return 1
  }
}

kernel_host() {
  ready "$RDMA_PORTAL" "$TCP_PORTAL"
  on host "discovered; connect rdma 10.7.0.1 --keep-alive-tmo=60; every_size; every_depth; other_commands"
  on target grow
  on host grown
  on target "has_pairs 3" # the admin queue and two for I/O
  on host "ends; kernel_is_calm"
  on target "has_pairs 0"
}
darken() { # nothing goes over RoCE's Ethernet any more
  on target "cut 10.7.0.2"
  on host "cut 10.7.0.1"
}
lighten() {
  on target "mended 10.7.0.2"
  on host "mended 10.7.0.1"
}
link_cut() {
  ready "$RDMA_PORTAL"
  on host "connect rdma 10.7.0.1"
  with_io cut_link
  on host "ends; kernel_is_calm"
}
cut_link() {
  darken
  on host "is_lost rdma"
  lighten
  on host "is_live rdma; is_used rdma"
}
daemon_killed() {
  ready "$RDMA_PORTAL"
  on host "connect rdma 10.7.0.1"
  with_io kill_daemon
  on host "ends; kernel_is_calm"
}
kill_daemon() {
  on target daemon_killed
  on host "is_lost rdma"
  on target run_daemon
  on host "is_live rdma; is_used rdma"
}
both_transports() {
  ready "$RDMA_PORTAL" "$TCP_PORTAL, anaState: nonOptimized"
  on host connect_all
  with_io fail_over
  on host "ends; kernel_is_calm"
}
fail_over() {
  on host "is_used rdma; is_unused tcp"
  darken
  on host "is_used tcp; is_lost rdma"
  lighten
  on host "is_live rdma; is_used rdma; is_unused tcp"
}

# Our initiator is the load generator in the host's guest.
OURS=rdma:10.7.0.1:4420 OURS_TCP=10.8.0.1:4420
NQN=nqn.2026-11.io.roadstead:roce
NVMET=rdma:10.7.0.1:4421 NVMET_TCP=10.8.0.1:4421
NVMET_NQN=nqn.2026-11.io.roadstead:nvmet
# ours PORTALS NQN ARGUMENT...: a short load that reads back all that it has written; none may fail
ours() {
  local out
  out=$(on host "bench $*")
  echo "$out"
  [ "$(jq .errors <<<"$out")" = 0 ] || die "requests failed"
  [ "$(jq .verified_blocks <<<"$out")" -gt 0 ] || die "nothing was verified"
}
every_request() { # PORTAL NQN: of every size and depth, on blocks of either size
  local bs q
  for bs in 4k 16k 128k 1m 4m; do ours "$@" --nsid 1 --size 16m -b $bs -q 4 -T 0.5; done
  for bs in 512 4k 64k; do ours "$@" --nsid 2 --size 2m -b $bs -q 4 -T 0.5; done
  for q in 1 32 128; do ours "$@" --nsid 1 --size 8m -b 4k -q $q -T 0.5; done
  ours "$@" --nsid 1 --size 8m -b 4k -q 32 --queues 3 -T 0.5
}
# under_load PORTALS NQN COMMAND...: the command, while the host writes and verifies
under_load() {
  local load
  rm -f "$OUT/guest/host/running"
  (ours "$1" "$2" --nsid 1 --size 16m -b 4k -q 8 -T 600 --ctrl-loss 600) &
  load=$!
  until_ok 60 "the host writes" test -e "$OUT/guest/host/running"
  sleep 1
  "${@:3}"
  on host bench_ends
  wait $load || {
    on host bench_log
    return 1
  }
}
lost_and_back() { # how often the host has said so, at least
  until_ok 60 "the host has connected again" has_come_back "$1"
}
has_come_back() { # after the NUMBERth loss of a connection
  on host bench_log | awk -v n="$1" '/connection lost/ {lost++} / connected/ {back = lost} END {exit !(lost >= n && back >= n)}'
}
dark_for_a_while() {
  darken
  until_ok 60 "the host has lost the connection" on host "bench_log | grep -q 'connection lost'"
  lighten
  lost_and_back 1
}

initiator() {
  ready "$RDMA_PORTAL" "$TCP_PORTAL"
  on host "network 2; found $OURS 'rdma.*10.7.0.1:4420' 'tcp.*10.8.0.1:4420'"
  every_request $OURS $NQN
  on target "has_pairs 0"
  under_load $OURS $NQN ours_in_trouble
}
ours_in_trouble() {
  dark_for_a_while
  on target daemon_killed
  on target run_daemon
  lost_and_back 2
}
initiator_nvmet() {
  pair
  on target nvmet_serve
  on host "found $NVMET 'rdma.*10.7.0.1:4421'"
  every_request $NVMET $NVMET_NQN
  under_load $NVMET $NVMET_NQN nvmet_in_trouble
}
nvmet_in_trouble() {
  dark_for_a_while
  on target "nvmet_is_silent rdma; sleep 1; nvmet_listens rdma"
  lost_and_back 2
}
