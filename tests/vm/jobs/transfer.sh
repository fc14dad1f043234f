#!/bin/bash
# A NIC with several queues carries transfers both ways in both execution modes, as it is found: the short job of the test command.
source "$ROOT/tests/vm/guest.sh"
nics
for side in a b; do on "$side" ethtool -N nic0 rx-flow-hash udp4 sdfn || true; done
on b "$RINGPERF" plan --interface nic0 --json >/out/plan
# Not that of the link, whose name ends in a digit too.
check 'each queue has an interrupt of its own' test "$(grep -o '"interrupt":\[[0-9]*' /out/plan | sort -u | grep -c .)" == "$(nproc)"
for mode in low-latency max-throughput; do
    tag=$mode
    start_server "$tag" --datapath af_xdp --affinitize --mode "$mode"
    for scenario in upload download; do
        start_client "$tag" --scenario "$scenario" --bytes 2MiB --connections 2 --datapath af_xdp --affinitize --mode "$mode"
        check "$scenario, $mode: the client" wait_client
    done
    check "$mode: the server" stop_server "$tag"
    check "$mode: what was received came past the kernel's stack" more_than "$(value "/out/$tag.server" bypass_received_datagrams)" 2500
    MODE=$mode row transfer "$tag" -
done
