# shellcheck shell=bash
# In the guest: one volume over two portals of a daemon on the machine, 198.51.100.1 and .2; one function for each step.
. /usr/local/bin/lib.sh
NQN=nqn.2026-11.io.roadstead:lab
modprobe nvme-tcp

# controller ADDRESS: its directory in /sys
controller() {
  local c
  for c in /sys/class/nvme/nvme*; do
    if grep -q "traddr=$1," "$c/address" && [ "$(cat "$c/subsysnqn")" = $NQN ]; then
      echo "$c"
      return
    fi
  done
  die "no controller at $1"
}
state_is() { [ "$(cat "$(controller "$1")/state")" = "$2" ]; } # ADDRESS STATE
path_of() { # ADDRESS: the path of namespace 1 there
  local n
  for n in "$(controller "$1")"/nvme*c*n*; do
    if [ "$(cat "$n/nsid")" = 1 ]; then echo "$n"; fi
  done
}
# writes ADDRESS: how many were sent there
writes() { awk '{print $5}' "$(path_of "$1")/stat"; }
# used ADDRESS: writes go there
used() {
  local before
  before=$(writes "$1")
  sleep 0.5
  [ "$(writes "$1")" -gt "$before" ]
}
unused() { ! used "$1"; }

# both_paths [ARGUMENT...]: one device over two controllers
both_paths() {
  local a
  for a in 198.51.100.1 198.51.100.2; do
    nvme connect -t tcp -a $a -s 4420 -n $NQN -i 1 --reconnect-delay=1 --keep-alive-tmo=2 --ctrl-loss-tmo=300 "$@"
  done
  nsof $NQN 1
  eventually 10 state_is 198.51.100.1 live
  eventually 10 state_is 198.51.100.2 live
  prints "$NQN" nvme list-subsys
  printed '198\.51\.100\.1.*live' '198\.51\.100\.2.*live'
}
policy() { # numa, round-robin, ...
  local s
  for s in /sys/class/nvme-subsystem/*; do
    if [ "$(cat "$s/subsysnqn")" = $NQN ]; then echo "$1" >"$s/iopolicy"; fi
  done
}
# io: verified writes, again and again, until /host/enough is there
io() {
  local d i
  d=$(nsof $NQN 1)
  rm -f /host/enough
  touch /host/running
  for ((i = 1; i < 100; i++)); do
    verified "$d" --name=paths --rw=randwrite --bs=4k --size=4M --iodepth=8 --rate_iops=800 --verify_backlog=512 --fsync=64 --randseed=$i
    if [ -e /host/enough ]; then break; fi
  done
  if dmesg | grep -E 'I/O error'; then die "the kernel saw an I/O error"; fi
  echo "$i rounds"
}
cut() { ip route add blackhole "$1/32"; } # ADDRESS: nothing that is sent there arrives
mended() { ip route del blackhole "$1/32"; }
is_used() { eventually 10 used "$1"; }
is_unused() { eventually 10 unused "$1"; }
is_live() { eventually 15 state_is "$1" live; }
is_lost() { eventually 15 state_is "$1" connecting; }
has_ana() { [ "$(cat "$(path_of "$1")/ana_state")" = "$2" ]; }
ana_is() { eventually 10 has_ana "$1" "$2"; } # ADDRESS STATE
ends() { prints 'disconnected 2 controller' nvme disconnect -n $NQN; }
