# shellcheck shell=bash
# In two guests that are joined by two Ethernets, one with RoCE (eth1, 10.7.0.x) and one for TCP (eth2, 10.8.0.x): the
# target, .1, with a daemon of ours, and a host with a stock kernel, .2. One function for each step.
. /usr/local/bin/lib.sh
. /usr/local/bin/rxe.sh
NQN=nqn.2026-11.io.roadstead:roce
ROCE=10.7.0.1
TCP=10.8.0.1

network() { # NUMBER: this guest's
  local i
  for i in eth1:10.7.0 eth2:10.8.0; do
    ip addr replace "${i#*:}.$1/24" dev "${i%:*}"
    # The largest frames that carry RoCE packets of 4096 bytes.
    ip link set "${i%:*}" mtu 4500 up
  done
  rxe_up eth1
}

# serve [LINE OF YAML...]: a new daemon, with a namespace of either block size; the lines are portals
serve() {
  network 1
  modprobe null_blk nr_devices=1 memory_backed=1 gb=1 bs=512
  rm -rf /tmp/state
  # What an earlier daemon wrote there: labels are at both ends.
  dd if=/dev/zero of=/dev/nullb0 bs=1M count=4 conv=fsync status=none
  dd if=/dev/zero of=/dev/nullb0 bs=1M seek=1020 count=4 conv=fsync status=none
  {
    echo "stateDir: /tmp/state"
    echo "portals:"
    printf '  - {%s}\n' "$@"
    cat <<Y
drives: [{name: d, path: /dev/nullb0}]
subsystems:
  - nqn: $NQN
    allowAnyHost: true
    namespaces:
      - {name: a, drive: d, size: 256MiB, uuid: 6f1c2b4e-8a55-4f0e-9a57-0d6e2d6f4f20}
      - {name: b, drive: d, size: 64MiB, blockSize: 512}
Y
  } >/tmp/config.yaml
  run_daemon
}
run_daemon() { # [CONDITION]: until it holds
  RUST_LOG=info,roadsteadd::serve=debug roadsteadd --config /tmp/config.yaml >>/tmp/daemon.log 2>&1 &
  echo $! >/tmp/daemon.pid
  eventually 30 "${1:-serves}"
}
# attached: a daemon that serves nothing makes a device of namespace a, by the kernel's host, over both transports
attached() {
  modprobe -a nvme-tcp nvme-rdma ib_uverbs rdma_ucm
  if ! answers; then
    rm -rf /tmp/state
    printf '%s\n' "stateDir: /tmp/state" "portals: []" "drives: []" "subsystems: []" >/tmp/config.yaml
    run_daemon answers
  fi
  roadstead --socket /run/roadstead/roadsteadd.sock attach --method kernel a --nqn $NQN \
    --uuid 6f1c2b4e-8a55-4f0e-9a57-0d6e2d6f4f20 --address rdma:$ROCE:4420 --address $TCP:4420
}
detached() { roadstead --socket /run/roadstead/roadsteadd.sock detach a; }
answers() { roadstead --socket /run/roadstead/roadsteadd.sock attachments; }
serves() { roadstead --socket /run/roadstead/roadsteadd.sock status; }
daemon_killed() { kill -KILL "$(cat /tmp/daemon.pid)"; }
daemon_log() { tail -n 40 /tmp/daemon.log; }
grow() { # namespace a, to 300 MiB, under connected hosts
  sed -i 's/size: 256MiB/size: 300MiB/' /tmp/config.yaml
  kill -HUP "$(cat /tmp/daemon.pid)"
}
pairs() { rdma resource show qp | grep -c "type RC"; } # connected queue pairs: all are the daemon's
are_pairs() { [ "$(pairs)" = "$1" ]; }
has_pairs() { eventually 20 are_pairs "$1"; } # NUMBER
# cut ADDRESS: what is sent there over RoCE's Ethernet arrives nowhere, as with a cable that is pulled behind the switch.
# (The soft device does not survive that its own interface is taken down: its queue pair for connections stays in error.)
cut() { ip neigh replace "$1" lladdr 02:00:00:00:00:99 dev eth1 nud permanent; }
mended() { ip neigh del "$1" dev eth1; }

