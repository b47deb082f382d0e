#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Small guests for the other ways to start: Multiboot by addresses and as ELF, with modules; a raw firmware.
# usage: small.sh OSPITE ASM-FOLDER
set -u
ospite=$(realpath "$1")
source=$(realpath "$2")
passed=0
failed=0
command -v nasm >/dev/null || { echo "skipped: nasm is not installed"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 143' TERM INT HUP # by way of EXIT
cd "$work" || exit 1

# check NAME STATUS TEXT-FILE OPTION...
check() {
	name=$1
	want=$2
	text=$3
	shift 3
	for engine in interp dbt; do
		timeout -k 5 30 "$ospite" run --engine $engine --exit-port 0xf4 --no-reboot --memory 32M "$@" </dev/null >out 2>err
		status=$?
		tr -d '\r' <out >got
		if [ $status = "$want" ] && cmp -s got "$text"; then
			passed=$((passed + 1))
		else
			failed=$((failed + 1))
			echo "FAILED: $name under $engine: status $status, expected $want"
			diff got "$text"
			cat err
		fi
	done
}

nasm -f bin -o mb.bin "$source/multiboot.asm" || exit 1
nasm -f elf32 -DELF -o mb.o "$source/multiboot.asm" || exit 1
ld -m elf_i386 -n -e start --section-start=.multiboot=0x100000 -Ttext 0x101000 -o mb.elf mb.o || exit 1
nasm -f bin -o fw.bin "$source/firmware.asm" || exit 1
printf 'one\0' >one
printf 'two\0' >two
printf 'firmware at work\n' >fw.text
for kernel in mb.bin mb.elf; do
	printf '%s alpha beta\none\none\ntwo x=1,y z\ntwo\n' $kernel >text
	check "$kernel" 3 text --kernel $kernel --append "alpha beta" --initrd one --module "two,x=1,y z"
done
check firmware 43 fw.text --firmware fw.bin
echo "$passed passed, $failed failed"
[ $failed = 0 ]
