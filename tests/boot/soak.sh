#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A stock kernel boots again and again with hardly any room for translated code: every way of evicting, unlinking and
# translating anew is taken thousands of times a boot. Each boot runs the self-test and powers off.
#
# usage: soak.sh OSPITE KERNEL-PACKAGE SELFTEST COUNT [CACHE-BYTES [CPUS]]
# By hand: tests/boot/soak.sh build/ospite linux-image-cloud-amd64 build/tests/boot/selftest64 100
set -u
ospite=$1
package=$2
selftest=$3
count=$4
cache=${5:-262144}
cpus=${6:-1}
here=$(dirname "$0")
out=$(mktemp)
trap 'rm -f "$out"' EXIT
trap 'exit 143' TERM INT HUP # by way of EXIT
n=0
while [ "$n" -lt "$count" ]; do
	n=$((n + 1))
	OSPITE_CODE_CACHE=$cache "$here/linux.sh" "$ospite" "$package" "$selftest" dbt "$cpus" --stats >"$out" 2>&1
	status=$?
	if [ $status != 0 ]; then
		cat "$out"
		echo "boot $n of $count: status $status"
		exit $status
	fi
	sed -n 's/^ospite: stat dbt.evictions *//p' "$out" | grep -q '[1-9]' || {
		echo "boot $n: nothing was evicted: is the cache of $cache bytes too large for this test?"
		exit 1
	}
done
echo "$count boots with a code cache of $cache bytes"
