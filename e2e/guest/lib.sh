# shellcheck shell=bash
# What the scripts in a virtual machine share.
set -euo pipefail
die() {
  echo "error: $*"
  exit 1
}
# as_new: as after the boot, without controllers and programs of an earlier check
as_new() {
  rm -f /host/running /host/enough /host/restarted
  # shellcheck disable=SC2046 # several
  kill -KILL $(pidof fio) 2>/dev/null || true
  timeout 30 nvme disconnect-all >/dev/null 2>&1
  if grep -qs N /sys/module/nvme_core/parameters/multipath; then modprobe -r nvme-tcp nvme-fabrics nvme-core; fi
  # shellcheck disable=SC2046 # several
  kill -KILL $(pidof roadsteadd) 2>/dev/null || true
  dmesg -c >/dev/null
}
# prints REGEX COMMAND...: the command succeeds and prints a line like that; the output stays in /tmp/printed.
prints() {
  local like=$1
  shift
  echo "+ $*"
  "$@" >/tmp/printed 2>&1 || die "$* failed with $?: $(tail -n 20 /tmp/printed)"
  printed "$like"
}
# printed REGEX...: it printed such lines, too (versions of nvme-cli differ in capitals)
printed() {
  local like
  for like; do [ -z "$like" ] || grep -qiE -- "$like" <(tr '\t' ' ' </tmp/printed) || die "no line like /$like/ in: $(cat /tmp/printed)"; done
}
# refused REGEX COMMAND...: the command fails and says that
refused() {
  local like=$1
  shift
  echo "+ $* (must fail)"
  if "$@" >/tmp/printed 2>&1; then die "$* succeeded, and must not: $(cat /tmp/printed)"; fi
  printed "$like"
}
# eventually SECONDS COMMAND...: repeats it until it succeeds
eventually() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/tmp/tried 2>&1; do
    [ $SECONDS -lt $end ] || die "not in time: $*: $(tail -n 5 /tmp/tried)"
    sleep 0.1
  done
}
# verified DEVICE [ARGUMENT...] --name=JOB [ARGUMENT...]...: fio writes, reads and compares checksums; the jobs run together
verified() {
  local device=$1
  shift
  [ -b "$device" ] || die "$device is no block device"
  fio --name=global --filename="$device" --direct=1 --ioengine=io_uring --verify=crc32c --verify_fatal=1 --do_verify=1 --minimal \
    "$@" >/tmp/fio 2>&1 || die "fio $*: $(tail -n 5 /tmp/fio)"
}
calm() { # the kernel said nothing bad since the start of the check
  if dmesg | grep -iE 'I/O error|timeout|protocol error|digest|BUG:|WARNING:|Call Trace'; then die "the kernel complains"; fi
}
# nsof NQN [NSID]: the block device of its namespace, by default of the first one. The kernel numbers devices as it finds
# them, so the NQN decides; fio would make a file of a missing device.
nsof() {
  local s d i
  for ((i = 0; i < 100; i++)); do
    for s in /sys/class/nvme-subsystem/*; do
      [ "$(cat "$s/subsysnqn" 2>/dev/null)" = "$1" ] || continue
      for d in "$s"/nvme*n* "$s"/nvme*/nvme*n*; do
        if [ -b "/dev/${d##*/}" ] && { [ -z "${2:-}" ] || [ "$(cat "/sys/block/${d##*/}/nsid")" = "$2" ]; }; then
          echo "/dev/${d##*/}"
          return
        fi
      done
    done
    sleep 0.1
  done
  die "no block device of $1 ${2:-}"
}
# ctrlof NQN: a controller of it, as a character device
ctrlof() {
  local c
  for c in /sys/class/nvme/nvme*; do
    if [ "$(cat "$c/subsysnqn" 2>/dev/null)" = "$1" ]; then
      echo "/dev/${c##*/}"
      return
    fi
  done
  die "no controller of $1"
}
