#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What users get wrong: each is refused with exit status 125 and exactly one line that names what and where,
# and nothing is left behind. usage: bad-input.sh OSPITE
set -u
ospite=$(realpath "$1")
passed=0
failed=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 143' TERM INT HUP # by way of EXIT
cd "$work" || exit 1

# refuse PATTERN OPTION...
refuse() {
	pattern=$1
	shift
	before=$(ls -A | sort)
	timeout 20 "$ospite" run --serial null "$@" </dev/null >out 2>err
	status=$?
	rm -f out
	lines=$(wc -l <err)
	line=$(cat err)
	rm -f err
	after=$(ls -A | sort)
	if [ $status = 125 ] && [ "$lines" = 1 ] && [ "$before" = "$after" ] &&
		printf '%s\n' "$line" | grep -q "^ospite: .*$pattern"; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "FAILED: ospite run $* (status $status)"
		echo "  expected: $pattern"
		echo "  said:     $line"
	fi
}

# Files to get wrong. A bzImage of nothing: enough header to be taken for one.
head -c 100000 /dev/zero >zeroes
printf 'MZ' >bz
head -c 495 /dev/zero >>bz
printf '\001\000\000\000\240\000\000' >>bz
head -c 6 /dev/zero >>bz
printf '\125\252\353\146HdrS\017\002' >>bz
head -c 9 /dev/zero >>bz
printf '\001' >>bz
head -c 4000 /dev/zero >>bz
: >empty
mkdir folder
printf '\177ELF\002\001\001' >elf
head -c 30 /dev/zero >>elf
head -c 3000000 /dev/zero >large
printf 'QFI\373' | cat - zeroes >cloud.img
cp zeroes unreadable
chmod 000 unreadable

refuse "nothing to start: give --kernel"
refuse "unknown option '-d'; did you mean --detach" -d zeroes
refuse "unknown option '--mem'; did you mean --memory" --kernel zeroes --mem 512M
refuse "unknown option '-smp'; did you mean --cpus" --kernel zeroes -smp 2
refuse "holds a qcow2 image" ./cloud.img
refuse "holds a qcow2 image" --disk cloud.img
refuse "kernel 'missing': cannot open: No such file" --kernel missing
refuse "kernel 'folder': is a directory" --kernel folder
refuse "kernel 'empty': is empty" --kernel empty
refuse "kernel 'zeroes': is not a kernel" --kernel zeroes
refuse "kernel 'elf': is cut short (inside its ELF" --kernel elf
refuse "kernel 'bz': is cut short" --kernel bz
refuse "kernel '/dev/null': is not a file" --kernel /dev/null
[ "$(id -u)" = 0 ] || refuse "kernel 'unreadable': cannot open: Permission denied" --kernel unreadable
refuse "initrd 'large': 3 MiB is larger than the 2 MiB" --memory 2M --kernel zeroes --initrd large
refuse "initrd 'missing': cannot open" --kernel zeroes --initrd missing
refuse "initrd 'folder': is a directory" --kernel zeroes --initrd folder
refuse "module 'missing': cannot open" --kernel zeroes --module missing,a=b
refuse "firmware 'missing': cannot open" --firmware missing
refuse "firmware 'empty': is empty" --firmware empty
echo "no firmware at all" >words
refuse "firmware 'words': is no firmware image" --firmware words
refuse "firmware 'zeroes': is no firmware image" --firmware zeroes
refuse "kernel and --firmware exclude" --kernel zeroes --firmware zeroes
refuse "memory 0: is too little" --memory 0 --kernel zeroes
refuse "memory 1000000G: is more than this host has" --memory 1000000G --kernel zeroes
refuse "memory 99999999999G: is too large" --memory 99999999999G --kernel zeroes
refuse "memory lots: is no size" --memory lots --kernel zeroes
refuse "memory -1: is no size" --memory -1 --kernel zeroes
refuse "memory 5X: is no size" --memory=5X --kernel zeroes
refuse "cpus 0: must be from 1 to 64" --cpus 0 --kernel zeroes
refuse "cpus 65: must be from 1 to 64" --cpus=65 --kernel zeroes
refuse "cpus two: is no number" --cpus two --kernel zeroes
refuse "unknown option '--kernal'; did you mean --kernel" --kernal zeroes
refuse "unknown option '--memry=5M'; did you mean --memory" --memry=5M
refuse "unknown option '--zzzzzzzz'; --help lists" --zzzzzzzz
refuse "unknown option '-m'" -m 512
refuse "there is no template 'zeroes'" zeroes
refuse "memory needs a value: --memory SIZE" --kernel zeroes --memory
refuse "no-reboot takes no value" --no-reboot=yes --kernel zeroes
refuse "engine intrep: does not exist; did you mean interp" --engine intrep --kernel zeroes
refuse "cpu z80: does not exist; there are v2, v3, v4 and host" --cpu z80 --kernel zeroes
refuse "exit-port 0x10000: must be from" --exit-port 0x10000 --kernel zeroes
refuse "serial serial: does not exist" --serial serial --kernel zeroes
refuse "serial stdio: is given twice" --serial stdio --serial stdio --kernel zeroes
refuse "keyboard is for --display vnc" --keyboard de --cdrom none
refuse "display vnc: 'xx' is no keyboard layout; give one" --display vnc --keyboard xx --cdrom none
refuse "log folder: cannot open" --log folder --kernel zeroes

# A real kernel, damaged.
kernel=$(echo "${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/ospite/linux-image-cloud-amd64"/vmlinuz-*)
if [ -s "$kernel" ]; then
	head -c 5000000 "$kernel" >short
	refuse "kernel 'short': is cut short" --kernel short
	cp "$kernel" corrupt
	dd if=/dev/zero of=corrupt bs=1024 seek=9000 count=64 conv=notrunc 2>/dev/null
	refuse "kernel 'corrupt': has a corrupt LZ4 payload" --kernel corrupt
	refuse "needs .*RAM.*; give it more --memory" --memory 48M --kernel "$kernel"
	refuse "gdb nowhere:x" --gdb nowhere:x --kernel "$kernel"
	rm -f short corrupt
fi

# Commands
for words in "runn" "--verson" "nonsense"; do
	out=$("$ospite" "$words" 2>&1)
	if [ $? = 125 ] && [ "$(printf '%s\n' "$out" | wc -l)" = 1 ]; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "FAILED: ospite $words said: $out"
	fi
done

# Help fits a screen of 24 lines and 80 columns; that of run, which has most options, and of all commands three of them.
for command in "help" "run --help" "engines --help" "version --help" "help run"; do
	# shellcheck disable=SC2086 # words
	lines=$("$ospite" $command | wc -l)
	# shellcheck disable=SC2086
	width=$("$ospite" $command | wc -L)
	most=24
	case $command in help | *run*) most=66 ;; esac
	if [ "$lines" -le $most ] && [ "$width" -le 80 ] && [ "$lines" -gt 0 ]; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "FAILED: ospite $command: $lines lines of up to $width columns"
	fi
done

# Every option is named by it, and explained when it is asked for.
for option in $("$ospite" run --help all | sed -n 's/^ --\([a-z-]*\).*/\1/p'); do
	if "$ospite" run --help | grep -q -- " --$option\b" && [ "$("$ospite" run --help "$option" | wc -l)" = 1 ]; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "FAILED: ospite run --help does not name, or not explain, --$option"
	fi
done

echo "$passed passed, $failed failed"
[ $failed = 0 ]
