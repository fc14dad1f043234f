#!/bin/bash
# A driver that is unbound and bound again under a server without capabilities, as such a service has none after its set-up: the NIC's queues are
# served past the kernel's stack again, copied or not as before, also where the NIC is a bond's or carries a VLAN. Nothing wrong is delivered.
# Arguments: copy modes, `bounded` (memory that may be locked), `bond`, `vlan`.
source "$ROOT/tests/vm/guest.sh"
nics
driver=$(on b ethtool -i nic0 | sed -n 's/^driver: //p')
[[ $driver == igb ]] || { echo "SKIP the kernel does not get done with $driver while queues are served that it has for a program alone"; exit 0; }
device=$(on b ethtool -i nic0 | sed -n 's/^bus-info: //p')
export RUST_LOG=warn,ringway=info

# Bytes that a server may lock. Without a number, it may lock what it likes.
locked=
# A server as a service manager starts it, whose threads give up what they have.
start_server() {
    local tag=$1 some=-all,+net_admin,+bpf,+net_raw
    [[ $locked ]] || some+=,+ipc_lock
    shift
    ip netns exec b prlimit --memlock="${locked:-unlimited}" setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs \
        --inh-caps "$some" --ambient-caps "$some" --bounding-set "$some" \
        "$RINGPERF" server --json --verify --report-every 1s --drop-capabilities --datapath af_xdp "$@" >"/out/$tag.server" 2>&1 &
    server=$!
    wait_for "the server of $tag" grep -q LISTENING "/out/$tag.server"
}
start_upload() {
    local tag=$1
    shift
    start_client "$tag" --scenario upload --datapath socket --no-gso --timeout 30s "$@"
}
has_none() { kill -0 "$server" && ! grep -hE '^Cap(Inh|Prm|Eff|Amb):' "/proc/$server"/task/*/status | grep -qv '0000000000000000$'; }
past() { value "/out/$1.server" bypass_received_datagrams; }
has_come() { more_than "$(past "$1")" "$2"; }
# The driver lets go of the NIC of b, takes it again, and it is set up as before. The link is soon there again: a connection gives up after 10 s of
# silence. COMMAND
unbind_and_bind() {
    echo "$device" >/sys/bus/pci/drivers/igb/unbind
    sleep 1
    echo "$device" >/sys/bus/pci/drivers/igb/bind
    wait_for 'the device' test -e /sys/class/net/eth0
    "$@"
}

# What is served past the stack before it is so again when the NIC is back, during a transfer and when all is quiet. What is to be done with it then:
# WHAT TAG COMMAND OPTION...
goes_and_returns() {
    local what=$1 tag=$2 then=$3 before again
    shift 3
    start_server "$tag" "$@"
    start_upload "$tag" --bytes 8MiB --connections 4
    wait_for "$what: the transfer" has_come "$tag" 1000
    for again in 'during a transfer' 'when all is quiet'; do
        unbind_and_bind "$then"
        before=$(past "$tag")
        if [[ $again == 'when all is quiet' ]]; then
            wait_for "$what: the wire" reaches
            start_upload "$tag" --bytes 2MiB --connections 4
        fi
        check "$what, $again: the client" wait_client
        # Of the server's next report.
        sleep 2
        check "$what, $again: $(($(past "$tag") - before)) datagrams past the kernel's stack behind it" more_than "$(($(past "$tag") - before))" 5000
    done
    check "$what: the server has no capabilities" has_none
    check "$what: the server, and nothing came wrong" stop_server "$tag"
    # What it said of it.
    grep -E ' (INFO|WARN|ERROR) ' "/out/$tag.server" | sed 's/^[^ ]* *//' | cut -c1-250 | sort | uniq -c | sed 's/^/   /' || true
    MODE="$*" row "$what" "$tag" -
}
# How the server serves its queues at the end: TAG
copies() { grep '^{' "/out/$1.server" | tail -n 1 | grep -oE '"copy":"[a-z-]*"' | cut -d'"' -f4 | sort -u | tr '\n' ' ' | sed 's/ $//'; }
copied_or_not() { # COPY
    local mode tag
    set_it_up() { give b eth0; }
    for mode in low-latency max-throughput; do
        tag=returns-$1-$mode
        goes_and_returns "$1, $mode" "$tag" set_it_up --interface nic0 --affinitize --xdp-attach native --xdp-copy "$1" --mode "$mode"
        check "$1, $mode: it is $1 on every queue" test "$(copies "$tag")" == "$1"
    done
}
# Where locked memory is bounded, there is enough for the packet memory of the four queues once, and not twice.
bounded() {
    local copy tag
    set_it_up() { give b eth0; }
    less() {
        prlimit --pid "$server" --memlock="$((1 << 20)):$locked"
        set_it_up
    }
    for copy in copy zero-copy; do
        tag=bounded-$copy
        [[ $copy == copy ]] && locked=$((40 << 20)) || locked=$((80 << 20))
        goes_and_returns "bounded, $copy" "$tag" set_it_up --interface nic0 --affinitize --xdp-attach native --xdp-copy "$copy"
        check "bounded, $copy: it is $copy on every queue" test "$(copies "$tag")" == "$copy"
    done
    # Less than it needs when the NIC is back: the kernel's sockets carry it all, and with what it had before it goes on.
    tag=bounded-less
    start_server "$tag" --interface nic0 --affinitize --xdp-attach native
    start_upload "$tag" --bytes 8MiB --connections 4
    wait_for "$tag: the transfer" has_come "$tag" 1000
    unbind_and_bind less
    check 'too little may be locked: the client' wait_client
    why() { grep 'is back, and not all of its queues are served' "/out/$tag.server" | grep -q 'the locked memory limit does not suffice'; }
    check 'too little may be locked: the log says why it is not served' wait_for 'the reason' why
    prlimit --pid "$server" --memlock="$locked:$locked"
    served() { grep -q 'is back, and served' "/out/$tag.server"; }
    check 'as much as before may be locked: it is served again' wait_for 'that' served
    check 'too little, then enough: the server, and nothing came wrong' stop_server "$tag"
    locked=
}
# A bond stays when its member goes.
bond() {
    tool modprobe -d "$MODULES" bonding
    enslave() {
        ip -n b link set nic0 master bond0
        ip -n b link set nic0 up
    }
    set_it_up() { move b eth0; enslave; }
    ip -n b link add bond0 type bond mode active-backup miimon 100
    ip -n b addr flush dev nic0
    ip -n b link set nic0 down
    ip -n b link set bond0 up
    ip -n b addr add 10.9.0.2/24 dev bond0
    enslave
    wait_for 'the wire of the bond' reaches
    goes_and_returns 'a bond' bond set_it_up --interface bond0
    goes_and_returns 'the member of a bond' member set_it_up --interface nic0
    ip -n b link set nic0 nomaster
    ip -n b link del bond0
    ip -n b addr add 10.9.0.2/24 dev nic0
    ip -n b link set nic0 up
}
# A VLAN device goes with the NIC below it, and is made anew.
vlan() {
    tool modprobe -d "$MODULES" 8021q
    tag_it() {
        ip -n b link add link nic0 name nic0.7 type vlan id 7
        ip -n b addr add 10.9.7.2/24 dev nic0.7
        ip -n b link set nic0.7 up
    }
    # The program does not see tags that the NIC takes off.
    set_it_up() { ethtool -K eth0 rxvlan off >/dev/null; give b eth0; tag_it; }
    ip -n a link add link nic0 name nic0.7 type vlan id 7
    ip -n a addr add 10.9.7.1/24 dev nic0.7
    ip -n a link set nic0.7 up
    on b ethtool -K nic0 rxvlan off >/dev/null
    tag_it
    SERVER_ADDRESS=10.9.7.2:4433
    wait_for 'VLAN 7' reaches
    goes_and_returns 'a VLAN device' vlan set_it_up --interface nic0.7
    goes_and_returns 'the NIC below a VLAN' below set_it_up --interface nic0
}
for what in ${*:-copy zero-copy bounded bond vlan}; do
    case $what in
        copy | zero-copy) copied_or_not "$what" ;;
        *) "$what" ;;
    esac
done
