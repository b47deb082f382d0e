# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# What ./try and ./check have in common; sourced by both. POSIX sh.
# Functions end the script through die with one line that says what went wrong and what to do.

top=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
cache=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/ospite
log=$top/.cache/setup.log

say() {
	printf '==> %s\n' "$*" >&2
}

die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# Run quietly; on failure show the end of what was said.
quietly() {
	"$@" >"$log" 2>&1 && return 0
	tail -n 15 "$log" >&2
	return 1
}

packages_of() { # KIND...: names of the packages that are for one of these
	for kind; do
		sed -n "s/^\([a-z0-9.+-]*\)  *$kind  *.*/\1/p" "$top/scripts/packages"
	done
}

packages_missing() { # KIND...
	packages_of "$@" | while read -r name; do
		case $(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) in
		installed) ;;
		*) printf '%s\n' "$name" ;;
		esac
	done
}

as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	else
		sudo "$@"
	fi
}

need_packages() { # KIND...: install what is missing, after asking on a terminal
	if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
		printf 'These packages are needed (Debian names):\n' >&2
		for kind; do
			sed -n "s/^\([a-z0-9.+-]*\)  *$kind  */  \1: /p" "$top/scripts/packages" >&2
		done
		die "there is no apt here; install their like by hand, then build with: meson setup build && ninja -C build"
	fi
	missing=$(packages_missing "$@" | tr '\n' ' ')
	[ -n "$missing" ] || return 0
	if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
		die "not installed: ${missing}- run as root: apt-get install $missing"
	fi
	if [ -t 0 ] && [ -t 2 ] && [ -z "${CI:-}" ]; then
		printf 'To be installed with apt: %s\nGo on? [Y/n] ' "$missing" >&2
		read -r answer || answer=n
		case $answer in
		'' | [yY]*) ;;
		*) die "nothing was installed; run again when you want to go on" ;;
		esac
	fi
	say "installing $missing"
	# shellcheck disable=SC2086 # a list of names
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $missing >"$log" 2>&1 ||
		{
			as_root apt-get -qq update >>"$log" 2>&1
			as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y \
				--no-install-recommends $missing >>"$log" 2>&1
		} || {
		tail -n 5 "$log" >&2
		die "apt could not install them (see above and $log); check the network and 'apt-get update'"
	}
}

prepare_cache() {
	mkdir -p "$top/.cache" 2>/dev/null && : 2>/dev/null >"$log" ||
		die "cannot write into $top; take a checkout that is yours"
	mkdir -p "$cache" 2>/dev/null && [ -w "$cache" ] ||
		die "cannot write $cache; set XDG_CACHE_HOME to a folder of yours"
}

