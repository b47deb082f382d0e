#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A boot sector on an IDE and on an AHCI disk, by SeaBIOS: BIOS calls for disk, memory map, timer and text. usage: disk.sh OSPITE ASM-FOLDER
set -u
ospite=$(realpath "$1")
source=$(realpath "$2")
[ -r /usr/share/seabios/bios-256k.bin ] || { echo "skipped: the package seabios is not installed"; exit 77; }
command -v nasm >/dev/null || { echo "skipped: nasm is not installed"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 143' TERM INT HUP # by way of EXIT
cd "$work" || exit 1
failed=0

# check NAME STATUS TEXT OPTION...: the exit port's status, and a text on the screen, which is the serial line
check() {
	name=$1
	want=$2
	text=$3
	shift 3
	for engine in dbt interp; do
		timeout -k 5 30 "$ospite" run --engine $engine --exit-port 0xf4 --no-reboot --memory 64M "$@" \
			</dev/null >out 2>err
		status=$?
		if [ $status != "$want" ] || ! grep -qa "$text" out; then
			failed=$((failed + 1))
			echo "FAILED: $name under $engine: status $status, expected $want and '$text'"
			cat out err
		fi
	done
}

nasm -f bin -o boot.img "$source/bootsector.asm" || exit 1
check "boot sector" 1 "boot sector here" --disk boot.img
cmp -s -i 1536:0 -n 4 boot.img - <<-EOF || { echo "FAILED: the written sector is not in the image"; failed=$((failed + 1)); }
	four
EOF
check "second disk" 1 "boot sector here" --disk boot.img,bus=ide --cdrom none --boot cdrom,disk
nasm -f bin -o boot.img "$source/bootsector.asm" && truncate -s 2M boot.img || exit 1 # SeaBIOS wants a whole cylinder
check "AHCI disk" 1 "boot sector here" --disk boot.img,bus=ahci --cdrom none,bus=ahci --cdrom none
cmp -s -i 1536:0 -n 4 boot.img - <<-EOF || { echo "FAILED: the sector written by AHCI is not in the image"; failed=$((failed + 1)); }
	four
EOF
"$ospite" run --disk nowhere.img >out 2>&1
[ $? = 125 ] && grep -q "nowhere.img" out || { echo "FAILED: a missing image: $(cat out)"; failed=$((failed + 1)); }
exit $((failed > 0))
