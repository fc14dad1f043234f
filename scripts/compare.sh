#!/bin/bash
# Goodput of Ringway and of quinn over loopback, one connection, one stream, one core for each side, 1472-byte datagrams: the two take turns,
# and medians are printed. Usage: compare.sh [ROUNDS] [SECONDS]
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"
export PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
rounds=${1:-5}
seconds=${2:-3}
cargo build -q --release -p ringway-perf
cargo build -q --release --manifest-path tests/interop/Cargo.toml
directory=$(mktemp -d)
ringperf=target/release/ringperf
quinn=tests/interop/target/release/quinn-peer
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$directory/key" -out "$directory/cert" \
    -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE 2>/dev/null
taskset -c 0 "$ringperf" server --bind 127.0.0.1:0 --cpus 0 --cert "$directory/cert" --key "$directory/key" >"$directory/a" &
a=$!
taskset -c 0 "$quinn" server --listen 127.0.0.1:0 --cert "$directory/cert" --key "$directory/key" >"$directory/b" &
b=$!
trap 'kill $a $b 2>/dev/null || true; rm -rf "$directory"' EXIT
until grep -q LISTENING "$directory/a" && grep -q LISTENING "$directory/b"; do sleep 0.05; done
address() { sed -n 's/^LISTENING //p' "$directory/$1"; }
goodput() { sed -n 's/.*"goodput_gbit_s":\([0-9.]*\).*/\1/p'; }
median() { sort -g "$1" | awk '{ v[NR] = $1 } END { printf "%.2f", v[int((NR + 1) / 2)] }'; }
range() { sort -g "$1" | awk 'NR == 1 { low = $1 } { high = $1 } END { printf "%.1f to %.1f", low, high }'; }
for scenario in download upload; do
    : >"$directory/x"
    : >"$directory/y"
    for _ in $(seq "$rounds"); do
        taskset -c 1 "$ringperf" client --target "$(address a)" --server-name localhost --ca "$directory/cert" --cpus 0 \
            --scenario "$scenario" --time "${seconds}s" --json | goodput >>"$directory/x"
        taskset -c 1 "$quinn" client --connect "$(address b)" --ca "$directory/cert" \
            --scenario "$scenario" --seconds "$seconds" | goodput >>"$directory/y"
    done
    x=$(median "$directory/x")
    y=$(median "$directory/y")
    echo "$scenario: Ringway $x Gbit/s ($(range "$directory/x")), quinn $y Gbit/s ($(range "$directory/y")), ratio $(awk "BEGIN { printf \"%.2f\", $x / $y }")"
done
