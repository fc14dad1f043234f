#!/bin/bash
# A NIC with several queues carries transfers both ways in both execution modes, as it is found: the short job of the test command.
source "$ROOT/tests/vm/guest.sh"
nics
for side in a b; do on "$side" ethtool -N nic0 rx-flow-hash udp4 sdfn || true; done
on b "$RINGPERF" plan --interface nic0 --json >/out/plan
# The kernel's table has the interrupts of both NICs, by the same names: here are the numbers and names of b's.
# (The folder of virtio's interrupts is that of the device above.)
on b bash -c 'cd /sys/class/net/nic0/device && ls msi_irqs 2>/dev/null || ls ../msi_irqs' |
    awk 'NR == FNR { own[$1 ":"]; next } $1 in own { print $1 + 0, $NF }' - /proc/interrupts >/out/interrupts
interrupt() { awk -v name="^($1)\$" '$2 ~ name { print $1 }' /out/interrupts; }
case $NIC in
    igb) of_link=nic0 of_queue='nic0-(rx|TxRx)-' ;;
    virtio) of_link='virtio[0-9]+-config' of_queue='virtio[0-9]+-input[.]' ;;
esac
mapfile -t planned < <(sed 's/.*"interface":{//' /out/plan | grep -o '"number":[0-9]*,"interrupt":\[[0-9]*' | tr -cs '0-9\n' ' ')
check 'the plan has an interrupt for each queue' test "${#planned[@]}" == "$(nproc)"
link=$(interrupt "$of_link")
for queue in "${planned[@]}"; do
    read -r queue number <<<"$queue"
    check "queue $queue: its interrupt, $number, is the one of its name" test "$number" == "$(interrupt "$of_queue$queue")"
    # The name of that one may end in a digit too.
    check "queue $queue: it is not that of the link, ${link:-missing}" test "${link:-$number}" != "$number"
done
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
