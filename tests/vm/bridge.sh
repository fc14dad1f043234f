#!/bin/bash
# Makes taps of several queues, joined by a bridge, in the network namespace that it is in, and runs a command: TAP TAP COMMAND...
set -euo pipefail
taps=("$1" "$2")
shift 2
# No address of its own, no multicast: only the guest's frames are on it.
sysctl -qw net.ipv6.conf.default.disable_ipv6=1 2>/dev/null || echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6
ip link add bridge type bridge mcast_snooping 0
ip link set bridge up
for tap in "${taps[@]}"; do
    ip tuntap add "$tap" mode tap multi_queue
    # The guest's NICs go up to jumbo frames.
    ip link set "$tap" mtu 9000 master bridge up
done
exec "$@"
