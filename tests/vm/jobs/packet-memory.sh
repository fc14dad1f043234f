#!/bin/bash
# Packet memory on a NIC of its own: AF_XDP in each mode at MTU 1500 and at another one, which mode `auto` takes and what it says of the others, and
# more than a receiver can take. Nothing wrong is delivered, and no descriptor is refused.
source "$ROOT/tests/vm/guest.sh"
nics
failed=0
both() { # TAG CLIENT-OPTION... -- OPTION-OF-BOTH...
    transfer "$@" || { failed=$((failed + 1)); return; }
    local end
    for end in client server; do
        if grep -qE '"(DecryptionFailed|MalformedHeader|refused_descriptors|transmit_stuck|passed_cut_off)":[1-9]' "/out/$1.$end"; then
            echo "FAIL $1: the $end has counted what must not be"
            tail -n 1 "/out/$1.$end"
            failed=$((failed + 1))
        fi
    done
    grep -o '"queues":\[[^]]*\]' "/out/$1.server" | head -1
}
# TAG WHAT: that the server serves each queue so.
served() {
    grep -o '"queues":\[[^]]*\]' "/out/$1.server" | grep -q "$2" || { echo "FAIL $1: not $2"; failed=$((failed + 1)); }
}

for copy in copy zero-copy auto; do
    both "native-$copy" --scenario upload --bytes 3MB -- --datapath af_xdp --xdp-attach native --xdp-copy "$copy"
    both "native-$copy-split" --scenario download --bytes 3MB --connections 4 -- \
        --datapath af_xdp --xdp-attach native --xdp-copy "$copy" --mode max-throughput --cpus 0
done
# The driver takes a socket in zero-copy mode, of which it would never send anything.
both generic-auto --scenario upload --bytes 3MB -- --datapath af_xdp --xdp-attach generic --xdp-copy auto
served generic-auto '"xdp":"generic"'
served generic-auto '"copy":"copy"'
served generic-auto 'network stack'
# More connections, over several queues, than one slow processor can take.
both overload --scenario upload --time 6s --connections 16 -- --datapath af_xdp --xdp-attach native --xdp-copy auto --cpus 0
if [[ $NIC == igb ]]; then
    served native-auto '"copy":"zero-copy"'
    served overload '"chunk_bytes":4096'
fi
for side in a b; do ip -n "$side" link set nic0 mtu 1300; done
both narrow --scenario upload --bytes 3MB -- --datapath af_xdp --xdp-attach native --xdp-copy auto
echo "$failed failures"
exit $((failed > 0))
