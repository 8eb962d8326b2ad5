# shellcheck shell=bash
# In a guest that stays: a daemon attaches a volume of another daemon, and verified I/O runs on the device while either is
# killed and started again. Sourced; every function is called by itself.
. /usr/local/bin/lib.sh
NQN=nqn.2026-11.io.roadstead:restarted
UUID=6f1c2b4e-8a55-4f0e-9a57-0d6e2d6f4f30
S=/run/roadstead/host.sock
RAM_KIB=$((192 * 1024))

target_config() { # SIZE
  cat >/tmp/target.yaml <<Y
stateDir: /tmp/target
socket: /run/roadstead/target.sock
metricsListen: 127.0.0.1:17421
portals: [{address: 127.0.0.1, port: 4420}]
drives: [{name: d, path: /dev/ram0}]
subsystems:
  - nqn: $NQN
    allowAnyHost: true
    namespaces: [{name: v, drive: d, size: $1, uuid: $UUID}]
Y
}
target_start() {
  roadsteadd --config /tmp/target.yaml >>/tmp/target.log 2>&1 &
  TARGET=$!
}
# The daemon that attaches. HOLD=1: under a holder, which starts it again by itself.
host_start() {
  cat >/tmp/host.yaml <<Y
stateDir: /tmp/host
socket: $S
metricsListen: 127.0.0.1:17422
portals: []
drives: []
subsystems: []
Y
  roadsteadd --config /tmp/host.yaml ${HOLD:+--hold} >>/tmp/host.log 2>&1 &
  HOST=$!
}
# The process that serves: the holder's child, if there is a holder.
host_pid() {
  if [ -n "$HOLD" ]; then
    # A process that ends meanwhile makes grep fail.
    { grep -ls "^PPid:[[:space:]]*$HOST\$" /proc/[0-9]*/status || true; } | cut -d/ -f3
  else
    echo "$HOST"
  fi
}
answers() { roadstead --socket $S attachments >/tmp/list 2>&1; }
attached() { answers && grep -q "${DEV:-/dev/}" /tmp/list; }
ios() { awk '{print $1 + $5}' "/sys/block/${DEV##*/}/stat"; }
moved() { [ "$(ios)" -gt "$1" ]; }
goes_on() { # I/O: more than was in flight is done
  eventually 90 moved $(($(ios) + 200))
}
told() { # why it failed
  local status=$?
  [ $status = 0 ] || { tail -n 15 /tmp/host.log /tmp/target.log /tmp/fio && dmesg | tail -n 15; } 2>&1
  exit $status
}
is_gone() { [ -z "$(devices)" ]; }
devices() { # of any method
  ls -d /sys/class/ublk-char/ublkc* 2>/dev/null || true
  grep -l . /sys/block/nbd*/pid /sys/block/loop*/loop/backing_file 2>/dev/null || true
  ls -d /sys/class/nvme/nvme* 2>/dev/null || true
}

# Writes, reads and compares until /tmp/enough is there.
verify() {
  while [ ! -e /tmp/enough ]; do
    verified "$DEV" --name=v --rw=randrw --bs=4k --size=8M --iodepth=16 --verify_backlog=256
    echo pass >>/tmp/passes
  done
}
start_again() { # SIGNAL TIMES: of the daemon that attaches
  local i pid
  for ((i = 0; i < $2; i++)); do
    goes_on
    pid=$(host_pid)
    kill -"$1" "$pid"
    if [ -n "$HOLD" ]; then
      eventually 30 [ ! -e "/proc/$pid" ]
    else
      wait "$pid" 2>/dev/null || true
      host_start
    fi
    eventually 60 attached
    goes_on
  done
}
target_again() {
  goes_on
  kill -KILL "$TARGET"
  wait "$TARGET" 2>/dev/null || true
  target_start
  goes_on
}
grown() { [ "$(blockdev --getsize64 "$DEV" 2>/dev/null || echo 0)" = $((128 << 20)) ]; }
grow() { # the volume, and the device with it
  target_config 128MiB
  kill -HUP "$TARGET"
  if [ "$1" = ublk ]; then
    # Linux 6.12 cannot: the daemon says so, and the size shows after the next attach.
    eventually 20 says_fixed
    roadstead --socket $S detach a
    attach "$1"
  fi
  eventually 20 rescanned
  verified "$DEV" --name=new --rw=write --bs=64k --offset=100M --size=8M
}
says_fixed() { ! roadstead --socket $S rescan a >/tmp/said 2>&1 && grep -q 'until it is attached again' /tmp/said; }
rescanned() { [ "$(roadstead --socket $S rescan a)" = $((128 << 20)) ] && grown; }
attach() { # METHOD
  eventually 30 answers
  eventually 30 roadstead --socket $S attach a --method "$1" --nqn $NQN --uuid $UUID --address 127.0.0.1:4420
  DEV=$(cat /tmp/tried)
  [ -b "$DEV" ] || die "no device: $DEV"
}

# goes_over METHOD: I/O goes on, without an error, over the restarts of either daemon.
goes_over() {
  trap told EXIT
  modprobe -a nvme-tcp ublk_drv nbd fuse loop
  modprobe -r brd # the last check's
  modprobe brd rd_nr=1 rd_size=$RAM_KIB
  rm -rf /tmp/{target,host,enough,passes,fio,list,host.log,target.log}
  mkdir -p /run/roadstead
  HOLD=
  [ "$1" != fuse ] || HOLD=1
  target_config 64MiB
  target_start
  host_start
  attach "$1"
  verify &
  local io=$!
  start_again KILL 3
  start_again TERM 2
  target_again
  kill -0 $io 2>/dev/null || die "the I/O has ended early"
  touch /tmp/enough
  wait $io || die "I/O failed over the restarts: $(tail -n 3 /tmp/fio)"
  [ -s /tmp/passes ] || die "no pass was completed"
  if dmesg | grep -iE 'I/O error|BUG:|Call Trace'; then die "the kernel saw an error"; fi
  grow "$1"
  roadstead --socket $S detach a
  eventually 10 is_gone
  kill -TERM "$HOST" "$TARGET"
  wait "$HOST" "$TARGET" || true
  if grep -qs '^roadstead' /proc/[0-9]*/comm; then die "a process is left"; fi
  echo "$1: $(wc -l </tmp/passes) passes of verified I/O"
}
