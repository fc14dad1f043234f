#!/bin/bash
# A NIC that gets more queues under a running server: they are served too, without a restart. (veth runs no program on queues that it gets later.)
# virtio_net takes no other number while it runs a program itself, in whichever copy mode. Arguments: copy, zero-copy, generic.
source "$ROOT/tests/vm/guest.sh"
nics
# Servers and clients without capabilities are among them: their sockets are kept from the start, and their memory is not bounded.
ulimit -l unlimited
for side in a b; do on "$side" ethtool -N nic0 rx-flow-hash udp4 sdfn; done
ways=(${*:-copy zero-copy generic})
if [[ $NIC == virtio ]]; then
    refused() { ! "$@"; }
    on b ethtool -L nic0 combined 2
    start_server refused --datapath af_xdp --affinitize
    # Of those that it may have it has some for the program, which are counted too.
    read -r -d '' most used < <(on b ethtool -l nic0 | awk '/^Combined:/ { print $2 }') || true
    check "there could be more queues: $most, of $used" more_than "$most" "$used"
    for number in 4 "$most"; do
        check "this driver takes no other number of queues while it runs a program: $number" refused on b ethtool -L nic0 combined "$number"
    done
    start_client refused --scenario upload --bytes 256KiB --connections 6 --datapath af_xdp
    check 'with two queues' wait_client
    check 'the server' stop_server refused
    check 'it takes that number without one' on b ethtool -L nic0 combined 4
    row 'more queues are refused' refused -
    [[ " ${ways[*]} " == *' generic '* ]] || exit 0
    ways=(generic)
fi
for way in "${ways[@]}"; do
    for mode in low-latency max-throughput; do
        tag=late-$way-$mode
        on b ethtool -X nic0 default
        on b ethtool -L nic0 combined 2
        on b ethtool -X nic0 default
        sleep 3
        options=($(af_xdp "$way") --mode "$mode")
        [[ $mode != low-latency ]] || options+=(--drop-capabilities)
        start_server "$tag" "${options[@]}"
        start_client "$tag-before" --scenario upload --bytes 256KiB --connections 6 "${options[@]}"
        check "$tag: with two queues" wait_client
        on b ethtool -L nic0 combined 4
        # All comes by those that are new.
        on b ethtool -X nic0 start 2 equal 2
        sleep 5
        before=$(value "/out/$tag.server" bypass_received_datagrams) all=$(value "/out/$tag.server" received_datagrams)
        start_client "$tag" --scenario upload --bytes 256KiB --connections 6 "${options[@]}"
        check "$tag: by the two that are new" wait_client
        check "$tag: the server" stop_server "$tag"
        past=$(($(value "/out/$tag.server" bypass_received_datagrams) - before)) all=$(($(value "/out/$tag.server" received_datagrams) - all))
        check "$tag: what came by them came past the kernel's stack: $past of $all" at_most "$all" "$((past * 102 / 100))"
        MODE="$way $mode" row 'more queues' "$tag" "queues of b: $(received_by_queues b)"
    done
done
