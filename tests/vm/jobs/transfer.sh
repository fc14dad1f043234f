#!/bin/bash
# A transfer between the NICs on each datapath.
source "$ROOT/tests/vm/guest.sh"
nics
failed=0
for datapath in socket io_uring af_xdp; do
    transfer "$datapath" --scenario upload --bytes 4MiB -- --datapath "$datapath" || failed=1
done
exit "$failed"
