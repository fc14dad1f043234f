# What jobs in the guest have in common: sourced by each. Two network namespaces, a and b, have a NIC each, `nic0`, wired together: the client
# is in a (10.9.0.1, fd09::1), the server in b (10.9.0.2, fd09::2). The output of both is in /out/TAG.client and /out/TAG.server.
set -euo pipefail
export RINGPERF=/out/ringperf
SERVER_ADDRESS=10.9.0.2:4433
passed=0 failed=0 server='' client='' client_tag=''
trap 'status=$?; finish "$status"' EXIT

# At the end of each job, whatever ended it.
finish() {
    local status=$1
    ((status == 0)) || { echo "FAIL the job: it ends with $status"; failed=$((failed + 1)); }
    echo "$passed passed, $failed failed"
    trap - EXIT
    exit $((failed > 0))
}

# Says whether a condition holds: WHAT COMMAND...
check() {
    local what=$1
    shift
    if "$@"; then
        echo "ok   $what"
        passed=$((passed + 1))
    else
        echo "FAIL $what"
        failed=$((failed + 1))
    fi
}
# Waits until a command succeeds, at most 60 s: WHAT COMMAND...
wait_for() {
    local what=$1 end=$((SECONDS + 60))
    shift
    until "$@"; do
        ((SECONDS < end)) || { echo "FAIL $what did not come"; return 1; }
        sleep 0.1
    done
}
# Conditions on whole numbers, false where one is missing: A B
at_most() { [[ $1 =~ ^[0-9]+$ && $2 =~ ^[0-9]+$ ]] && (($1 <= $2)); }
more_than() { [[ $1 =~ ^[0-9]+$ && $2 =~ ^[0-9]+$ ]] && (($1 > $2)); }

tool() {
    local name=$1
    shift
    LD_LIBRARY_PATH=$TOOLS/usr/lib/x86_64-linux-gnu:$TOOLS/lib/x86_64-linux-gnu "$TOOLS/$name" "$@"
}
# In a namespace: SIDE COMMAND... Where the process itself is wanted, in the background, `ip netns exec` is called straight.
on() { ip netns exec "$@"; }

# Loads the driver and gives a NIC to each namespace.
nics() {
    local side
    case $NIC in igb) tool modprobe -d "$MODULES" igb ;; virtio) tool modprobe -d "$MODULES" virtio_net ;; esac
    for side in a b; do ip netns add "$side"; done
    wait_for 'both devices' test -e /sys/class/net/eth1
    give a eth0
    give b eth1
    wait_for 'the wire' reaches
}
# Gives a NIC, as its driver brings it, to a namespace, where it is down and has no address: SIDE DEVICE
move() {
    # As many queues as there are processors. Even if there are so many: of QEMU's virtio devices some deliver nothing until it is said.
    ethtool -L "$2" combined "$(nproc)"
    # QEMU's igb sends one datagram of those that it was to make of a big one.
    [[ $NIC != igb ]] || ethtool -K "$2" tx-udp-segmentation off
    ip link set "$2" netns "$1"
    ip -n "$1" link set "$2" name nic0
}
# The same, up and with its addresses: SIDE DEVICE
give() {
    local side=$1 number=1
    [[ $side == a ]] || number=2
    move "$@"
    ip -n "$side" link set lo up
    ip -n "$side" addr add "10.9.0.$number/24" dev nic0
    ip -n "$side" addr add "fd09::$number/64" dev nic0 nodad
    ip -n "$side" link set nic0 up
}
reaches() { on a "$TOOLS/busybox" ping -c1 -W1 "${SERVER_ADDRESS%:*}" >/dev/null 2>&1; }

# Both NICs as a server's are set up: queues, hash, interrupts.
set_up() {
    local side
    for side in a b; do on "$side" "$ROOT/scripts/nic.sh" apply nic0 >"/out/nic.$side"; done
}

# How both ends use AF_XDP, in a native driver with copies or without, or generic: copy|zero-copy|generic
af_xdp() {
    local attach=native copy=$1
    [[ $1 != generic ]] || attach=generic copy=copy
    echo "--datapath af_xdp --affinitize --xdp-attach $attach --xdp-copy $copy"
}

