#!/bin/bash
# The devices in turn on loopback, one core for each side, every scenario: medians, and each device's ratio to the first.
# Usage: compare-datapaths.sh [ROUNDS] [SECONDS] [DEVICE...]
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"
export PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
rounds=${1:-5}
seconds=${2:-1}
shift $(($# < 2 ? $# : 2))
devices=("${@:-socket}")
[[ $# -gt 0 ]] || devices=(socket io_uring)
cargo build -q --release -p ringway-perf
ringperf=target/release/ringperf
directory=$(mktemp -d)
servers=()
trap 'kill "${servers[@]}" 2>/dev/null || true; rm -rf "$directory"' EXIT
for device in "${devices[@]}"; do
    "$ringperf" server --bind 127.0.0.1:0 --cpus 0 --affinitize --poll-idle 50us --datapath "$device" >"$directory/$device" &
    servers+=($!)
    until grep -q LISTENING "$directory/$device"; do sleep 0.05; done
done
run() { # scenario, field, unit, divisor
    local device
    for device in "${devices[@]}"; do : >"$directory/$device.figures"; done
    for _ in $(seq "$rounds"); do
        for device in "${devices[@]}"; do
            "$ringperf" client --target "$(sed -n 's/^LISTENING //p' "$directory/$device")" --cpus 1 --affinitize --poll-idle 50us \
                --datapath "$device" --scenario "$1" --time "${seconds}s" --json 2>/dev/null | figure "$2" >>"$directory/$device.figures"
        done
    done
    local first
    first=$(median "$directory/${devices[0]}.figures")
    for device in "${devices[@]}"; do
        median "$directory/$device.figures" |
            awk -v s="$1" -v d="$device" -v u="$3" -v by="$4" -v f="$first" '{ printf "%-10s %-9s %9.2f %s, ratio %.2f\n", s, d, $1 / by, u, $1 / f }'
    done
}
run download goodput_gbit_s Gbit/s 1
run upload goodput_gbit_s Gbit/s 1
run rps operations_per_s 'thousand/s' 1000
run rps-multi operations_per_s 'thousand/s' 1000
run latency p50_us 'us median' 1
run hps operations_per_s '/s' 1
