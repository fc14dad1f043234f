#!/bin/bash
# Sockets, io_uring and AF_XDP on this kernel: what it lacks is told, and what is used instead carries the transfer.
source "$ROOT/tests/vm/guest.sh"
nics
on b "$RINGPERF" plan --interface nic0
# What the server's last report says: TAG
backend() { grep '^{' "/out/$1.server" | tail -n 1 | grep -o '"backend":"[a-z_]*"' | cut -d'"' -f4; }
# Of each queue: how frames are copied, and why not otherwise, in the words of the kernel's error where there is one.
queues() { grep '^{' "/out/$1.server" | tail -n 1 | grep -oE '"copy":"[a-z-]*",[^{}]*"copy_reason":(null|"[^"]*")' | sed 's/"copy":"\([a-z-]*\)".*"copy_reason":/\1 /'; }
# Queues whose line there is such a one: TAG PATTERN
count() { queues "$1" | grep -cE "$2" || true; }
# Frames are copied as this kernel's driver has it. (The number is EOPNOTSUPP's.)
as_the_driver_has_it() {
    local all own=$(nproc) what='do not copy' pattern='^zero-copy null$'
    [[ $KERNEL != 6.* ]] || what='copy, because the driver refuses zero-copy (EOPNOTSUPP)' pattern='^copy ".*[(]os error 95[)]"$'
    all=$(queues "$1" | grep -c .) || true
    check "$1: the NIC's own queues $what" test "$(count "$1" "$pattern")" == "$own"
    case $NIC in
        igb) check "$1: it has no others" test "$all" == "$own" ;;
        virtio)
            check "$1: there are others" more_than "$all" "$own"
            check "$1: they copy, because the driver has them for a program" \
                test "$(count "$1" '^copy "the driver has the queue only while a program is attached')" == $((all - own))
            ;;
    esac
}
for datapath in socket io_uring af_xdp auto; do
    transfer "$datapath" --scenario upload --bytes 2MiB --connections 2 -- --datapath "$datapath" --affinitize && status=0 || status=$?
    check "$datapath carries a transfer" test "$status" == 0
    taken=$datapath past=0
    [[ $datapath != auto ]] || taken=af_xdp
    check "$datapath: it was $taken" test "$(backend "$datapath")" == "$taken"
    if [[ $taken == af_xdp ]]; then
        past=$(value "/out/$datapath.server" received_datagrams)
        as_the_driver_has_it "$datapath"
    fi
    check "$datapath: $past datagrams came past the kernel's stack" test "$(value "/out/$datapath.server" bypass_received_datagrams)" == "$past"
    echo "   $datapath: $(grep '^{' "/out/$datapath.server" | tail -n 1 | grep -oE '"(backend|notes|queues)":("[a-z_]*"|\[[^]]*\])' | tr '\n' ' ')"
    MODE=$datapath row upload "$datapath" "$(value "/out/$datapath.server" bypass_received_datagrams) past the kernel's stack"
done
