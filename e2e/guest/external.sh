# shellcheck shell=bash
# In a guest on the cluster's network: the kernel's own target as a foreign appliance; one function for each step.
# shellcheck source=nvmet.sh
. /usr/local/bin/nvmet.sh
NQN=nqn.2014-08.com.example:array
S=$T/subsystems/$NQN
NONE=00000000-0000-0000-0000-000000000000

# names NSID UUID NGUID: of a namespace of 160 MiB in a file; a name of zeroes is none
names() {
  local n=$S/namespaces/$1
  if [ -d "$n" ]; then echo 0 >"$n/enable"; fi
  mkdir -p "$n"
  [ -e "/tmp/$1.img" ] || truncate -s 160M "/tmp/$1.img"
  echo -n "/tmp/$1.img" >"$n/device_path"
  echo "$2" >"$n/device_uuid"
  echo "$3" >"$n/device_nguid"
  echo 1 >"$n/buffered_io"
  echo 1 >"$n/enable"
}
named() { # as it is served
  names 1 6f1c2b4e-8a55-4f0e-9a57-0d6e2d6f4f41 6f1c2b4e8a554f0e9a570d6e2d6f4f51
  names 2 $NONE 6f1c2b4e8a554f0e9a570d6e2d6f4f52
  names 3 $NONE $NONE
}
serve() { # ADDRESS: at TCP 4420 and 4421
  local port
  ip addr replace "$1/24" dev eth1
  ip link set eth1 up
  modprobe -a configfs nvmet nvmet-tcp
  mount -t configfs none /sys/kernel/config 2>/dev/null || true
  mkdir -p "$S"
  for port in 1 2; do
    mkdir "$T/ports/$port"
    echo ipv4 >"$T/ports/$port/addr_adrfam"
    echo tcp >"$T/ports/$port/addr_trtype"
    echo "$1" >"$T/ports/$port/addr_traddr"
    echo $((4419 + port)) >"$T/ports/$port/addr_trsvcid"
  done
}
# as_at_first ADDRESS: whatever an earlier check has left
as_at_first() {
  local port
  [ -d "$S" ] || serve "$1"
  # Not while hosts are named.
  rm -f "$S"/allowed_hosts/*
  echo 1 >"$S/attr_allow_any_host"
  named
  for port in 1 2; do
    [ -e "$T/ports/$port/subsystems/$NQN" ] || listen $port
  done
}
# only HOST-NQN: lets in that host and no other
only() {
  mkdir -p "$T/hosts/$1"
  echo 0 >"$S/attr_allow_any_host"
  [ -e "$S/allowed_hosts/$1" ] || ln -s "$T/hosts/$1" "$S/allowed_hosts/"
}
# demand HOST-NQN KEY GROUP [CONTROLLER-KEY]: lets in that host alone, if it has the key; the target proves itself by the other one
demand() {
  local host=$T/hosts/$1
  only "$1"
  echo -n "$2" >"$host/dhchap_key"
  echo -n 'hmac(sha256)' >"$host/dhchap_hash"
  echo -n "$3" >"$host/dhchap_dhgroup"
  if [ $# -gt 3 ]; then echo -n "$4" >"$host/dhchap_ctrl_key"; fi
}
holds() { tr -d '\000' <"/tmp/$1.img" | grep -F "$2" >/dev/null; } # NSID TEXT: it is in the namespace's data
grown() { # NSID SIZE
  truncate -s "$2" "/tmp/$1.img"
  echo 1 >"$S/namespaces/$1/revalidate_size"
}
