# What jobs in the guest have in common: sourced by each. Two network namespaces, a and b, have a NIC each, `nic0`, wired together.
set -euo pipefail
RINGPERF=$ROOT/target/debug/ringperf
export LD_LIBRARY_PATH=$TOOLS/usr/lib/x86_64-linux-gnu:$TOOLS/lib/x86_64-linux-gnu
modprobe() { "$TOOLS/modprobe" -d "$MODULES" "$@"; }
# In a namespace: SIDE COMMAND...
on() { ip netns exec "$@"; }

# Loads the driver and gives a NIC to each namespace: 10.9.0.1 and fd09::1 in a, .2 and ::2 in b.
nics() {
    local number=0 side device
    case $NIC in igb) modprobe igb ;; virtio) modprobe virtio_net ;; esac
    for side in a b; do
        device=eth$number
        number=$((number + 1))
        wait_for "device $device" test -e "/sys/class/net/$device"
        # As many queues as there are processors.
        ethtool -L "$device" combined "$(nproc)" 2>/dev/null || true
        # QEMU's igb sends one datagram of those that it was to make of a big one.
        [[ $NIC != igb ]] || ethtool -K "$device" tx-udp-segmentation off
        ip netns add "$side"
        ip link set "$device" netns "$side"
        ip -n "$side" link set "$device" name nic0
        ip -n "$side" link set lo up
        ip -n "$side" addr add "10.9.0.$number/24" dev nic0
        ip -n "$side" addr add "fd09::$number/64" dev nic0 nodad
        ip -n "$side" link set nic0 up
    done
    wait_for 'the wire' reaches
}
reaches() { on a "$TOOLS/bin/busybox" ping -c1 -W1 10.9.0.2 >/dev/null 2>&1; }

# Waits until a command succeeds, at most 30 s: WHAT COMMAND...
wait_for() {
    local what=$1 try
    shift
    for try in $(seq 300); do
        ! "$@" || return 0
        sleep 0.1
    done
    echo "FAIL $what did not come"
    return 1
}

# A transfer from a to b, whose content both ends check: TAG CLIENT-OPTION... -- OPTION-OF-BOTH... Their output is in /out/TAG.client and
# /out/TAG.server; either of them failing is a failure.
transfer() {
    local tag=$1 client=() server status=0
    shift
    while [[ $1 != -- ]]; do client+=("$1"); shift; done
    shift
    echo "-- $tag: ${client[*]} -- $*"
    # Not by a function, which would stand between it and the signal that ends it.
    ip netns exec b "$RINGPERF" server --json --verify --interface nic0 "$@" >"/out/$tag.server" 2>&1 &
    server=$!
    wait_for 'the server' grep -q LISTENING "/out/$tag.server"
    on a timeout 90 "$RINGPERF" client --json --verify --interface nic0 --target 10.9.0.2:4433 "${client[@]}" "$@" >"/out/$tag.client" 2>&1 ||
        { status=$?; echo "FAIL $tag: the client ends with $status"; }
    kill -INT "$server"
    wait "$server" || { status=$?; echo "FAIL $tag: the server ends with $status"; }
    ((status == 0)) || tail -n 20 "/out/$tag.client" "/out/$tag.server"
    return "$status"
}
