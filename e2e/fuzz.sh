#!/bin/bash
# fuzz.sh [TARGET...] - coverage-guided fuzzing with cargo-fuzz: TIME seconds for each target (600), from the seeds of
# dataplane/fuzz/seeds and what earlier runs found (kept in .cache/fuzz).
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"
VERSION=0.13.2
if [ "$("$TOOLS/bin/cargo-fuzz" --version 2>/dev/null)" != "cargo-fuzz $VERSION" ]; then
  say "building cargo-fuzz $VERSION (once)"
  # It starts cargo and a target, no more: what counts is how long it takes to build.
  CARGO_TARGET_DIR=$TOOLS/build CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
    CARGO_PROFILE_RELEASE_DEBUG=0 cargo install --quiet --locked --root "$TOOLS" "cargo-fuzz@$VERSION"
  rm -rf "$TOOLS/build"
fi
PATH=$TOOLS/bin:$PATH
cd "$ROOT/dataplane/fuzz"
[ $# != 0 ] || mapfile -t targets < <(cargo fuzz list)
[ $# = 0 ] || targets=("$@")
# No sanitizer: they need a nightly compiler, and the code that is fuzzed has no unsafe. Counting of coverage does not.
flags=(--sanitizer none --target-dir "$TARGET/fuzz")
cargo fuzz build "${flags[@]}"
failed=()
for target in "${targets[@]}"; do
  corpus=$ROOT/.cache/fuzz/$target
  mkdir -p "$corpus"
  say "fuzzing $target for ${TIME:-600} s"
  cargo fuzz run "${flags[@]}" "$target" "$corpus" "seeds/$target" -- \
    -max_total_time="${TIME:-600}" -max_len=4096 -timeout=10 -rss_limit_mb=1024 -verbosity=0 -print_final_stats=1 || failed+=("$target")
done
[ ${#failed[@]} = 0 ] || die "found something: ${failed[*]}; the input is in dataplane/fuzz/fuzz/artifacts. Fix it, and add the input to the seeds."
