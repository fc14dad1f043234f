#!/bin/bash
# Runs the tests of packet memory, its rings and the channels between threads where memory errors and data races show: under Miri, or, where that
# cannot be had, with AddressSanitizer. What is beyond the process (the kernel and its side of the rings) is a mock there. Takes a nightly
# toolchain. Usage: sanitize.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
cd "$ROOT"
TESTS=(-p ringway-datapath --features af_xdp,sim --lib -- lent:: umem:: af_xdp::xsk:: af_xdp::jumbo:: af_xdp::drain:: io_uring::sends::
    io_uring::buffers:: split::)

cargo +nightly --version >/dev/null 2>&1 || rustup -q toolchain install nightly --profile minimal ||
    { echo 'SKIP sanitize: no nightly toolchain'; exit 0; }
if cargo +nightly miri --version >/dev/null 2>&1 || rustup -q component add miri rust-src --toolchain nightly; then
    # Addresses of packet memory go to the kernel as numbers, and none comes back as a pointer.
    MIRIFLAGS='-Zmiri-strict-provenance -Zmiri-disable-isolation' cargo +nightly miri test -q --target-dir target/miri "${TESTS[@]}"
else
    echo 'SKIP Miri cannot be had: AddressSanitizer instead'
    host=$(rustc +nightly -vV | sed -n 's/^host: //p')
    RUSTFLAGS=-Zsanitizer=address cargo +nightly test -q --target-dir target/asan --target "$host" "${TESTS[@]}"
fi
