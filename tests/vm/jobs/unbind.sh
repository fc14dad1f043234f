#!/bin/bash
# The driver of the server's NIC is unbound while connections transfer: they end with an error that says why, in time, and so does the server
# when it is told to end.
source "$ROOT/tests/vm/guest.sh"
nics
copy=${1:-copy}
device=$(basename "$(on b ethtool -i nic0 | sed -n 's/^bus-info: //p')")
driver=$(on b ethtool -i nic0 | sed -n 's/^driver: //p')
options=(--datapath af_xdp --affinitize --xdp-attach native --xdp-copy "$copy")
start_server unbind "${options[@]}"
start_client unbind --scenario upload --bytes 64MiB --connections 2 --timeout 8s "${options[@]}"
arrives() { more_than "$(value /out/unbind.server received_datagrams)" 1000; }
wait_for 'the transfer' arrives
case $driver in
    igb) echo "$device" >/sys/bus/pci/drivers/igb/unbind ;;
    # Its bus is virtio's.
    *) device=$(basename "$(dirname "$(find /sys/bus/pci/devices/"$device"/virtio* -maxdepth 1 -name driver)")"); echo "$device" >/sys/bus/virtio/drivers/virtio_net/unbind ;;
esac
before=$SECONDS status=0
wait_client || status=$?
check "the client ends with an error (code $status)" test "$status" == 1
check "within 10 s: $((SECONDS - before))" test $((SECONDS - before)) -le 10
check "and says why: $(tail -n 1 /out/unbind.client)" grep -q 'ringperf: ' /out/unbind.client
check 'the server ends when it is told to' stop_server unbind
