#!/bin/bash
# deny.sh - licences, bans, sources and duplicates of the dependencies, by cargo-deny (built once, kept in .cache/tools).
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"
VERSION=0.20.2
if [ "$("$TOOLS/bin/cargo-deny" --version 2>/dev/null)" != "cargo-deny $VERSION" ]; then
  say "building cargo-deny $VERSION (once)"
  # A tool that runs for a second: what counts is how long it takes to build.
  CARGO_TARGET_DIR=$TOOLS/build CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
    CARGO_PROFILE_RELEASE_DEBUG=0 cargo install --quiet --locked --no-default-features --root "$TOOLS" "cargo-deny@$VERSION"
  rm -rf "$TOOLS/build"
fi
cd "$ROOT"
# Advisories are left out: their database comes from a git repository, not from a package registry.
"$TOOLS/bin/cargo-deny" --locked --workspace check bans licenses sources
