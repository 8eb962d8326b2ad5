#!/bin/bash
# One namespace over RoCE and, not optimized, over TCP: its host moves to TCP when RoCE goes dark, and back, during verified I/O.
NEEDS=vm
. "$E2E/lib/standalone.sh"
. "$E2E/lib/roce.sh"
FAILOVERS=${FAILOVERS:-3} # each there and back
# shellcheck disable=SC2034 # read by standalone.sh: a load runs all the time
IN_GUEST_SECONDS=$((250 + 40 * FAILOVERS))
# Longest stalls, in ms. Emulated machines stall without any failover, too, and a path is left after four of its round
# trips: four times what they do beforehand is allowed on top.
KERNEL_STALL_MS=2000
OURS_STALL_MS=500
check kernel "A stock kernel's host, which our daemon attached by: no error, and no stall of more than 2 s." $((300 + 40 * FAILOVERS))
check initiator "Our initiator: no error, and no stall of more than 0.5 s." $((300 + 40 * FAILOVERS))
scenario_end() { guest_down; }

both() { ready "$RDMA_PORTAL" "$TCP_PORTAL, anaState: nonOptimized"; }
# there_and_back OVER-TCP NOT-OVER-TCP: functions of the host's guest
there_and_back() {
  local i
  for ((i = 1; i <= FAILOVERS; i++)); do
    darken
    on host goes_over_tcp
    lighten
    on host leaves_tcp
    echo "$i of $FAILOVERS failovers"
  done
}
within() { # STALL-MS LIMIT-MS CALM-MS
  echo "longest stall: $1 ms; without failovers: $3 ms"
  [ "$1" -le $(($2 + 4 * $3)) ] || die "a stall of $1 ms, and $2 ms are allowed"
}

kernel() {
  local calm
  both
  on host attached
  kernel_load sleep 8
  calm=$STALL_MS
  kernel_load there_and_back
  on host "detached; kernel_is_calm"
  within "$STALL_MS" $KERNEL_STALL_MS "$calm"
}
kernel_load() { # COMMAND...: STALL_MS is the longest stall of verified I/O beside it
  local load out=$OUT/load
  rm -f "$GUESTS/host/running"
  (on host load >"$out") &
  load=$!
  until_ok 60 "the host writes" test -e "$GUESTS/host/running"
  sleep 1
  "$@"
  on host load_ends
  wait $load || die "the load failed: $(tail -n 5 "$out")"
  [ "$(sed -n '/^{/,/^}/p' "$out" | jq '[.jobs[].error] | add')" = 0 ] || die "I/O failed: $(cat "$out")"
  STALL_MS=$(tail -n 1 "$out")
}

initiator() {
  local calm
  both
  our_load sleep 8
  calm=$STALL_MS
  our_load there_and_back
  within "$STALL_MS" $OURS_STALL_MS "$calm"
}
our_load() { # COMMAND...: the same, of our initiator
  local out=$OUT/load
  under_load "$OURS,$OURS_TCP" "$NQN" "$@" 2>&1 | tee "$out"
  STALL_MS=$(grep -o '"stall_us":[0-9.]*' "$out" | awk -F: '{print int($2 / 1000)}')
}
