#!/bin/bash
# Builds for regulated users, with aws-lc's FIPS module for all cryptography, and passes the engine's tests so. The module is compiled with CMake,
# Go and libclang, which takes some minutes.
# Usage: fips.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"
export PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
for tool in cmake go; do
    command -v "$tool" >/dev/null && continue
    echo "SKIP FIPS: $tool is not installed (apt-get install cmake golang-go libclang-dev)"
    echo '0 passed, 0 failed, 1 skipped'
    exit 0
done
export RUSTFLAGS='--cfg ringway_fips'
cargo test -q --target-dir target/fips -p ringway-engine --all-features --lib
cargo check -q --target-dir target/fips -p ringway
