#!/bin/bash
# build.sh [cluster] - builds the programs and, beside them, with `cluster` also the test cluster and all images. With
# NO_CARGO=1 the programs are taken as they are.
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"
programs() {
  if [ -n "${NO_CARGO:-}" ]; then return; fi
  cd "$ROOT"
  step "the four programs (cargo, profile $PROFILE)" cargo build --locked --profile "$PROFILE" --workspace --bins
}
cluster() {
  step "Kubernetes, containerd, Helm and side cars (Go modules)" "$E2E/cluster/cluster" build
  step "images with PostgreSQL and tools (Debian packages)" "$E2E/images.sh" postgres toolbox
}
if [ "${1:-}" = cluster ]; then
  side_by_side programs cluster
  step "image of Roadstead" "$E2E/images.sh" roadstead
else
  programs
fi
