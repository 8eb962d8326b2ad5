#!/bin/bash
# In the guest: the tests of the verbs crate over soft-RoCE, both ends in one program. Arguments: names of tests.
. /usr/local/bin/lib.sh
. /usr/local/bin/rxe.sh
rxe_up eth0
address=$(ip -4 -o addr show dev eth0 | sed -n 's|.* inet \([0-9.]*\)/.*|\1|p')
rdma link show
export ROADSTEAD_RDMA_ADDRESS=$address
tests() { timeout 300 soft_roce --test-threads=1 --nocapture "$@" || die "the tests fail with $?: $(dmesg | grep -i rxe | tail -n 20)"; }
tests "$@"
# Last, for it takes the device away.
if [ $# = 0 ]; then
  tests --ignored
  eventually 20 test ! -e /sys/class/infiniband/rxe-eth0
fi
if dmesg | grep -E 'BUG:|WARNING:|Call Trace'; then die "the kernel complains"; fi
