# shellcheck shell=bash
# What the scripts in a virtual machine share.
set -euo pipefail
die() {
  echo "error: $*"
  exit 1
}
# nsof NQN: the block device of its namespace 1. The kernel numbers devices as it finds them, so the NQN decides; fio would
# make a file of a missing device.
nsof() {
  local s d i
  for ((i = 0; i < 100; i++)); do
    for s in /sys/class/nvme-subsystem/*; do
      [ "$(cat "$s/subsysnqn" 2>/dev/null)" = "$1" ] || continue
      for d in "$s"/nvme*n* "$s"/nvme*/nvme*n*; do
        if [ -b "/dev/${d##*/}" ]; then
          echo "/dev/${d##*/}"
          return
        fi
      done
    done
    sleep 0.1
  done
  die "no block device of $1"
}
