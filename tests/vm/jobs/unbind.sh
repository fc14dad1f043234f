#!/bin/bash
# The driver of the server's NIC is unbound while 8 connections transfer: the first that has waited long enough for an acknowledgement ends the
# client with an error that says so, in time; and the server ends when it is told to. Arguments: copy, zero-copy or generic; an execution mode.
source "$ROOT/tests/vm/guest.sh"
nics
way=${1:-copy}
options=($(af_xdp "$way") --mode "${2:-low-latency}")
device=$(basename "$(on b ethtool -i nic0 | sed -n 's/^bus-info: //p')")
driver=$(on b ethtool -i nic0 | sed -n 's/^driver: //p')
start_server unbind "${options[@]}"
start_client unbind --scenario upload --bytes 64MiB --connections 8 --disconnect-timeout 7s --timeout 20s "${options[@]}"
wait_for 'the transfer' carries unbind
# In the background: with virtio_net that runs a program itself (Linux 7.3.4) it does not end: of queues that it has only for that the kernel forgets
# who holds the interface.
case $driver in
    igb) echo "$device" >/sys/bus/pci/drivers/igb/unbind & ;;
    # Its bus is virtio's.
    *) device=$(basename "$(dirname "$(find /sys/bus/pci/devices/"$device"/virtio* -maxdepth 1 -name driver)")"); echo "$device" >/sys/bus/virtio/drivers/virtio_net/unbind & ;;
esac
unbinding=$!
before=$SECONDS status=0
wait_client || status=$?
check "the client ends with an error (code $status)" test "$status" == 1
check "within 10 s: $((SECONDS - before))" test $((SECONDS - before)) -le 10
check "and says why: $(tail -n 1 /out/unbind.client)" grep -q "ringperf: connection to $SERVER_ADDRESS: the peer acknowledges nothing any more" /out/unbind.client
check 'the server says why nothing comes and goes' grep -q 'the interface of an AF_XDP socket is gone' /out/unbind.server
check 'the server ends when it is told to' stop_server unbind
gone() { [[ ! -e /proc/$unbinding ]]; }
[[ $driver != igb && $way != generic ]] || check 'then the driver is unbound' wait_for 'the end of the driver' gone
