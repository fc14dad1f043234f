#!/bin/bash
# Sets a NIC up for Ringway: as many queues as there are processors to serve them, the interrupt of each queue on the processor that serves
# it, receive side scaling over all queues alike by addresses and ports of UDP, and interrupts that come soon. `plan` shows what would be
# changed, `apply` changes it and keeps what was before, `restore` brings that back. What the driver cannot do is said and left.
# RINGPERF may say which ringperf is asked for the interrupts; target/release/ringperf is otherwise.
# Usage: nic.sh plan|apply|restore INTERFACE [QUEUES] [RX_USECS]
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
usage() { sed -n '2,6s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 1; }
(($# >= 2)) || usage
action=$1
interface=$2
usecs=${4:-8}
# Another network namespace may have one of the same name.
state=/run/ringway-nic-$interface-$(stat -Lc %i /proc/self/ns/net)
[[ -e /sys/class/net/$interface ]] || { echo "nic.sh: there is no interface $interface" >&2; exit 1; }
[[ $action == plan ]] || ((EUID == 0)) || { echo 'nic.sh: it needs root' >&2; exit 1; }

# Says a change, with what it is now, and makes it unless this is a plan: WHAT NOW WANTED UNDO... -- DO...
change() {
    local what=$1 now=$2 wanted=$3 undo=() error
    shift 3
    while [[ $1 != -- ]]; do undo+=("$1"); shift; done
    shift
    if [[ $now == "$wanted" ]]; then
        echo "$what: $now already"
        return
    fi
    echo "$what: $now -> $wanted"
    [[ $action == apply ]] || return 0
    if error=$("$@" 2>&1); then
        printf '%q ' "${undo[@]}" >>"$state"
        echo >>"$state"
    else
        echo "  refused: ${error##*$'\n'}"
    fi
}
write() { echo "$2" >"$1"; }
# The Nth value of that name that ethtool shows: of channels, the first are the most there may be, the second those in use.
value() { { ethtool "$1" "$interface" 2>/dev/null || true; } | awk -v name="$2:" -v nth="$3" '$1 == name && ++n == nth { print $2 }'; }

channels() {
    local kind now=n/a most wanted
    # Drivers have queues that do both, or those that only receive beside those that only send.
    for kind in Combined RX; do
        [[ $now =~ ^[0-9]+$ ]] || now=$(value -l "$kind" 2)
        [[ $now =~ ^[0-9]+$ ]] && break
    done
    if [[ ! $now =~ ^[0-9]+$ ]]; then
        echo 'queues: the driver does not say how many there are'
        queues=$(find "/sys/class/net/$interface/queues" -name 'rx-*' | wc -l)
        return
    fi
    most=$(value -l "$kind" 1)
    wanted=${1:-$(nproc)}
    ((wanted <= most)) || wanted=$most
    if [[ $kind == RX ]]; then
        local sending
        sending=$(value -l TX 2)
        change queues "$now" "$wanted" ethtool -L "$interface" rx "$now" tx "$sending" -- \
            ethtool -L "$interface" rx "$wanted" tx "$wanted"
    else
        change queues "$now" "$wanted" ethtool -L "$interface" combined "$now" -- ethtool -L "$interface" combined "$wanted"
    fi
    queues=$wanted
}

# How ethtool is to set a table of RSS, from its lines: as the driver has it where it spreads over all queues alike, else queue by queue in turn
# from some queue on, or in blocks.
as_it_is() { # QUEUES TABLE...
    awk -v queues="$1" '{
        least = most = $1
        for (i = 1; i <= NF; i++) { count[$i]++; if ($i < least) least = $i; if ($i > most) most = $i }
        several = most - least + 1
        fewest = NF
        for (queue = 0; queue < queues; queue++) if (count[queue] < fewest) fewest = count[queue] + 0
        in_turn = 1
        for (i = 1; i <= NF; i++) if ($i != least + (i - 1) % several) in_turn = 0
        if (fewest && fewest >= int(NF / queues)) print "default"
        else if (in_turn) print "start", least, "equal", several
        else { printf "weight"; for (queue = 0; queue <= most; queue++) printf " %d", count[queue]; print "" }
    }' <<<"${*:2}"
}
spreading() {
    local said table used all before wanted=$queues spread=(equal "$queues")
    said=$(ethtool -x "$interface" 2>/dev/null || true)
    # Not what follows it: the key, which may begin like a line of the table.
    table=$(sed -n '/[Hh]ash key/q; s/^ *[0-9]*: *//p' <<<"$said" | tr -s ' \n' ' ')
    if [[ ! $table ]]; then
        echo 'receive side scaling: the driver has none'
        return
    fi
    used=$(tr ' ' '\n' <<<"$table" | sort -un | grep -c .)
    all=$(sed -n 's/.* with \([0-9]*\) RX ring.*/\1/p' <<<"$said")
    read -ra before < <(as_it_is "${all:-$queues}" "$table")
    # All of them is what the driver starts with: then it goes on spreading when it has more of them or fewer. It is set each time, as nobody says
    # whether a table over all was set by hand. virtio_net has more while there is an XDP program, and QEMU spreads nothing by a table that was set before.
    if [[ $all == "$queues" ]]; then
        spread=(default)
        wanted="all $all, by the driver's own table"
    fi
    change 'receive side scaling, queues in the table' "$used" "$wanted" ethtool -X "$interface" "${before[@]}" -- \
        ethtool -X "$interface" "${spread[@]}"
}

# What of UDP is hashed to choose a queue: both addresses and both ports.
hashing() {
    local flow said letters line
    for flow in udp4 udp6; do
        said=$(ethtool -n "$interface" rx-flow-hash "$flow" 2>/dev/null || true)
        letters=
        while read -r line; do
            case $line in
                'IP SA') letters+=s ;;
                'IP DA') letters+=d ;;
                'L4 bytes 0 & 1 '*) letters+=f ;;
                'L4 bytes 2 & 3 '*) letters+=n ;;
                'L2DA') letters+=m ;;
                'VLAN tag') letters+=v ;;
                'L3 proto') letters+=t ;;
            esac
        done <<<"$said"
        if [[ ! $letters ]]; then
            echo "hash of $flow: the driver does not say what it covers"
            continue
        fi
        change "hash of $flow" "$letters" sdfn ethtool -N "$interface" rx-flow-hash "$flow" "$letters" -- \
            ethtool -N "$interface" rx-flow-hash "$flow" sdfn
    done
}

