#!/bin/bash
# What an I/O over RoCE costs the target: work requests, batches of them, system calls and CPU, beside the kernel's own target.
NEEDS=vm
# shellcheck disable=SC2034 # read by test.sh
ALONE=yes # a measurement: for `make bench`
. "$E2E/lib/standalone.sh"
. "$E2E/lib/roce.sh"
check beside-nvmet "The same loads on our target and on the stock kernel's, over the soft device: ours takes no more work requests and fewer batches for an I/O." 600
scenario_end() { guest_down; }

LOADS='4K_read_q1 --rw randread -q 1
4K_read_q32 --rw randread -q 32
4K_write_q32 --rw randwrite -q 32
128K_read_q8 --rw read -q 8 --block-size 128k
128K_write_q8 --rw write -q 8 --block-size 128k'
LOAD_SECONDS=3

beside_nvmet() {
  local name arguments out=$OUT/roce-cost.json
  pair
  on target "serve_memory; nvmet_serve"
  while read -r name arguments; do
    for side in ours nvmet; do cost "$name" $side "$arguments"; done
  done <<<"$LOADS" | jq -s . >"$out"
  jq -r '.[] | [.load, .side, .ios, .requests, .doorbells, .syscalls, .cpu_us] | @tsv' "$out"
  jq -e '
    group_by(.load) | map({ours: (.[] | select(.side == "ours")), nvmet: (.[] | select(.side == "nvmet"))})
    | length == 5 and all(.ours.requests <= 1.05 * .nvmet.requests and .ours.doorbells <= 1.05 * .nvmet.doorbells)' "$out" ||
    die "our target asks more of the device than the kernel's"
}
# cost LOAD SIDE ARGUMENTS: one line of JSON; everything for one I/O
cost() {
  local portal=$OURS nqn=$NQN before cpu counts ios
  [ "$2" = ours ] || portal=$NVMET nqn=$NVMET_NQN
  before=$(on target busy_ticks </dev/null)
  ios=$(run_load "$portal" "$nqn" "$3")
  cpu=$(bc <<<"scale = 3; ($(on target busy_ticks </dev/null) - $before) * 10000 / $ios")
  on target counting </dev/null >/dev/null
  ios=$(run_load "$portal" "$nqn" "$3")
  counts=$(on target counted </dev/null)
  jq -c --arg load "$1" --arg side "$2" --argjson ios "$ios" --argjson cpu "$cpu" \
    '{load: $load, side: $side, ios: $ios, cpu_us: $cpu} + map_values(. / $ios)' <<<"$counts"
}
run_load() { # PORTAL NQN ARGUMENTS: how many I/Os it was
  on host "load_for $LOAD_SECONDS $1 $2 $3" </dev/null | tee -a "$OUT/roce-cost.log" | jq '[.read, .write | .count // 0] | add'
}
