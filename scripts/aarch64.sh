#!/bin/bash
# Builds the engine for ARMv8, and passes tests of it in an emulator: those of AES-GCM, whose form for NEON no other machine runs, or those that
# are named. What rustup installs has no library for other processors, so the compiler is Debian's: its packages, and the C library they need, are
# unpacked below target/ and nothing of the system is changed. The C compiler and the emulator are packages of any Debian.
# Usage: aarch64.sh [TEST...] (names, as `cargo test` takes them; default: aes_gcm keys)
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"
export PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
tests=("$@")
(($#)) || tests=(aes_gcm crypto::keys)
place=$ROOT/target/aarch64
release=trixie
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
# The compiler, the standard library for here and for there, and what the compiler is linked with.
PACKAGES=(rustc libstd-rust-dev libstd-rust-dev:arm64)

skip() {
    echo "SKIP aarch64: $*"
    echo '0 passed, 0 failed, 1 skipped'
    exit 0
}
for tool in aarch64-linux-gnu-gcc qemu-aarch64; do
    command -v "$tool" >/dev/null || skip "$tool is not installed (apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user)"
done
[[ $(uname -m) == x86_64 ]] || skip "the compiler is unpacked for x86_64, and this is $(uname -m)"
command -v apt-get >/dev/null && [[ -e $KEYRING ]] || skip 'this is not Debian: apt-get and its keyring are needed'

# apt-get with lists, state and packages of its own: for it, nothing is installed.
apt() {
    apt-get -qq -o Dir::Etc::sourcelist="$place/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists="$place/lists" \
        -o Dir::State::status="$place/status" -o Dir::Cache="$place/cache" -o APT::Architectures::=amd64 -o APT::Architectures::=arm64 \
        -o Debug::NoLocking=1 -o APT::Sandbox::User=root -t "$release-backports" "$@"
}

if [[ ! -x $place/rustc ]]; then
    step "unpacking Debian's rustc below $place"
    rm -rf --one-file-system "$place/root" "$place/packages"
    mkdir -p "$place"/{root,packages,lists/partial,cache/archives/partial}
    for suite in "$release" "$release-backports"; do
        echo "deb [signed-by=$KEYRING arch=amd64,arm64] http://deb.debian.org/debian $suite main"
    done >"$place/sources.list"
    : >"$place/status"
    apt update || skip 'the package lists of Debian cannot be had'
    # All that rustc depends on, but the C compiler, which is this system's, and what comes with it.
    needed=$(apt install --print-uris -y --no-install-recommends "${PACKAGES[0]}" | awk '{ sub(/_.*/, "", $2); print $2 }' |
        grep -vE '^(rustc|libstd-rust-dev|gcc-|cpp|gcc$|binutils|lib(binutils|ctf|gprofng|sframe|isl|mpc|mpfr|gmp|cc1|gomp|itm|atomic|[alth]*san|ubsan|quadmath|jansson|gcc-.*-dev|c6-dev|c-dev|crypt))|^linux-|^rpcsvc')
    (cd "$place/packages" && apt download "${PACKAGES[@]}" $needed) || skip 'the packages of Debian cannot be had'
    for package in "$place"/packages/*.deb; do dpkg-deb -x "$package" "$place/root"; done
    # With the loader and the C library that it was linked with, which may be newer than this system's.
    cat >"$place/rustc.new" <<EOF
#!/bin/sh
lib=$place/root/usr/lib/x86_64-linux-gnu
exec "\$lib/ld-linux-x86-64.so.2" --library-path "\$lib" "$place/root/usr/bin/rustc" --sysroot "$place/root/usr" "\$@"
EOF
    chmod +x "$place/rustc.new"
    "$place/rustc.new" --version
    mv "$place/rustc.new" "$place/rustc"
fi

step "building and testing for ARMv8 with $("$place/rustc" --version)"
export RUSTC=$place/rustc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER='qemu-aarch64 -L /usr/aarch64-linux-gnu'
export TEST_LENGTH_STEP=${TEST_LENGTH_STEP:-7}
unset RUSTUP_TOOLCHAIN
cargo test -q --target aarch64-unknown-linux-gnu --target-dir "$place/build" -p ringway-engine --all-features --lib -- "${tests[@]}"
