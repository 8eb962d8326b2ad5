#!/bin/bash
# NVMe/RDMA over RoCE v2 between two virtual machines with the soft device: a stock kernel's host and a daemon of ours.
NEEDS=vm
. "$E2E/lib/standalone.sh"
. "$E2E/lib/roce.sh"
check kernel-host "A stock kernel's nvme-rdma host finds our target by discovery and connects; verified I/O of every size and depth, on blocks of 512 and 4096 bytes; a namespace that grows is told at once; nothing of the device is left after it." 540
check link-cut "The Ethernet of the RoCE devices goes dark and comes back during verified I/O: the host reconnects, no error." 240
check daemon-killed "The daemon is killed during verified I/O and starts again: the host reconnects over RDMA, no error." 240
check both-transports "One namespace over RoCE and TCP, the latter non-optimized, both connected by connect-all: RoCE is used; its Ethernet goes dark and I/O goes on over TCP without an error; it comes back and is used again." 300
check initiator "Our initiator against our target: discovery over RDMA, verified I/O of every size and depth; the Ethernet goes dark and comes back, the daemon is killed and starts again, during verified I/O: no error." 420
check initiator-nvmet "Our initiator against the stock kernel's target: the same, where nvmet ends its connections instead of being killed." 420
scenario_end() { guest_down; }

with_io() { # COMMAND...: while the host writes and verifies
  local io
  (on host io) &
  io=$!
  until_ok 60 "the host writes" test -e "$GUESTS/host/running"
  "$@"
  touch "$GUESTS/host/enough"
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

every_request() { # PORTAL NQN: of every size and depth, on blocks of either size
  local bs q
  for bs in 4k 16k 128k 1m 4m; do ours "$@" --nsid 1 --size 16m -b $bs -q 4 -T 0.5; done
  for bs in 512 4k 64k; do ours "$@" --nsid 2 --size 2m -b $bs -q 4 -T 0.5; done
  for q in 1 32 128; do ours "$@" --nsid 1 --size 8m -b 4k -q $q -T 0.5; done
  ours "$@" --nsid 1 --size 8m -b 4k -q 32 --queues 3 -T 0.5
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
  every_request "$OURS" "$NQN"
  on target "has_pairs 0"
  under_load "$OURS" "$NQN" ours_in_trouble
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
  every_request "$NVMET" "$NVMET_NQN"
  under_load "$NVMET" "$NVMET_NQN" nvmet_in_trouble
}
nvmet_in_trouble() {
  dark_for_a_while
  on target "nvmet_is_silent rdma; sleep 1; nvmet_listens rdma"
  lost_and_back 2
}
