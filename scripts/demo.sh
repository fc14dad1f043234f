#!/bin/bash
# The main job: builds ringperf, then runs a server and a client over loopback, download and upload, and prints figures.
# Further arguments go to both (say: --cc newreno --poll-idle 50us).
#
# It builds without AF_XDP, which loopback cannot show, so that a C compiler is all it needs; and without link-time optimisation, so that it
# shows something soon. PROFILE=release builds as releases are built, which takes two minutes more.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
"$ROOT/scripts/setup.sh" demo
export PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
profile=${PROFILE:-demo}

step "building ringperf (profile $profile)"
cargo build -q --profile "$profile" --manifest-path "$ROOT/Cargo.toml" -p ringway-perf --no-default-features --bin ringperf
ringperf=$ROOT/target/$profile/ringperf

out=$(mktemp)
"$ringperf" server --bind 127.0.0.1:0 "$@" >"$out" &
server=$!
trap 'kill "$server" 2>/dev/null || true; rm -f "$out"' EXIT
for _ in $(seq 100); do
    grep -q LISTENING "$out" && break
    kill -0 "$server" 2>/dev/null || { echo 'the server ended' >&2; exit 1; }
    sleep 0.05
done
address=$(sed -n 's/^LISTENING //p' "$out")

for scenario in download upload; do
    step "$scenario, 5 s, one connection, one stream"
    "$ringperf" client --target "$address" --server-name localhost --scenario "$scenario" --time 5s "$@"
done
