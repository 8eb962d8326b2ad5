#!/bin/bash
# Stock kernels as hosts (Debian's bookworm, trixie and forky) against a stand-alone roadsteadd: nvme-cli's commands, verified I/O, changes.
NEEDS=vm
. "$E2E/lib/standalone.sh"
for kernel in $VM_SUITES; do
  check "$kernel-discovery" "$kernel: nvme discover and connect-all; records, generation counter, a persistent discovery controller."
  check "$kernel-admin" "$kernel: Identify, log pages, features, properties, reset: what nvme-cli prints of them."
  check "$kernel-commands" "$kernel: read, write, write-zeroes, dsm, flush: the data, and the status of what must fail."
  check "$kernel-optional" "$kernel: Compare, Verify and Copy: the data, and the status of what must fail."
  check "$kernel-reservations" "$kernel: two hosts with reservations: register, acquire, conflict, preempt, release; they outlive a kill -9 of the daemon."
  check "$kernel-digests" "$kernel: fio with checksums over header digests, data digests and both."
  check "$kernel-sizes" "$kernel: fio with checksums, every block size from 512 bytes to 4 MiB, blocks of 512 and 4096 bytes."
  check "$kernel-changes" "$kernel: namespaces appear, grow and go while it is connected; nothing is rescanned by hand."
  check "$kernel-killed" "$kernel: kill -9 of the daemon during verified I/O: after its restart the host goes on, without an error."
  for part in discovery admin commands optional digests sizes; do eval "${kernel}_$part() { matrix $kernel; matrix_guest $part; }"; done
  for part in changes killed reservations; do eval "${kernel}_$part() { matrix $kernel; matrix_$part; }"; done
done
scenario_end() { guest_down; }

# shellcheck disable=SC2046 # several words
matrix() { lab; guest_up "$1" $(vm_suite "$1"); } # KERNEL: with a new daemon and this kernel's guest
matrix_guest() { guest_check kernel-matrix.sh "$@"; } # FUNCTION [ARGUMENT...]

matrix_changes() {
  matrix_guest connected
  lab_reload "{name: c, drive: d, size: 16MiB, blockSize: 512}"
  matrix_guest appeared 3 $((16 << 20)) 512
  lab_reload "{name: c, drive: d, size: 48MiB, blockSize: 512}"
  matrix_guest appeared 3 $((48 << 20)) 512
  matrix_guest grown_is_usable 3
  lab_reload
  matrix_guest went 3
  matrix_guest unharmed
}

matrix_reservations() {
  matrix_guest reservations
  standalone_stop KILL
  standalone_start "$SA/config.yaml"
  matrix_guest reservations_after_restart
}

matrix_killed() {
  local io i
  matrix_guest connected
  (matrix_guest io_over_restarts) &
  io=$!
  until_ok 60 "the guest writes" test -e "$GUEST/running"
  for i in 1 2; do
    sleep 1.5 # the moment of the kill is meant to be any
    standalone_stop KILL
    standalone_start "$SA/config.yaml"
  done
  touch "$GUEST/restarted"
  wait $io
}
