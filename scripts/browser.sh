#!/bin/bash
# Has Chromium load a page by HTTP/3 on each datapath: AF_XDP, and what is recorded, on the loopback interface of a network namespace. tshark decrypts
# what was recorded: no packet may be malformed. Chromium and tshark are installed where that is allowed. Usage: browser.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"
for program in chromium tshark; do
    command -v "$program" >/dev/null && continue
    if ((UID == 0)) && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$program" >/dev/null 2>&1; then continue; fi
    [[ $program == tshark ]] && continue
    echo 'SKIP Chromium loads a page: it is not installed, and cannot be'
    echo '0 passed, 0 failed, 1 skipped'
    exit
done
folder=$(mktemp -d)
chmod 755 "$folder"
trap 'rm -rf "$folder"' EXIT
status=0
# As scripts/test.sh builds everything.
TEST=(cargo test -q --workspace --all-features --test browser --)

RINGWAY_DATAPATH__BACKEND=io_uring "${TEST[@]}" --test-threads=1 || status=1
scripts/on-af_xdp.sh env RINGWAY_DATAPATH__BACKEND=af_xdp RINGWAY_DATAPATH__AF_XDP__INTERFACE=lo "${TEST[@]}" --test-threads=1 || status=1

# Why nothing is recorded; empty: nothing stands in its way.
obstacle=$(scripts/on-af_xdp.sh true | sed -n 's/^SKIP [^:]*: //p')
command -v tshark >/dev/null || obstacle='there is no tshark'
if [[ $obstacle ]]; then
    RINGWAY_DATAPATH__BACKEND=socket "${TEST[@]}" --test-threads=1 || status=1
    echo "SKIP decryption of a page load: $obstacle"
    echo '0 passed, 0 failed, 1 skipped'
    exit "$status"
fi

# Each datagram in a frame of its own, as the namespace has it.
scripts/on-af_xdp.sh bash -c '
    tshark -q -i lo -f udp -w "$0/packets" 2>"$0/recorder" &
    recorder=$!
    until grep -q "Capturing on" "$0/recorder"; do
        sleep 0.1
        kill -0 $recorder || { cat "$0/recorder" && exit 1; }
    done
    SSLKEYLOGFILE=$0/keys RINGWAY_DATAPATH__BACKEND=socket "$@" --test-threads=1 && status=0 || status=1
    kill -INT $recorder
    wait $recorder
    exit $status' "$folder" "${TEST[@]}" || status=1
if [[ -s $folder/packets ]]; then
    count() { tshark -r "$folder/packets" -o "tls.keylog_file:$folder/keys" --enable-heuristic quic -Y "$1" 2>/dev/null | wc -l; }
    quic=$(count quic) malformed=$(count _ws.malformed) sealed=$(count quic.decryption_failed) http3=$(count http3)
    line="tshark: $quic packets of QUIC, $http3 with HTTP/3, $sealed not decrypted, $malformed malformed"
    if ((quic > 10000 && http3 > 100 && malformed == 0 && sealed == 0)); then
        echo "$line"
        echo '1 passed, 0 failed'
    else
        echo "FAIL $line"
        echo '0 passed, 1 failed'
        status=1
    fi
fi
exit "$status"
