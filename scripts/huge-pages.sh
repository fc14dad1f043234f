#!/bin/bash
# Huge pages for the packet memory of AF_XDP: 2 MB each; a queue takes 6 MB, or 12 MB where the MTU is over 1770. Prints what it changes;
# `restore` brings back what was before. Usage: huge-pages.sh show | set COUNT [NODE] | restore
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
state=/run/ringway-huge-pages
file() { echo "/sys/devices/system/node/node$1/hugepages/hugepages-2048kB/nr_hugepages"; }
[[ -e $(file 0) ]] || { echo 'huge-pages.sh: this kernel has no huge pages of 2 MB' >&2; exit 1; }
[[ ${1:-show} == show ]] || ((EUID == 0)) || { echo 'huge-pages.sh: it needs root' >&2; exit 1; }
show() {
    local node
    for node in /sys/devices/system/node/node[0-9]*; do
        echo "${node##*/}: $(cat "$node/hugepages/hugepages-2048kB/nr_hugepages"), free $(cat "$node/hugepages/hugepages-2048kB/free_hugepages")"
    done
}
write() { # FILE COUNT
    local before
    before=$(cat "$1")
    echo "$2" >"$1"
    echo "$1: $before -> $(cat "$1")"
    (($(cat "$1") == $2)) || echo "  the kernel has found no more memory in one piece: set them at boot (hugepages=$2)"
}
case ${1:-show} in
    show) show ;;
    set)
        [[ ${2:-} =~ ^[0-9]+$ ]] || { echo 'usage: huge-pages.sh set COUNT [NODE]' >&2; exit 1; }
        target=$(file "${3:-0}")
        # What was before the first change.
        grep -qs "^$target " "$state" || echo "$target $(cat "$target")" >>"$state"
        write "$target" "$2"
        ;;
    restore)
        [[ -e $state ]] || { echo 'huge-pages.sh: nothing was changed' >&2; exit 1; }
        while read -r target count; do write "$target" "$count"; done <"$state"
        rm "$state"
        ;;
    *) echo 'usage: huge-pages.sh show | set COUNT [NODE] | restore' >&2 && exit 1 ;;
esac
