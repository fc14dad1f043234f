#!/bin/bash
# What administrators do to a NIC while 8 connections transfer: each survives, with its content as it was sent, or ends with an error that says
# why; connections move to where the NIC brings their packets, and then packets arrive where their connections live. Arguments: copy modes.
source "$ROOT/tests/vm/guest.sh"
nics
set_up
B='ip -n b link set nic0'
ethtool_b() { on b ethtool "$@"; }

# All 8 connections are there, and carry data: as of the server's last report.
carries() {
    local connections
    connections=$(values "/out/$1.server" connections)
    ((${connections// /+} 0 == 8)) && more_than "$(value "/out/$1.server" received_datagrams)" 2000
}
# A transfer in the midst of which something happens: NAME COPY MODE COMMAND...
event() {
    local tag=$1-$2-$3 name=$1 options
    options=(--datapath af_xdp --affinitize --xdp-attach native --xdp-copy "$2" --mode "$3")
    shift 3
    start_server "$tag" "${options[@]}"
    start_client "$tag" --scenario upload --bytes 8MiB --connections 8 --timeout 20s "${options[@]}"
    wait_for "$tag: the transfer" carries "$tag"
    echo "-- $tag: $*; connections of each partition: $(values "/out/$tag.server" connections)"
    "$@" 2>&1 | sed 's/^/   /' || echo '   refused'
    check "$tag: the transfers survive" wait_client
    check "$tag: the server survives, and nothing came wrong" stop_server "$tag"
    check "$tag: everything has arrived" test "$(value "/out/$tag.server" request_bytes)" == $((8 * ((8 << 20) + 8)))
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

# A queue of the partition that has the fewest connections: those of the others are to move.
one_queue() {
    local partition queue
    partition=$(values "/out/$tag.server" connections | tr ' ' '\n' | awk 'NF && (!fewest || $1 < least) { fewest = NR; least = $1 } END { print fewest - 1 }')
    queue=$(grep '^{' "/out/$tag.server" | tail -n 1 | grep -o '"queue":[0-9]*,"partition":[0-9]*' | awk -F'[:,]' -v partition="$partition" '$4 == partition { print $2; exit }')
    echo "all to queue $queue, of partition $partition"
    ethtool_b -X nic0 start "$queue" equal 1
    sleep 4
}
back() { ethtool_b -X nic0 default; sleep 3; }
one_queue_and_back() { one_queue; back; }
down_up() { $B down; sleep 2; $B up; }
mtu() { $B mtu 1400; sleep 2; $B mtu 1500; }
queues() { ethtool_b -L nic0 combined 2; sleep 2; ethtool_b -L nic0 combined 4; }

for copy in ${*:-copy zero-copy}; do
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
