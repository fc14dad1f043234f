# Downloads and unpacks QEMU, a kernel and what makes a guest of them, from Debian packages. Sourced, not run. The system's own package
# sources, lists and packages stay as they are: apt runs with a configuration in $CACHE, on the mirror that the system is set up with.

CACHE=${RINGWAY_VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ringway-vm}/$(. /etc/os-release && echo "$VERSION_CODENAME")
TOOLS=$CACHE/tools
# What ends with this could not be downloaded. With anything else something is wrong here.
NO_DOWNLOAD=75
# Mirrors that hardly answer hold nobody up for longer, for each of lists and packages, in seconds.
DOWNLOAD_MAX=600

# The address of the system's own source with this suite.
mirror() {
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Identifier: Packages' | awk -v suite="$1" '$2 == suite && $3 == "main" { print $1; exit }'
}

# A configuration for apt in $CACHE/NAME, whose packages come from these suites; STATUS lists what counts as installed. NAME STATUS SUITE...
apt_configuration() {
    local folder=$CACHE/$1 status=$2 suite uri codename
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    shift 2
    mkdir -p "$folder"/{sources,state/lists/partial,cache/archives/partial}
    cp "$status" "$folder/state/status"
    for suite; do
        uri=$(mirror "$suite")
        # What the system does not use itself is on the mirror of what it does.
        [[ $uri ]] || uri=$(mirror "$codename")
        [[ $uri ]] || { echo "apt has no source of $codename" >&2; return 1; }
        [[ $suite == "$codename-security" && ! $(mirror "$suite") ]] ||
            echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $suite main"
    done >"$folder/sources/guest.list"
    {
        # How to reach a mirror (a proxy, say) is the system's to say; its hooks are not run.
        apt-config dump | grep -E '^(Acquire|APT::Architecture)\b' || true
        cat <<-END
			Dir::Etc::Parts "/dev/null";
			Dir::Etc::main "/dev/null";
			Dir::Etc::sourcelist "/dev/null";
			Dir::Etc::sourceparts "$folder/sources";
			Dir::Etc::preferences "/dev/null";
			Dir::Etc::preferencesparts "/dev/null";
			Dir::State "$folder/state";
			Dir::State::status "$folder/state/status";
			Dir::Cache "$folder/cache";
			Acquire::Languages "none";
			Acquire::Retries "2";
			Acquire::http::Timeout "30";
			APT::Sandbox::User "root";
		END
    } >"$folder/apt.conf"
    export APT_CONFIG=$folder/apt.conf
    # An older list would do as well, but packages of it may be gone.
    timeout --foreground "$DOWNLOAD_MAX" apt-get update -q
}

# QEMU 10, with the libraries that this system lacks, and what makes an initial RAM disk.
fetch_tools() {
    [[ ! -e $TOOLS/complete ]] || return 0
    local codename release archive name
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    # Debian 12 has QEMU 7, which knows no igb.
    release=$codename
    [[ $codename != bookworm ]] || release=bookworm-backports
    (
        apt_configuration apt-tools /var/lib/dpkg/status "$codename" "$codename-updates" "$codename-security" "$codename-backports" || exit 1
        cd "$CACHE/apt-tools/cache/archives" || exit 1
        # These whether they are installed or not, and of what they depend on that which is not.
        timeout --foreground "$DOWNLOAD_MAX" apt-get install -yq --no-install-recommends --download-only --reinstall -t "$release" qemu-system-x86 busybox-static cpio kmod
    ) || return "$NO_DOWNLOAD"
    rm -rf "$TOOLS"
    mkdir -p "$TOOLS"
    for archive in "$CACHE"/apt-tools/cache/archives/*.deb; do dpkg-deb -x "$archive" "$TOOLS" || return 1; done
    rm -r "$CACHE/apt-tools"
    # Programs are in /bin or in /usr/bin, and one of them has several names.
    for name in busybox cpio; do ln -s "$(find "$TOOLS" -name "$name" -type f -path '*bin/*' -printf %P)" "$TOOLS/$name" || return 1; done
    for name in depmod modprobe; do ln -s "$(find "$TOOLS" -name kmod -type f -path '*bin/*' -printf %P)" "$TOOLS/$name" || return 1; done
    touch "$TOOLS/complete"
}

# Runs a program of the downloaded packages, with their libraries.
tool() {
    local name=$1
    shift
    LD_LIBRARY_PATH=$TOOLS/usr/lib/x86_64-linux-gnu:$TOOLS/lib/x86_64-linux-gnu "$TOOLS/$name" "$@"
}

# A kernel and its modules: 6.1, 6.12, or the newest that Debian has for its stable release. VERSION
fetch_kernel() {
    local folder=$CACHE/kernel-$1 suite version package archive
    [[ ! -e $folder/complete ]] || return 0
    case $1 in
        6.1) suite=bookworm ;;
        6.12) suite=trixie ;;
        newest) suite=trixie-backports ;;
    esac
    (
        apt_configuration "apt-$1" /dev/null "$suite" || exit 1
        cd "$CACHE/apt-$1/cache/archives" || exit 1
        package=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: \(linux-image-.*\)/\1/p' | head -1)
        [[ $package ]] || { echo "$suite has no linux-image-amd64" >&2; exit 1; }
        # Newer ones come in parts: the kernel, and its modules.
        timeout --foreground "$DOWNLOAD_MAX" apt-get download -q "$package" $(apt-cache depends "$package" | sed -n 's/^ *Depends: \(linux-\(base\|binary\|modules\)-.*\)/\1/p')
    ) || return "$NO_DOWNLOAD"
    rm -rf "$folder"
    mkdir -p "$folder"
    for archive in "$CACHE/apt-$1"/cache/archives/*.deb; do dpkg-deb -x "$archive" "$folder" || return 1; done
    # Where modules are, and where kmod looks for them.
    [[ -e $folder/lib/modules ]] || { mkdir -p "$folder/lib" && ln -s ../usr/lib/modules "$folder/lib/modules"; }
    version=$(basename "$folder"/lib/modules/*)
    [[ -e $folder/boot/vmlinuz-$version ]] || { mkdir -p "$folder/boot" && cp "$folder/lib/modules/$version/vmlinuz" "$folder/boot/vmlinuz-$version"; }
    tool depmod -b "$folder" "$version" || return 1
    rm -r "$CACHE/apt-$1"
    touch "$folder/complete"
}
