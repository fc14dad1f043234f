#!/bin/bash
# What administrators do to a NIC while 8 connections transfer: each survives, with its content as it was sent, or ends with an error that says
# why; connections move to where the NIC brings their packets, and then packets arrive where their connections live. Arguments: copy, zero-copy, generic.
source "$ROOT/tests/vm/guest.sh"
nics
set_up
B='ip -n b link set nic0'
ethtool_b() { on b ethtool "$@"; }

# A transfer in the midst of which something happens: NAME WAY MODE COMMAND... (MIB: how much each connection sends)
event() {
    local tag=$1-$2-$3 name=$1 bytes=$((${MIB:-8} << 20)) options
    options=($(af_xdp "$2") --mode "$3")
    shift 3
    start_server "$tag" "${options[@]}"
    start_client "$tag" --scenario upload --bytes "$bytes" --connections 8 --timeout 20s "${options[@]}"
    wait_for "$tag: the transfer" carries "$tag"
    echo "-- $tag: $*; connections of each partition: $(values "/out/$tag.server" connections)"
    check "$tag: it is done" "$@"
    check "$tag: meanwhile the transfers go on" test -e "/proc/$client/root"
    reports=$(grep -c '^{' "/out/$tag.server")
    check "$tag: the transfers survive" wait_client
    check "$tag: the server survives, and nothing came wrong" stop_server "$tag"
    check "$tag: everything has arrived" test "$(value "/out/$tag.server" request_bytes)" == $((8 * (bytes + 8)))
    MODE="${options[*]:3}" row "$name" "$tag" "queues of b: $(received_by_queues b)"
}
# The reports of a server since what happened show that datagrams are no longer handed over: at most 1 % of what came since then.
handed_over_no_more() {
    grep '^{' "/out/$1.server" | tail -n +"$reports" | awk '
        { match($0, /"handed_over":[0-9]+/); handed[NR] = substr($0, RSTART + 14, RLENGTH - 14)
          match($0, /"received_datagrams":[0-9]+/); received[NR] = substr($0, RSTART + 21, RLENGTH - 21) }
        END { print "   handed over, received:"; for (i = 1; i <= NR; i++) print "  ", handed[i], received[i]
              exit !(NR > 1 && received[NR] - received[1] > 1000 && (handed[NR] - handed[1]) * 100 <= received[NR] - received[1]) }'
}

# A queue of the partition that has the fewest connections: those of the others are to move.
one_queue() {
    local partition queue
    partition=$(values "/out/$tag.server" connections | tr ' ' '\n' | awk 'NF && (!fewest || $1 < least) { fewest = NR; least = $1 } END { print fewest - 1 }')
    queue=$(grep '^{' "/out/$tag.server" | tail -n 1 | grep -o '"queue":[0-9]*,"partition":[0-9]*' | awk -F'[:,]' -v partition="$partition" '$4 == partition { print $2; exit }')
    echo "   all to queue $queue, of partition $partition"
    ethtool_b -X nic0 start "$queue" equal 1 && sleep 4
}
one_queue_and_back() { one_queue && ethtool_b -X nic0 default && sleep 3; }
down_up() { $B down && sleep 2 && $B up; }
mtu() { $B mtu 1400 && sleep 2 && $B mtu 1500; }
# How many queues the NIC may have, and how many it has. (virtio_net counts those that it has for a program.)
queues_most() { ethtool_b -l nic0 | awk '/^Combined:/ { print $2; exit }'; }
queues_used() { ethtool_b -l nic0 | awk '/^Combined:/ { used = $2 } END { print used }'; }
# A number of queues that the NIC is asked for, and does not take: NUMBER
refused() {
    local used
    used=$(queues_used)
    echo "   of $used queues, $1 are asked for"
    ! ethtool_b -L nic0 combined "$1" && test "$(queues_used)" == "$used"
}
# So many queues are served, as of the server's last report: TAG NUMBER
serves() { test "$(grep '^{' "/out/$1.server" | tail -n 1 | grep -o '"queue":[0-9]*,"partition"' | sort -u | grep -c .)" == "$2"; }
# It begins with two.
queues() {
    check "$tag: fewer queues are refused while sockets have them" refused 1
    if [[ $NIC == virtio && $tag != *-generic-* ]]; then
        check "$tag: it could have more" more_than "$(queues_most)" "$(queues_used)"
        check "$tag: this driver takes no more either while it runs a program" refused "$(queues_most)"
        return
    fi
    ethtool_b -L nic0 combined 4
    check "$tag: more queues are taken" test "$(queues_used)" == 4
    wait_for "$tag: the service of four queues" serves "$tag" 4
    check "$tag: now they are not taken away" refused 2
    sleep 4
}

ways=(${*:-copy zero-copy generic})
for way in "${ways[@]}"; do
    for mode in low-latency max-throughput; do
        event one-queue "$way" "$mode" one_queue
        check "one-queue, $way, $mode: connections are seen to move" more_than "$(value "/out/one-queue-$way-$mode.server" ideal_processor_changes)" 0
        check "one-queue, $way, $mode: then packets arrive where their connections live" handed_over_no_more "one-queue-$way-$mode"
        ethtool_b -X nic0 default
        MIB=12 event one-queue-and-back "$way" "$mode" one_queue_and_back
        check "one-queue-and-back, $way, $mode: packets arrive where their connections live once more" handed_over_no_more "one-queue-and-back-$way-$mode"
        event down-up "$way" "$mode" down_up
        event mtu "$way" "$mode" mtu
    done
done
# Last, because interrupts are where they were at first when the number of queues has changed.
for way in "${ways[@]}"; do
    for mode in low-latency max-throughput; do
        ethtool_b -L nic0 combined 2
        ethtool_b -X nic0 default
        wait_for 'the wire' reaches
        MIB=12 event queues "$way" "$mode" queues
        check "queues, $way, $mode: packets arrive where their connections live, on as many queues as there are now" handed_over_no_more "queues-$way-$mode"
    done
done
