# shellcheck shell=bash
# A stand-alone roadsteadd on this machine, for hosts in virtual machines. After common.sh.

SA=$OUT/standalone # state, socket, log and drives of the daemon
DAEMON=

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
  until_ok 20 "roadsteadd listens on 127.0.0.1:4420 (log: $SA/log)" listens
}
listens() {
  kill -0 "$DAEMON" || return 1
  (exec 3<>/dev/tcp/127.0.0.1/4420) 2>/dev/null
}
standalone_stop() { # [SIGNAL]
  kill -"${1:-TERM}" "$DAEMON" 2>/dev/null || true
  wait "$DAEMON" 2>/dev/null || true
}

# guest SCRIPT [OPTION OF vm.sh...]: runs e2e/guest/SCRIPT in a virtual machine with a stock kernel
guest() {
  local script=$1
  shift
  "$E2E/vm.sh" -c 1 -m 1024 -a "$E2E/guest/lib.sh" "$@" "$E2E/guest/$script"
}
