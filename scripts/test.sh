#!/bin/bash
# Sets up and passes the tests: every kind of them, and of their combinations a covering set, in which every two values meet. At the end it
# prints what was skipped and what failed, the time of each part, and in the last line the sum.
# With --all it passes every combination, with the other stacks that take minutes to build, and simulates, calls at random and fuzzes for longer.
# Usage: test.sh [--all] [PART...] (default: all parts) | test.sh [--all] --list
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
export PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
cd "$ROOT"
all=false
if [[ ${1:-} == --all ]]; then
    all=true
    shift
fi

# All packages with all features, whichever tests are chosen: each dependency is compiled once.
CARGO_TEST=(cargo test -q --no-fail-fast --workspace --all-features)
# What some tests run, built for the same.
CARGO_BUILD=(cargo build -q --workspace --all-features --bin ringperf --examples)
# How the tests of the API may run, and a covering set: every two values meet in a line.
EVENT_LOOPS=(threads epoll io_uring)
MODES=(low_latency max_throughput)
DATAPATHS=(auto socket af_xdp)
COVERING=(
    'threads low_latency auto'
    'threads max_throughput socket'
    'threads low_latency af_xdp'
    'epoll max_throughput auto'
    'epoll low_latency socket'
    'epoll max_throughput af_xdp'
    'io_uring low_latency auto'
    'io_uring max_throughput socket'
    'io_uring low_latency af_xdp'
)

setup() { # packages, Rust, aioquic
    scripts/setup.sh "$($all && echo all || echo test)"
}

lints() { # formatting, lints, documentation
    run scripts/check.sh
    if $all; then
        run cargo clippy -q --profile interop --manifest-path perf/peers/Cargo.toml --workspace --all-targets -- -D warnings
    fi
}

tests() { # of each package, end to end, in simulation, of AF_XDP between namespaces; house rules
    run "${CARGO_TEST[@]}"
    # Whatever this processor has: AES-GCM of packets by aws-lc, as others have it.
    run cargo test -q -p ringway-engine --no-default-features --lib
}

executions() { # tests of the API on event loops of the application, in both modes, on each datapath
    run every_two_meet
    local lines=("${COVERING[@]}") commands=() line
    if $all; then
        lines=()
        for loop in "${EVENT_LOOPS[@]}"; do
            for mode in "${MODES[@]}"; do lines+=("${DATAPATHS[@]/#/$loop $mode }"); done
        done
    fi
    for line in "${lines[@]}"; do commands+=("$(execution $line)"); done
    # Over the virtual network there is only the mode to choose.
    commands+=("TEST_MODE=max_throughput ${CARGO_TEST[*]} --test simulation --test movement --test tasks")
    # The examples of event loops, which over other datapaths are tried among the tests.
    run "${CARGO_BUILD[@]}"
    commands+=("scripts/on-af_xdp.sh env TEST_DATAPATH=af_xdp ${CARGO_TEST[*]} --test event_loops -- --test-threads=1")
    two_at_a_time "${commands[@]}"
}

# The command that runs the tests of the API so. LOOP MODE DATAPATH
execution() {
    local variables="TEST_MODE=$2"
    local name tests=''
    for name in api allocations resumption tls sockets ports streams datagrams cancellation zero_rtt; do tests+=" --test $name"; done
    [[ $1 == threads ]] || variables+=" TEST_EVENT_LOOP=$1"
    [[ $3 == auto ]] || variables+=" TEST_DATAPATH=$3"
    if [[ $3 == af_xdp ]]; then
        # The loopback interface has one queue: one server at a time, and nothing arrives on another partition.
        echo "scripts/on-af_xdp.sh env $variables ${CARGO_TEST[*]}$tests -- --test-threads=1"
    else
        echo "$variables ${CARGO_TEST[*]}$tests --test movement -- --skip over_any_network"
    fi
}

