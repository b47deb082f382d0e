#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# SeaBIOS, as Debian packages it, finds our chipset, memory, ACPI tables and no disk, and says so.
# usage: seabios.sh OSPITE [ENGINE...]      (kvm: to its banner and tables only, since KVM without hardware behind it is slow)
ospite=$1
shift
[ $# -gt 0 ] || set -- dbt interp
bios=/usr/share/seabios/bios-256k.bin
[ -r $bios ] || { echo "SKIP: $bios is not there (package seabios)"; exit 77; }
tmp=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill -KILL $pid 2>/dev/null; rm -rf "$tmp"' EXIT
trap 'exit 143' TERM INT HUP # by way of EXIT
failed=0

# Until TEXT is in FILE; 60 s at most.
wait_for() {
	for ((i = 0; i < 600; i++)); do
		grep -qa "$2" "$1" 2>/dev/null && return 0
		kill -0 $pid 2>/dev/null || return 1
		sleep 0.1
	done
	return 1
}

for engine; do
	"$ospite" engines 2>/dev/null | grep -q "^$engine .*works" || { echo "skipped: engine $engine does not work here"; exit 77; }
	"$ospite" run --engine $engine --memory 256M --cpus 2 --no-reboot --firmware $bios --serial file:$tmp/serial \
		--debug-console file:$tmp/debug </dev/null >$tmp/out 2>&1 &
	pid=$!
	end="No bootable device" cpus="Found 2 cpu(s)"
	[ $engine != kvm ] || end="SeaBIOS (version" cpus=
	wait_for $tmp/serial "$end" || { echo "FAIL $engine: no $end"; failed=1; }
	for text in "Running on QEMU (i440fx)" "fw_cfg DMA interface supported" "$cpus" "via xsdt" \
		"PIIX3/PIIX4 init: elcr=00 0c" "table(50434146)"; do
		grep -qaF "$text" $tmp/debug || { echo "FAIL $engine: '$text' is missing"; failed=1; }
	done
	kill -TERM $pid
	wait $pid || true
	pid=
	[ $failed = 0 ] || { cat $tmp/out $tmp/serial; tail -30 $tmp/debug; }
	rm -f $tmp/*
done
exit $failed
