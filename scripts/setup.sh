#!/bin/bash
# Installs what building and testing need: apt packages, Rust, and a Python environment for the aioquic peer. Quick when nothing is missing.
# Usage: setup.sh [demo | test | all]: what scripts/demo.sh needs, what scripts/test.sh needs, or (the default) what its --all needs too
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
level=${1:-all}

# A C compiler for aws-lc, and to link; curl to get Rust.
PACKAGES=(build-essential ca-certificates curl)
case $level in
    demo) ;;
    test | all)
        # clang and libelf for the XDP program and its loader, libclang and m4 for libxdp; hwloc (which links udev) for the topology; python3-venv
        # for aioquic; iproute2 and ethtool for namespaces and their interfaces; valgrind to count the instructions of the engine.
        PACKAGES+=(clang ethtool iproute2 libclang-dev libelf-dev libhwloc-dev libudev-dev m4 pkg-config python3 python3-venv valgrind zlib1g-dev)
        ;;
    *)
        echo 'usage: setup.sh [demo | test | all]' >&2
        exit 1
        ;;
esac
# For the BoringSSL of quiche and of tquic, for MsQuic and its OpenSSL; Go for aws-lc's FIPS module; a compiler and an emulator for ARMv8.
[[ $level != all ]] || PACKAGES+=(cmake gcc-aarch64-linux-gnu git golang-go libc6-dev-arm64-cross perl qemu-user)

missing=()
for package in "${PACKAGES[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
if ((${#missing[@]})); then
    if ((EUID != 0)); then
        echo "missing packages: ${missing[*]}; run as root: apt-get install -y ${missing[*]}" >&2
        exit 1
    fi
    step "installing ${missing[*]}"
    apt-get update -q >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends "${missing[@]}" >/dev/null
fi

export PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
if ! command -v cargo >/dev/null; then
    step 'installing Rust (stable) with rustup'
    curl -sSf --proto '=https' https://sh.rustup.rs | sh -s -- -y -q --profile minimal >/dev/null
fi
[[ $level != demo ]] || exit 0
cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 || rustup -q component add rustfmt clippy

# Reads captures in a test, which is skipped without it.
if ! command -v tshark >/dev/null; then
    step 'installing tshark'
    ((EUID == 0)) && DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends tshark >/dev/null ||
        echo 'SKIP tshark cannot be installed: captures are not read back'
fi

# Programs that share an interface with ours in the virtual machine.
if [[ $level == all ]] && ! command -v xdp-filter >/dev/null; then
    step 'installing xdp-tools'
    ((EUID == 0)) && DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends xdp-tools >/dev/null ||
        echo 'SKIP xdp-tools cannot be installed: our XDP program is not tried beside others'
fi

requirements=$ROOT/tests/interop/requirements.txt
if ! cmp -s "$requirements" "$VENV/requirements.txt"; then
    step 'making a Python environment for aioquic'
    mkdir -p "$ROOT/target"
    rm -rf "$VENV"
    # The system's own Python, whatever else is first in the path: it is the one that python3-venv belongs to.
    if /usr/bin/python3 -m venv "$VENV" && "$VENV/bin/pip" -q --disable-pip-version-check install -r "$requirements"; then
        cp "$requirements" "$VENV/requirements.txt"
    else
        echo 'SKIP aioquic cannot be installed: its cases are skipped'
    fi
fi