build() { # FOLDER[:TARGET] [MESON-OPTION...]
	folder=$top/${1%%:*}
	target=${1#"${1%%:*}"}
	target=${target#:}
	shift
	if [ ! -f "$folder/build.ninja" ]; then
		quietly meson setup "$folder" "$top" "$@" ||
			die "meson cannot set up the build (see above and $folder/meson-logs/meson-log.txt)"
	fi
	if [ -t 2 ]; then
		ninja -C "$folder" ${target:+"$target"} >&2 || die "the build failed (see above)"
	else
		quietly ninja -C "$folder" ${target:+"$target"} || die "the build failed (see above and $log)"
	fi
}

# ---- guests ----

# A package of any architecture into a folder, through apt but without touching the host's own state:
# a second set of lists under the cache, for that architecture.
apt_private() { # ARCH COMMAND...
	apt_dir=$cache/apt-$1
	mkdir -p "$apt_dir/lists/partial" "$apt_dir/cache/archives/partial"
	: >"$apt_dir/status"
	apt_arch=$1
	shift
	apt_tool=$1
	shift
	"$apt_tool" -q -o APT::Architecture="$apt_arch" -o APT::Architectures::="$apt_arch" \
		-o Dir::State="$apt_dir" -o Dir::State::Lists="$apt_dir/lists" \
		-o Dir::State::status="$apt_dir/status" -o Dir::Cache="$apt_dir/cache" \
		-o APT::Sandbox::User=root "$@"
}

apt_host() { # ARCH COMMAND...: the same with the host's lists
	shift
	apt_tool=$1
	shift
	"$apt_tool" -q -o APT::Sandbox::User=root "$@"
}

# fetch_image ARCH METAPACKAGE: the kernel image this metapackage depends on; sets $kernel to its vmlinuz. Its drivers for
# virtio and the devices of a PC, and what those need, go to the folder "modules" beside it.
fetch_image() {
	dest=$cache/$2
	kernel=$(echo "$dest"/vmlinuz-*)
	[ ! -s "$kernel" ] || [ ! -s "$dest/modules/nd_pmem.ko" ] || [ ! -s "$dest/modules/button.ko" ] ||
		{ [ ! -s "$dest/modules/e1000.ko" ] && [ "${2#*cloud}" = "$2" ]; } || return 0
	say "fetching Debian's kernel ($2)"
	apt=apt_private
	[ "$1" != "$(dpkg --print-architecture)" ] || apt=apt_host
	image=$($apt "$1" apt-cache depends "$2" 2>/dev/null | sed -n 's/^ *Depends: *\(linux-image-[^ :]*\).*/\1/p' | head -n 1)
	if [ -z "$image" ]; then
		# No lists yet, or old ones. One stale mirror file must not stop us: what counts is the package.
		apt=apt_private
		apt_private "$1" apt-get update >"$log" 2>&1 || true
		image=$($apt "$1" apt-cache depends "$2" 2>/dev/null | sed -n 's/^ *Depends: *\(linux-image-[^ :]*\).*/\1/p' | head -n 1)
	fi
	[ -n "$image" ] || die "apt does not know $2; check the network and the sources in /etc/apt"
	rm -rf "$dest.new"
	mkdir -p "$dest.new"
	if ! (cd "$dest.new" && $apt "$1" apt-get download "$image") >"$log" 2>&1; then
		apt=apt_private # the host's lists name a version that is gone from the mirror
		apt_private "$1" apt-get update >"$log" 2>&1 || true
		image=$($apt "$1" apt-cache depends "$2" 2>/dev/null | sed -n 's/^ *Depends: *\(linux-image-[^ :]*\).*/\1/p' | head -n 1)
		(cd "$dest.new" && $apt "$1" apt-get download "$image") >>"$log" 2>&1 || {
			tail -n 5 "$log" >&2
			die "cannot download $image (see above); check the network"
		}
	fi
	dpkg-deb --fsys-tarfile "$dest.new"/*.deb |
		(cd "$dest.new" && tar -x --wildcards './boot/vmlinuz-*' './lib/modules/*virtio*' './lib/modules/*/vsock*.ko*' \
			'./lib/modules/*/vmw_vsock_*' './lib/modules/*/fuse.ko*' './lib/modules/*nvdimm.ko*' './lib/modules/*/nd_*.ko*' \
			'./lib/modules/*/drivers/ata/*ahci.ko*' './lib/modules/*/drivers/ata/libata.ko*' \
			'./lib/modules/*/drivers/ata/ata_piix.ko*' './lib/modules/*/scsi_*.ko*' './lib/modules/*/s[dr]_mod.ko*' \
			'./lib/modules/*/cdrom.ko*' './lib/modules/*crc*.ko*' './lib/modules/*/t10-pi.ko*' './lib/modules/*/ext4.ko*' \
			'./lib/modules/*/jbd2.ko*' './lib/modules/*/mbcache.ko*' './lib/modules/*/button.ko*' './lib/modules/*/evdev.ko*' \
			'./lib/modules/*/net_failover.ko*' './lib/modules/*/failover.ko*' './lib/modules/*/e1000.ko*' 2>/dev/null)
	[ -s "$(echo "$dest.new"/boot/vmlinuz-*)" ] || die "cannot unpack $image; is the disk full?"
	mv "$dest.new"/boot/vmlinuz-* "$dest.new"/
	mkdir "$dest.new/modules"
	find "$dest.new/lib" -name '*.ko*' -exec mv {} "$dest.new/modules/" \;
	rm -rf "$dest.new/boot" "$dest.new/lib" "$dest.new"/*.deb "$dest"
	mv "$dest.new" "$dest"
	kernel=$(echo "$dest"/vmlinuz-*)
}

# fetch_other PACKAGE FILE: a kernel that is not Linux, unpacked into the cache under its package's name.
fetch_other() {
	[ ! -s "$cache/$1" ] || return 0
	rm -rf "$cache/$1.new"
	mkdir -p "$cache/$1.new"
	(cd "$cache/$1.new" && apt_host amd64 apt-get download "$1") >"$log" 2>&1 || return 1
	dpkg-deb --fsys-tarfile "$cache/$1.new"/*.deb | tar -xO --wildcards "$2" 2>/dev/null | gzip -dc >"$cache/$1.new/kernel" &&
		[ -s "$cache/$1.new/kernel" ] && mv "$cache/$1.new/kernel" "$cache/$1"
	rm -rf "$cache/$1.new"
	[ -s "$cache/$1" ]
}

# pack_initrd FOLDER FILE: the kernel brings /dev and /dev/console itself, so no device node and no root is
# needed.
pack_initrd() {
	(cd "$1" && find . | LC_ALL=C sort | cpio -o -H newc -R 0:0 --reproducible --quiet) >"$2.new" &&
		mv "$2.new" "$2" || die "cannot write $2; is the disk full?"
}

# A user space of busybox alone; sets $initrd.
make_busybox_initrd() {
	initrd=$cache/busybox.cpio
	root=$cache/root
	rm -rf "$root"
	mkdir -p "$root/bin" "$root/proc" "$root/sys" "$root/dev" "$root/tmp" "$root/etc" "$root/root"
	cp "$(command -v busybox)" "$root/bin/busybox" || die "busybox is missing; install busybox-static"
	cp "$top/scripts/guest/init" "$root/init"
	cp "$top/scripts/guest/inittab" "$top/scripts/guest/profile" "$root/etc/"
	chmod 755 "$root/init" "$root/bin/busybox"
	pack_initrd "$root" "$initrd"
	rm -rf "$root"
}
