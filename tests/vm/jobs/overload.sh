#!/bin/bash
# A server that does not run for seconds while the NIC goes on receiving: the ring of received frames is full then, and the driver has memory to
# receive into nevertheless. (One that has none may hand up an old frame again.) Nothing wrong is delivered, then or later.
source "$ROOT/tests/vm/guest.sh"
nics
# More datagrams of no connection, to the server's port, than a ring has room for.
FLOOD='
import socket
flood = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
flood.connect(("10.9.0.2", 4433))
for _ in range(4000):
    flood.send(bytes([0x40]) + bytes(400))
'
overloaded() { # WAY MODE
    local way=$1 tag=overload-$1-$2 dropped empty sign
    start_server "$tag" $(af_xdp "$way") --mode "$2" --cpus 0
    start_client "$tag" --scenario upload --time 12s --connections 8 --datapath socket --cpus 1
    for _ in 1 2; do
        sleep 1
        kill -STOP "$server"
        on a timeout 60 python3 -c "$FLOOD"
        kill -CONT "$server"
    done
    # It may have given up meanwhile. Another one finds all in order.
    wait_client || echo "     $tag: $(tail -n 1 "/out/$tag.client" | cut -c1-200)"
    start_client "$tag" --scenario upload --bytes 1MB --datapath socket --cpus 1
    check "$tag: the next client" wait_client
    check "$tag: the server" stop_server "$tag"
    dropped=$(value "/out/$tag.server" dropped_ring_full) empty=$(value "/out/$tag.server" dropped_no_frame)
    if [[ $way == zero-copy && $NIC == igb ]]; then
        check "$tag: the driver always had memory to receive into, not $empty times" test "$empty" == 0
    fi
    check "$tag: it was too much: $dropped + $empty dropped" more_than "$((dropped + empty + $(on b ethtool -S nic0 | awk '/rx_no_buffer|rx_missed|rx_fifo/ { n += $2 } END { print n + 0 }')))" 0
    for sign in DecryptionFailed MalformedHeader Duplicate refused_descriptors; do
        check "$tag: no $sign" test "$(value "/out/$tag.server" "$sign" | grep -v '^0$')" == ''
    done
    MODE="$way $2" row overload "$tag" "dropped $dropped ring full, $empty no frame"
}
for way in zero-copy copy generic; do
    for mode in low-latency max-throughput; do overloaded "$way" "$mode"; done
done
