#!/bin/bash
# How long a claim takes to become a running pod, and what a daemon costs while nothing happens.
NEEDS=cluster
check claim-to-pod "A claim becomes a running pod within 15 s, of which Roadstead's own calls take less than 2 s (medians of five)." 300
check idle-daemon "A daemon with an attached, unused volume takes less than 0.5 % of a core." 120

# The seconds that all CSI calls took so far that are on the way from a claim to a pod, on the controller and node 2.
own_seconds() {
  {
    curl -sS -m 5 "http://$(k get pod -n "$NS" -l app.kubernetes.io/component=csi-controller -o jsonpath='{.items[0].status.podIP}'):7423/metrics"
    curl -sS -m 5 "http://$(node_ip 2):7422/metrics"
  } | awk '/_duration_seconds_sum\{method="(CreateVolume|ControllerPublishVolume|NodeStageVolume|NodePublishVolume)"/ {sum += $NF} END {printf "%.3f\n", sum}'
}
median() { sort -n | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
list() { paste -sd, -; }

claim_to_pod() {
  local i t0 before total=() own=()
  private_target 2Gi
  for i in 1 2 3 4 5; do
    before=$(own_seconds)
    t0=$EPOCHREALTIME
    pvc "c$i" 256Mi "$ID"
    toolbox "p$i" 2 "c$i"
    wait_pod "p$i"
    total+=("$(bc <<<"$EPOCHREALTIME - $t0")")
    own+=("$(bc <<<"$(own_seconds) - $before")")
    k delete pod "p$i" --timeout=60s
    k delete pvc "c$i" --timeout=60s
  done
  printf '{"total_s": [%s], "own_s": [%s]}\n' "$(printf '%.3f\n' "${total[@]}" | list)" "$(printf '%.3f\n' "${own[@]}" | list)" |
    tee "$OUT/speed.json"
  [ "$(bc <<<"$(printf '%s\n' "${total[@]}" | median) < 15")" = 1 ] || die "a pod took ${total[*]} s"
  [ "$(bc <<<"$(printf '%s\n' "${own[@]}" | median) < 2")" = 1 ] || die "Roadstead's own calls took ${own[*]} s"
}

# The daemon's CPU time in clock ticks (100 a second).
daemon_ticks() { node "$1" sh -c 'awk "{print \$14 + \$15}" "/proc/$(pgrep -x -o roadsteadd)/stat"'; }

idle_daemon() {
  local n seconds=20 ticks before=()
  private_target 512Mi
  volume_pod p 2 data 256Mi
  in_pod p sync
  # The pod's start is over when the daemons rest: one idle second.
  for n in 1 2; do until_ok 60 "the daemon on node$n rests" rests "$n"; done
  for n in 1 2; do before[n]=$(daemon_ticks "$n"); done
  sleep $seconds
  for n in 1 2; do
    ticks=$(($(daemon_ticks "$n") - before[n]))
    echo "node$n: $ticks ticks of 10 ms in $seconds s"
    [ $ticks -lt $((seconds * 100 * 5 / 1000)) ] || die "the daemon on node$n took $ticks ticks of 10 ms in $seconds s"
  done
}
rests() {
  local before
  before=$(daemon_ticks "$1")
  sleep 1
  [ $(($(daemon_ticks "$1") - before)) -le 1 ]
}