# A test of COVERING.
every_two_meet() {
    local loop mode datapath missing=0
    meet() {
        printf '%s\n' "${COVERING[@]}" | grep -qx "$1" && return
        echo "no line of the covering set has '$1'"
        missing=1
    }
    for loop in "${EVENT_LOOPS[@]}"; do
        for mode in "${MODES[@]}"; do meet "$loop $mode .*"; done
        for datapath in "${DATAPATHS[@]}"; do meet "$loop .* $datapath"; done
    done
    for mode in "${MODES[@]}"; do
        for datapath in "${DATAPATHS[@]}"; do meet ".* $mode $datapath"; done
    done
    echo "$((1 - missing)) passed, $missing failed"
    return $missing
}

interleavings() { # sleep and wake-up, as threads may interleave
    run any_passes env RUSTFLAGS='--cfg loom' cargo test -q --target-dir target/loom -p ringway-datapath --lib sleep_state
}

memory() { # packet memory, its rings and channels between threads, under Miri
    run scripts/sanitize.sh
}

# Runs tests chosen by name, and fails if there are none of that name.
any_passes() {
    local output status=0
    output=$("$@" 2>&1) || status=1
    echo "$output"
    ((status == 0)) && grep -q 'ok\. [1-9]' <<<"$output"
}

costs() { # instructions of the engine
    run scripts/engine-cost.sh "$($all && echo --check || echo --check-default)"
}

fuzzing() { # of each target: for some seconds, or a minute
    run scripts/fuzz.sh "$($all && echo 60 || echo 3)"
}

interop() { # with other stacks
    local manifest=(--manifest-path perf/peers/Cargo.toml)
    if $all; then
        run cargo build -q --release -p ringway-perf
        run cargo build -q --profile interop "${manifest[@]}" --keep-going
        run perf/peers/target/interop/interop --all
    else
        # As the tests are built, and where they are: ringperf is there already, and most of what the others need.
        local light=("${manifest[@]}" --target-dir target -p ringway-interop -p ringway-peers -p ringway-peers-sans-io -p quinn-peer)
        run "${CARGO_BUILD[@]}"
        run cargo clippy -q "${light[@]}" --all-targets -- -D warnings
        run cargo test -q "${light[@]}"
        run cargo build -q "${light[@]}"
        run target/debug/interop --ringperf target/debug/ringperf
    fi
    run http3
}

http3() { # others' clients and servers of HTTP/3 with the examples of ringway-h3, behind `interop`, which builds programs of others
    "${CARGO_BUILD[@]}" || return 1
    local options=(--backends io_uring socket) tree status=0
    if $all; then
        options+=(--all --peers perf/peers/target/interop --stacks quinn quiche s2n-quic)
    else
        options+=(--peers target/debug --stacks quinn)
    fi
    # Programs of Debian's packages, unpacked, not installed.
    tree=$(tests/interop/packages.sh) || status=$?
    case $status in
        0) options+=(--debian "$tree") ;;
        75)
            echo "SKIP HTTP/3: ngtcp2, curl, nginx, HAProxy, Caddy: their packages cannot be downloaded"
            status=0
            ;;
    esac
    "$VENV/bin/python" tests/interop/http3.py target/debug/examples "${options[@]}" || status=1
    return "$status"
}

browser() { # Chromium loads a page by HTTP/3
    run scripts/browser.sh
}

guest() { # AF_XDP on multi-queue NICs, in a virtual machine with two NUMA nodes
    if $all; then
        # Optimised, as scripts/demo.sh has it, and by a clock that goes by instructions: nothing in a job times out on a slow or busy machine.
        # The limit goes by the machine's time: some jobs take ten minutes and more alone, and three times as long beside others.
        run cargo build -q --profile demo -p ringway-perf --features af_xdp
        export RINGPERF=$ROOT/target/demo/ringperf
        local nic job kernel
        for nic in igb virtio; do
            for job in transfer modes 'movement '{copy,zero-copy,generic} 'unbind '{copy,zero-copy,generic}' '{low-latency,max-throughput} \
                numa spread nic packet-memory overload late-queues links returning dispatcher; do
                run scripts/vm.sh --nic "$nic" --clock instructions --limit 5400 $job
            done
            for kernel in 6.1 6.12 newest; do run scripts/vm.sh --nic "$nic" --kernel "$kernel" --clock instructions --limit 5400 datapaths; done
        done
    else
        run "${CARGO_BUILD[@]}"
        run scripts/vm.sh --limit 235 transfer
    fi
}

