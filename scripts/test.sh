#!/bin/bash
# Sets up and passes all tests. The last line is the sum of all that ran.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
"$ROOT/scripts/setup.sh"
export PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
cd "$ROOT"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0

# Runs a part; what it prints is shown, and counted at the end.
part() {
    step "$1"
    shift
    "$@" 2>&1 | tee -a "$log" || status=1
}

part 'formatting, lints, documentation' scripts/check.sh
part 'tests' cargo test -q --workspace --all-features
# Whatever this processor has: AES-GCM of packets by aws-lc, as others have it.
part 'tests without optional features' cargo test -q -p ringway-engine --no-default-features --lib
part 'tests over sockets and epoll' env TEST_DATAPATH=socket cargo test -q -p ringway-tests --test api --test allocations
part 'tests on two threads' env TEST_MODE=max_throughput \
    cargo test -q -p ringway-tests --test api --test allocations --test simulation --test movement
part 'tests on two threads over sockets and epoll' env TEST_MODE=max_throughput TEST_DATAPATH=socket \
    cargo test -q -p ringway-tests --test api --test allocations
for mode in low_latency max_throughput; do
    part "tests over AF_XDP, $mode" scripts/on-af_xdp.sh env TEST_DATAPATH=af_xdp TEST_MODE=$mode \
        cargo test -q -p ringway-tests --test api --test allocations -- --test-threads=1
done
for event_loop in epoll io_uring; do
    for mode in low_latency max_throughput; do
        for datapath in socket io_uring; do
            part "tests on event loops ($event_loop), $mode, $datapath" \
                env TEST_EVENT_LOOP=$event_loop TEST_MODE=$mode TEST_DATAPATH=$datapath \
                cargo test -q -p ringway-tests --test api --test allocations --test movement
        done
        part "tests on event loops ($event_loop), $mode, AF_XDP" scripts/on-af_xdp.sh \
            env TEST_EVENT_LOOP=$event_loop TEST_MODE=$mode TEST_DATAPATH=af_xdp \
            cargo test -q -p ringway-tests --test api --test allocations -- --test-threads=1
    done
done
part 'random calls' env TEST_SECONDS=60 cargo test -q -p ringway-tests --test exerciser
part 'examples of event loops over AF_XDP' scripts/on-af_xdp.sh env TEST_DATAPATH=af_xdp \
    cargo test -q -p ringway-perf --test event_loops -- --test-threads=1
part 'sleep and wake-up, as threads may interleave' env RUSTFLAGS='--cfg loom' \
    cargo test -q --target-dir target/loom -p ringway-datapath --lib sleep_state
part "building ringperf" cargo build -q --release -p ringway-perf
part 'instructions of the engine' scripts/engine-cost.sh --check
part 'fuzzing, briefly' scripts/fuzz.sh 3
part 'building the other stacks' cargo build -q --release --manifest-path perf/peers/Cargo.toml
part 'lints of the other stacks' cargo clippy -q --release --manifest-path perf/peers/Cargo.toml --workspace --all-targets -- -D warnings
export INTEROP_PYTHON=$VENV/bin/python
interop=perf/peers/target/release/interop
for mode in low-latency max-throughput; do
    for datapath in auto socket; do
        part "interoperation, $mode, datapath $datapath" "$interop" target/release/ringperf "$datapath" "$mode"
    done
    part "interoperation, $mode, datapath af_xdp" scripts/on-af_xdp.sh "$interop" target/release/ringperf af_xdp "$mode"
done
for event_loop in epoll io-uring; do
    part "interoperation on event loops, $event_loop" "$interop" target/release/ringperf auto "$event_loop"
done

# `test result: ok. 142 passed; 0 failed; 2 ignored` of cargo, and `49 passed, 0 failed, 7 skipped` of the matrix.
awk -v status="$status" '
    /passed[;,].*failed/ {
        for (i = 2; i <= NF; i++) {
            if ($i ~ /^passed/) passed += $(i - 1)
            if ($i ~ /^failed/) failed += $(i - 1)
            if ($i ~ /^(ignored|skipped)/) skipped += $(i - 1)
        }
    }
    END {
        if (status != 0 && failed == 0) failed = 1
        printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped
    }' "$log"
exit "$status"
