#!/bin/bash
# Ringway beside other stacks on this machine: builds ringperf and their programs, and runs `ringperf compare`, to which arguments are passed on.
# A stack that cannot be built is reported and left out. With all networks it needs root.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"
export PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
cargo build -q --release -p ringway-perf
cargo build -q --release --keep-going --manifest-path perf/peers/Cargo.toml --workspace --exclude ringway-http3 || echo 'not all of the other stacks could be built' >&2
exec target/release/ringperf compare "$@"
