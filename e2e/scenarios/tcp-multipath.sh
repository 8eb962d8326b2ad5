#!/bin/bash
# A stock kernel with two paths to a stand-alone roadsteadd: paths are cut and come back during verified I/O.
# shellcheck disable=SC2119 # lab_reload without arguments is meant
NEEDS=vm
. "$E2E/lib/standalone.sh"
check path-cut "The network of the path in use goes dark: I/O goes on over the other one, without an error; mended, both are used."
check portal-lost "A portal is taken from the daemon and its connections are reset during I/O: no error; it comes back and is used again."
check ana-switch "The ANA states of two portals are switched through all five during I/O: the host sees each, and follows without an error."
scenario_end() { guest_down; }

on_host() { guest_check tcp-multipath.sh "$@"; } # FUNCTION [ARGUMENT...]
with_io() { # COMMAND...: while the host writes and verifies
  local io
  lab
  guest_up trixie
  on_host "both_paths; policy round-robin"
  (on_host io) &
  io=$!
  until_ok 30 "the host writes" test -e "$GUEST/running"
  on_host "is_used 198.51.100.1; is_used 198.51.100.2"
  "$@"
  touch "$GUEST/enough"
  wait $io
  on_host ends
}

path_cut() { with_io cut_and_mend; }
cut_and_mend() {
  on_host "cut 198.51.100.1; is_lost 198.51.100.1; is_used 198.51.100.2"
  on_host "mended 198.51.100.1; is_live 198.51.100.1; is_used 198.51.100.1"
}

portal_lost() { with_io lose_and_return; }
lose_and_return() {
  LAB_PORTALS=("address: 198.51.100.1")
  lab_reload
  until_ok 10 "nothing listens at 198.51.100.2" silent
  ss -K state established src 198.51.100.2:4420
  on_host "is_lost 198.51.100.2; is_used 198.51.100.1"
  LAB_PORTALS+=("address: 198.51.100.2")
  lab_reload
  on_host "is_live 198.51.100.2; is_used 198.51.100.2; is_used 198.51.100.1"
}

silent() { [ -z "$(ss -Hltn src 198.51.100.2:4420)" ]; }

ana_switch() { with_io switch_states; }
switch() { # STATE STATE: of the two portals, as the configuration calls them
  LAB_PORTALS=("address: 198.51.100.1, anaState: $1" "address: 198.51.100.2, anaState: $2")
  lab_reload
}
switch_states() {
  switch optimized nonOptimized
  on_host "ana_is 198.51.100.2 non-optimized; is_unused 198.51.100.2; is_used 198.51.100.1"
  switch inaccessible optimized
  on_host "ana_is 198.51.100.1 inaccessible; is_unused 198.51.100.1; is_used 198.51.100.2"
  switch optimized persistentLoss
  on_host "ana_is 198.51.100.2 persistent-loss; is_unused 198.51.100.2; is_used 198.51.100.1"
  switch change change
  on_host "ana_is 198.51.100.1 change; is_unused 198.51.100.1"
  switch nonOptimized optimized
  on_host "ana_is 198.51.100.2 optimized; is_used 198.51.100.2; is_unused 198.51.100.1"
}
