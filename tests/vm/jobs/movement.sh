#!/bin/bash
# What administrators do to a NIC while 8 connections transfer: each survives, with its content as it was sent, or ends with an error that says
# why; connections move to where the NIC brings their packets, and then packets arrive where their connections live. Arguments: copy modes.
source "$ROOT/tests/vm/guest.sh"
nics
set_up
B='ip -n b link set nic0'
ethtool_b() { on b ethtool "$@"; }

# Datagrams that the server has received so far, as of its last report.
received() { value "/out/$1.server" received_datagrams; }
has_received() { more_than "$(received "$1")" "$2"; }
# A transfer in the midst of which something happens: NAME COPY MODE COMMAND...
event() {
    local tag=$1-$2-$3 name=$1 options
    options=(--datapath af_xdp --affinitize --xdp-attach native --xdp-copy "$2" --mode "$3")
    shift 3
    start_server "$tag" "${options[@]}"
    start_client "$tag" --scenario upload --bytes 4MiB --connections 8 --timeout 20s "${options[@]}"
    wait_for "$tag: the transfer" has_received "$tag" 2000
    echo "-- $tag: $*"
    "$@" 2>&1 | sed 's/^/   /' || echo '   refused'
    check "$tag: the transfers survive" wait_client
    check "$tag: the server survives, and nothing came wrong" stop_server "$tag"
    check "$tag: everything has arrived" test "$(value "/out/$tag.server" request_bytes)" == $((8 * ((4 << 20) + 8)))
    MODE="${options[*]:5}" row "$name" "$tag" "queues of b: $(received_by_queues b)"
}
# The reports of a server show that datagrams are no longer handed over: at most 1 % of what came during its last two seconds.
handed_over_no_more() {
    grep '^{' "/out/$1.server" | tail -n 4 | awk '
        { match($0, /"handed_over":[0-9]+/); handed[NR] = substr($0, RSTART + 14, RLENGTH - 14)
          match($0, /"received_datagrams":[0-9]+/); received[NR] = substr($0, RSTART + 21, RLENGTH - 21) }
        END { print "   handed over, received:"; for (i = 1; i <= NR; i++) print "  ", handed[i], received[i]
              exit !(NR > 1 && (handed[NR] - handed[1]) * 100 <= received[NR] - received[1]) }'
}

one_queue() {
    ethtool_b -X nic0 equal 1
    sleep 4
}
back() { ethtool_b -X nic0 default; sleep 3; }
one_queue_and_back() { one_queue; back; }
down_up() { $B down; sleep 2; $B up; }
mtu() { $B mtu 1400; sleep 2; $B mtu 1500; }
queues() { ethtool_b -L nic0 combined 2; sleep 2; ethtool_b -L nic0 combined 4; }

for copy in ${*:-copy zero-copy}; do
    [[ $copy != zero-copy || $NIC == igb ]] || continue
    for mode in low-latency max-throughput; do
        event one-queue "$copy" "$mode" one_queue
        check "one-queue, $copy, $mode: connections are seen to move" more_than "$(value "/out/one-queue-$copy-$mode.server" ideal_processor_changes)" 0
        check "one-queue, $copy, $mode: then packets arrive where their connections live" handed_over_no_more "one-queue-$copy-$mode"
        ethtool_b -X nic0 default
        event one-queue-and-back "$copy" "$mode" one_queue_and_back
    done
    event down-up "$copy" low-latency down_up
    event mtu "$copy" low-latency mtu
    event queues "$copy" low-latency queues
    ethtool_b -L nic0 combined 4 || true
done
