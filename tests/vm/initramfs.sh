#!/bin/bash
# Makes an initial RAM disk: busybox, and the kernel modules with which a guest reaches the files of its host. TOOLS KERNEL-FOLDER FILE
set -euo pipefail
tools=$1
version=$(basename "$2"/lib/modules/*)
modules=$2/lib/modules/$version
file=$3
export LD_LIBRARY_PATH=$tools/usr/lib/x86_64-linux-gnu:$tools/lib/x86_64-linux-gnu
root=$(mktemp -d)
trap 'rm -rf --one-file-system "$root"' EXIT
mkdir -p "$root"/{bin,proc,sys,dev,newroot,lower,upper,modules}
cp "$tools/busybox" "$root/bin/"
ln -s busybox "$root/bin/sh"

# A module after those that it depends on, each once.
order=()
add() {
    local line file name
    line=$(grep -m1 -E "/$1\.ko(\.[a-z]+)?:" "$modules/modules.dep") || return 0
    for file in $(awk '{ for (i = NF; i > 1; i--) print $i }' <<<"$line") "${line%%:*}"; do
        name=$(basename "$file" | sed 's/\.ko.*//')
        [[ ! -e $root/modules/$name ]] || continue
        case $file in
            *.xz) xz -dc "$modules/$file" ;;
            *.zst) zstd -qdc "$modules/$file" ;;
            *) cat "$modules/$file" ;;
        esac >"$root/modules/$name"
        order+=("$name")
    done
}
for module in virtio_pci 9pnet_virtio 9p overlay; do add "$module"; done
printf '%s\n' "${order[@]}" >"$root/modules/order"

cat >"$root/init" <<'END'
#!/bin/busybox sh
# The host's files below, memory above them.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
for module in $(cat /modules/order); do insmod /modules/$module; done
mount -t tmpfs tmpfs /upper
mkdir -p /upper/files /upper/work
mount -t 9p -o trans=virtio,version=9p2000.L,msize=1048576,cache=loose,ro root /lower || poweroff -f
mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work overlay /newroot || poweroff -f
for folder in proc sys dev; do mkdir -p /newroot/$folder; mount --move /$folder /newroot/$folder; done
exec switch_root /newroot /bin/bash "$(sed -n 's/.* init=\([^ ]*\).*/\1/p' /newroot/proc/cmdline)"
END
chmod +x "$root/init"
(cd "$root" && find . | "$tools/cpio" -o -H newc --quiet >"$file")
