#!/bin/bash
# A NIC below other interfaces, which not every kernel has: a bond and its member, VLANs whose tags the NIC takes off or leaves. What goes past the
# kernel's stack is what the plan says, and all arrives in any case.
source "$ROOT/tests/vm/guest.sh"
nics
for module in bonding 8021q; do tool modprobe -d "$MODULES" "$module"; done
plan() { on b "$RINGPERF" plan --interface "$1" | grep '^note:' || true; }
says() { grep -q "$1" <<<"$2"; }

# An upload to a server on this interface, and how many datagrams came past the kernel's stack: WHAT TAG INTERFACE past|stack OPTION...
upload() {
    local what=$1 tag=$2 how=$4 past
    export SERVER_INTERFACE=$3
    shift 4
    start_server "$tag" --datapath af_xdp "$@"
    start_client "$tag" --scenario upload --bytes 2MiB --datapath socket --no-gso
    check "$what: the client" wait_client
    check "$what: the server" stop_server "$tag"
    past=$(value "/out/$tag.server" bypass_received_datagrams)
    case $how in
        past) check "$what: it came past the kernel's stack: $past" more_than "$past" 1000 ;;
        stack) check "$what: it came through the kernel's stack: $past past it" at_most "$past" 0 ;;
    esac
    MODE=$how row "$what" "$tag" -
}
# Moves the addresses of b: FROM TO
move_addresses() {
    ip -n b addr flush dev "$1"
    ip -n b addr add 10.9.0.2/24 dev "$2"
    ip -n b addr add fd09::2/64 dev "$2" nodad
}

# A bond of one member.
ip -n b link add bond0 type bond mode active-backup miimon 100
ip -n b link set nic0 down
ip -n b link set nic0 master bond0
ip -n b link set bond0 up
move_addresses nic0 bond0
wait_for 'the wire of the bond' reaches
check 'the plan says that XDP is generic on a bond' says 'bond0 is a bond: XDP is generic' "$(plan bond0)"
check 'the plan says of what the NIC is a member' says 'nic0 is a member of the bond bond0' "$(plan nic0)"
upload 'a bond' bond bond0 past
upload 'the member of a bond' member nic0 past
if on b timeout 20 "$RINGPERF" server --datapath af_xdp --interface bond0 --xdp-attach native --duration 1s >/out/native 2>&1; then
    check 'native mode is refused on a bond' false
else
    check 'native mode is refused on a bond, with the reason' grep -q 'is a bond' /out/native
fi
ip -n b link set nic0 nomaster
ip -n b link del bond0
ip -n b link set nic0 up

# VLAN 7 on both sides; the addresses of the NIC itself stay beside it.
ip -n b addr flush dev nic0
ip -n b addr add 10.9.0.2/24 dev nic0
number=1
for side in a b; do
    ip -n "$side" link add link nic0 name nic0.7 type vlan id 7
    ip -n "$side" addr add "10.9.7.$number/24" dev nic0.7
    ip -n "$side" link set nic0.7 up
    number=$((number + 1))
done
tagged() { on a "$TOOLS/busybox" ping -c1 -W1 10.9.7.2 >/dev/null 2>&1; }
wait_for 'VLAN 7' tagged
export SERVER_ADDRESS=10.9.7.2:4433
if on b ethtool -K nic0 rxvlan on 2>/dev/null; then
    wait_for 'VLAN 7' tagged
    check 'the plan says that the NIC hides VLANs' says 'ethtool -K nic0 rxvlan off' "$(plan nic0)"
    upload 'a VLAN whose tags the NIC takes off' stripped nic0 stack
    # While the server runs, too.
    SERVER_INTERFACE=nic0 start_server set-later --datapath af_xdp
    on b ethtool -K nic0 rxvlan off
    sleep 3
    wait_for 'VLAN 7' tagged
    start_client set-later --scenario upload --bytes 2MiB --datapath socket --no-gso
    check 'tags that are left on while a server runs: the client' wait_client
    check 'tags that are left on while a server runs: the server' stop_server set-later
    check 'tags that are left on while a server runs: past the stack' more_than "$(value /out/set-later.server bypass_received_datagrams)" 1000
fi
check 'the plan has nothing to say of VLANs whose tags are left on' test -z "$(plan nic0 | grep rxvlan)"
upload 'a VLAN whose tags are left on' tagged nic0 past
check 'the plan says that XDP is generic on a VLAN device' says 'nic0.7 is a VLAN device' "$(plan nic0.7)"
upload 'a VLAN device' device nic0.7 past
SERVER_ADDRESS=10.9.0.2:4433 upload 'the NIC itself beside its VLAN' untagged nic0 past