coalescing() {
    local now adaptive
    now=$(value -c rx-usecs 1)
    if [[ ! $now =~ ^[0-9]+$ ]]; then
        echo 'interrupt coalescing: the driver has none to set'
        return
    fi
    adaptive=$({ ethtool -c "$interface" 2>/dev/null || true; } | sed -n 's/^Adaptive RX: \([a-z]*\).*/\1/p')
    if [[ $adaptive == on ]]; then
        change 'adaptive coalescing' on off ethtool -C "$interface" adaptive-rx on -- ethtool -C "$interface" adaptive-rx off
    fi
    change 'interrupts wait, in us' "$now" "$usecs" ethtool -C "$interface" rx-usecs "$now" -- ethtool -C "$interface" rx-usecs "$usecs"
}

# Queue by queue on the processors near the interface, as a plan of ringperf would have it, which also knows which interrupt is whose.
interrupts() {
    local ringperf=${RINGPERF:-$ROOT/target/release/ringperf} plan processors queue irq now found=0
    if [[ ! -x $ringperf ]]; then
        echo 'interrupts: left as they are: ringperf, which knows them, is not built (cargo build --release -p ringway-perf)'
        return
    fi
    # With the queues as they are by now.
    plan=$("$ringperf" plan --interface "$interface" --json)
    mapfile -t processors < <(grep -o '"processor":[0-9]*' <<<"$plan" | cut -d: -f2)
    while read -r queue irq; do
        ((queue < queues)) || continue
        found=1
        now=$(cat "/proc/irq/$irq/smp_affinity_list")
        change "interrupt $irq of queue $queue, processors" "$now" "${processors[queue % ${#processors[@]}]}" \
            write "/proc/irq/$irq/smp_affinity_list" "$now" -- \
            write "/proc/irq/$irq/smp_affinity_list" "${processors[queue % ${#processors[@]}]}"
    done < <(sed 's/"number":/\n&/g' <<<"$plan" | sed -n 's/^"number":\([0-9]*\),"interrupt":\[\([0-9]*\),.*/\1 \2/p')
    ((found)) || echo 'interrupts: none of its own are found'
    if pidof irqbalance >/dev/null; then
        echo 'note: irqbalance runs and will move them (systemctl stop irqbalance, or ban them in its configuration)'
    fi
}

case $action in
    plan | apply)
        if [[ $action == apply ]]; then
            [[ ! -e $state ]] || { echo "nic.sh: $interface is set up already; restore it first ($state)" >&2; exit 1; }
            : >"$state"
        fi
        channels "${3:-}"
        spreading
        hashing
        coalescing
        interrupts
        ;;
    restore)
        [[ -e $state ]] || { echo "nic.sh: nothing of $interface was changed" >&2; exit 1; }
        # The last change first.
        tac "$state" | while read -r line; do
            echo "$line"
            eval "$line" || echo '  refused'
        done
        rm "$state"
        ;;
    *) usage ;;
esac