# Starts a server in the background, on nic0 unless SERVER_INTERFACE is another: TAG OPTION...
start_server() {
    local tag=$1
    shift
    ip netns exec b "$RINGPERF" server --json --verify --report-every 1s --interface "${SERVER_INTERFACE:-nic0}" "$@" >"/out/$tag.server" 2>&1 &
    server=$!
    wait_for "the server of $tag" grep -q LISTENING "/out/$tag.server"
}
# Ends it. Fails if it does not end well, or found wrong content.
stop_server() {
    local tag=$1 status=0 end=$((SECONDS + 20))
    kill -INT "$server" 2>/dev/null || true
    while [[ -e /proc/$server/root && $SECONDS -lt $end ]]; do sleep 0.1; done
    [[ ! -e /proc/$server/root ]] || { echo "FAIL $tag: the server does not end"; kill -9 "$server"; }
    wait "$server" || status=$?
    return "$status"
}
# How a server served its queues: TAG
copies() { grep '^{' "/out/$1.server" | tail -n 1 | grep -oE '"copy":"[a-z-]*"' | cut -d'"' -f4 | sort -u | tr '\n' ' ' | sed 's/ $//'; }
# Starts a client in the background: TAG OPTION...
start_client() {
    local tag=$1
    shift
    client_tag=$tag
    ip netns exec a timeout -k 5 "${CLIENT_LIMIT:-120}" "$RINGPERF" client --json --verify --interface nic0 --target "$SERVER_ADDRESS" "$@" \
        >"/out/$tag.client" 2>&1 &
    client=$!
}
# Waits for it, and gives its exit code.
wait_client() {
    local status=0
    wait "$client" || { status=$?; echo "   the client: $(grep -v '^{' "/out/$client_tag.client" | tail -n 2 | cut -c1-300)"; }
    return "$status"
}

# The whole of a transfer: TAG CLIENT-OPTION... -- OPTION-OF-BOTH...
transfer() {
    local tag=$1 options=() status=0
    shift
    while [[ $1 != -- ]]; do options+=("$1"); shift; done
    shift
    start_server "$tag" "$@"
    start_client "$tag" "${options[@]}" "$@"
    wait_client || { status=$?; echo "$tag: the client ends with $status: $(tail -n 3 "/out/$tag.client" | cut -c1-400)"; }
    stop_server "$tag" || { status=$?; echo "$tag: the server ends with $status: $(tail -n 3 "/out/$tag.server" | cut -c1-400)"; }
    return "$status"
}

# What a report says: the last one of FILE, the first number of that NAME.
value() { grep '^{' "$1" | tail -n 1 | grep -o "\"$2\":[0-9.]*" | head -n 1 | cut -d: -f2 || true; }
# The numbers of that NAME of each partition.
values() { grep '^{' "$1" | tail -n 1 | sed 's/.*"partitions"://' | grep -o "\"$2\":[0-9.]*" | cut -d: -f2 | tr '\n' ' ' || true; }
# All 8 connections of a server are there, and carry data: TAG
carries() {
    local connections
    connections=$(values "/out/$1.server" connections)
    ((${connections// /+} 0 == 8)) && more_than "$(value "/out/$1.server" received_datagrams)" 2000
}
# What the NIC of a SIDE has received by each queue. (virtio_net of newer kernels counts here only what it gave to a program.)
received_by_queues() {
    on "$1" ethtool -S nic0 | awk '
        /^ *rx_queue_[0-9]+_packets:|^ *rx[0-9]+_packets:/ { all = all $2 " " }
        /^ *rx[0-9]+_xdp_packets:/ { program = program $2 " " }
        END { printf "%s", all ? all : program ~ /[1-9]/ ? program : "not counted" }'
}
# A line of the table of what was run: SCENARIO TAG RESULT
row() {
    local tag=$2
    echo "ROW | $NIC | $KERNEL | ${MODE:-} | $1 | moved $(value "/out/$tag.server" request_bytes) + $(value "/out/$tag.server" response_bytes) bytes" \
        "| wrong $(value "/out/$tag.server" verification_failures) | by partition $(values "/out/$tag.server" received_datagrams)" \
        "| handed over $(value "/out/$tag.server" handed_over) | moves $(value "/out/$tag.server" ideal_processor_changes) | $3"
}
