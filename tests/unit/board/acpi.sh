#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# ACPI's reference compiler takes the tables apart and puts them together again: no error, no warning, and the same bytes.
# usage: acpi.sh ACPI-TABLES
set -u
for tool in iasl acpiexec; do
	command -v $tool >/dev/null || { echo "skipped: $tool is not there (package acpica-tools)"; exit 77; }
done
tables=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 143' TERM INT HUP # by way of EXIT
cd "$work" || exit 1
"$tables" . || exit 1
failed=0
complain() {
	echo "FAILED: $1"
	cat log
	failed=1
}
for table in *.dat; do
	name=${table%.dat}
	if ! iasl -d -p "$name" "$table" >log 2>&1 || grep -iE '^ACPI (error|warning)|invalid|could not' log; then
		complain "$table cannot be taken apart"
		continue
	fi
	case $name in
	*DSDT)
		iasl -p "$name-again" "$name.dsl" >log 2>&1 || complain "$table is no good source"
		grep -q ' 0 Errors, 0 Warnings' log || complain "$table has faults"
		# run: what devices use, whether they are there, how interrupts are routed, how to power off
		acpiexec -b 'all _STA;all _CRS;execute \_PIC 1;all _PRT;execute \_S5;quit' "$table" >log 2>&1 </dev/null ||
			complain "$table does not run"
		grep -qE 'ACPI (BIOS )?(Error|Warning)|AE_[A-Z]+_|failed' log && complain "$table fails when it runs"
		for name in '\_SB_.PCI0._CRS' '\_SB_.PCI0._PRT' '\_SB_.KBD_._CRS' '\_S5'; do
			grep -qF "Evaluation of $name returned object" log || complain "$table has no $name"
		done
		;;
	*)
		iasl -p "$name-again" "$name.dsl" >log 2>&1 || complain "$table is no good source"
		;;
	esac
done
set -- *-DSDT.dat *-FACP.dat *-APIC.dat *-HPET.dat
[ $# -ge 7 ] || { echo "FAILED: tables are missing: $*"; failed=1; }
exit $failed
