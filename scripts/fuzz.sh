#!/bin/bash
# Fuzzes each target for so many seconds (default 60). What makes one crash lands in tests/fuzz/artifacts.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
seconds=${1:-60}
cd "$ROOT/tests/fuzz"
export PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
host=$(rustc -vV | sed -n 's/^host: //p')
# The flags that cargo-fuzz gives, less the address sanitizer, which only nightly Rust has; there is no unsafe code to look after.
RUSTFLAGS='--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1' \
    cargo build -q --release --target "$host"
failed=0
targets=(header frames params tickets connection ethernet)
for target in "${targets[@]}"; do
    mkdir -p "corpus/$target" "artifacts/$target"
    if output=$("target/$host/release/$target" "corpus/$target" -max_total_time="$seconds" -artifact_prefix="artifacts/$target/" \
        -max_len=4096 -timeout=10 -rss_limit_mb=4096 -print_final_stats=1 2>&1); then
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' <<<"$output")
        echo "fuzz $target: $runs runs in $seconds s, clean"
    else
        failed=$((failed + 1))
        tail -n 40 <<<"$output"
        echo "fuzz $target: FAILED; again: tests/fuzz/target/$host/release/$target tests/fuzz/artifacts/$target/…"
    fi
done
echo "$((${#targets[@]} - failed)) passed, $failed failed"
exit $((failed > 0))
