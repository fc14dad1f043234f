#!/bin/bash
# Runs a command in a network namespace of its own whose loopback interface can serve AF_XDP: frames of one datagram, and what an AF_XDP socket
# sends on it is taken in. Where that is not allowed, it says SKIP and why. Usage: on-af_xdp.sh COMMAND...
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
skip() {
    echo "SKIP $*"
    echo '0 passed, 0 failed, 1 skipped'
    exit 0
}
# CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN, CAP_BPF
capabilities=$((16#$(sed -n 's/^CapEff:\s*//p' /proc/self/status)))
for bit in 12 13 21 39; do
    ((capabilities >> bit & 1)) || skip 'AF_XDP on loopback: it needs CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN and CAP_BPF'
done
name=ringway-lo-$$
trap 'ip netns del "$name" 2>/dev/null || true' EXIT
ip netns add "$name" || skip 'AF_XDP on loopback: network namespaces cannot be made'
ip -n "$name" link set lo mtu 1500 up
inside() { ip netns exec "$name" "$@"; }
inside ethtool -K lo tx-udp-segmentation off >/dev/null
for interface in lo all; do
    # Frames that come in on it have a local source, on no route of their own.
    for setting in accept_local=1 route_localnet=1 rp_filter=0; do
        inside sh -c "echo ${setting#*=} >/proc/sys/net/ipv4/conf/$interface/${setting%=*}"
    done
done
inside "$@"
