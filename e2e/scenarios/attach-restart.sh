#!/bin/bash
# I/O on an attached device goes on while the daemon that attached it, or the target's, is killed and started again.
NEEDS=vm
. "$E2E/lib/standalone.sh"
check kernel "By the kernel's own host." 700
check ublk "By ublk: the next daemon takes the device up and is asked again for what was not answered." 700
check nbd "By nbd: the next daemon gives the kernel a new socket." 700
check fuse "By FUSE and a loop device: a holder keeps the connection while the daemon is away." 700

kernel() { restarts kernel; }
ublk() { restarts ublk; }
nbd() { restarts nbd; }
fuse() { restarts fuse; }

restarts() { # METHOD
  guest_up attach -a "$TARGET/$PROFILE/roadsteadd" -a "$TARGET/$PROFILE/roadstead"
  IN_GUEST_SECONDS=660 guest_check attach-restart.sh goes_over "$1"
}
scenario_end() { guest_down; }
