#!/bin/bash
# scripts/nic.sh sets a NIC up for a server and back: queues, what RSS hashes, interrupts.
source "$ROOT/tests/vm/guest.sh"
nics
before() { on b ethtool -n nic0 rx-flow-hash udp4; on b ethtool -n nic0 rx-flow-hash udp6; on b ethtool -l nic0; cat /proc/irq/*/smp_affinity_list; }
before >/out/before
on b "$ROOT/scripts/nic.sh" plan nic0
on b "$ROOT/scripts/nic.sh" apply nic0
on b "$RINGPERF" plan --interface nic0 | tee /out/plan
for family in IPv4 IPv6; do
    check "UDP over $family is hashed by addresses and ports" grep -qx "queues by a hash of addresses and ports: UDP over $family" /out/plan
done
check 'interrupts go where their queues are served' test "$(grep -c 'interrupts of nic0' /out/plan)" == 0
on b "$ROOT/scripts/nic.sh" restore nic0
before >/out/after
check 'and back' cmp /out/before /out/after
