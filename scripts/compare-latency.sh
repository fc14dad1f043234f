#!/bin/bash
# Latency of one request at a time on loopback, in both modes and on event loops of the harness, with threads that sleep at once and threads that poll, in turn: medians of the
# medians and of the 99th percentiles. One processor for the client; the server has the other, and in max throughput a thread on each.
# Usage: compare-latency.sh [ROUNDS] [SECONDS] [DATAPATH]
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"
export PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
rounds=${1:-5}
seconds=${2:-1}
datapath=${3:-socket}
cargo build -q --release -p ringway-perf
ringperf=target/release/ringperf
modes=(low-latency max-throughput epoll io-uring)
directory=$(mktemp -d)
server=
trap '[[ -z $server ]] || kill "$server" 2>/dev/null || true; rm -rf "$directory"' EXIT
for _ in $(seq "$rounds"); do
    for mode in "${modes[@]}"; do
        for polling in 0s 1ms; do
            case $mode in
                low-latency) command=("$ringperf" server --mode "$mode" --cpus 0 --affinitize) ;;
                max-throughput) command=("$ringperf" server --mode "$mode" --cpus 1,0 --affinitize) ;;
                # Loops bind no threads.
                *) command=(taskset -c 0 "$ringperf" server --event-loop "$mode" --cpus 0) ;;
            esac
            "${command[@]}" --bind 127.0.0.1:0 --datapath "$datapath" \
                --poll-idle "$polling" >"$directory/server" &
            server=$!
            until grep -q LISTENING "$directory/server"; do sleep 0.05; done
            "$ringperf" client --target "$(sed -n 's/^LISTENING //p' "$directory/server")" --cpus 1 --affinitize --datapath "$datapath" \
                --poll-idle "$polling" --scenario latency --time "${seconds}s" --json >"$directory/client"
            kill "$server"
            wait "$server" || true
            server=
            figure p50_us <"$directory/client" >>"$directory/$mode $polling p50"
            figure p99_us <"$directory/client" >>"$directory/$mode $polling p99"
        done
    done
done
for mode in "${modes[@]}"; do
    for polling in 0s 1ms; do
        printf '%-14s polling %-3s  median %6.1f us, 99 %% within %6.1f us\n' "$mode" "$polling" \
            "$(median "$directory/$mode $polling p50")" "$(median "$directory/$mode $polling p99")"
    done
done
