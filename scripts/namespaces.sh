#!/bin/bash
# Two network namespaces joined by a multi-queue veth pair, to try datapaths on: ringway-a (10.9.0.1, fd09::1) and ringway-b (10.9.0.2,
# fd09::2), interface rw0 in each. Another NAME than ringway may be given; with SEGMENTATION=off each datagram crosses by itself, as AF_XDP
# sockets need it. Prints what it does. Usage: namespaces.sh up [MTU] [QUEUES] [VLAN] | down
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
((EUID == 0)) || { echo 'namespaces.sh: it needs root' >&2; exit 1; }
name=${NAME:-ringway}
do_() { echo "$*"; "$@"; }
down() {
    for side in a b; do
        if [[ -e /run/netns/$name-$side ]]; then do_ ip netns del "$name-$side"; fi
    done
}
up() {
    local mtu=${1:-1500} queues=${2:-2} vlan=${3:-}
    down
    # Half of it is of no use.
    trap 'down >/dev/null' EXIT
    do_ ip netns add "$name-a"
    do_ ip netns add "$name-b"
    do_ ip link add rw0 netns "$name-a" numrxqueues "$queues" numtxqueues "$queues" type veth \
        peer name rw0 netns "$name-b" numrxqueues "$queues" numtxqueues "$queues"
    local number=1 side
    for side in a b; do
        local in=(ip -n "$name-$side") device=rw0
        do_ "${in[@]}" link set lo up
        do_ "${in[@]}" link set rw0 mtu "$mtu" up
        if [[ ${SEGMENTATION:-on} == off ]]; then
            do_ ip netns exec "$name-$side" ethtool -K rw0 tx-udp-segmentation off
        fi
        if [[ $vlan ]]; then
            # Tags are within the frames, as they are on a wire.
            do_ ip netns exec "$name-$side" ethtool -K rw0 rxvlan off txvlan off
            do_ "${in[@]}" link add link rw0 name "rw0.$vlan" type vlan id "$vlan"
            do_ "${in[@]}" link set "rw0.$vlan" up
            device=rw0.$vlan
        fi
        do_ "${in[@]}" addr add "10.9.0.$number/24" dev "$device"
        do_ "${in[@]}" addr add "fd09::$number/64" dev "$device" nodad
        number=$((number + 1))
    done
    trap - EXIT
}
case ${1:-} in
    up) shift && up "$@" ;;
    down) down ;;
    *) echo 'usage: namespaces.sh up [MTU] [QUEUES] [VLAN] | down' >&2 && exit 1 ;;
esac
