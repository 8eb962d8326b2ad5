#!/bin/bash
# In the guest: the tests of the verbs crate over soft-RoCE, both ends in one program. Arguments: names of tests.
. /usr/local/bin/lib.sh
. /usr/local/bin/rxe.sh
rxe_up eth0
address=$(ip -4 -o addr show dev eth0 | sed -n 's|.* inet \([0-9.]*\)/.*|\1|p')
rdma link show
ROADSTEAD_RDMA_ADDRESS=$address timeout 300 soft_roce --test-threads=1 --nocapture "$@" || die "the tests fail with $?: $(dmesg | grep -i rxe | tail -n 20)"
if dmesg | grep -E 'BUG:|WARNING:|Call Trace'; then die "the kernel complains"; fi
