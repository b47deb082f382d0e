#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# OVMF, as Debian packages it, reaches its shell and keeps its variables in a file of the machine's own; a second start finds
# them. usage: uefi.sh OSPITE
ospite=$1
[ -r /usr/share/OVMF/OVMF_CODE_4M.fd ] || { echo "skipped: the package ovmf is not installed"; exit 77; }
tmp=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill -KILL $pid 2>/dev/null; rm -rf "$tmp"' EXIT
trap 'exit 143' TERM INT HUP # by way of EXIT
failed=0

for start in first second; do
	"$ospite" run --engine dbt --memory 256M --no-reboot --net none --firmware uefi --firmware-vars "$tmp/vars" \
		--serial "file:$tmp/serial" </dev/null >"$tmp/out" 2>&1 &
	pid=$!
	for ((i = 0; i < 600; i++)); do
		grep -qa "Interactive Shell" "$tmp/serial" 2>/dev/null && break
		kill -0 $pid 2>/dev/null || break
		sleep 0.1
	done
	grep -qa "UEFI Interactive Shell" "$tmp/serial" || { echo "FAILED: no shell at the $start start"; failed=1; cat "$tmp/out"; }
	if [ $start = first ]; then
		# the same variables cannot be two machines'
		"$ospite" run --memory 64M --firmware uefi --firmware-vars "$tmp/vars" --serial null </dev/null >"$tmp/two" 2>&1
		[ $? = 125 ] && grep -q "another machine" "$tmp/two" || { echo "FAILED: $(cat "$tmp/two")"; failed=1; }
		rm -f "$tmp/serial"
	fi
	kill -TERM $pid
	wait $pid || true
	pid=
done
# variables were written, and the boot entry is one of them
cmp -s "$tmp/vars" /usr/share/OVMF/OVMF_VARS_4M.fd && { echo "FAILED: no variable was kept"; failed=1; }
grep -qa "B.o.o.t.0.0.0.1" "$tmp/vars" || { echo "FAILED: there is no boot entry among the variables"; failed=1; }
exit $failed
