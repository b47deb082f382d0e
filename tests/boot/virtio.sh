#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A stock Debian kernel with its own virtio drivers: random bytes, a file system made, filled, checked and read again on a disk,
# and the same disk read by the host.
#
# usage: virtio.sh OSPITE KERNEL-PACKAGE ENGINE CPUS [force_legacy=1]      (the registers from before virtio 1.0)
# By hand: tests/boot/virtio.sh build/ospite linux-image-cloud-amd64 dbt 2
set -u
ospite=$(realpath "$1")
package=$2
engine=$3
cpus=$4
legacy=${5:-}

skip() {
	echo "skipped: $*"
	exit 77
}
fail() {
	echo "failed: $*"
	tail -n 40 "$work/text"
	cat "$work/err"
	exit 1
}

cache=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/ospite/$package
kernel=$(echo "$cache"/vmlinuz-*)
[ -s "$kernel" ] || skip "no kernel of $package in the cache (./check fetches it)"
modules=$cache/modules
[ -s "$modules/virtio.ko" ] || skip "no modules of $package in the cache (./check fetches them)"
command -v cpio >/dev/null || skip "cpio is not installed"
busybox=$(command -v busybox) || skip "busybox is not installed"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 143' TERM INT HUP # by way of EXIT
mkdir -p "$work/root/bin" "$work/root/m" "$work/root/dev" "$work/root/sys" "$work/root/proc" "$work/root/mnt"
cp "$busybox" "$work/root/bin/busybox"
cp "$modules"/*.ko "$work/root/m/"
cat >"$work/root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs d /dev
mount -t proc p /proc
mount -t sysfs s /sys
# The ring's module and virtio's need one or the other first, depending on the version.
insmod /m/virtio_ring.ko 2>/dev/null
for m in virtio virtio_ring virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_mmio virtio_blk virtio-rng \
	virtio_console virtio_balloon; do
	options=
	[ $m != virtio_pci ] || options=$(tr ' ' '\n' </proc/cmdline | grep force_legacy)
	insmod /m/$m.ko $options 2>/dev/null
done
n=0
while [ ! -b /dev/vda ] && [ $n -lt 50 ]; do
	n=$((n + 1))
	sleep 0.1
done
echo "serial $(cat /sys/block/vda/serial) sectors $(cat /sys/block/vda/size) queues $(ls /sys/block/vda/mq | wc -l)"
n=0
while ! port=$(grep -l org.ospite.test /sys/class/virtio-ports/*/name) && [ $n -lt 50 ]; do
	n=$((n + 1))
	sleep 0.1
done
port=${port%/name}
seq 1 3000 >/dev/${port##*/} || echo "BAD port"
echo "features $(cut -c 29-35 /sys/bus/virtio/devices/virtio0/features)"
a=$(head -c 4096 /dev/hwrng | md5sum)
[ "$a" != "$(head -c 4096 /dev/hwrng | md5sum)" ] && echo "random bytes"
mke2fs -q /dev/vda >/dev/null && mount -t ext4 /dev/vda /mnt || echo "BAD mkfs"
for i in 1 2 3 4; do
	head -c 4000000 /dev/urandom >/mnt/f$i &
done
wait
cat /mnt/f? | md5sum >/tmp-sum
cp /tmp-sum /mnt/sum
umount /mnt
echo 3 >/proc/sys/vm/drop_caches
mount -t ext4 /dev/vda /mnt || echo "BAD mount"
[ "$(cat /mnt/f? | md5sum)" = "$(cat /tmp-sum)" ] && echo "the same bytes"
rm /mnt/f4
fstrim /mnt 2>/dev/null && echo "trimmed"
umount /mnt
head -c 512 /dev/vdb | md5sum
dd if=/dev/zero of=/dev/vdb bs=512 count=1 2>/dev/null && echo "BAD a read-only disk was written"
echo "errors $(dmesg | grep -c 'I/O error')"
poweroff -f
INIT
chmod +x "$work/root/init"
(cd "$work/root" && find . | cpio -o -H newc -R 0:0 --quiet) >"$work/initrd"
truncate -s 64M "$work/disk"
head -c 1048576 /dev/urandom >"$work/second"

timeout 150 "$ospite" run --engine "$engine" --cpus "$cpus" --memory 256M --kernel "$kernel" --initrd "$work/initrd" \
	--append "console=ttyS0 loglevel=4 panic=-1 $legacy" --no-reboot --rng --balloon --port "org.ospite.test=file:$work/port" --disk "bus=virtio,serial=mine,file=$work/disk" \
	--disk "file=$work/second,readonly,bus=mmio" </dev/null >"$work/out" 2>"$work/err"
status=$?
tr -d '\r' <"$work/out" >"$work/text"
[ $status = 0 ] || fail "exit status $status"
grep -q '^serial mine sectors 131072 queues '"$cpus"'$' "$work/text" || fail "the disk is not as described"
grep -q '^random bytes' "$work/text" || fail "no random bytes"
grep -q '^the same bytes' "$work/text" || fail "the file system lost something"
grep -q "^$(head -c 512 "$work/second" | md5sum)" "$work/text" || fail "the second disk reads differently"
[ "$(md5sum <"$work/port")" = "$(seq 1 3000 | md5sum)" ] || fail "the port's bytes did not arrive"
if [ -n "$legacy" ]; then
	grep -q '^features 1100000' "$work/text" || fail "not the old registers"
else
	grep -q '^features 1100101' "$work/text" || fail "not version 1 with packed queues"
fi
! grep -E '^BAD|Kernel panic|Oops|BUG:|Call Trace' "$work/text" || fail "the guest complained"
if command -v e2fsck >/dev/null; then
	e2fsck -fn "$work/disk" >"$work/fsck" 2>&1 || { cat "$work/fsck"; fail "e2fsck of the host found faults"; }
fi
grep -E '^(serial|trimmed|errors|features)' "$work/text"
exit 0
