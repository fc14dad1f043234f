#!/bin/bash
# AF_XDP over a veth pair without segmentation offload, each packet by itself, one core for each side: Ringway, quinn on sockets, and the
# floor of this machine (ringperf floor) take turns; medians are printed. Needs root.
# Usage: compare-af_xdp.sh [ROUNDS] [SECONDS] [native|generic]
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"
((EUID == 0)) || { echo 'compare-af_xdp.sh: it needs root' >&2; exit 1; }
export PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
rounds=${1:-5}
seconds=${2:-2}
attach=${3:-native}
cargo build -q --release -p ringway-perf
cargo build -q --release --manifest-path tests/interop/Cargo.toml
ringperf=target/release/ringperf
quinn=tests/interop/target/release/quinn-peer
export NAME=rwcompare
directory=$(mktemp -d)
servers=()
trap 'kill "${servers[@]}" 2>/dev/null || true; wait; scripts/namespaces.sh down >/dev/null; rm -rf "$directory"' EXIT
SEGMENTATION=off scripts/namespaces.sh up 1500 1 >/dev/null
# Where XDP is in the network stack, the receiver's core does the receiver's work, if it is told to: all AF_XDP ends have it so. It makes sockets
# slower; they are measured without. In the driver, the sender's core does it in any case.
steer() { # MASK of the server's side, MASK of the client's
    [[ $attach == generic ]] || return 0
    ip netns exec $NAME-a sh -c "echo $1 >/sys/class/net/rw0/queues/rx-0/rps_cpus"
    ip netns exec $NAME-b sh -c "echo $2 >/sys/class/net/rw0/queues/rx-0/rps_cpus"
}
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$directory/key" -out "$directory/cert" \
    -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE 2>/dev/null
xdp=(--datapath af_xdp --interface rw0 --xdp-attach "$attach" --no-udp-checksum)
serve() { # NAME, then the command
    local file=$directory/$1
    shift
    ip netns exec $NAME-a taskset -c 0 "$@" >"$file" &
    servers+=($!)
    until grep -q LISTENING "$file"; do sleep 0.05; done
}
stop() { kill "${servers[@]}" 2>/dev/null || true; wait "${servers[@]}" 2>/dev/null || true; servers=(); }
run() { ip netns exec $NAME-b taskset -c 1 "$@"; }
goodput() { sed -n 's/.*"goodput_gbit_s":\([0-9.]*\).*/\1/p'; }
median() { sort -g "$directory/$1" | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
range() { sort -g "$directory/$1" | awk 'NR == 1 { low = $1 } { high = $1 } END { printf "%.1f to %.1f", low, high }'; }
for _ in $(seq "$rounds"); do
    # All attach to the same interface: one after the other.
    steer 1 2
    "$ringperf" floor --rounds 1 --time "${seconds}s" --datapath af_xdp --interface rw0 --xdp-attach "$attach" --cpus 1,0 \
        --send-in $NAME-b --receive-in $NAME-a --address 10.9.0.1 --json |
        sed -n 's/.*"sealed":{"kernel":\[\([0-9.]*\)\].*/\1/p' >>"$directory/floor"
    for scenario in download upload; do
        steer 1 2
        serve ringway "$ringperf" server --bind 10.9.0.1:4433 --cpus 0 --affinitize --cert "$directory/cert" --key "$directory/key" \
            --poll-idle 1ms "${xdp[@]}"
        run "$ringperf" client --target 10.9.0.1:4433 --server-name localhost --ca "$directory/cert" --cpus 1 --affinitize \
            --scenario "$scenario" --time "${seconds}s" --json --poll-idle 1ms "${xdp[@]}" | goodput >>"$directory/ringway-$scenario"
        stop
        steer 0 0
        serve quinn "$quinn" server --listen 10.9.0.1:4434 --cert "$directory/cert" --key "$directory/key"
        run "$quinn" client --connect 10.9.0.1:4434 --ca "$directory/cert" --scenario "$scenario" --seconds "$seconds" |
            goodput >>"$directory/quinn-$scenario"
        stop
    done
done
printf 'floor, copied and sealed: %.2f Gbit/s (%s)\n' "$(median floor)" "$(range floor)"
for scenario in download upload; do
    x=$(median "ringway-$scenario")
    awk -v s="$scenario" -v x="$x" -v xr="$(range "ringway-$scenario")" -v y="$(median "quinn-$scenario")" -v yr="$(range "quinn-$scenario")" \
        -v f="$(median floor)" 'BEGIN {
            printf "%s: Ringway %.2f Gbit/s (%s), quinn %.2f (%s), ratio %.2f; of the floor %.2f\n", s, x, xr, y, yr, x / y, x / f }'
done
