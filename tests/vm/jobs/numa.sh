#!/bin/bash
# Partitions on both NUMA nodes: each one's thread is bound to its processor, and its packet memory is on the node of that. A process that may use
# only the node where the NIC is not is told so.
source "$ROOT/tests/vm/guest.sh"
nics
for side in a b; do on "$side" ethtool -N nic0 rx-flow-hash udp4 sdfn || true; done
check "the server's NIC is on node 1" test "$(on b "$RINGPERF" plan --interface nic0 --json | grep -o '"mtu":[0-9]*,"node":[0-9]*' | cut -d: -f3)" == 1
on b taskset -c 0,1 "$RINGPERF" plan --interface nic0 >/out/plan
check 'far processors are told of' grep -q 'attached to node 1, and processors \[0, 1\] are not: their packets cross between nodes' /out/plan

# The node of a processor.
node_of() { local node=(/sys/devices/system/cpu/cpu"$1"/node*); echo "${node[0]##*/node}"; }

# Three queues: partitions on one node serve two of them, so that it shows if packet memory is on each other's node.
on b ethtool -X nic0 equal 3
for way in copy zero-copy generic; do
    for mode in low-latency max-throughput; do
        tag=numa-$way-$mode
        options=($(af_xdp "$way") --mode "$mode")
        start_server "$tag" "${options[@]}" --queues 0,1,2
        start_client "$tag" --scenario upload --bytes 1MiB --connections 4 "${options[@]}"
        check "$tag: the transfer" wait_client
        node_of_partition=()
        for task in /proc/"$server"/task/*; do
            name=$(<"$task/comm")
            [[ $name == ringway/* ]] || continue
            processor=$(sed -n 's/^Cpus_allowed_list:\s*//p' "$task/status") partition=${name//[!0-9]/}
            check "$tag: thread $name is on one processor: $processor" grep -qE '^[0-9]+$' <<<"$processor"
            node=$(node_of "$processor")
            [[ -z ${node_of_partition[partition]:-} ]] ||
                check "$tag: thread $name is on the node of the other one of its partition, $node" test "${node_of_partition[partition]}" == "$node"
            node_of_partition[partition]=$node
        done
        check "$tag: the first partition is on the NIC's node" test "${node_of_partition[0]:-}" == 1
        # How many queues there are for partitions on each node.
        queues=(0 0)
        for partition in $(grep '^{' "/out/$tag.server" | tail -n 1 | grep -o '"queue":[0-9]*,"partition":[0-9]*' | cut -d: -f3); do
            ((++queues[node_of_partition[partition]]))
        done
        check "$tag: queues of partitions on node 0 and node 1 are not as many: ${queues[*]}" test "${queues[0]}" != "${queues[1]}"
        # Mappings of a queue's packet memory are of 6 MiB and more each: how many pages of each are on which node.
        # (Shared memory of no file is shown as one of /dev/zero.)
        awk '/file=\/dev\/zero/ {
                 n0 = n1 = 0; for (i = 3; i <= NF; i++) { if ($i ~ /^N0=/) n0 = substr($i, 4); if ($i ~ /^N1=/) n1 = substr($i, 4) }
                 if (n0 + n1 >= 1500) print n0, n1 }' "/proc/$server/numa_maps" >"/out/$tag.memory"
        sed 's/^/   pages on node 0, node 1: /' "/out/$tag.memory"
        check "$tag: there is packet memory for each queue" test "$(grep -c . "/out/$tag.memory")" == 3
        for node in 0 1; do
            check "$tag: packet memory of as many queues is on node $node alone as partitions there serve: ${queues[node]}" \
                test "$(awk -v other="$((2 - node))" '$other == 0' "/out/$tag.memory" | grep -c .)" == "${queues[node]}"
        done
        check "$tag: the server" stop_server "$tag"
        MODE="$way $mode" row numa "$tag" -
    done
done
