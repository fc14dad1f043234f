#!/bin/bash
# scripts/nic.sh sets a NIC up for a server and back: queues, what RSS hashes, interrupts.
source "$ROOT/tests/vm/guest.sh"
nics
table() { on b ethtool -x nic0 | sed -n '1,/hash key/p'; }
before() {
    on b ethtool -n nic0 rx-flow-hash udp4; on b ethtool -n nic0 rx-flow-hash udp6; on b ethtool -l nic0; table
    cat /proc/irq/*/smp_affinity_list
}
plan() { on b "$RINGPERF" plan --interface nic0; }
key=$(printf '10:20:%.0s' {1..20})
on b ethtool -X nic0 hkey "${key%:}" || true
if [[ $(on b ethtool -x nic0) == *10:20:10:20:* ]]; then
    on b "$ROOT/scripts/nic.sh" plan nic0 | tee /out/table
    check 'a key that looks like a line of the table is none' grep -q '^receive side scaling, queues in the table: 4 -> ' /out/table
else
    echo 'not tried, as this driver lets no key be set: a key that looks like a line of the table'
fi
# Tables that were set by hand, which restoring brings back: in turn, in blocks, and over all queues.
for by_hand in 'start 1 equal 2' 'weight 1 0 3 0'; do
    on b ethtool -X nic0 $by_hand
    table >/out/by-hand
    check "$by_hand: the plan tells of the queues that are left out" grep -q "^note: nic0's RSS table leaves out queues \[., 3\]: " <(plan)
    on b "$ROOT/scripts/nic.sh" apply nic0 >/dev/null
    plan >/out/plan
    check "$by_hand: then none is" test "$(grep -c 'leaves out' /out/plan)" == 0
    on b "$ROOT/scripts/nic.sh" restore nic0 >/dev/null
    check "$by_hand: and it is back" cmp /out/by-hand <(table)
done
on b ethtool -X nic0 equal 4
before >/out/before
on b "$ROOT/scripts/nic.sh" apply nic0
plan | tee /out/plan
for family in IPv4 IPv6; do
    check "UDP over $family is hashed by addresses and ports" grep -qx "queues by a hash of addresses and ports: UDP over $family" /out/plan
done
check 'interrupts go where their queues are served' test "$(grep -c 'interrupts of nic0' /out/plan)" == 0
# Those too that the driver has for a program.
start_server spreading --datapath af_xdp
on b ethtool -x nic0 >/out/table
all=$(sed -n 's/.* with \([0-9]*\) RX ring.*/\1/p' /out/table)
check "a table that was set by hand spreads over all $all queues again" grep -qE "^ +0: .*\b$((all - 1))\b" /out/table
check 'the server' stop_server spreading
on b "$ROOT/scripts/nic.sh" restore nic0
before >/out/after
check 'and back' cmp /out/before /out/after