# connect TRANSPORT ADDRESS [ARGUMENT...]
connect() {
  local transport=$1 address=$2
  shift 2
  modprobe -a nvme-tcp nvme-rdma
  nvme connect -t "$transport" -a "$address" -s 4420 -n $NQN -i 2 --reconnect-delay=1 --keep-alive-tmo=4 --ctrl-loss-tmo=300 "$@"
  nsof $NQN 1
}
connect_all() { # once for each transport: it connects no other than that by which it asks
  modprobe -a nvme-tcp nvme-rdma
  nvme connect-all -t rdma -a $ROCE -s 4420 -i 2 --reconnect-delay=1 --keep-alive-tmo=4 --ctrl-loss-tmo=300
  nvme connect-all -t tcp -a $TCP -s 4420 -i 2 --reconnect-delay=1 --keep-alive-tmo=4 --ctrl-loss-tmo=300
  nsof $NQN 1
}
discovered() { # the discovery service names both transports, over RoCE
  modprobe nvme-rdma
  prints 'trtype: +rdma' nvme discover -t rdma -a $ROCE -s 4420
  printed 'trtype: +tcp' 'rdma_prtype' "$NQN"
}
# grown: the host hears of it by itself. With its seldom keep-alive nothing else goes over the admin queue.
has_size() { [ "$(blockdev --getsize64 "$(nsof $NQN 1)")" = $((300 << 20)) ]; }
grown() { eventually 10 has_size; }
every_size() {
  local d bs size
  for nsid in 1 2; do
    d=$(nsof $NQN $nsid)
    for bs in 512 4k 16k 128k 1m 4m; do
      if [ $nsid = 1 ] && [ $bs = 512 ]; then continue; fi
      case $bs in *m) size=8m ;; 128k) size=1m ;; *) size=128k ;; esac
      verified "$d" --name=size --rw=randrw --bs=$bs --size=$size --iodepth=4
    done
  done
}
every_depth() {
  local q d
  d=$(nsof $NQN 1)
  for q in 1 32 128; do verified "$d" --name=depth --rw=randrw --bs=4k --size=$((q > 1 ? 4096 : 512))k --iodepth=$q; done
}
other_commands() { # what has no data, or little
  local d
  d=$(nsof $NQN 1)
  blkdiscard -z -o 0 -l 1m "$d"
  blkdiscard -o 0 -l 1m "$d"
  prints '^ *sn' nvme id-ctrl "$d"
  prints 'data_units_read|Data Units Read' nvme smart-log "$d"
  refused 'COMPARE|Compare' nvme compare "$d" -s 0 -c 0 -z 4096 -d <(head -c 4096 /dev/urandom)
}
# io: verified I/O, again and again, until /host/enough is there
io() {
  local d i
  d=$(nsof $NQN 1)
  rm -f /host/enough
  touch /host/running
  for ((i = 1; i < 200; i++)); do
    verified "$d" --name=cuts --rw=randrw --bs=4k --size=4M --iodepth=8 --rate_iops=400 --verify_backlog=256 --randseed=$i
    if [ -e /host/enough ]; then break; fi
  done
  if dmesg | grep -E 'I/O error'; then die "the kernel saw an I/O error"; fi
  echo "$i rounds"
}
controller() { # TRANSPORT: its directory in /sys
  local c
  for c in /sys/class/nvme/nvme*; do
    if [ "$(cat "$c/transport")" = "$1" ] && [ "$(cat "$c/subsysnqn")" = $NQN ]; then
      echo "$c"
      return
    fi
  done
  die "no controller over $1"
}
state_is() { [ "$(cat "$(controller "$1")/state")" = "$2" ]; } # TRANSPORT STATE
is_live() { eventually 60 state_is "$1" live; }
is_lost() { eventually 60 state_is "$1" connecting; }
path_of() { # TRANSPORT: the path of namespace 1
  local n
  for n in "$(controller "$1")"/nvme*c*n*; do
    if [ "$(cat "$n/nsid")" = 1 ]; then echo "$n"; fi
  done
}
writes() { awk '{print $5}' "$(path_of "$1")/stat"; }
used() { # TRANSPORT
  local before
  before=$(writes "$1")
  sleep 0.5
  [ "$(writes "$1")" -gt "$before" ]
}
unused() { ! used "$1"; }
is_used() { eventually 60 used "$1"; }
is_unused() { eventually 60 unused "$1"; }

