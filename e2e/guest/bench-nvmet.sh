#!/bin/bash
# In the guest: the same loads on the kernel's target and on ours, both with a RAM drive, over loopback, in turn. Prints a
# line "row ours theirs" of IOPS for each; only their ratio means anything in an emulated machine.
. /usr/local/bin/lib.sh
NQN=nqn.2026-11.io.roadstead:bench
T=/sys/kernel/config/nvmet
ROUNDS=${1:-3}

theirs() {
  modprobe -a configfs nvmet nvmet-tcp
  mount -t configfs none /sys/kernel/config 2>/dev/null || true
  mkdir -p $T/subsystems/$NQN/namespaces/1
  echo 1 >$T/subsystems/$NQN/attr_allow_any_host
  truncate -s 64M /tmp/drive.img
  cd $T/subsystems/$NQN/namespaces/1 || exit
  echo -n /tmp/drive.img >device_path
  echo 1 >buffered_io
  echo 1 >enable
  mkdir $T/ports/1
  cd $T/ports/1 || exit
  echo ipv4 >addr_adrfam
  echo tcp >addr_trtype
  echo 127.0.0.1 >addr_traddr
  echo 4420 >addr_trsvcid
  ln -s $T/subsystems/$NQN subsystems/
  cd /
}
ours() {
  mkdir -p /tmp/ours
  cat >/tmp/ours/config.yaml <<Y
stateDir: /tmp/ours/state
socket: /tmp/ours/socket
portals: [{address: 127.0.0.1, port: 4421}]
drives: [{name: d, memory: {size: 96MiB}}]
subsystems:
  - {nqn: $NQN, allowAnyHost: true, namespaces: [{name: v, drive: d, size: 64MiB}]}
Y
  taskset -c 0 roadsteadd --config /tmp/ours/config.yaml >/tmp/ours/log 2>&1 &
  for ((i = 0; i < 100; i++)); do
    if (exec 3<>/dev/tcp/127.0.0.1/4421) 2>/dev/null; then return; fi
    sleep 0.1
  done
  die "roadsteadd does not listen: $(cat /tmp/ours/log)"
}
iops() { # PORT ARGUMENT...
  local port=$1
  shift
  taskset -c 1 roadstead -o json bench -c 127.0.0.1:"$port" -n $NQN --ramp 0.3 -T 1.5 --ctrl-loss 5 "$@" | sed -E 's/.*"iops":([0-9.]+).*/\1/'
}

ip link set lo up
theirs
ours
for port in 4420 4421; do iops $port --rw write --block-size 128k -q 8 --verify >/dev/null; done
for ((round = 0; round < ROUNDS; round++)); do
  while read -r name arguments; do
    # shellcheck disable=SC2086 # several arguments
    echo "row $name $(iops 4421 $arguments) $(iops 4420 $arguments)"
  done <<'ROWS'
4K_random_read_q1 --rw randread -q 1
4K_random_read_q32 --rw randread -q 32
4K_random_write_q32 --rw randwrite -q 32
128K_read_q8 --rw read -q 8 --block-size 128k
128K_write_q8 --rw write -q 8 --block-size 128k
ROWS
done
