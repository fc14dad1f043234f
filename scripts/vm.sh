#!/bin/bash
# Boots a virtual machine with two NUMA nodes and two multi-queue NICs that are wired together, runs a job in it, and ends with the job's
# output and exit code. QEMU and the kernel come from Debian packages (tests/vm/packages.sh), into a cache of their own. The guest sees this
# machine's files, read-only, and writes to memory, so that ringperf of the debug build runs there as it is. It emulates the processors: slow, and the same
# everywhere. Where the packages cannot be downloaded it says SKIP.
# RINGPERF may name another build of ringperf: an optimised one is several times as fast there.
# Its clock goes by the machine's, on as many threads as it has processors; or, for machines that are busy with other things, by instructions, on one
# thread: a job takes longer then, and nothing in it times out.
# Usage: vm.sh [--nic igb|virtio] [--kernel newest|6.12|6.1] [--clock machine|instructions] [--limit SECONDS] JOB [ARGUMENT...] (JOB: a script, or its name in tests/vm/jobs)
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$ROOT/tests/vm/packages.sh"
usage() { sed -n 's/^# Usage: /usage: /p' "${BASH_SOURCE[0]}" >&2; exit 2; }

nic=igb kernel=newest clock=machine limit=600
while [[ ${1:-} == --* ]]; do
    (($# >= 2)) || usage
    case $1=$2 in
        --nic=igb | --nic=virtio) nic=$2 ;;
        --kernel=newest | --kernel=6.12 | --kernel=6.1) kernel=$2 ;;
        --clock=machine | --clock=instructions) clock=$2 ;;
        --limit=[1-9]*) limit=$2 ;;
        *) usage ;;
    esac
    shift 2
