#!/bin/bash
# Transfers both ways in each way to use AF_XDP: native copy, native zero-copy and generic, in both execution modes. Where a way cannot be had,
# the reason is told, and the next one carries the transfer.
source "$ROOT/tests/vm/guest.sh"
nics
set_up
# Attach and copy mode as asked for, and what must come of it: ATTACH COPY EXPECTED [WITH]
way() {
    local mode tag options
    for mode in low-latency max-throughput; do
        tag=$1-$2${4:+-$4}-$mode
        options=(--datapath af_xdp --affinitize --mode "$mode" --xdp-attach "$1" --xdp-copy "$2")
        start_server "$tag" "${options[@]}"
        for scenario in upload download; do
            start_client "$tag" --scenario "$scenario" --bytes 1MiB --connections 4 "${options[@]}"
            check "$tag: $scenario" wait_client
        done
        check "$tag: the server" stop_server "$tag"
        check "$tag: it is $3 on every queue" test "$(copies "$tag")" == "$3"
        check "$tag: what was received came past the kernel's stack" \
            at_most "$(value "/out/$tag.server" received_datagrams)" "$(($(value "/out/$tag.server" bypass_received_datagrams) * 101 / 100))"
        MODE="$1 $2 $mode${4:+ $4}" row 'upload, download' "$tag" "queues of b: $(received_by_queues b)"
    done
}
# A server that is killed takes its sockets and its program along in no order: the next one is served as before.
killed() {
    rm -f /out/killed.server
    start_server killed --datapath af_xdp --affinitize
    kill -KILL "$server"
    wait "$server" || true
}
way native copy copy
way generic copy copy
way generic auto copy
case $NIC in
    igb)
        way native zero-copy zero-copy
        way native auto zero-copy
        killed
        way native auto zero-copy after-a-kill
        ;;
    virtio)
        # Not on the queues that the driver has only for a program.
        way native zero-copy 'copy zero-copy'
        way native auto 'copy zero-copy'
        check 'the reason why not on every queue is told' grep -q 'the driver has the queue only while a program is attached' /out/native-auto-low-latency.server
        killed
        way native auto 'copy zero-copy' after-a-kill
        # With all in use it has none of those.
        max=$(on b ethtool -l nic0 | awk '/^Combined:/ { print $2; exit }')
        check 'the plan says how none is copied' grep -q "ethtool -L nic0 combined $max)" <(on b "$RINGPERF" plan --interface nic0)
        for side in a b; do on "$side" ethtool -L nic0 combined "$max"; done
        way native zero-copy zero-copy all-queues
        way native auto zero-copy all-queues
        killed
        way native auto zero-copy all-queues-after-a-kill
        ;;
esac
