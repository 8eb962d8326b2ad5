#!/bin/bash
# Processes die, drives and cables go, strangers send rubbish: what was acknowledged is there, and pods see no error.
NEEDS=cluster
check drive-disappears "A drive is gone when its daemon starts: the Target says Missing, I/O waits and goes on when it is back." 240
check kill-during-staging "Pods are killed at any moment of their start; the next one starts, and nothing is left on the nodes." 300
check kubelet-repeats "The kubelet dies again and again while pods start and stop, and repeats its calls." 300
check dataplane-kill9-fsync "kill -9 of the target's daemon during writes with fsync: every acknowledged record is there." 300
check initiator-kill9 "kill -9 of the daemon on the pod's node during writes with fsync: the I/O waits and goes on." 300
check node-pods-replaced "The pods of both nodes' daemons are deleted, as an upgrade does, during writes with fsync: the I/O waits and goes on." 300
check operator-kill "The operator is killed again and again while volumes are made and removed; all of them end as asked." 400
check apiserver-down "The API server is down for a minute and both daemons are killed in it; the pod writes on." 420
check connection-cut "The target's cable is pulled for 20 s during verified I/O: it waits, goes on, and there is no error." 300
check hostile-bytes "Random bytes, half PDUs and wrong lengths on the target's port end their own connection and nothing else." 240

drive_disappears() {
  local dev log=$OUT/$ID.acknowledged
  dev=$(loop_make 1 "$ID" 512M)
  later loop_remove 1 "$ID"
  # Its name stays while the device is taken away and given back.
  node 1 ln -sfn "$dev" "/dev/roadstead-$ID"
  later node 1 rm -f "/dev/roadstead-$ID"
  device_target "$ID" 1 "/dev/roadstead-$ID"
  later k delete target "$ID" --timeout=60s
  storage_class "$ID" "$ID"
  later k delete storageclass "$ID"
  wait_target "$ID"
  volume_pod writer 2 data
  journal_start writer "$log"
  wait_lines "$log" 20
  node 1 rm -f "/dev/roadstead-$ID"
  kill_in_node 1 roadsteadd
  wait_drive "$ID" '^Missing .+' 90
  wait_condition "target/$ID" Ready '^False'
  wait_condition "nvmenamespace/$(volume_of data)" Ready '^False DriveOffline'
  node 1 ln -sfn "$dev" "/dev/roadstead-$ID"
  wait_drive "$ID" '^Online' 90
  more_lines "$log" 20 90
  k delete pod writer --timeout=60s
  toolbox writer 3 data
  wait_pod writer
  journal_verify writer "$log"
}

# What a volume leaves on a node: nothing, once it is gone.
leftovers() { # VOLUME
  local n
  for n in 1 2 3; do
    if node "$n" grep -F "$1" /proc/mounts; then return 1; fi
    if node "$n" losetup -n -l -O BACK-FILE | grep -F "$1"; then return 1; fi
  done
}

kill_during_staging() {
  local i v
  private_target 1Gi
  pvc data 256Mi "$ID"
  later k delete pvc data --ignore-not-found --timeout=60s
  for i in 0.3 0.8 1.3 1.8 2.5 3.5; do
    toolbox victim $((RANDOM % 2 + 2)) data
    sleep "$i" # the moment of the kill is meant to be any
    k delete pod victim --grace-period=0 --force
    wait_gone pod/victim
  done
  toolbox final 2 data
  later k delete pod final --ignore-not-found --timeout=60s
  wait_pod final 120
  in_pod final sh -c 'echo good >/data/f; sync; cat /data/f'
  v=$(volume_of data)
  k delete pod final --timeout=60s
  k delete pvc data --timeout=60s
  wait_gone "nvmenamespace/$v" 90
  until_ok 60 "nothing is left of $v on the nodes" leftovers "$v"
}

