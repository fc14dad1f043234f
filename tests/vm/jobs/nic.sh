#!/bin/bash
# scripts/nic.sh sets a NIC up for a server and back: queues, what RSS hashes, interrupts.
source "$ROOT/tests/vm/guest.sh"
nics
before() { on b ethtool -n nic0 rx-flow-hash udp4; on b ethtool -n nic0 rx-flow-hash udp6; on b ethtool -l nic0; cat /proc/irq/*/smp_affinity_list; }
before >/out/before
# Not every driver lets the key be set.
key=$(printf '10:20:%.0s' {1..20})
on b ethtool -X nic0 hkey "${key%:}" || true
on b "$ROOT/scripts/nic.sh" plan nic0 | tee /out/table
check 'a key that looks like a line of the table is none' grep -qx 'receive side scaling, queues in the table: 4 already' /out/table
on b ethtool -X nic0 equal 2
on b "$ROOT/scripts/nic.sh" apply nic0
on b "$RINGPERF" plan --interface nic0 | tee /out/plan
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
