#!/bin/bash
# Servers of HTTP/3 in turn on loopback, one core for the server and one for the client, which is ours for all: 1 KB by GET, 100 at a time on one
# connection, and two at a time on each of 50. Medians of requests in a second and of the server's processor time for each, connecting included (by
# X25519), and how many times as many the first server answers. quinn, s2n-quic and Ringway run the crate h3 with the same handlers; quiche and ngtcp2
# (from Debian's packages) have their own HTTP/3. All run over sockets of the kernel, Ringway's by io_uring where there is one.
# Usage: compare-http3.sh [ROUNDS] [SECONDS] [SERVER...]
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"
export PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
rounds=${1:-5}
seconds=${2:-1}
shift $(($# < 2 ? $# : 2))
peers=perf/peers/target/release
build() { cargo build -q --release --manifest-path perf/peers/Cargo.toml -p "$1"; }
build ringway-http3
if (($#)); then wanted=("$@"); else wanted=(ringway quinn s2n-quic quiche ngtcp2); fi
servers=()
for name in "${wanted[@]}"; do
    case $name in
        ringway) true ;;
        ngtcp2) tree=$(tests/interop/packages.sh) ;;
        *) build "$name-peer" ;;
    esac && servers+=("$name") || echo "$name is left out: it cannot be built, or its packages cannot be downloaded" >&2
done
directory=$(mktemp -d)
server=
trap '[[ -z $server ]] || kill "$server" 2>/dev/null || true; rm -rf "$directory"' EXIT
mkdir "$directory/site"
head -c 1024 /dev/urandom >"$directory/site/1k"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost \
    -addext basicConstraints=critical,CA:FALSE -keyout "$directory/key.pem" -out "$directory/chain.pem" 2>/dev/null

# Starts a server on a port of its own. NAME
start() {
    local command=(http3-server --bind 127.0.0.1:0 --cert "$directory/chain.pem" --key "$directory/key.pem" --root "$directory/site")
    case $1 in
        ringway) command=("$peers/ringway-http3" "${command[@]}") ;;
        ngtcp2)
            address=127.0.0.1:$((20000 + RANDOM % 10000))
            # By the dynamic linker and with the libraries that came with it.
            command=("$tree/usr/lib64/ld-linux-x86-64.so.2" --library-path "$tree/usr/lib/x86_64-linux-gnu" "$tree/usr/sbin/gtlsserver"
                --quiet -d "$directory/site" "${address%:*}" "${address#*:}" "$directory/key.pem" "$directory/chain.pem")
            ;;
        *) command=("$peers/$1-peer" "${command[@]}") ;;
    esac
    # Where it listens is not where the one before did.
    : >"$directory/out"
    taskset -c 0 "${command[@]}" >"$directory/out" 2>"$directory/err" &
    server=$!
    for _ in $(seq 100); do
        if [[ $1 == ngtcp2 ]]; then
            ss -Hlun "sport = :${address#*:}" | grep -q . && return
        else
            address=$(sed -n 's/^LISTENING //p' "$directory/out")
            [[ -z $address ]] || return 0
        fi
        sleep 0.05
    done
    echo "$1 does not start: $(cat "$directory/err")" >&2
    return 1
}
stop() {
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    server=
}
# Processor time of the server in hundredths of a second.
ticks() { awk '{ print $14 + $15 }' "/proc/$server/stat"; }

# One run: appends requests in a second, and microseconds of the server for each. NAME CONNECTIONS STREAMS
measure() {
    local before after line=
    if start "$1"; then
        before=$(ticks)
        line=$(taskset -c 1 "$peers/ringway-http3" load --target "$address" --ca "$directory/chain.pem" --connections "$2" --streams "$3" \
            --time "${seconds}s" /1k 1024) || echo "$1, $2 connections: this run does not count; the server said: $(cat "$directory/err")" >&2
        after=$(ticks || echo "$before")
    fi
    stop
    [[ -n $line ]] || return 0
    figure operations_per_s <<<"$line" >>"$directory/$1.$2.rate"
    figure operations <<<"$line" | awk -v ticks=$((after - before)) '{ print ticks * 10000 / $1 }' >>"$directory/$1.$2.cost"
}

for _ in $(seq "$rounds"); do
    for name in "${servers[@]}"; do
        measure "$name" 1 100
        measure "$name" 50 2
    done
done
status=0
for connections in 1 50; do
    first=$(median "$directory/${servers[0]}.$connections.rate")
    for name in "${servers[@]}"; do
        if [[ ! -s $directory/$name.$connections.rate ]]; then
            echo "$name, $connections connections: no run counts"
            status=1
            continue
        fi
        median "$directory/$name.$connections.rate" |
            awk -v name="$name" -v connections="$connections" -v runs="$(wc -l <"$directory/$name.$connections.rate")" \
                -v cost="$(median "$directory/$name.$connections.cost")" -v of="${servers[0]}" -v first="$first" '{
                printf "%-9s %2d connections %7.1f thousand/s (%d runs), server %5.1f us each; %s %.2f times\n",
                    name, connections, $1 / 1000, runs, cost, of, first / $1
            }'
    done
done
exit "$status"
