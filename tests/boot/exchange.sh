#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A stock kernel under load changes its engine while it runs and must not notice: the guest checks what it computes, counts its
# rounds, sleeps by its timers and, once told that there have been enough changes, powers off. KVM without hardware behind it must be refused each time, to no effect.
#
# usage: exchange.sh EXCHANGE KERNEL-PACKAGE CHANGES PERIOD-MS CPUS ENGINE...
# By hand: tests/boot/exchange.sh build/tests/exchange linux-image-cloud-amd64 1000 20 2 dbt interp
set -u
exchange=$(realpath "$1")
package=$2 changes=$3 period=$4 cpus=$5
shift 5

skip() {
	echo "skipped: $*"
	exit 77
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
cat >"$work/root/init" <<'INIT'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs d /dev
$b mount -t tmpfs t /tmp
$b dd if=/dev/urandom of=/tmp/a bs=1k count=64 2>/dev/null
sum=$($b md5sum </tmp/a)
work() {
	n=0
	while [ ! -s /tmp/stop ]; do
		n=$((n + 1))
		$b cp /tmp/a "/tmp/b$1" && $b gzip -f "/tmp/b$1" && $b gunzip -f "/tmp/b$1.gz"
		[ "$($b md5sum <"/tmp/b$1")" = "$sum" ] || echo "BAD round $n of $1"
		$b sleep 0.01
	done
	echo "worker $1 is through"
}
$b head -n 1 </dev/console >/tmp/stop &
work 1 & work 2 &
wait
echo "finished"
$b poweroff -f
INIT
chmod +x "$work/root/init"
(cd "$work/root" && find . | cpio -o -H newc -R 0:0 --quiet) >"$work/initrd"

timeout 250 "$exchange" --cpus "$cpus" --memory 256 --count "$changes" --period "$period" --min "$changes" --then enough --kernel "$kernel" \
	--initrd "$work/initrd" --append "console=ttyS0 loglevel=4 panic=-1" "$@" </dev/null >"$work/out" 2>"$work/err"
status=$?
tail -n 1 "$work/err"
if [ $status != 0 ] || ! grep -q '^finished' "$work/out" || [ "$(grep -c 'is through' "$work/out")" != 2 ] ||
	grep -E 'BAD|Kernel panic|Oops|BUG:|Call Trace|rcu.*stall|soft lockup' "$work/out"; then
	echo "failed: exit status $status"
	tail -n 20 "$work/out" "$work/err"
	exit 1
fi
exit 0
