# shellcheck shell=bash
# Prerequisites: all are checked, and each missing one gets one sentence with its remedy.

# Debian packages of the harness; installed when missing. The test cluster and the virtual machines add their own.
DEBS="bc bsdextrautils ca-certificates curl e2fsprogs g++ gcc iproute2 jq libc6-dev libclang-dev libibverbs-dev librdmacm-dev make mount nftables pkg-config procps python3 shellcheck util-linux xfsprogs"

MISSING=()
missing() { MISSING+=("$*"); }

version_at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; } # HAVE WANT

prereq_machine() {
  [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || missing "This is $(uname -s) on $(uname -m): use a Linux machine with an x86_64 processor."
  [ "$(id -u)" = 0 ] || missing "You are not root: run it with sudo -E or in a root shell (it makes network namespaces and mounts)."
  command -v apt-get >/dev/null || missing "There is no apt-get: use Debian or a system that is made from it."
}

prereq_toolchains() {
  local want have
  want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml")
  if ! command -v cargo >/dev/null; then
    missing "There is no Rust: install $want or newer with https://rustup.rs and open a new shell."
  else
    have=$(rustc --version | awk '{print $2}')
    version_at_least "$have" "$want" || missing "Rust is $have: run 'rustup update stable' to have $want or newer."
  fi
  want=$(sed -n 's/^go //p' "$E2E/cluster/go/go.mod")
  if ! command -v go >/dev/null; then
    missing "There is no Go: unpack $want or newer from https://go.dev/dl to /usr/local/go."
  else
    have=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null | sed 's/^go//')
    version_at_least "${have:-0}" "$want" || [ "$(go env GOTOOLCHAIN)" != local ] ||
      missing "Go is ${have:-unknown}: unpack $want or newer from https://go.dev/dl to /usr/local/go."
  fi
}

prereq_kernel() {
  # shellcheck disable=SC2015
  [ -c /dev/fuse ] || modprobe fuse 2>/dev/null && [ -c /dev/fuse ] || missing "There is no /dev/fuse: use a kernel with CONFIG_FUSE_FS."
  # shellcheck disable=SC2015
  [ -c /dev/loop-control ] || modprobe loop 2>/dev/null && [ -c /dev/loop-control ] || missing "There is no /dev/loop-control: use a kernel with CONFIG_BLK_DEV_LOOP."
  [ "$(cat /proc/sys/kernel/io_uring_disabled 2>/dev/null || echo 0)" != 2 ] || missing "io_uring is off: run 'sysctl -w kernel.io_uring_disabled=0'."
  [ "$(stat -fc %T /sys/fs/cgroup)" = tmpfs ] ||
    missing "This machine uses cgroup v2: boot it with systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller, the test cluster needs cgroup v1."
}

prereq_room() { # GIB OF DISK
  local d free_kib mem_kib
  mkdir -p "$CLUSTER_DIR"
  for d in "$CLUSTER_DIR" "$ROOT"; do
    free_kib=$(df --output=avail -k "$d" | tail -n 1)
    [ "$free_kib" -ge $(($1 * 1048576)) ] || [ -d "$CLUSTER_CACHE/bin" ] ||
      missing "$d has $((free_kib / 1048576)) GiB of room: free it to $1 GiB, or set ROADSTEAD_CLUSTER_DIR to a larger place."
  done
  mem_kib=$(awk '/^MemAvailable/{print $2}' /proc/meminfo)
  [ "$mem_kib" -ge $((6 * 1048576)) ] || missing "$((mem_kib / 1048576)) GiB of memory are available: 6 GiB are needed, end other programs."
}

prereq_packages() {
  local p absent=()
  for p in $DEBS; do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || absent+=("$p")
  done
  [ ${#absent[@]} = 0 ] && return
  say "installing Debian packages: ${absent[*]}"
  apt-get -qq update >/dev/null || missing "apt-get update failed: check /etc/apt/sources.list and the network."
  DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends "${absent[@]}" >/dev/null 2>&1 </dev/null ||
    missing "apt-get could not install ${absent[*]}: run 'apt-get install ${absent[*]}' and see what it says."
}

# prereqs: everything that demo, test, e2e and bench need.
prereqs() {
  prereq_machine
  if [ ${#MISSING[@]} = 0 ]; then
    prereq_toolchains
    prereq_kernel
    prereq_room 25
  fi
  [ ${#MISSING[@]} -gt 0 ] || prereq_packages
  if [ ${#MISSING[@]} -gt 0 ]; then
    printf 'missing: %s\n' "${MISSING[@]}" >&2
    exit 1
  fi
}
