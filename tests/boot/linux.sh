#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Boots a stock Debian kernel with the self-test as its whole user space, until it powers off.
#
# usage: linux.sh OSPITE KERNEL-PACKAGE[+ENTRY] SELFTEST ENGINE CPUS [OSPITE-OPTION...]
# ENTRY takes the PVH entry out of reach: boot64 leaves the 64-bit boot protocol, boot32 the 32-bit one; the guest
# then unpacks itself.
# By hand, after ./check or ./try has fetched the kernel:
#   tests/boot/linux.sh build/ospite linux-image-cloud-amd64 build/tests/boot/selftest64 interp 2
set -u
ospite=$(realpath "$1")
package=${2%%+*}
entry=${2#"$package"}
selftest=$(realpath "$3" 2>/dev/null || echo none)
engine=$4
cpus=$5
shift 5

skip() {
	echo "skipped: $*"
	exit 77
}

kernel=$(echo "${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/ospite/$package"/vmlinuz-*)
[ -s "$kernel" ] || skip "no kernel of $package in the cache (./check fetches it)"
[ -x "$selftest" ] || skip "no self-test for this kernel (gcc-multilib builds the 32-bit one)"
command -v cpio >/dev/null || skip "cpio is not installed"
engines=$("$ospite" engines)
echo "$engines" | grep -q "^$engine *works" || skip "engine $engine: $(echo "$engines" | grep "^$engine ")"
! echo "$engines" | grep -q "^$engine .*not accelerated" || skip "engine $engine is not accelerated here: a kernel would take hours"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 143' TERM INT HUP # by way of EXIT
limit=150 # seconds; the slowest (32 bits, interpreter) needs 16 on an idle machine
mkdir "$work/root"
cp "$selftest" "$work/root/init"
(cd "$work/root" && find . | cpio -o -H newc -R 0:0 --quiet) >"$work/initrd"

# put OFFSET BYTES...: overwrite bytes of the copied kernel
put() {
	at=$1
	shift
	printf "$@" | dd of="$work/kernel" bs=1 seek="$at" conv=notrunc 2>/dev/null
}
case $entry in
+boot*)
	cp "$kernel" "$work/kernel"
	put $((0x24c)) '\0\0\0\0' # payload_length: nothing we could unpack
	[ "$entry" != +boot32 ] || put $((0x236)) '\0\0' # xloadflags: no 64-bit entry
	kernel=$work/kernel
	;;
esac

timeout -k 15 "$limit" "$ospite" run --engine "$engine" --cpus "$cpus" --memory 512M --kernel "$kernel" \
	--initrd "$work/initrd" --append "console=ttyS0 loglevel=4 panic=-1" --no-reboot "$@" \
	</dev/null >"$work/out" 2>"$work/err"
status=$?
tr -d '\r' <"$work/out" | tail -n 60
cat "$work/err"

fail() {
	echo "failed: $*"
	exit 1
}
[ $status = 0 ] || fail "exit status $status instead of 0 after power off"
tr -d '\r' <"$work/out" >"$work/text"
grep -q "^selftest: .* with $cpus CPUs" "$work/text" || fail "the guest does not have $cpus CPUs"
grep -q '^selftest: [1-9][0-9]* passed, 0 failed' "$work/text" || fail "the self-test did not pass"
grep -q "^ospite: engine $engine " "$work/err" || fail "the engine was not named"
! grep -E 'Kernel panic|Oops|BUG:|Call Trace|unchecked MSR' "$work/text" || fail "the kernel complained"
exit 0
