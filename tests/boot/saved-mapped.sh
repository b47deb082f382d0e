#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A machine whose memory is mapped from the file it was saved in: the file may be removed, or be a copy without holes; other engines go on
# with it; it saves itself again; and a file that is cut under it ends it with one line that says so.
# usage: saved-mapped.sh OSPITE ENDLESS      (a bare-metal guest that goes on until told)
set -u
ospite=$(realpath "$1") endless=$(realpath "$2")
work=$(mktemp -d)
cd "$work" || exit 1
vm=
trap '[ -z "$vm" ] || kill -KILL "$vm" 2>/dev/null; cd /; rm -rf "$work"' EXIT
trap 'exit 143' TERM INT HUP # by way of EXIT
fail() {
	echo "FAILED: $*: $(tail -n 3 err)"
	exit 1
}
engines="dbt interp" first=dbt # what the guest is promised all others have to hold: KVM, which can least, comes first
how=$("$ospite" engines 2>/dev/null | grep '^kvm ')
case $how in *" works"*) engines="$engines kvm" first=kvm ;; esac
mkfifo in
exec 3<>in

# begin NAME OPTION...: until it shows life; the shell becomes the machine, so that its number is known
begin() {
	name=$1
	shift
	: >out
	(exec timeout 60 "$ospite" run --exit-port 0xf4 --no-reboot --save-to saved "$@" <in >out 2>err 3>&-) &
	vm=$!
	n=0
	until grep -q '^ok' out || [ $n = 1200 ] || ! kill -0 $vm 2>/dev/null; do
		n=$((n + 1))
		sleep 0.05
	done
	grep -q '^ok' out || fail "$name: no sign of life"
}
machine() {
	ps -o pid= --ppid $vm | tr -d ' '
}
suspend() {
	kill -USR1 "$(machine)"
	wait $vm || fail "not saved"
	vm=
}
finish() {
	echo >&3
	wait $vm
	[ $? = 1 ] && grep -q '^PASS' out || fail "$1: no good end"
	vm=
}

begin "first run" --engine $first --memory 64M --kernel "$endless" --save-memory mapped
suspend
cp --sparse=never saved full
[ "$(du -k saved | cut -f 1)" -lt 16384 ] || fail "no holes: $(du -k saved)"
[ "$(du -k full | cut -f 1)" -ge 65536 ] || fail "a copy with holes"
cp saved good
for engine in $engines; do
	cp good from
	begin "$engine" --engine "$engine" --restore from --save-memory mapped
	rm from
	suspend # again, from memory that is mapped
	mv saved again
	begin "$engine, again" --engine "$engine" --restore again
	finish "$engine"
	rm again
done
begin "the copy" --engine interp --restore full
finish "the copy"
for engine in dbt interp; do
	cp good from
	begin "$engine, cut" --engine "$engine" --restore from
	: >from
	wait $vm
	status=$?
	vm=
	[ $status -ge 125 ] && [ "$(grep -c 'guest memory is gone' err)" = 1 ] || fail "$engine, cut: status $status"
done
echo "all as it should be"
