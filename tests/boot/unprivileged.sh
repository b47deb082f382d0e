#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Everything that needs no privilege, by a user who has none: no groups, so no /dev/kvm, no capability, and a network name space of its own
# with nothing in it. Every command about machines (life.sh), then a stock kernel with a disk, on the user network.
# Started by root it becomes that user; otherwise it is whoever started it.
# usage: unprivileged.sh OSPITE FOLDER-OF-LIFE.SH KERNEL-PACKAGE
set -u
if [ "${4-}" != inside ]; then
	ospite=$(realpath "$1")
	tests=$(realpath "$2")
	cache=${XDG_CACHE_HOME:-$HOME/.cache}/ospite/$3
	for program in setpriv unshare nasm busybox cpio; do command -v $program >/dev/null || { echo "skipped: no $program"; exit 77; }; done
	[ -e "$cache/modules/virtio_blk.ko" ] || { echo "skipped: no kernel of $3 in the cache (./check fetches it)"; exit 77; }
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	trap 'exit 143' TERM INT HUP # by way of EXIT
	chmod 755 "$work"
	cp -r "$ospite" "$tests/life.sh" "$tests/life-lib.sh" "$tests/guest" "$tests/unprivileged.sh" "$tests/view.py" "$work/"
	cp "$cache"/vmlinuz-* "$work/vmlinuz"
	mkdir -p "$work/initrd/bin" "$work/initrd/m" "$work/home"
	cp "$(command -v busybox)" "$work/initrd/bin/"
	for m in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk failover net_failover virtio_net; do
		[ ! -e "$cache/modules/$m.ko" ] || cp "$cache/modules/$m.ko" "$work/initrd/m/"
	done
	cat >"$work/initrd/init" <<'END'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mkdir -p /dev /sys /proc
mount -t devtmpfs d /dev
mount -t sysfs s /sys
for m in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk failover net_failover virtio_net; do
	insmod /m/$m.ko 2>/dev/null
done
n=0
until [ -b /dev/vda ] && [ -e /sys/class/net/eth0 ] || [ $n = 600 ]; do n=$((n + 1)); sleep 0.1; done
ip link set eth0 up
echo "disk $(head -c 5 /dev/vda)"
udhcpc -i eth0 -n -q -t 20 -T 1 -s /bin/true >/dev/null 2>&1 && echo "lease given"
poweroff -f
END
	chmod 755 "$work/initrd/init"
	(cd "$work/initrd" && find . | cpio -o -H newc -R 0:0 --quiet) >"$work/initrd.img"
	drop=
	if [ "$(id -u)" = 0 ]; then
		chown -R 65534:65534 "$work"
		drop="setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs --bounding-set=-all"
		unshare --net true 2>/dev/null && drop="unshare --net $drop"
	fi
	# shellcheck disable=SC2086 # words
	env HOME="$work/home" XDG_DATA_HOME= XDG_CACHE_HOME= TMPDIR="$work" $drop sh "$work/unprivileged.sh" "$work/$(basename "$ospite")" "$work" "$3" inside
	exit $?
fi
ospite=$1
work=$2
failed=0
fail() {
	failed=$((failed + 1))
	echo "FAILED: $*"
}
cd "$work" || exit 1
echo "as $(id -u), groups $(id -G)"
[ "$(id -u)" != 0 ] || fail "still root"
sh ./life.sh "$ospite" ./guest || fail "life.sh"
if [ -x /usr/bin/python3 ]; then
	/usr/bin/python3 ./view.py "$ospite" ./guest || [ $? = 77 ] || fail "view.py"
fi
"$ospite" doctor >out 2>&1 || fail "doctor: $(cat out)"
printf 'hello world' >disk.raw
truncate -s 1M disk.raw
timeout 200 "$ospite" run --memory 192M --kernel vmlinuz --initrd initrd.img --append "console=ttyS0 quiet panic=-1" --disk disk.raw,bus=virtio \
	--port 18080:80 </dev/null >out 2>err || timeout 200 "$ospite" run --memory 192M --kernel vmlinuz --initrd initrd.img \
	--append "console=ttyS0 quiet panic=-1" --disk disk.raw,bus=virtio </dev/null >out 2>err || fail "run: $(cat err)"
grep -q 'disk hello' out || fail "no disk: $(cat out)"
grep -q 'lease given' out || fail "no network: $(cat out)"
# what does need a privilege says so
"$ospite" run --user nobody --kernel vmlinuz </dev/null >out 2>&1
grep -q 'only root' out || fail "--user: $(cat out)"
"$ospite" run --net tap:ospite-none --kernel vmlinuz </dev/null >out 2>&1
[ "$(wc -l <out)" = 1 ] || fail "--net tap: $(cat out)"
echo "$failed failed"
[ $failed = 0 ]
