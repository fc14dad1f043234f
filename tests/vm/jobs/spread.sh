#!/bin/bash
# Requests of many connections, whose source ports are chosen by the NIC's own hash: each is served by the partition that its packets come to.
source "$ROOT/tests/vm/guest.sh"
nics
set_up
spread() { # COPY MODE
    local tag=spread-$1-$2 total share handed
    transfer "$tag" --scenario rps-multi --connections 32 --streams 4 --time 5s -- \
        --datapath af_xdp --affinitize --xdp-attach native --xdp-copy "$1" --mode "$2" || failed=$((failed + 1))
    total=$(value "/out/$tag.server" received_datagrams)
    handed=$(value "/out/$tag.server" handed_over)
    check "$tag: at most 1 % of $total datagrams are handed over: $handed" at_most "$((${handed:-$total} * 100))" "${total:-0}"
    for share in $(values "/out/$tag.server" received_datagrams); do
        check "$tag: a partition serves its share, $share of $total" more_than "$((share * 8))" "$total"
    done
    MODE="$1 $2" row rps-multi "$tag" -
}
for copy in ${COPIES:-copy zero-copy}; do
    for mode in low-latency max-throughput; do spread "$copy" "$mode"; done
done
