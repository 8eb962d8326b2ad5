#!/bin/bash
# PostgreSQL on a remote volume: filled by pgbench, moved to another node, the same sums and the same dump.
NEEDS=cluster
check moves-with-its-data "The pod comes back on another node with the same sums and the same checksum of its dump." 300
check node-power-cut "The pod's node loses power during load; the pod comes back elsewhere and no committed transfer is missing." 300

# The StorageClass of the chart names no Target: any with room will do, and there is this one.
room() {
  file_target "$ID" 1 d=3Gi
  later remove_target "$ID" 1
  wait_target "$ID"
}

moves_with_its_data() {
  local volume before node uid a b
  room
  db_apply
  later k delete statefulset/postgres pvc/data --timeout=60s
  db_ready
  volume=$(volume_of data)
  db_init 5
  a=$(io_count 1 "$volume")
  db_load 8
  b=$(io_count 1 "$volume")
  [ "$b" -gt "$a" ] || die "the target's counters did not move: $a, $b"
  db_invariants
  before=$(db_checksum)
  node=$(db_node) uid=$(field pod/postgres-0 .metadata.uid)
  k cordon "$node"
  later k uncordon "$node"
  k delete pod postgres-0 --timeout=90s
  db_ready "$uid"
  [ "$(db_node)" != "$node" ] || die "it came back on the same node"
  db_invariants
  [ "$(db_checksum)" = "$before" ] || die "the dump differs"
}

node_power_cut() {
  local n uid acknowledged
  room
  db_apply
  later k delete statefulset/postgres pvc/data --timeout=90s
  db_ready
  db_init 2
  n=$(db_node) n=${n#node} uid=$(field pod/postgres-0 .metadata.uid)
  # What psql prints is committed: synchronous_commit is on.
  db_exec sh -c 'psql -qc "create table log(n bigint)" postgres; i=0; while :; do i=$((i+1)); psql -qc "insert into log values ($i)" postgres && echo $i; done' >"$OUT/$ID.committed" 2>/dev/null &
  local writer=$!
  wait_lines "$OUT/$ID.committed" 20
  "$CLUSTER" node kill "$n"
  later "$CLUSTER" node start "$n"
  wait $writer || true
  acknowledged=$(tail -n 1 "$OUT/$ID.committed")
  # A node that is off does not say that the volume is free: the administrator does.
  k taint node "node$n" node.kubernetes.io/out-of-service=nodeshutdown:NoExecute
  later k taint node "node$n" node.kubernetes.io/out-of-service-
  db_ready "$uid"
  [ "$(db_exec psql -Atc 'select count(*) from log' postgres)" -ge "$acknowledged" ] || die "committed rows are missing"
}
