#!/bin/bash
# Memory that a server takes for each idle connection: resident memory of a ringperf server with 2,000 connections, less that
# before, after a first connection has warmed it up.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"
export PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
cargo build -q --release -p ringway-perf
connections=${1:-2000}
out=$(mktemp)
target/release/ringperf server --bind 127.0.0.1:0 --cpus 0 >"$out" &
server=$!
trap 'kill "$server" 2>/dev/null || true; rm -f "$out"' EXIT
until grep -q LISTENING "$out"; do sleep 0.05; done
address=$(sed -n 's/^LISTENING //p' "$out")
resident() { awk '/^VmRSS/ { print $2 }' "/proc/$server/status"; }
target/release/ringperf client --target "$address" --server-name localhost --scenario download --bytes 50MB >/dev/null
sleep 1
before=$(resident)
target/release/ringperf client --target "$address" --server-name localhost --scenario idle --connections "$connections" --time 8s >/dev/null &
client=$!
sleep 6
after=$(resident)
wait "$client"
echo "$(((after - before) * 1024 / connections)) bytes for each of $connections idle connections ($before KiB before, $after KiB with them)"
