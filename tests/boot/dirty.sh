#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Dirty tracking names the same pages for the same guest under every engine, and when engines are changed on the way.
# usage: dirty.sh EXCHANGE OSPITE IMAGE      (IMAGE: the bare-metal guest plain64)
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 143' TERM INT HUP # by way of EXIT
kvm=
"$2" engines 2>/dev/null | grep -q '^kvm .*works' && kvm=kvm
n=0
for engines in interp dbt $kvm "${kvm:-interp} interp dbt"; do
	n=$((n + 1))
	timeout 60 "$1" --period 20 --dirty "$work/pages$n" --kernel "$3" $engines </dev/null >"$work/out$n" 2>&1 &
done
wait
for i in $(seq $n); do
	grep -q '^PASS' "$work/out$i" || { tail -n 3 "$work/out$i"; exit 1; }
	cmp "$work/pages1" "$work/pages$i" || { diff "$work/pages1" "$work/pages$i"; exit 1; }
done
[ "$(wc -l <"$work/pages1")" -ge 8 ] || { echo "too few pages"; cat "$work/pages1"; exit 1; } # the guest fills 8 KiB, has a stack, ...
[ -n "$kvm" ] || { echo "skipped for KVM: there is none"; exit 77; }
exit 0