kubelet_repeats() {
  local i v
  private_target 1Gi
  pvc data 256Mi "$ID"
  later k delete pvc data --ignore-not-found --timeout=60s
  later k delete pod p --ignore-not-found --timeout=60s
  for i in 1 2 3; do
    toolbox p 2 data
    sleep "$((i % 3)).5"
    kill_in_node 2 kubelet
    wait_pod p 120
    in_pod_retry p sh -c "echo $i >/data/file-$i; sync"
    kill_in_node 2 kubelet
    [ "$(in_pod_retry p sh -c 'cat /data/file-* | wc -l')" = "$i" ] || die "files are missing"
    k delete pod p --wait=false
    sleep 0.5
    kill_in_node 2 kubelet
    wait_gone pod/p 120
  done
  v=$(volume_of data)
  k delete pvc data --timeout=60s
  wait_gone "nvmenamespace/$v" 90
  until_ok 60 "nothing is left of $v on the nodes" leftovers "$v"
}
in_pod_retry() { # kubectl exec goes through the kubelet, which may just be starting
  local i
  for i in $(seq 20); do
    in_pod "$@" && return
    sleep 1
  done
  die "not within 20 tries: $*"
}

# nothing_was_lost LOG: the writer saw no error, and everything that was acknowledged is there on another node
nothing_was_lost() {
  [ ! -s "$1.err" ] || die "the writer saw an error: $(cat "$1.err")"
  k delete pod writer --timeout=60s
  toolbox writer 3 data
  wait_pod writer 120
  journal_verify writer "$1"
}

# kill_while_writing NODE: the daemon of that node dies five times below a pod on node2 whose volume is on node1
kill_while_writing() {
  local log=$OUT/$ID.acknowledged i
  private_target 1Gi
  volume_pod writer 2 data
  journal_start writer "$log"
  wait_lines "$log" 20
  for i in 1 2 3 4 5; do
    kill_in_node "$1" roadsteadd
    more_lines "$log" 20 90
  done
  nothing_was_lost "$log"
}
dataplane_kill9_fsync() { kill_while_writing 1; }
initiator_kill9() { kill_while_writing 2; }

# The holder on the pod's node stays: it keeps the device.
node_pods_replaced() {
  local log=$OUT/$ID.acknowledged i n pod
  private_target 1Gi
  volume_pod writer 2 data
  journal_start writer "$log"
  wait_lines "$log" 20
  for i in 1 2; do
    for n in 2 1; do
      pod=$(daemon_pod $n)
      k delete pod -n "$NS" "$pod" --timeout=60s
      until_ok 60 "another pod on node$n" another_pod $n "$pod"
      more_lines "$log" 20 90
    done
  done
  nothing_was_lost "$log"
  until_ok 60 "nothing is left of $(volume_of data) on node2" mounts_none 2 "$(volume_of data)"
}
another_pod() { # NODE THAN
  local pod
  pod=$(daemon_pod "$1")
  [ -n "$pod" ] && [ "$pod" != "$2" ] && k wait --for=condition=Ready -n "$NS" "pod/$pod" --timeout=1s
}
mounts_none() { ! node "$1" grep -F "$2" /proc/mounts; } # NODE VOLUME

