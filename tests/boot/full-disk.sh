#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A disk that is full, a host that has been started anew: what fails says so in one line, leaves nothing half made and nothing broken.
# The disk is a small file system in memory, in a mount namespace of its own. usage: full-disk.sh OSPITE ASM-FOLDER
set -u
if [ "${3-}" != inside ]; then
	command -v nasm >/dev/null || { echo "skipped: nasm is not installed"; exit 77; }
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	trap 'exit 143' TERM INT HUP # by way of EXIT
	nasm -f bin -o "$work/echo.bin" "$(realpath "$2")/echo.asm" || exit 1
	mkdir "$work/disk"
	space=$([ "$(id -u)" = 0 ] && echo "unshare -m" || echo "unshare -mUr")
	$space true 2>/dev/null || { echo "skipped: no mount namespaces here"; exit 77; }
	# shellcheck disable=SC2086 # words
	$space "$0" "$(realpath "$1")" "$work" inside
	exit $?
fi
ospite=$1
cd "$2" || exit 1
mount -t tmpfs -o size=24m,mode=755 small disk || { echo "skipped: no file system in memory here"; exit 77; }
OSPITE_ROOT=$PWD/disk
export OSPITE_ROOT
passed=0
failed=0
o() { timeout -k 5 60 "$ospite" "$@"; }
trap 'o kill --all --quiet 2>/dev/null' EXIT
trap 'exit 143' TERM INT HUP # by way of EXIT
# check WHAT STATUS TEXT COMMAND...: status, a text, and never more than a line of error
check() {
	what=$1
	want=$2
	text=$3
	shift 3
	"$@" >out 2>err </dev/null
	status=$?
	if [ $status = "$want" ] && { [ -z "$text" ] || cat out err | grep -qF -- "$text"; } && [ "$(wc -l <err)" -le 1 ]; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "FAILED: $what: status $status, expected $want with '$text':"
		cat out err
	fi
}
fill() { dd if=/dev/zero of=disk/filler bs=64k 2>/dev/null; dd if=/dev/zero of=disk/filler2 bs=1k 2>/dev/null; }
empty() { rm -f disk/filler disk/filler2; }
# what is there, but for times
things() { (cd disk && find . ! -name 'filler*' ! -name lock ! -name '*.log' ! -name log ! -name agent.lock | sort); }

check "create" 0 one o create one --kernel echo.bin --memory 16M --engine interp
head -c 6M /dev/urandom >disk/machines/one/disk.img
check "with a disk of its own" 0 "" o config one --set disk=disk.img
check "start" 0 one o start one
# suspend: the machine goes on, nothing stays behind
fill
before=$(things)
check "suspend on a full disk" 125 "space" o suspend one
check "it goes on" 0 running o ps
check "no half of a state" 0 "" test ! -e disk/machines/one/saved
[ "$before" = "$(things)" ] || { failed=$((failed + 1)); echo "FAILED: left: $(diff <(echo "$before") <(things))"; }
empty
check "and with room" 0 one o suspend one
check "suspended" 0 suspended o ps --all
fill
# what is suspended goes on even now, or says why and stays suspended
o resume one >out 2>err </dev/null
[ "$(wc -l <err)" -le 1 ] || { failed=$((failed + 1)); cat err; }
check "its state is not lost" 0 "" sh -c "$ospite ps --all | grep -qE 'one +(running|suspended)'"
empty
o resume one >/dev/null 2>&1
check "running" 0 running o ps
check "kill" 0 one o kill one
# clones, templates, new machines: nothing half made
fill
before=$(things)
check "clone" 125 "space" o clone one two
check "thin clone" 125 "" o clone --thin one two
check "template" 125 "space" o template create t one
check "create" 125 "space" o create three --kernel echo.bin
check "config" 125 "" o config one --set cpus=2
check "vm.yaml is whole" 0 "disk.img" o config one
[ "$before" = "$(things | grep -v -e templates)" ] || [ "$before" = "$(things)" ] || { failed=$((failed + 1)); echo "FAILED: left: $(diff <(echo "$before") <(things))"; }
empty
check "start again" 0 one o start one
# a console that has no room for its log goes on
fill
printf 'hcchcc' | timeout 5 "$ospite" console one >typed 2>&1 &
typist=$!
i=0
until grep -q h12 typed || [ $i = 300 ]; do i=$((i + 1)); sleep 0.1; done
check "the console goes on" 0 "h12" cat typed
kill $typist 2>/dev/null
wait $typist 2>/dev/null
check "it runs" 0 running o ps
check "its end is told" 0 one o kill one
empty
check "start after all that" 0 one o start one
# the host goes down: the process is gone without a word, its number is somebody else's, its sockets are dead
pid=$(o ps --json | sed -n 's/.*"pid": \([0-9]*\).*/\1/p')
kill -9 "$pid"
i=0
while [ -e "/proc/$pid" ] && [ $i -lt 100 ]; do i=$((i + 1)); sleep 0.1; done
sed -i "s/\"pid\": *[0-9]*/\"pid\": $$/" disk/machines/one/status
: >disk/machines/one/saved.tmp.1
mkdir disk/machines/.new-half disk/machines/.old-half
check "crashed, with its reason" 0 crashed o ps --all
check "the reason" 0 "without" o info one
check "kill does not kill who has its number now" 125 "" o kill one
check "start" 0 one o start one
check "kill" 0 one o kill one
check "remove" 0 one o rm one
[ -z "$(ls -A disk/machines)" ] || { failed=$((failed + 1)); echo "FAILED: left: $(ls -A disk/machines)"; }
echo "$passed passed, $failed failed"
[ $failed = 0 ]
