# shellcheck shell=bash
# Two virtual machines with soft-RoCE, a target and a host, joined by an Ethernet for RoCE and one for TCP. After standalone.sh.
# Functions of e2e/guest/roce.sh are called in them by `on`.

LINKS=$OUT/links
pair() { # the two guests, booted
  local n=0 g args
  # shellcheck disable=SC2153 # of standalone.sh
  GUEST=$GUESTS/target
  if guest_is_there; then
    GUEST=$GUESTS/host
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
    GUEST=$GUESTS/$g
    guest_booted
  done
  on host "network 2"
}
on() { # GUEST FUNCTION [ARGUMENT...]
  GUEST=$GUESTS/$1
  guest_check roce.sh "${@:2}"
}
RDMA_PORTAL="address: 10.7.0.1, port: 4420, transport: rdma"
TCP_PORTAL="address: 10.8.0.1, port: 4420"
ready() { # PORTAL...: the guests, and a new daemon with these portals
  pair
  on target "serve $(printf "'%s' " "$@")"
}
darken() { # nothing goes over RoCE's Ethernet any more
  on target "cut 10.7.0.2"
  on host "cut 10.7.0.1"
}
lighten() {
  on target "mended 10.7.0.2"
  on host "mended 10.7.0.1"
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
# under_load PORTALS NQN COMMAND...: the command, while the host writes and verifies
under_load() {
  local load
  rm -f "$GUESTS/host/running"
  (ours "$1" "$2" --nsid 1 --size 16m -b 4k -q 8 -T 600 --ctrl-loss 600) &
  load=$!
  until_ok 60 "the host writes" test -e "$GUESTS/host/running"
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