endurance() { # many seeds in both modes, random calls for minutes, attacks that go on
    two_at_a_time "TEST_RUNS=2000 ${CARGO_TEST[*]} --test simulation" "TEST_RUNS=2000 TEST_MODE=max_throughput ${CARGO_TEST[*]} --test simulation"
    two_at_a_time "TEST_RUNS=30 ${CARGO_TEST[*]} --test movement" "TEST_RUNS=30 TEST_MODE=max_throughput ${CARGO_TEST[*]} --test movement"
    two_at_a_time "TEST_RUNS=500 ${CARGO_TEST[*]} --test tasks" "TEST_RUNS=500 TEST_MODE=max_throughput ${CARGO_TEST[*]} --test tasks"
    run env TEST_SECONDS=120 "${CARGO_TEST[@]}" --test exerciser
    run env TEST_RUNS=10 "${CARGO_TEST[@]}" --test attack -- --nocapture
}

cryptography() { # AES-GCM optimised, whose time must not depend on secrets, and for ARMv8; the engine with aws-lc's FIPS module
    run scripts/constant-time.sh
    run scripts/aarch64.sh
    run scripts/fips.sh
}

# Runs a command. If it fails, says how to run it again, and goes on.
run() {
    "$@" && return
    echo "FAILED; again: $*"
    failed=1
}

# Runs commands two at a time, each of which prints when it has ended.
two_at_a_time() {
    printf '%s\0' "$@" | LOCK=$log xargs -0 -n 1 -P 2 bash -c '
        output=$(eval "$1" 2>&1) && status=0 || status=1
        ((status == 0)) || output+=$(printf "\nFAILED; again: %s" "$1")
        flock "$LOCK" printf "%s\n" "-- $1" "$output"
        exit "$status"' - || failed=1
}

PARTS=(lints tests executions interleavings costs fuzzing interop browser guest)
if $all; then PARTS+=(memory cryptography endurance); fi
describe() { sed -n "s/^$1() { # //p" "${BASH_SOURCE[0]}"; }
if [[ ${1:-} == --list ]]; then
    for part in "${PARTS[@]}"; do printf '%-14s %s\n' "$part" "$(describe "$part")"; done
    exit
fi
chosen=("$@")
(($#)) || chosen=("${PARTS[@]}")
for part in "${chosen[@]}"; do
    [[ " ${PARTS[*]} " == *" $part "* ]] || { echo "test.sh: there is no part $part: ${PARTS[*]}" >&2; exit 1; }
done

log=$(mktemp)
clock=$(mktemp)
trap 'rm -f "$log" "$clock"' EXIT
status=0
spent=()
# Seconds, and seconds of processors, up to now. Not in a subshell: `times` knows only its own there.
read_clock() {
    times >"$clock"
    read -r wall processors < <(awk -v now="$EPOCHREALTIME" 'NR == 2 { gsub(/[ms]/, " "); print now, $1 * 60 + $2 + $3 * 60 + $4 }' "$clock")
}
for part in setup "${chosen[@]}"; do
    step "$part: $(describe "$part")"
    read_clock
    from=("$wall" "$processors")
    # Not with `||`, behind which errors in the part would go unnoticed.
    set +e
    (
        set -e
        failed=0
        "$part"
        exit "$failed"
    ) 2>&1 | tee -a "$log"
    result=$?
    set -e
    read_clock
    spent+=("$(awk -v part="$part" '{ printf "%-13s %5d s, of processors %5d s", part, $3 - $1, $4 - $2 }' <<<"${from[*]} $wall $processors")")
    ((result == 0)) || status=1
    # Nothing works without it.
    [[ $part != setup || $status == 0 ]] || exit 1
done

grep -hE '^ *(SKIP|FAIL)' "$log" | sort | uniq -c || true
echo
printf '%s\n' "${spent[@]}"
# `test result: ok. 142 passed; 0 failed; 2 ignored` of cargo, and `49 passed, 0 failed, 7 skipped` of others.
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
