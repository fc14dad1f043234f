#!/bin/bash
# Downloads programs that speak HTTP/3 from Debian packages, with all that they need, and unpacks them into $CACHE: nothing is installed, and the
# system's own package sources and lists stay as they are. They run on any release, by the dynamic linker that comes with them. Quick when they are there.
# Prints the folder; ends with $NO_DOWNLOAD where they cannot be downloaded. Usage: packages.sh
source "$(dirname "${BASH_SOURCE[0]}")/../vm/packages.sh"
set -euo pipefail
CACHE=${RINGWAY_HTTP3_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ringway-http3}
PROGRAMS=(caddy curl haproxy nginx ngtcp2-client ngtcp2-server)
mkdir -p "$CACHE"
exec 9>"$CACHE/lock"
flock 9
tree=$CACHE/trixie
if [[ ! -e $tree/complete ]]; then
    {
        (
            apt_configuration apt /dev/null trixie || exit 1
            # As if nothing were installed: the C library too.
            timeout --foreground "$DOWNLOAD_MAX" apt-get install -yq --no-install-recommends --download-only "${PROGRAMS[@]}"
        ) || exit "$NO_DOWNLOAD"
        rm -rf "$tree"
        mkdir -p "$tree"
        for archive in "$CACHE"/apt/cache/archives/*.deb; do dpkg-deb -x "$archive" "$tree"; done
        rm -r "$CACHE/apt"
        touch "$tree/complete"
    } >&2
fi
echo "$tree"
