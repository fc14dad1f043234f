#!/bin/bash
# Partitions on both NUMA nodes: each one's thread is bound to its processor, and its packet memory is on the node of that. A process that may use
# only the node where the NIC is not is told so.
source "$ROOT/tests/vm/guest.sh"
nics
for side in a b; do on "$side" ethtool -N nic0 rx-flow-hash udp4 sdfn || true; done
check "the server's NIC is on node 1" test "$(on b "$RINGPERF" plan --interface nic0 --json | grep -o '"mtu":[0-9]*,"node":[0-9]*' | cut -d: -f3)" == 1
on b taskset -c 0,1 "$RINGPERF" plan --interface nic0 >/out/plan
check 'far processors are told of' grep -q 'attached to node 1, and processors \[0, 1\] are not: their packets cross between nodes' /out/plan

for copy in copy zero-copy; do
    for mode in low-latency max-throughput; do
        tag=numa-$copy-$mode
        options=(--datapath af_xdp --affinitize --xdp-attach native --xdp-copy "$copy" --mode "$mode")
        start_server "$tag" "${options[@]}"
        start_client "$tag" --scenario upload --bytes 1MiB --connections 4 "${options[@]}"
        check "$tag: the transfer" wait_client
        for task in /proc/"$server"/task/*; do
            name=$(<"$task/comm")
            [[ $name == ringway/* ]] || continue
            check "$tag: thread $name is on one processor: $(sed -n 's/^Cpus_allowed_list:\s*//p' "$task/status")" \
                grep -qE '^Cpus_allowed_list:\s*[0-9]+$' "$task/status"
        done
        # Mappings of a queue's packet memory are of 6 MiB and more each: how many pages of each are on which node.
        # (Shared memory of no file is shown as one of /dev/zero.)
        awk '/file=/ && !/file=\/dev\/zero/ { next }
             /heap|stack/ { next }
             { n0 = n1 = 0; for (i = 3; i <= NF; i++) { if ($i ~ /^N0=/) n0 = substr($i, 4); if ($i ~ /^N1=/) n1 = substr($i, 4) }
               if (n0 + n1 >= 1500) print n0, n1 }' "/proc/$server/numa_maps" >"/out/$tag.memory"
        sed 's/^/   pages on node 0, node 1: /' "/out/$tag.memory"
        for node in 1 2; do
            check "$tag: packet memory of two queues or more is on node $((node - 1)) alone" \
                at_most 2 "$(awk -v other="$((3 - node))" '$other == 0' "/out/$tag.memory" | grep -c .)"
        done
        check "$tag: the server" stop_server "$tag"
        MODE="$copy $mode" row numa "$tag" -
    done
done
