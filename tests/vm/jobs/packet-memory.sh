#!/bin/bash
# Packet memory on a NIC of its own: AF_XDP in each mode at MTU 1500, a smaller and a larger one, several queues in one partition, which mode
# `auto` takes and what it says of the others. Nothing wrong is delivered.
source "$ROOT/tests/vm/guest.sh"
nics
# Nothing that would show that memory was written by two: TAG
clean() {
    ! grep -hE '"(DecryptionFailed|MalformedHeader|Duplicate|refused_descriptors|transmit_stuck|passed_cut_off)":[1-9]' "/out/$1".{client,server} |
        cut -c1-800
}
run() { # TAG CLIENT-OPTION... -- OPTION-OF-BOTH...
    local tag=$1
    check "$tag: a transfer" transfer "$@"
    check "$tag: nothing that must not be is counted" clean "$tag"
    MODE=$tag row packet-memory "$tag" "no frame $(value "/out/$tag.server" dropped_no_frame), ring full $(value "/out/$tag.server" dropped_ring_full)"
}
# That the server serves each queue so: TAG PATTERN
served() { grep -o '"queues":\[[^]]*\]' "/out/$1.server" | tail -n 1 | grep -qE "^\"queues\":\\[(\\{[^}]*$2[^}]*\\},?)+\\]$"; }

for copy in copy zero-copy auto; do
    run "native-$copy" --scenario upload --bytes 2MB -- --datapath af_xdp --xdp-attach native --xdp-copy "$copy"
    # One partition with all queues, and its worker on another thread.
    run "native-$copy-split" --scenario upload --bytes 2MB --connections 4 -- \
        --datapath af_xdp --xdp-attach native --xdp-copy "$copy" --mode max-throughput --cpus 0
done
check 'copy: copies, in chunks of 2,048 bytes' served native-copy '"xdp":"native","copy":"copy","chunk_bytes":2048'
if [[ $NIC == igb ]]; then
    # Of 2,048 bytes this NIC would take 1,024.
    check 'auto: without copies, in chunks of 4,096 bytes' served native-auto '"xdp":"native","copy":"zero-copy","chunk_bytes":4096'
fi
# The driver would take a socket in zero-copy mode, and never send anything.
run generic-auto --scenario upload --bytes 2MB -- --datapath af_xdp --xdp-attach generic --xdp-copy auto
run generic-auto-split --scenario upload --bytes 2MB --connections 4 -- \
    --datapath af_xdp --xdp-attach generic --xdp-copy auto --mode max-throughput --cpus 0
check 'generic: copies, and says why' served generic-auto '"xdp":"generic","copy":"copy".*network stack'
for side in a b; do ip -n "$side" link set nic0 mtu 1300; done
wait_for 'the wire, after the change,' reaches
run narrow --scenario upload --bytes 2MB -- --datapath af_xdp --xdp-attach native --xdp-copy auto
# As long as igb takes frames with a program, and virtio_net in a page.
for side in a b; do ip -n "$side" link set nic0 mtu 3000; done
wait_for 'the wire, after that change,' reaches
for copy in copy zero-copy auto; do
    run "wide-$copy" --scenario upload --bytes 8MB -- --datapath af_xdp --xdp-attach native --xdp-copy "$copy" --max-datagram-size 2972
    check "wide-$copy: datagrams are longer than 1,500 bytes" at_most "$(value "/out/wide-$copy.server" received_datagrams)" 4500
    check "wide-$copy: past the kernel's stack" test "$(value "/out/wide-$copy.server" bypass_received_datagrams)" == "$(value "/out/wide-$copy.server" received_datagrams)"
done
