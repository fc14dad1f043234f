#!/bin/bash
# Requests of many connections, whose source ports are chosen by the NIC's own hash: each is served by the partition that its packets come to, and
# every partition serves its share.
source "$ROOT/tests/vm/guest.sh"
nics
set_up
# With this key a flow has one hash in both directions, so that ports that spread the answers over the queues of a spread the requests over those of b.
key=$(printf '6d:5a:%.0s' {1..20})
both_ends=1
for side in a b; do on "$side" ethtool -X nic0 hkey "${key%:}" || both_ends=0; done
spread() { # WAY MODE
    local tag=spread-$1-$2 end total share handed
    transfer "$tag" --scenario rps-multi --connections 32 --streams 4 --time 15s -- \
        $(af_xdp "$1") --mode "$2" && check "$tag: transfers" true || check "$tag: transfers" false
    for end in client server; do
        total=$(value "/out/$tag.$end" received_datagrams)
        handed=$(value "/out/$tag.$end" handed_over)
        check "$tag, $end: at most 1 % of $total datagrams are handed over: $handed" at_most "$((${handed:-1} * 100))" "$total"
        ((both_ends)) || [[ $end == client ]] || continue
        for share in $(values "/out/$tag.$end" received_datagrams); do
            check "$tag, $end: a partition serves its share, $share of $total" more_than "$((share * 8))" "$total"
        done
    done
    MODE="$1 $2" row rps-multi "$tag" "queues of b: $(received_by_queues b)"
}
for way in copy zero-copy generic; do
    for mode in low-latency max-throughput; do spread "$way" "$mode"; done
done
