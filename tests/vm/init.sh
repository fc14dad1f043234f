#!/bin/bash
# The first process of a guest: gets it ready, runs the job that scripts/vm.sh left, leaves its exit code, and turns the machine off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LC_ALL=C
mkdir -p /out /dev/pts /dev/shm
ln -sfn /proc/self/fd /dev/fd
mount -t devpts devpts /dev/pts
for folder in /dev/shm /run; do mount -t tmpfs tmpfs "$folder"; done
mount -t bpf bpf /sys/fs/bpf
mount -t debugfs debugfs /sys/kernel/debug
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 out /out
source /out/job
# At once when all is said, and QEMU takes it for the end: a kernel that does not get done with a driver would not shut its devices down.
trap 'stty -F /dev/ttyS0 -echo; echo b >/proc/sysrq-trigger' EXIT
ip link set lo up
ulimit -l unlimited -n 65536
cd "$ROOT"
echo "== up after $(cut -d' ' -f1 /proc/uptime) s: kernel $KERNEL, $NIC"
bash "${JOB[@]}"
status=$?
echo "$status" >/out/exit-code
echo "== ends after $(cut -d' ' -f1 /proc/uptime) s with $status"
sync