done
(($#)) || usage
job=$1
shift
[[ -e $job ]] || job=$ROOT/tests/vm/jobs/$job.sh
[[ -e $job ]] || { echo "vm.sh: there is no job $job" >&2; exit 2; }
job=$(realpath "$job")
skip() {
    echo "SKIP the virtual machine: $*"
    echo '0 passed, 0 failed, 1 skipped'
    exit 0
}
((EUID == 0)) || skip 'it needs root, to share all files with the guest'
[[ $(uname -m) == x86_64 ]] || skip 'its packages are those of x86-64, as the build must be that runs in it'

folder=$(mktemp -d)
trap 'rm -rf --one-file-system "$folder"' EXIT
mkdir "$folder/out"
# A copy: a guest that has read half of a program must not find another one.
cp "${RINGPERF:-$ROOT/target/debug/ringperf}" "$folder/out/ringperf" ||
    { echo 'vm.sh: build it first: cargo build --workspace --all-features --bin ringperf' >&2; exit 2; }

# One download at a time, by whichever run comes first.
mkdir -p "$CACHE"
exec 9>"$CACHE/lock"
flock 9
status=0
{ fetch_tools && fetch_kernel "$kernel"; } >"$folder/download" 2>&1 || status=$?
if ((status)); then
    cat "$folder/download" >&2
    ((status != NO_DOWNLOAD)) ||
        skip "its packages cannot be downloaded: $(grep -m1 -E '^(E|W): ' "$folder/download" || tail -n 1 "$folder/download")"
    echo 'vm.sh: the packages of the virtual machine were downloaded, and cannot be made ready' >&2
    exit 1
fi
flock -u 9
modules=$CACHE/kernel-$kernel
version=$(basename "$modules"/lib/modules/*)
"$ROOT/tests/vm/initramfs.sh" "$TOOLS" "$modules" "$folder/initramfs"

# What the guest is to do: init starts tests/vm/init.sh, which reads this.
{
    printf 'export ROOT=%q TOOLS=%q MODULES=%q NIC=%q KERNEL=%q\n' "$ROOT" "$TOOLS" "$modules" "$nic" "$version"
    printf 'JOB=('; printf '%q ' "$job" "$@"; echo ')'
} >"$folder/out/job"

PROCESSORS=4 MEMORY=4096
accelerator=(-accel 'tcg,thread=multi')
# Eight nanoseconds for each, about as fast as without, and the time for which all processors of the guest sleep.
[[ $clock == machine ]] || accelerator=(-accel 'tcg,thread=single' -icount 'shift=3,sleep=on')
node_size=$((MEMORY / 2)) half=$((PROCESSORS / 2))
arguments=(
    -name ringway -nodefaults -no-user-config -display none -serial stdio -monitor none -no-reboot
    -L "$TOOLS/usr/share/qemu" -L "$TOOLS/usr/share/seabios"
    # Not KVM: there are machines whose /dev/kvm takes a guest and never gets it through its early boot.
    -machine q35 "${accelerator[@]}" -cpu max -smp "$PROCESSORS,sockets=2,cores=$half,threads=1" -m "$MEMORY"
    -object "memory-backend-ram,id=m0,size=${node_size}M" -object "memory-backend-ram,id=m1,size=${node_size}M"
    -numa "node,nodeid=0,cpus=0-$((half - 1)),memdev=m0" -numa "node,nodeid=1,cpus=$half-$((PROCESSORS - 1)),memdev=m1"
    -numa dist,src=0,dst=1,val=21
    -kernel "$modules/boot/vmlinuz-$version" -initrd "$folder/initramfs"
    -append "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off net.ifnames=0 init=$ROOT/tests/vm/init.sh"
    -fsdev local,id=root,path=/,security_model=none,readonly=on,multidevs=remap -device virtio-9p-pci,fsdev=root,mount_tag=root
    -fsdev "local,id=out,path=$folder/out,security_model=none" -device virtio-9p-pci,fsdev=out,mount_tag=out
    # A root bridge on each node, so that each NIC is near one: the first is on node 1, the second on node 0.
    -device pxb-pcie,id=bus1,bus_nr=128,numa_node=1,bus=pcie.0 -device pcie-root-port,id=port1,bus=bus1,chassis=1,slot=1
    -device pxb-pcie,id=bus0,bus_nr=64,numa_node=0,bus=pcie.0 -device pcie-root-port,id=port0,bus=bus0,chassis=2,slot=2
)
wires=()
case $nic in
    igb)
        for n in 0 1; do
            arguments+=(-netdev "hubport,id=n$n,hubid=0" -device "igb,bus=port$((1 - n)),netdev=n$n,mac=52:54:00:00:00:0$n,romfile=")
        done
        ;;
    virtio)
        # Only taps have several queues: a bridge joins them, in a network namespace that ends with QEMU.
        wires=(unshare --net "$ROOT/tests/vm/bridge.sh" tap0 tap1)
        # RSS without reporting hashes: the taps do it then, by a program that QEMU gives them. Where QEMU does it itself, a packet for a queue
        # that has no room holds up all that came by the same queue of the tap, for as long as nothing else happens there.
        # Queues for twice the processors: a program in native mode sends on queues of its own. Receive offloads that join segments are off, as
        # native mode wants.
        properties=mq=on,vectors=18,rss=on,mrg_rxbuf=on,romfile=,iommu_platform=on
        for offload in csum tso4 tso6 ecn ufo uso4 uso6; do properties+=,guest_$offload=off; done
        for n in 0 1; do
            arguments+=(-netdev "tap,id=n$n,ifname=tap$n,script=no,downscript=no,queues=8,vhost=off"
                -device "virtio-net-pci,bus=port$((1 - n)),netdev=n$n,mac=52:54:00:00:00:0$n,$properties")
        done
        ;;
esac

# In the background, so that a signal to this script ends it at once, and QEMU with it.
LD_LIBRARY_PATH=$TOOLS/usr/lib/x86_64-linux-gnu:$TOOLS/lib/x86_64-linux-gnu \
    timeout -k 5 "$limit" "${wires[@]}" "$TOOLS/usr/bin/qemu-system-x86_64" "${arguments[@]}" </dev/null &
qemu=$!
trap 'kill "$qemu" 2>/dev/null || true; wait "$qemu" || true; rm -rf --one-file-system "$folder"' EXIT
trap 'exit 143' INT TERM
status=0
wait "$qemu" || status=$?
if [[ -e $folder/out/exit-code ]]; then
    exit "$(<"$folder/out/exit-code")"
elif ((status == 124 || status == 137)); then
    echo "vm.sh: the job did not end within $limit s" >&2
else
    echo "vm.sh: the guest ended without a word (QEMU: $status)" >&2
fi
exit 1
