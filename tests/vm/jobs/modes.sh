#!/bin/bash
# Transfers both ways in each way to use AF_XDP: native copy, native zero-copy and generic, in both execution modes. Where a way cannot be had,
# the reason is told, and the next one carries the transfer.
source "$ROOT/tests/vm/guest.sh"
nics
set_up
# Attach and copy mode as asked for, and what must come of it: ATTACH COPY EXPECTED
way() {
    local mode tag options
    for mode in low-latency max-throughput; do
        tag=$1-$2-$mode
        options=(--datapath af_xdp --affinitize --mode "$mode" --xdp-attach "$1" --xdp-copy "$2")
        start_server "$tag" "${options[@]}"
        for scenario in upload download; do
            start_client "$tag" --scenario "$scenario" --bytes 1MiB --connections 4 "${options[@]}"
            check "$tag: $scenario" wait_client
        done
        check "$tag: the server" stop_server "$tag"
        check "$tag: it is $3 on every queue" test "$(value "/out/$tag.server" received_datagrams)" -gt 0 -a \
            "$(grep '^{' "/out/$tag.server" | tail -n 1 | grep -o '"zero_copy":[a-z]*' | sort -u)" == "\"zero_copy\":$3"
        check "$tag: what was received came past the kernel's stack" \
            at_most "$(value "/out/$tag.server" received_datagrams)" "$(($(value "/out/$tag.server" bypass_received_datagrams) * 101 / 100))"
        MODE="$1 $2 $mode" row 'upload, download' "$tag" "queues of b: $(received_by_queues b)"
    done
}
way native copy false
way generic copy false
# The driver of igb has it; that of virtio_net only with a device that QEMU has not, and says so.
if [[ $NIC == igb ]]; then
    way native zero-copy true
    way native auto true
else
    way native auto false
    check 'the reason why it is not zero-copy is told' grep -q 'zero-copy' /out/native-auto-low-latency.server
fi
