#!/bin/bash
# Sockets, io_uring and AF_XDP on this kernel: what it lacks is told, and what is used instead carries the transfer.
source "$ROOT/tests/vm/guest.sh"
nics
on b "$RINGPERF" plan --interface nic0
for datapath in socket io_uring af_xdp auto; do
    transfer "$datapath" --scenario upload --bytes 2MiB --connections 2 -- --datapath "$datapath" --affinitize && status=0 || status=$?
    check "$datapath carries a transfer" test "$status" == 0
    echo "   $datapath: $(grep '^{' "/out/$datapath.server" | tail -n 1 | grep -oE '"(backend|notes|queues)":("[a-z_]*"|\[[^]]*\])' | tr '\n' ' ')"
    MODE=$datapath row upload "$datapath" "$(value "/out/$datapath.server" bypass_received_datagrams) past the kernel's stack"
done
