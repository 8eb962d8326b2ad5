#!/bin/bash
# A stock Linux kernel in a virtual machine uses a stand-alone roadsteadd: discovery, connect, verified I/O, a file system.
NEEDS=vm
. "$E2E/lib/standalone.sh"
check verify "nvme discover and connect, fio with crc32c, discard, ext4 and a checksum, disconnect." 240
check daemon-killed "kill -9 of the daemon during writes with fsync: after its restart the host goes on, without an error." 240

# docs/examples/standalone.yaml as it is, but for the places of its state.
verify() {
  rm -rf "$SA"
  later standalone_stop
  standalone_start "$ROOT/docs/examples/standalone.yaml" --state-dir "$SA/state" --socket "$SA/roadsteadd.sock"
  guest kernel-host.sh
}

daemon_killed() {
  local share=$OUT/share vm
  rm -rf "$SA" "$share"
  mkdir -p "$SA" "$share"
  standalone_config "file: {path: $SA/drive.img, size: 1GiB}" 256MiB >"$SA/config.yaml"
  later standalone_stop
  standalone_start "$SA/config.yaml"
  guest daemon-killed.sh -s "$share" &
  vm=$!
  until_ok 120 "the guest writes" test -e "$share/running"
  local i
  for i in 1 2 3; do
    sleep 3 # let it write for a while: the moment of the kill is meant to be any
    standalone_stop KILL
    standalone_start "$SA/config.yaml"
  done
  touch "$share/restarted"
  wait $vm
}
