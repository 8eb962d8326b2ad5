# shellcheck shell=bash
# In a guest: soft-RoCE, for whoever sources this.
# rxe_up [INTERFACE...]: an RDMA device on each, named rxe-INTERFACE; the first that is up and has an address by default
rxe_up() {
  local i
  # What is loaded last is told first that a device goes: ib_uverbs would wait for the programs on it, which the connection
  # manager is to tell.
  modprobe -a ib_uverbs rdma_ucm rdma_rxe
  [ $# -gt 0 ] || set -- eth0
  for i; do
    ip link set "$i" up
    [ -d "/sys/class/infiniband/rxe-$i" ] || rdma link add "rxe-$i" type rxe netdev "$i"
    rxe_active "$i"
  done
  ulimit -l unlimited
}
rxe_active() { # INTERFACE: waits until its device can be used
  local n
  for ((n = 0; n < 100; n++)); do
    if grep -qs ACTIVE "/sys/class/infiniband/rxe-$1/ports/1/state"; then return; fi
    sleep 0.1
  done
  echo "error: rxe-$1 does not become active"
  return 1
}
rxe_down() { # [INTERFACE...]
  local i
  [ $# -gt 0 ] || set -- eth0
  for i; do rdma link del "rxe-$i"; done
}
# rxe_objects: how many objects of each kind programs have on all devices
rxe_objects() { rdma resource show; }
