# shellcheck shell=bash
# A stand-alone roadsteadd on this machine and virtual machines with stock kernels beside it. After common.sh.

SA=$OUT/standalone # state, socket, log and drives of the daemon
DAEMON=
PORTAL=127.0.0.1 # where it must answer, at port 4420

# standalone_config DRIVE-LINE [SIZE] [NQN]: a configuration with one drive (a line of YAML) and one namespace of that size
standalone_config() {
  cat <<Y
reactors: 1
stateDir: $SA/state
socket: $SA/roadsteadd.sock
metricsListen: 127.0.0.1:17421
portals: [{address: 127.0.0.1, port: 4420}]
drives:
  - {name: d, $1}
subsystems:
  - nqn: ${3:-nqn.2026-11.io.roadstead:e2e}
    allowAnyHost: true
    namespaces: [{name: v, drive: d, size: ${2:-512MiB}}]
Y
}
standalone_start() { # CONFIG-FILE [ARGUMENT...]
  local file=$1
  shift
  mkdir -p "$SA"
  "$TARGET/$PROFILE/roadsteadd" --config "$file" "$@" >>"$SA/log" 2>&1 &
  DAEMON=$!
  until_ok 20 "roadsteadd listens on $PORTAL:4420 (log: $SA/log)" listens
}
listens() {
  kill -0 "$DAEMON" || return 1
  (exec 3<>"/dev/tcp/$PORTAL/4420") 2>/dev/null
}
standalone_stop() { # [SIGNAL]
  kill -"${1:-TERM}" "$DAEMON" 2>/dev/null || true
  wait "$DAEMON" 2>/dev/null || true
}

# The daemon that the kernels' hosts are tried against: a subsystem with a namespace of either block size.
LAB_NQN=nqn.2026-11.io.roadstead:lab
# Guests reach every address of the machine but 127.0.0.1, which is their own. These are of RFC 5737's, for examples.
LAB_PORTALS=("address: 198.51.100.1" "address: 198.51.100.2") # fields of YAML
# lab_config [LINE OF YAML...]: the lines are namespaces more
lab_config() {
  printf '%s\n' "reactors: 1" "stateDir: $SA/state" "socket: $SA/roadsteadd.sock" "portals:"
  printf '  - {%s, port: 4420}\n' "${LAB_PORTALS[@]}"
  cat <<Y
drives:
  - {name: d, file: {path: $SA/drive.img, size: 1GiB}}
subsystems:
  - nqn: $LAB_NQN
    allowAnyHost: true
    serial: LAB
    namespaces:
      - {name: a, drive: d, size: 64MiB, uuid: 6f1c2b4e-8a55-4f0e-9a57-0d6e2d6f4f20}
      - {name: b, drive: d, size: 64MiB, blockSize: 512}
Y
  [ $# = 0 ] || printf '      - %s\n' "$@"
}
lab() { # a new one
  local a
  PORTAL=198.51.100.1
  for a in 198.51.100.1 198.51.100.2; do
    ip addr replace "$a/32" dev lo
    later ip addr del "$a/32" dev lo
  done
  rm -rf "$SA"
  mkdir -p "$SA"
  lab_config >"$SA/config.yaml"
  later standalone_stop
  standalone_start "$SA/config.yaml"
}
lab_reload() { # [LINE OF YAML...]
  lab_config "$@" >"$SA/config.yaml"
  kill -HUP "$DAEMON"
}

# guest SCRIPT [OPTION OF vm.sh...]: runs e2e/guest/SCRIPT in a virtual machine with a stock kernel
guest() {
  local script=$1
  shift
  "$E2E/vm.sh" -c 1 -m 1024 -a "$E2E/guest/lib.sh" "$@" "$E2E/guest/$script"
}

# A guest that stays for several checks, one at a time: the first check that needs it boots it, `guest_down` ends it.
# GUEST is its directory, shared with it as /host. Scenarios of the cluster run beside those of virtual machines.
GUESTS=$OUT/guests-$NEEDS
GUEST_SECONDS_MAX=1200 # of its life
guest_up() { # NAME [OPTION OF vm.sh...]
  GUEST=$GUESTS/$1
  if guest_is_there; then return; fi
  guest_down
  guest_boot "$@"
  guest_booted
}
guest_is_there() { # and is as new
  [ -e "$GUEST/up" ] && guest_lives && (IN_GUEST_SECONDS=40 in_guest '. /usr/local/bin/lib.sh; as_new')
}
guest_boot() { # NAME [OPTION OF vm.sh...]: begins to boot it
  GUEST=$GUESTS/$1
  shift
  mkdir -p "$GUEST"
  # In a session of its own: it outlives this check, whatever becomes of it.
  # The cluster's emulated node, beside it in `make test`, waits for less.
  setsid nice -n 5 "$E2E/vm.sh" -c 2 -m 1024 -t $GUEST_SECONDS_MAX -s "$GUEST" -a "$E2E/guest/lib.sh" "$@" "$E2E/guest/agent.sh" >"$GUEST/log" 2>&1 </dev/null &
  echo $! >"$GUEST/pid"
}
guest_booted() { until_ok 240 "the guest has booted ($GUEST/log)" test -e "$GUEST/up"; }
guest_lives() { kill -0 "$(cat "$GUEST/pid")" 2>/dev/null; }
guest_down() { # ends every guest of this kind
  local d pid i
  for d in "$GUESTS"/*/; do
    if pid=$(cat "$d/pid" 2>/dev/null) && kill -0 "$pid" 2>/dev/null; then
      touch "$d/down"
      for ((i = 0; i < 50; i++)); do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
      done
      kill "$pid" 2>/dev/null || true
    fi
  done
  rm -rf "$GUESTS"
}
# in_guest TEXT: runs this bash script there, prints what it prints and has its status.
in_guest() {
  local n end=$((SECONDS + ${IN_GUEST_SECONDS:-300}))
  # The number is taken by making the file's place: two may run at once.
  for ((n = 1; ; n++)); do if mkdir "$GUEST/$n" 2>/dev/null; then break; fi; done
  echo "$1" >"$GUEST/$n/sh"
  mv "$GUEST/$n/sh" "$GUEST/$n.sh"
  until [ -e "$GUEST/$n.status" ]; do
    guest_lives || die "the guest has ended: $(tail -n 30 "$GUEST/log")"
    [ $SECONDS -lt $end ] || die "the guest does not end this in time; it printed: $(tail -n 30 "$GUEST/$n.out")"
    sleep 0.1
  done
  cat "$GUEST/$n.out"
  return "$(cat "$GUEST/$n.status")"
}
# guest_check SCRIPT FUNCTION [ARGUMENT...]: calls a function of e2e/guest/SCRIPT in the guest
guest_check() {
  cp "$E2E/guest/$1" "$GUEST/$1"
  in_guest ". /host/$1; ${*:2}"
}
