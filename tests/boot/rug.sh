#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The rug pulled: a machine whose process is killed, one that KVM cannot go on with, and one that may not use KVM. Nothing is left
# behind, what happened is said, and the next machine of the same name, socket and files starts.
# usage: rug.sh OSPITE ENDLESS ATTACK      (bare-metal guests: one that goes on until told, one that uses vector instructions)
set -u
ospite=$(realpath "$1") endless=$(realpath "$2") attack=$(realpath "$3")
command -v timeout >/dev/null || { echo "skipped: no timeout"; exit 77; }
work=$(mktemp -d)
cd "$work" || exit 1
vm=
trap '[ -z "$vm" ] || kill -KILL "$vm" 2>/dev/null; cd /; rm -rf "$work"' EXIT
trap 'exit 143' TERM INT HUP # by way of EXIT
failed=0
fail() {
	failed=$((failed + 1))
	echo "FAILED: $*"
}
engines="dbt interp"
how=$("$ospite" engines 2>/dev/null | grep '^kvm ')
case $how in *" works"*) engines="kvm $engines" ;; esac
mkfifo in
exec 3<>in

# run ENGINE IMAGE: with all that leaves traces; the shell becomes the machine, so that its number is known
run() {
	exec "$ospite" run --engine "$1" --memory 16M --kernel "$2" --exit-port 0xf4 --no-reboot --control control --save-to saved \
		--log log <in >out 2>err 3>&-
}
for engine in $engines; do
	run "$engine" "$endless" &
	vm=$!
	n=0
	until grep -q '^ok' out 2>/dev/null || [ $n = 600 ] || ! kill -0 $vm 2>/dev/null; do
		n=$((n + 1))
		sleep 0.05
	done
	grep -q '^ok' out || fail "$engine: no sign of life: $(cat err)"
	kill -KILL $vm
	wait $vm 2>/dev/null
	for process in /proc/[0-9]*; do # a helper of the machine's would have its folder
		[ "$process" = /proc/$$ ] || [ "$(readlink "$process/cwd" 2>/dev/null)" != "$work" ] ||
			[ "$(readlink "$process/exe")" != "$ospite" ] || fail "$engine: a process is left: $process"
	done
	# a socket that nobody listens to is all that is left beside the log, and it is in nobody's way
	left=$(echo *)
	[ "$left" = "control err in log out" ] || fail "$engine: left behind: $left"
	run "$engine" "$endless" &
	vm=$!
	echo >&3
	wait $vm
	[ $? = 1 ] && grep -q '^PASS' out || fail "$engine: the next one does not run: $(tail -n 3 err)"
	vm=
	left=$(echo *)
	[ "$left" = "err in log out" ] || fail "$engine: left after an orderly end: $left"
	rm -f err log out
done

# KVM without hardware behind it cannot execute vector instructions and says so: the processor's state, one reason, no more.
case $how in
*"not accelerated"*)
	(run kvm "$attack")
	[ $? = 125 ] || fail "no error from a guest that KVM cannot execute"
	grep -q '^ospite: engine kvm: KVM could not emulate an instruction$' err || fail "KVM's failure is not said: $(cat err)"
	grep -q 'could not emulate an instruction at 0008:[0-9a-f]*, code 66 0f ef' log err || fail "where it failed is not said"
	grep -q 'cr0 [0-9a-f]* cr2' log err || fail "no registers"
	[ "$(echo *)" = "err in log out" ] || fail "left after KVM's failure: $(echo *)"
	;;
esac

# Somebody else's /dev/kvm
if [ -n "$how" ] && [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null && [ "$(stat -c %a /dev/kvm 2>/dev/null)" = 660 ]; then
	chmod 711 .
	cp "$ospite" "$endless" . # where the other user may read them
	chmod 755 ospite endless64.bin
	setpriv --reuid 65534 --regid 65534 --clear-groups ./ospite run --engine kvm --kernel endless64.bin </dev/null >/dev/null 2>err2
	[ $? = 125 ] && grep -q 'no permission for /dev/kvm: join its group' err2 && [ "$(wc -l <err2)" = 1 ] ||
		fail "no clear word about permissions: $(cat err2)"
fi
[ $failed = 0 ]
