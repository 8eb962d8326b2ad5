#!/bin/bash
# A stand-alone roadsteadd in a virtual machine makes block devices by the kernel's NVMe/TCP host, and in user space.
NEEDS=vm
. "$E2E/lib/standalone.sh"
check methods "Attach, the same attach again, verified I/O and detach, by every method: kernel, ublk, nbd, FUSE with a loop device; by those of user space without a network, too." 360

methods() { guest kernel-attach.sh -a "$TARGET/$PROFILE/roadsteadd" -a "$TARGET/$PROFILE/roadstead"; }