operator_kill() {
  local i round stop=$OUT/$ID.stop
  private_target 3Gi
  for i in 1 2 3 4 5 6; do pvc "c$i" 64Mi "$ID"; done
  later k delete pvc --all --timeout=90s
  later k delete pod --all --grace-period=0 --timeout=90s
  rm -f "$stop"
  # Wherever it runs: the operator is killed every second until the stop file is there.
  (
    set +x
    while [ ! -e "$stop" ]; do
      for i in 1 2 3; do node $i pkill -KILL -x roadstead-opera || true; done
      sleep 1.5
    done
  ) >/dev/null 2>&1 &
  later touch "$stop"
  for i in 1 2 3 4 5 6; do toolbox "p$i" $((i % 2 + 2)) "c$i"; done
  # With back-off between restarts the operator is away for most of this time; work is done in the moments between.
  sleep 25
  touch "$stop"
  wait
  for i in 1 2 3 4 5 6; do wait_pod "p$i" 240; done
  for i in 1 2 3 4 5 6; do in_pod "p$i" sh -c "echo $i >/data/f; sync"; done
  rm -f "$stop"
  k delete pod --all --grace-period=0 --wait=false
  k delete pvc --all --wait=false
  for round in 1 2 3; do
    for i in 1 2 3; do node $i pkill -KILL -x roadstead-opera || true; done
    sleep "$round"
  done
  until_ok 240 "no volume is left on $ID" no_volume_on "$ID"
}
no_volume_on() { [ -z "$(k get nvmenamespaces -o jsonpath="{.items[?(@.status.target==\"$1\")].metadata.name}")" ]; }

apiserver_down() {
  local log=$OUT/$ID.acknowledged before back
  private_target 1Gi
  volume_pod writer 2 data
  # No kubectl for a minute: the pod's own log, on the node's disk, holds what was acknowledged.
  k delete pod writer --timeout=60s
  k apply -f - <<Y
apiVersion: v1
kind: Pod
metadata: {name: logger}
spec:
  nodeSelector: {kubernetes.io/hostname: node2}
  terminationGracePeriodSeconds: 0
  restartPolicy: Never
  containers:
  - {name: c, image: "$(image_ref toolbox)", imagePullPolicy: IfNotPresent, command: [journal, write, /data/journal], volumeMounts: [{name: v, mountPath: /data}]}
  volumes: [{name: v, persistentVolumeClaim: {claimName: data}}]
Y
  later k delete pod logger --ignore-not-found --timeout=60s
  wait_pod logger
  until_ok 30 "the pod writes" logs_more_than 10
  "$CLUSTER" apiserver stop
  later "$CLUSTER" apiserver start
  sleep 20
  kill_in_node 1 roadsteadd
  sleep 5
  kill_in_node 2 roadsteadd
  sleep 35
  before=$(lines_in_log)
  until_ok 60 "the pod still writes" logs_more_than "$before"
  "$CLUSTER" apiserver start
  back=$(date +%s)
  until_ok 60 "the API server answers" k get --raw /readyz
  # Kubelets come back in their own time; a pod that is started before is evicted.
  until_ok 150 "all nodes are heard again" all_heard "$back"
  [ "$(field pod/logger .status.phase)" = Running ] || die "the writer ended"
  k logs logger >"$log"
  : >"$log.err"
  k delete pod logger --timeout=90s
  toolbox writer 3 data
  wait_pod writer 120
  journal_verify writer "$log"
}

all_heard() { # SINCE: every node is Ready, and has said so since then
  local n renewed
  for n in 1 2 3; do
    renewed=$(field "lease/node$n -n kube-node-lease" .spec.renewTime)
    [ "$(date -d "$renewed" +%s)" -gt "$1" ] || return 1
    condition "node/node$n" Ready | grep -q ^True || return 1
  done
}
lines_in_log() { node 2 sh -c "cat /var/log/pods/${ID}_logger_*/c/0.log" | wc -l; }
logs_more_than() { [ "$(lines_in_log)" -gt "$1" ]; }

connection_cut() {
  local fio out=$OUT/$ID.fio restarted
  private_target 1Gi
  volume_pod writer 2 data 512Mi
  restarted=$(restarts 2)
  kubectl exec writer -- fio --name=v --filename=/data/f --size=64M --rw=randwrite --bs=4k --direct=1 --ioengine=libaio --iodepth=8 \
    --rate_iops=600 --verify=crc32c --verify_fatal=1 --do_verify=1 --verify_state_save=0 --fsync=128 --minimal >"$out" 2>&1 &
  fio=$!
  sleep 3
  "$CLUSTER" node isolate 1
  later "$CLUSTER" node heal 1
  sleep 20
  kill -0 $fio || die "fio ended while the cable was out: $(tail -n 3 "$out")"
  "$CLUSTER" node heal 1
  wait $fio || die "fio failed: $(tail -n 5 "$out")"
  [ "$(restarts 2)" = "$restarted" ] || die "the daemon was restarted"
}

hostile_bytes() {
  local fio out=$OUT/$ID.fio restarted
  private_target 1Gi
  volume_pod writer 2 data 512Mi
  restarted=$(restarts 1)
  kubectl exec writer -- fio --name=v --filename=/data/f --size=64M --rw=randrw --bs=4k --direct=1 --ioengine=libaio --iodepth=8 \
    --time_based --runtime=40 --rate_iops=300 --verify=crc32c --verify_fatal=1 --verify_state_save=0 --minimal >"$out" 2>&1 &
  fio=$!
  python3 "$E2E/hostile.py" "$(node_ip 1)" 4420
  wait $fio || die "fio failed: $(tail -n 5 "$out")"
  [ "$(restarts 1)" = "$restarted" ] || die "the daemon was restarted"
}
