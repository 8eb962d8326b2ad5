#!/bin/bash
# RDMA verbs over soft-RoCE: both ends in one program, in a virtual machine with a stock kernel.
NEEDS=vm
. "$E2E/lib/standalone.sh"
check soft-roce "Connections, messages, reads and writes, ends in every state; nothing is left on the device." 400

soft_roce() {
  local program
  program=$(test_program verbs soft_roce)
  guest verbs.sh -t 360 -c 2 -a "$E2E/guest/rxe.sh" -a "$program:/usr/local/bin/soft_roce"
}
# test_program CRATE NAME: the program of a crate's tests, built unless the caller has done so
test_program() {
  local f newest=
  if [ -z "${NO_CARGO:-}" ]; then
    (cd "$ROOT" && cargo test --quiet --locked --profile "$PROFILE" -p "roadstead-$1" --test "$2" --no-run >&2)
  fi
  for f in "$TARGET/$PROFILE/deps/$2"-*; do
    if [ -x "$f" ] && { [ -z "$newest" ] || [ "$f" -nt "$newest" ]; }; then newest=$f; fi
  done
  [ -n "$newest" ] || die "no test program $2: cargo test -p roadstead-$1 --no-run"
  echo "$newest"
}
