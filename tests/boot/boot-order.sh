#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What SeaBIOS starts first: the order of options, --boot, empty drives, its menu's time. Each medium ends the machine with a number
# of its own. usage: boot-order.sh OSPITE
set -u
ospite=$(realpath "$1")
[ -r /usr/share/seabios/bios-256k.bin ] || { echo "skipped: the package seabios is not installed"; exit 77; }
command -v xorriso >/dev/null || { echo "skipped: xorriso is not installed"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 143' TERM INT HUP # by way of EXIT
cd "$work" || exit 1
failed=0

# mov al, N; out 0xf4, al; hlt; and the mark of a boot sector
for n in 1 2 3 4 5; do
	printf "\260\\$(printf %03o $n)\346\364\364\353\375" >$n.img
	truncate -s 510 $n.img
	printf '\125\252' >>$n.img
	truncate -s 2M $n.img
done
for n in 3 4; do
	mkdir cd$n
	head -c 2048 $n.img >cd$n/boot
	xorriso -as mkisofs -quiet -b boot -no-emul-boot -boot-load-size 4 -o $n.iso cd$n 2>/dev/null || exit 1
done

# check N OPTION...: medium N starts
check() {
	want=$(($1 * 2 + 1))
	n=$1
	shift
	timeout -k 5 60 "$ospite" run --engine dbt --exit-port 0xf4 --no-reboot --memory 32M "$@" </dev/null >out 2>err
	status=$?
	[ $status = $want ] && return
	failed=$((failed + 1))
	echo "FAILED: $*: status $status instead of $want, of medium $n"
	cat out err
}

check 1 --disk 1.img --disk 2.img,bus=ahci --cdrom 3.iso
check 2 --disk 2.img,bus=ahci --disk 1.img --cdrom 3.iso,bus=ahci
check 5 --disk 5.img,bus=virtio --disk 1.img --disk 2.img,bus=ahci
check 3 --boot cdrom,disk --disk 1.img --disk 2.img,bus=ahci --cdrom 3.iso,bus=ahci --cdrom 4.iso
check 4 --boot cdrom --disk 1.img --cdrom none,bus=ahci --cdrom 4.iso
check 1 --boot cdrom,disk --disk 1.img --cdrom none
check 1 --boot network,disk,cdrom --disk 1.img --cdrom 4.iso
check 2 --boot-menu --boot-wait 1 --disk 2.img,bus=ahci --disk 1.img
grep -q "Press ESC" out || { echo "FAILED: the menu was not offered"; failed=$((failed + 1)); }
exit $((failed > 0))
