#!/bin/bash
# Formatting, lock files, lints and documentation: warnings are errors.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"
step 'formatting'
cargo fmt --all --check
cargo fmt --manifest-path perf/peers/Cargo.toml --all --check
cargo fmt --manifest-path tests/fuzz/Cargo.toml --check
step 'lock files'
# Each as the manifests ask: or cargo would change it, and build something else than was tried.
for manifest in . perf/peers tests/fuzz; do cargo metadata -q --locked --format-version 1 --manifest-path "$manifest/Cargo.toml" >/dev/null; done
step 'lints'
# With all features, and without those that tests turn on, as users build it.
cargo clippy -q --workspace --all-targets --all-features -- -D warnings
cargo clippy -q -p ringway -p ringway-engine -p ringway-datapath -- -D warnings
cargo clippy -q -p ringway -p ringway-engine --no-default-features -- -D warnings
step 'documentation'
RUSTDOCFLAGS='-D warnings' cargo doc -q --workspace --all-features --no-deps
