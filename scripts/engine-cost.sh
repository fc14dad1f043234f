#!/bin/bash
# Instructions of the engine for each full packet, in the clear, one acknowledgement for each 40, counted by callgrind; and the processor
# time of a handshake in memory.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"
export PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
if ! command -v valgrind >/dev/null; then
    echo 'SKIP engine costs: valgrind is not installed (apt-get install valgrind)'
    exit 0
fi
# A directory of its own: the features differ from those of ringperf.
cargo build -q --release -p ringway-perf --features engine-bench --bin engine-bench --target-dir target/engine-bench
bench=target/engine-bench/release/engine-bench

# Instructions within a function, start-up and warm-up taken off by a shorter run.
count() {
    valgrind --tool=callgrind --toggle-collect="engine_bench::$1" --callgrind-out-file=/dev/null "$bench" packets "$2" 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}
few=4000
many=24000
for function in send receive acknowledge; do
    a=$(count "$function" "$few")
    b=$(count "$function" "$many")
    case $function in
        send) what='sent (with the acknowledgements of the other side)' ;;
        receive) what='received' ;;
        *) what='acknowledged' ;;
    esac
    echo "$(((b - a) / (many - few))) instructions per packet $what"
done
"$bench" handshakes 2000
