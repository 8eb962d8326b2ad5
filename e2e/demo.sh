#!/bin/bash
# demo.sh - the whole path on one machine: a cluster of three nodes, Roadstead, and PostgreSQL on a volume whose drive is on
# another node. Leaves everything up. Can be run again.
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"
for lib in prereq kube roadstead database; do . "$E2E/lib/$lib.sh"; done

start=$SECONDS
step "prerequisites" prereqs
"$E2E/up.sh"
mkdir -p "$OUT"
cp "$KUBECONFIG" "$OUT/demo.kubeconfig"
export KUBECONFIG=$OUT/demo.kubeconfig
kubectl config set-context --current --namespace=demo >/dev/null

clean() { # what an earlier run left
  k delete namespace demo --ignore-not-found --wait --timeout=120s
  k uncordon node2 node3
}
targets() {
  file_target flash 1 drive0=4Gi drive1=4Gi
  wait_target flash
}
database() {
  k create namespace demo
  db_apply
  db_ready
}
fill() { db_init 10 && db_load 15; }
counters_move() {
  local a b
  a=$(io_count 1 "$volume")
  db_load 5
  b=$(io_count 1 "$volume")
  [ "$b" -gt "$a" ] || die "the target's counters of $volume did not move: $a, $b"
  echo "$a $b" >"$OUT/counters"
}
move() { # the pod is deleted and may not come back to its node
  local from uid
  from=$(db_node) uid=$(field pod/postgres-0 .metadata.uid)
  k cordon "$from"
  k delete pod postgres-0 --timeout=90s
  db_ready "$uid"
  k uncordon "$from"
  [ "$(db_node)" != "$from" ] || die "the pod came back on $from"
}
same_data() {
  db_invariants >"$OUT/invariants"
  [ "$(db_checksum)" = "$checksum" ] || die "the dump differs from the one before the move"
}
counters_rest() { # without a pod nobody reads or writes
  k scale statefulset/postgres --replicas=0
  wait_gone pod/postgres-0 60
  until_ok 60 "the volume is detached" detached "$volume"
  local a b
  a=$(io_count 1 "$volume")
  sleep 3
  b=$(io_count 1 "$volume")
  [ "$a" = "$b" ] || die "nobody uses $volume, but its counters moved from $a to $b"
  echo "$a $b" >"$OUT/counters"
  k scale statefulset/postgres --replicas=1
  db_ready
}
counted() { local a b; read -r a b <"$OUT/counters"; say "          I/O done by the target: $a before, $b after"; }

step "removing what an earlier demo left" clean
step "Target flash: two drives on node1" targets
step "PVC and PostgreSQL, to a running pod" database
volume=$(volume_of data)
say "          the pod runs on $(db_node), its volume $volume is on node1"
step "pgbench: 1 million accounts, 15 s of transfers" fill
step "the target's counters move with the load" counters_move
counted
db_invariants | sed 's/^/          /' >&2
checksum=$(db_checksum)
say "          checksum of the dump: $checksum"
step "pod deleted, back on the third node" move
say "          the pod runs on $(db_node) now"
step "same sums, same checksum of the dump" same_data
step "no pod: the target's counters stand still; pod back" counters_rest
counted

echo
k get targets,nvmenamespaces,nvmeattachments,pvc,pods -o wide
echo
"$TARGET/$PROFILE/roadstead" explain pvc/data
cat <<T

The demo took $((SECONDS - start)) s and everything is still up. Look around:
    eval "\$(e2e/cluster/cluster env)"
    kubectl -n demo get pods -o wide
    kubectl -n demo exec -it postgres-0 -- psql postgres
    kubectl describe target flash
    curl -s http://$(node_ip 1):7421/metrics | grep roadstead_volume
Remove it:
    make demo-down
T
