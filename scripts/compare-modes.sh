#!/bin/bash
# Processor time for each GB that the server's threads take in the two modes, in turn, on loopback: low latency on one processor, max
# throughput with the QUIC thread there and the datapath thread beside the client. Medians of the ratios: of the busier thread, and of both.
# Usage: compare-modes.sh [ROUNDS] [SECONDS] [DATAPATH...]
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"
export PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
rounds=${1:-5}
seconds=${2:-2}
shift $(($# < 2 ? $# : 2))
datapaths=("${@:-socket}")
[[ $# -gt 0 ]] || datapaths=(socket io_uring)
[[ ${RINGPERF:-} ]] || cargo build -q --release -p ringway-perf
ringperf=${RINGPERF:-target/release/ringperf}
directory=$(mktemp -d)
server=
trap '[[ -z $server ]] || kill "$server" 2>/dev/null || true; rm -rf "$directory"' EXIT
# Gbit/s, and seconds for each GB of the busier thread and of all: MODE PROCESSORS DATAPATH SCENARIO
measure() {
    "$ringperf" server --bind 127.0.0.1:0 --mode "$1" --cpus "$2" --affinitize --datapath "$3" --json >"$directory/server" &
    server=$!
    until grep -q LISTENING "$directory/server"; do sleep 0.05; done
    "$ringperf" client --target "$(sed -n 's/^LISTENING //p' "$directory/server")" --cpus 1 --affinitize --datapath "$3" \
        --scenario "$4" --time "${seconds}s" --json >"$directory/client"
    kill -INT "$server"
    wait "$server"
    server=
    python3 - "$directory" <<'P'
import json, sys
server = json.loads(open(sys.argv[1] + '/server').read().splitlines()[-1])
client = json.loads(open(sys.argv[1] + '/client').read())
threads = [seconds for name, seconds in server['threads'].items() if name.startswith('ringway/')]
gigabytes = client['bytes'] / 1e9
print(client['goodput_gbit_s'], max(threads) / gigabytes, sum(threads) / gigabytes)
P
}
for datapath in "${datapaths[@]}"; do
    for scenario in download upload; do
        : >"$directory/rounds"
        for _ in $(seq "$rounds"); do
            echo "$(measure low-latency 0 "$datapath" "$scenario") $(measure max-throughput 1,0 "$datapath" "$scenario")" >>"$directory/rounds"
        done
        python3 - "$datapath $scenario" "$directory/rounds" <<'P'
import statistics, sys
rounds = [[float(word) for word in line.split()] for line in open(sys.argv[2])]
median = lambda values: statistics.median(values)
low, busier, total = (median([r[i] for r in rounds]) for i in (1, 4, 5))
print(f'{sys.argv[1]:<18} low latency {median([r[0] for r in rounds]):5.1f} Gbit/s {low:.3f} s/GB; max throughput '
      f'{median([r[3] for r in rounds]):5.1f} Gbit/s, busier thread {busier:.3f} s/GB ({median([r[4] / r[1] for r in rounds]):.2f}), '
      f'both {total:.3f} ({median([r[5] / r[1] for r in rounds]):.2f})')
P
    done
done
