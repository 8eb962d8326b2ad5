#!/bin/bash
# NVMe/RDMA over RoCE v2 between two virtual machines with the soft device: a stock kernel's host and a daemon of ours.
NEEDS=vm
. "$E2E/lib/standalone.sh"
check kernel-host "A stock kernel's nvme-rdma host finds our target by discovery and connects; verified I/O of every size and depth, on blocks of 512 and 4096 bytes; a namespace that grows is told at once; nothing of the device is left after it." 420
check link-cut "The Ethernet of the RoCE devices goes dark and comes back during verified I/O: the host reconnects, no error." 240
check daemon-killed "The daemon is killed during verified I/O and starts again: the host reconnects over RDMA, no error." 240
check both-transports "One namespace over RoCE and TCP, the latter non-optimized, both connected by connect-all: RoCE is used; its Ethernet goes dark and I/O goes on over TCP without an error; it comes back and is used again." 300
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
