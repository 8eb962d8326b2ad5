# shellcheck shell=bash
# In the guest: the kernel's own target, for our initiator on the machine; one function for each step.
. /usr/local/bin/lib.sh
NQN=nqn.2026-11.io.roadstead:nvmet
T=/sys/kernel/config/nvmet
S=$T/subsystems/$NQN

namespace() { # NSID DEVICE-OR-FILE UUID
  local n=$S/namespaces/$1
  mkdir -p "$n"
  echo -n "$2" >"$n/device_path"
  echo "$3" >"$n/device_uuid"
  if [ -f "$2" ]; then echo 1 >"$n/buffered_io"; fi
  echo 1 >"$n/enable"
}
listen() { ln -s "$S" "$T/ports/$1/subsystems/"; } # PORT: 1 and 2
silence() { rm "$T/ports/$1/subsystems/$NQN"; }    # PORT: its connections end, and it listens no more
ana() { echo "$2" >$T/ports/"$1"/ana_groups/1/ana_state; } # PORT STATE
# serve: namespace 1 with blocks of 4096 bytes (a file), 2 with 512 (a loop device); ports 1 and 2 at TCP 4420 and 4421
serve() {
  local port
  modprobe -a configfs nvmet nvmet-tcp loop
  mount -t configfs none /sys/kernel/config 2>/dev/null || true
  mkdir -p "$S"
  echo 1 >"$S/attr_allow_any_host"
  truncate -s 64M /tmp/1.img /tmp/2.img
  namespace 1 /tmp/1.img 6f1c2b4e-8a55-4f0e-9a57-0d6e2d6f4f31
  namespace 2 "$(losetup -f --show /tmp/2.img)" 6f1c2b4e-8a55-4f0e-9a57-0d6e2d6f4f32
  for port in 1 2; do
    mkdir $T/ports/$port
    echo ipv4 >$T/ports/$port/addr_adrfam
    echo tcp >$T/ports/$port/addr_trtype
    echo 10.0.2.15 >$T/ports/$port/addr_traddr
    echo $((4419 + port)) >$T/ports/$port/addr_trsvcid
    listen $port
  done
}
served() { [ -d "$S/namespaces/2" ] || serve; } # what an earlier check has left is used
grow() { # SIZE: namespace 1
  truncate -s "$1" /tmp/1.img
  echo 1 >"$S/namespaces/1/revalidate_size"
}
