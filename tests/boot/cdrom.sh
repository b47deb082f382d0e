#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# GRUB from a CD image made by grub-mkrescue loads a stock kernel, by SeaBIOS and by OVMF; the self-test is its user space and
# has to pass. usage: cdrom.sh OSPITE KERNEL-PACKAGE SELFTEST FIRMWARE
set -u
ospite=$(realpath "$1")
selftest=$(realpath "$3" 2>/dev/null || echo none)
firmware=$4

skip() {
	echo "skipped: $*"
	exit 77
}

kernel=$(echo "${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/ospite/$2"/vmlinuz-*)
[ -s "$kernel" ] || skip "no kernel of $2 in the cache (./check fetches it)"
[ -x "$selftest" ] || skip "no self-test"
for tool in grub-mkrescue xorriso mformat cpio; do
	command -v $tool >/dev/null || skip "$tool is not installed"
done
case $firmware in
bios) [ -d /usr/lib/grub/i386-pc ] && [ -r /usr/share/seabios/bios-256k.bin ] || skip "grub-pc-bin or seabios is not installed" ;;
uefi) [ -d /usr/lib/grub/x86_64-efi ] && [ -r /usr/share/OVMF/OVMF_CODE_4M.fd ] || skip "grub-efi-amd64-bin or ovmf is not installed" ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 143' TERM INT HUP # by way of EXIT
mkdir -p "$work/root" "$work/iso/boot/grub"
cp "$selftest" "$work/root/init"
(cd "$work/root" && find . | cpio -o -H newc -R 0:0 --quiet) >"$work/iso/boot/initrd"
cp "$kernel" "$work/iso/boot/vmlinuz"
cat >"$work/iso/boot/grub/grub.cfg" <<EOF
serial --unit=0 --speed=115200
terminal_output serial
set timeout=0
menuentry linux {
	linux /boot/vmlinuz console=ttyS0 loglevel=4 panic=-1
	initrd /boot/initrd
}
EOF
grub-mkrescue -o "$work/cd.iso" "$work/iso" >"$work/mk" 2>&1 || { cat "$work/mk"; exit 1; }
timeout -k 15 150 "$ospite" run --engine dbt --cpus 2 --memory 512M --no-reboot --firmware "$firmware" --cdrom "$work/cd.iso" \
	</dev/null >"$work/out" 2>"$work/err"
status=$?
tr -d '\r' <"$work/out" | tail -n 40
cat "$work/err"
[ $status = 0 ] && grep -qa "selftest: [0-9]* passed, 0 failed" "$work/out"
