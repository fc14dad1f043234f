#!/bin/bash
# An interface whose XDP programs libxdp's dispatcher runs: ours joins the others, and leaves them as they are when it ends, or is killed. Not every
# kernel can do that. With the tools of xdp-tools (a package), one of which is a packet filter.
source "$ROOT/tests/vm/guest.sh"
command -v xdp-filter >/dev/null || { echo 'SKIP xdp-tools is not installed'; exit 0; }
nics
# The server's side is no namespace: `ip netns exec` would hide the file system of BPF.
ip -n b link set nic0 netns 1
ip addr add 10.9.0.2/24 dev nic0
ip link set nic0 up
wait_for 'the wire' reaches
on() {
    local side=$1
    shift
    if [[ $side == a ]]; then ip netns exec a "$@"; else "$@"; fi
}
says() { grep -q "$1" <<<"$2"; }
programs() { on b xdp-loader status nic0 | grep -E '=>|xdp_dispatcher' | sed 's/ *$//'; }
ours() { programs | grep -c ' ringway ' || true; }
plan() { on b "$RINGPERF" plan --interface nic0 | grep '^note:' || true; }
start_server() {
    local tag=$1
    shift
    "$RINGPERF" server --json --verify --report-every 1s --datapath af_xdp --interface nic0 "$@" >"/out/$tag.server" 2>&1 &
    server=$!
    wait_for "the server of $tag" grep -q LISTENING "/out/$tag.server"
}
upload() {
    start_client "$@" --scenario upload --bytes 2MiB --datapath socket --no-gso
    wait_client
}
# A transfer to a server that is one of several, and how much came past the stack: WHAT TAG PROGRAMS-OF-OURS
served() {
    local what=$1 tag=$2 count=$3
    start_server "$tag"
    check "$what: $count of ours" test "$(ours)" = "$count"
    check "$what: the client" upload "$tag"
    check "$what: the server" stop_server "$tag"
    check "$what: past the stack" more_than "$(value "/out/$tag.server" bypass_received_datagrams)" 1000
    row "$what" "$tag" -
}

on b xdp-filter load nic0 -m native
check 'the plan says that ours is to be one of several' says 'ours is to be one of them' "$(plan)"
before=$(programs | grep -c xdpfilt)
served 'beside a filter' beside 1
if [[ $NIC == virtio ]]; then
    # They are there before ours joins, and go with the last program.
    check 'queues that the driver has only for programs are copied, whoever has brought them' test "$(copies beside)" == 'copy zero-copy'
fi
check 'ours has left the chain, and the filter is on it' test "$(ours) $(programs | grep -c xdpfilt)" = "0 $before"

# The filter comes first: what it drops, we do not see. It counts in either case.
start_server filtered
on b xdp-filter ip -m src 10.9.0.1
refused() { ! upload "$@" >/dev/null; }
check 'a client that the filter drops does not get in' refused dropped --timeout 5s
on b xdp-filter ip -m src -r 10.9.0.1
check 'a client that it no longer drops gets in' upload filtered
# Others come and go meanwhile.
on b xdp-filter unload nic0
check 'the filter has gone, and ours stays' test "$(ours) $(programs | grep -c xdpfilt || true)" = '1 0'
check 'a client of a server that is alone on the chain' upload filtered
on b xdp-filter load nic0 -m native
check 'the filter is back beside ours' test "$(ours) $(programs | grep -c xdpfilt || true)" = '1 1'
check 'a client of a server whose chain was changed' upload filtered
check 'a server whose chain was changed' stop_server filtered
check 'past the stack in all these' more_than "$(value /out/filtered.server bypass_received_datagrams)" 3000

# Killed, it leaves a program that passes all, rules or not, and that the next one takes off.
start_server killed --drop-source 10.9.0.0/24
kill -9 "$server"
wait "$server" || true
check 'a killed process leaves its program' test "$(ours)" = 1
"$RINGPERF" server --json --verify --report-every 1s --bind 10.9.0.2:4433 --datapath socket >/out/socket.server 2>&1 &
server=$!
wait_for 'the server on a socket' grep -q LISTENING /out/socket.server
check 'which drops nothing' upload socket
check 'of the server on a socket' stop_server socket
served 'beside a filter, and what a killed one has left' again 1
check 'nothing of ours is left' test "$(ours)" = 0

# Two of ours, each with its queues, of which the client's is one or none; and one that is asked for another mode.
start_server first --bind 10.9.0.2:4444 --queues 0,1
first=$server
start_server second --queues 2,3
check 'beside another server: 2 of ours' test "$(ours)" = 2
check 'beside another server: the client' upload second
check 'beside another server: the server' stop_server second
check 'the other one goes on' kill -0 "$first"
if timeout 20 "$RINGPERF" server --datapath af_xdp --interface nic0 --xdp-attach generic --duration 1s >/out/mode 2>&1; then
    check 'another mode than that of the chain is refused' false
else
    check 'another mode than that of the chain is refused, with the reason' grep -q 'in native mode' /out/mode
fi
server=$first
check 'the first of two servers' stop_server first

# Without the privilege to join.
if on b setpriv --inh-caps -sys_admin --bounding-set -sys_admin --ambient-caps -all -- setpriv --reuid 65534 --clear-groups \
    --inh-caps +net_admin,+bpf,+net_raw --ambient-caps +net_admin,+bpf,+net_raw \
    "$RINGPERF" server --datapath af_xdp --interface nic0 --duration 1s >/out/unprivileged 2>&1; then
    check 'without CAP_SYS_ADMIN it is refused' false
else
    # It may not even see that there is a dispatcher: libxdp's directory is its user's alone.
    check 'without CAP_SYS_ADMIN it is refused, with the reason' grep -q 'in use: another XDP program is attached.*/sys/fs/bpf/xdp' /out/unprivileged
fi

# A program without dispatcher is not ours to take off.
on b xdp-filter unload nic0
check 'nothing is left on the interface' test -z "$(on b ip link show nic0 | grep xdp)"
