#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A stock kernel under load is saved and restored again and again, each time under another engine, and must not notice: the guest
# checks what it computes, counts its rounds without a gap, and powers off.
#
# usage: save-restore.sh OSPITE KERNEL-PACKAGE[+disk] ROUNDS CPUS ENGINE...      (engines take turns)
# SAVE_MEMORY=mapped: memory is mapped from the file.
# With +disk the files are on a virtio disk in use, read from it each round, beside a virtio console and an entropy device.
# By hand: tests/boot/save-restore.sh build/ospite linux-image-cloud-amd64 100 1 dbt interp
set -u
ospite=$(realpath "$1")
package=${2%+disk}
disk=${2#"$package"}
rounds=$3
cpus=$4
shift 4

skip() {
	echo "skipped: $*"
	exit 77
}
fail() {
	echo "failed: $*"
	tail -n 20 "$work/text"
	exit 1
}

kernel=$(echo "${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/ospite/$package"/vmlinuz-*)
[ -s "$kernel" ] || skip "no kernel of $package in the cache (./check fetches it)"
command -v cpio >/dev/null || skip "cpio is not installed"
busybox=$(command -v busybox) || skip "busybox is not installed"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 143' TERM INT HUP # by way of EXIT
mkdir -p "$work/root/bin" "$work/root/tmp" "$work/root/dev"
cp "$busybox" "$work/root/bin/busybox"
if [ -n "$disk" ]; then
	modules=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/ospite/$package/modules
	[ -s "$modules/virtio.ko" ] || skip "no modules of $package in the cache (./check fetches them)"
	mkdir "$work/root/m" "$work/root/proc"
	cp "$modules"/virtio*.ko "$work/root/m/"
	truncate -s 32M "$work/disk"
fi
cat >"$work/root/init" <<'INIT'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs d /dev
if [ -d /m ]; then
	$b mount -t proc p /proc
	for m in virtio_ring virtio virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk \
		virtio-rng virtio_console; do
		$b insmod /m/$m.ko 2>/dev/null
	done
	$b sleep 0.5
	$b mke2fs /dev/vda >/dev/null && $b mount -t ext4 /dev/vda /tmp || echo "BAD disk"
else
	$b mount -t tmpfs t /tmp
fi
$b dd if=/dev/urandom of=/tmp/a bs=1k count=64 2>/dev/null
sum=$($b md5sum </tmp/a)
$b head -n 1 </dev/console >/tmp/stop &
n=0
while [ ! -s /tmp/stop ]; do
	n=$((n + 1))
	$b cp /tmp/a /tmp/b && $b gzip -f /tmp/b && $b gunzip -f /tmp/b.gz
	if [ -d /m ]; then
		$b sync
		echo 3 >/proc/sys/vm/drop_caches
		[ "$($b head -c 32 /dev/hwrng | $b wc -c)" = 32 ] || echo "BAD entropy in round $n"
	fi
	[ "$($b md5sum </tmp/b)" = "$sum" ] || echo "BAD round $n"
	echo "round $n"
	$b sleep 0.01
done
echo "finished after $n"
$b poweroff -f
INIT
chmod +x "$work/root/init"
(cd "$work/root" && find . | cpio -o -H newc -R 0:0 --quiet) >"$work/initrd"

mkfifo "$work/in"
devices=
[ -z "$disk" ] || devices="--rng --port file:$work/hvc --disk file=$work/disk,bus=virtio"
: >"$work/text"
n=0
while [ $n -le "$rounds" ]; do
	engine=$1
	shift
	set -- "$@" "$engine"
	: >"$work/out"
	sleep 600 >"$work/in" & # keeps the line open
	holder=$!
	if [ $n = 0 ]; then
		timeout 300 "$ospite" run --engine "$engine" --cpus "$cpus" --memory 256M --kernel "$kernel" --initrd "$work/initrd" \
			--append "console=ttyS0 loglevel=4 panic=-1" --no-reboot --save-to "$work/next" --save-memory "${SAVE_MEMORY:-packed}" $devices \
			<"$work/in" >"$work/out" 2>"$work/err" &
	else
		timeout 300 "$ospite" run --engine "$engine" --restore "$work/saved" --no-reboot --save-to "$work/next" --save-memory "${SAVE_MEMORY:-packed}" $devices \
			<"$work/in" >"$work/out" 2>"$work/err" &
	fi
	vm=$!
	tries=0
	until grep -q '^round' "$work/out" || [ $tries = 900 ]; do
		kill -0 $vm 2>/dev/null || break
		tries=$((tries + 1))
		sleep 0.1
	done
	grep -q '^round' "$work/out" || { cat "$work/err"; fail "no life after restore $n under $engine"; }
	if [ $n = "$rounds" ]; then
		echo stop >"$work/in"
	else
		# the signal must reach the machine, not timeout's own process
		kill -USR1 "$(ps -o pid= --ppid $vm | tr -d ' ')"
	fi
	wait $vm
	status=$?
	kill $holder
	wait $holder 2>/dev/null
	tr -d '\r' <"$work/out" >>"$work/text"
	[ $status = 0 ] || { cat "$work/err"; fail "exit status $status in round $n under $engine"; }
	if [ $n -lt "$rounds" ]; then
		[ -s "$work/next" ] || { cat "$work/err"; fail "nothing was saved in round $n under $engine"; }
		mv "$work/next" "$work/saved"
	fi
	n=$((n + 1))
done

! grep -E 'BAD|Kernel panic|Oops|BUG:|Call Trace|rcu.*stall' "$work/text" || fail "the guest noticed"
grep -q '^finished after' "$work/text" || fail "the guest did not finish"
# Each round's line is there once, whichever process printed it.
grep -o '^round [0-9]*$' "$work/text" | awk '{ if ($2 != last + 1) { print "after round", last, "came", $2; bad = 1 } last = $2 }
	END { exit bad }' || fail "rounds are missing or doubled"
echo "$rounds times saved and restored; $(grep -c '^round' "$work/text") rounds"
exit 0