# The kernel's own target, in place of our daemon, on the same Ethernets at port 4421.
NVMET_NQN=nqn.2026-11.io.roadstead:nvmet
T=/sys/kernel/config/nvmet
nvmet_serve() { # namespace 1 with blocks of 4096 bytes (a file), 2 with 512 (a block device)
  local s=$T/subsystems/$NVMET_NQN nsid transport address
  if [ -d "$s" ]; then return; fi
  network 1
  modprobe -a configfs nvmet nvmet-tcp nvmet-rdma loop
  mount -t configfs none /sys/kernel/config 2>/dev/null || true
  mkdir -p "$s"
  echo 1 >"$s/attr_allow_any_host"
  truncate -s 64M /tmp/1.img /tmp/2.img
  for nsid in 1 2; do
    mkdir "$s/namespaces/$nsid"
    if [ $nsid = 1 ]; then echo -n /tmp/1.img; else echo -n "$(losetup -f --show /tmp/2.img)"; fi >"$s/namespaces/$nsid/device_path"
    if [ $nsid = 1 ]; then echo 1 >"$s/namespaces/$nsid/buffered_io"; fi
    echo 1 >"$s/namespaces/$nsid/enable"
  done
  for transport in rdma:$ROCE tcp:$TCP; do
    address=${transport#*:} transport=${transport%:*}
    mkdir "$T/ports/${#transport}"
    echo ipv4 >"$T/ports/${#transport}/addr_adrfam"
    echo "$transport" >"$T/ports/${#transport}/addr_trtype"
    echo "$address" >"$T/ports/${#transport}/addr_traddr"
    echo 4421 >"$T/ports/${#transport}/addr_trsvcid"
    nvmet_listens "$transport"
  done
}
nvmet_listens() { ln -s "$T/subsystems/$NVMET_NQN" "$T/ports/${#1}/subsystems/"; }  # TRANSPORT
nvmet_is_silent() { rm "$T/ports/${#1}/subsystems/$NVMET_NQN"; } # TRANSPORT: its connections end, and it listens no more

# bench PORTALS NQN ARGUMENT...: our initiator, which reads back all that it has written; JSON
bench() {
  rm -f /host/running
  modprobe -a ib_uverbs rdma_ucm
  RUST_LOG=info roadstead -o json bench --connect "$1" --nqn "$2" --rw randrw --mix 40 --verify --sleep --ramp 0 "${@:3}" >/tmp/bench.json 2>/tmp/bench.log &
  echo $! >/tmp/bench.pid
  touch /host/running
  wait $! || true
  cat /tmp/bench.json
  if [ ! -s /tmp/bench.json ]; then die "no result: $(tail -n 5 /tmp/bench.log)"; fi
}
bench_ends() { kill -INT "$(cat /tmp/bench.pid)"; }
bench_log() { cat /tmp/bench.log; }
# over_tcp: requests go over TCP, more than Keep Alives
tcp_bytes() { cat /sys/class/net/eth2/statistics/tx_bytes; }
over_tcp() {
  local before
  before=$(tcp_bytes)
  sleep 0.5
  [ "$(tcp_bytes)" -gt $((before + 8000)) ]
}
not_over_tcp() { ! over_tcp; }
goes_over_tcp() { eventually 30 over_tcp; }
leaves_tcp() { eventually 60 not_over_tcp; }
# load: verified I/O on the kernel's device until load_ends; prints fio's JSON and, on the last line, its longest stall in ms
load() {
  rm -f /host/running /tmp/lat*
  fio --name=load --filename="$(nsof $NQN 1)" --direct=1 --ioengine=io_uring --verify=crc32c --verify_fatal=1 --verify_backlog=256 \
    --rw=randrw --bs=4k --size=4M --iodepth=8 --rate_iops=200 --loops=1000000 --write_lat_log=/tmp/lat --output-format=json --output=/tmp/fio.json >/dev/null &
  echo $! >/tmp/fio.pid
  touch /host/running
  wait $! || true
  cat /tmp/fio.json
  sort -n /tmp/lat_lat.1.log | awk -F, 'NR > 1 && $1 - last > most {most = $1 - last} {last = $1} END {print most + 0}'
}
load_ends() { kill -INT "$(cat /tmp/fio.pid)"; }
# found PORTAL LIKE...: the discovery service there, asked by our command, prints lines like these
found() { prints "" roadstead discover "$1" --host-nqn nqn.2026-11.io.roadstead:guest && printed "${@:2}"; }
ends() { prints 'disconnected [1-9]' nvme disconnect -n $NQN; }
kernel_is_calm() { if dmesg | grep -E 'I/O error|BUG:|Call Trace'; then die "the kernel complains"; fi; }

# What a load costs on the target: CPU time of the guest, and in a run of its own, as counting costs time, too, what is asked of the
# RDMA device and of the kernel.
serve_memory() { # our daemon, with as much memory as nvmet's file
  network 1
  cat >/tmp/config.yaml <<Y
stateDir: /tmp/memory-state
portals: [{address: $ROCE, port: 4420, transport: rdma}]
drives: [{name: d, memory: {size: 96MiB}}]
subsystems: [{nqn: $NQN, allowAnyHost: true, namespaces: [{name: a, drive: d, size: 64MiB}]}]
Y
  run_daemon
}
TRACING=/sys/kernel/tracing
counting() { # from now on
  mount -t tracefs none $TRACING 2>/dev/null || true
  echo 0 >$TRACING/events/kprobes/enable 2>/dev/null || true
  printf '%s\n' 'p:doorbells rxe_post_send' 'p:requests do_complete' >$TRACING/kprobe_events
  echo 1 >$TRACING/events/kprobes/enable
  echo 'hist:keys=common_pid' >$TRACING/events/raw_syscalls/sys_enter/trigger
}
counted() { # since then: work requests of send queues, batches of them, system calls of the daemon; JSON
  local tasks
  echo 0 >$TRACING/events/kprobes/enable
  tasks=$(cd "/proc/$(cat /tmp/daemon.pid)/task" && echo *)
  awk '{n[$1] = $2} END {printf "{\"requests\": %d, \"doorbells\": %d, ", n["requests"], n["doorbells"]}' $TRACING/kprobe_profile
  awk -v tasks="$tasks" 'BEGIN {split(tasks, t, " "); for (i in t) is[t[i]] = 1}
    {gsub(/[{},:]/, " "); for (i = 1; i < NF; i++) if ($i == "common_pid" && is[$(i + 1)]) sum += $NF}
    END {printf "\"syscalls\": %d}\n", sum}' $TRACING/events/raw_syscalls/sys_enter/hist
  echo '!hist:keys=common_pid' >$TRACING/events/raw_syscalls/sys_enter/trigger
}
busy_ticks() { awk '/^cpu / {print $2 + $3 + $4 + $7 + $8}' /proc/stat; } # of all CPUs, 100 a second
load_for() { # SECONDS PORTAL NQN ARGUMENT...: JSON
  modprobe -a ib_uverbs rdma_ucm
  roadstead -o json bench --connect "$2" --nqn "$3" --nsid 1 --sleep --ramp 0 -T "$1" "${@:4}"
}
