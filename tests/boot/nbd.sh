#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Network block devices: our client at nbdkit, nbdcopy and qemu-img at our server, both at each other; servers that fail and that go away.
# usage: nbd.sh OSPITE
set -u
ospite=$(realpath "$1")
work=$(mktemp -d -p "$([ -w /dev/shm ] && echo /dev/shm || echo /tmp)")
pids=
stop() {
	for p in $pids; do
		kill "$p" 2>/dev/null
	done
	wait
	rm -rf "$work"
}
trap stop EXIT
trap 'exit 143' TERM INT HUP # by way of EXIT
cd "$work" || exit 1
failed=0
image="$ospite image"

fail() {
	echo "FAIL: $*"
	failed=1
}
run() {
	timeout 30 "$@" >out 2>&1 || fail "$* gave $?: $(cat out)"
}
await() { # SOCKET
	for _ in $(seq 100); do
		[ -S "$1" ] && return
		sleep 0.05
	done
	fail "$1 did not appear"
}

truncate -s 9000000 from.raw
truncate -s 9000448 from.raw
seq 1 200000 | dd of=from.raw bs=512 seek=100 conv=notrunc status=none
run $image convert from.raw from.qcow2

# ours to ours
$ospite image serve from.qcow2 --listen unix:ours >log 2>&1 &
server=$!
pids="$pids $server"
await ours
run $image compare from.raw nbd:unix:ours --to-format raw
run $image info nbd:unix:ours --format raw
grep -q 9000448 out || fail "info: $(cat out)"
run $image convert from.raw nbd:unix:ours --to-format raw
timeout 10 $image info nbd:unix:ours:other --format raw >out 2>&1 && fail "an export that is not there"
grep -q "no export 'other'" out || fail "an export that is not there: $(cat out)"
if command -v nbdcopy >/dev/null; then
	run nbdcopy "nbd+unix:///?socket=ours" copy.raw
	cmp from.raw copy.raw || fail "nbdcopy from our server"
	run $image bench from.raw --write --random --count 300
	run nbdcopy from.raw "nbd+unix:///?socket=ours"
	run nbdcopy "nbd+unix:///?socket=ours" copy.raw
	cmp from.raw copy.raw || fail "nbdcopy to our server"
	run nbdinfo "nbd+unix:///?socket=ours"
	grep -q 'export-size: 9000448' out || fail "nbdinfo: $(cat out)"
fi
if command -v qemu-io >/dev/null; then
	run qemu-img compare -f raw -F raw from.raw "nbd+unix:///?socket=ours"
	run qemu-io -f raw -c 'write -P 3 1000k 70k' -c 'write -z 2M 64k' -c 'discard 3M 1M' -c flush -c 'read -P 3 1000k 70k' \
		-c 'read -P 0 2M 64k' "nbd+unix:///?socket=ours"
	grep -q 'verification failed' out && fail "qemu-io at our server: $(cat out)"
fi
kill $server
wait $server || fail "the server ended with $?: $(cat log)"
[ -e ours ] && fail "the server left its socket"
run $image check from.qcow2

if command -v nbdkit >/dev/null; then
	nbdkit -f -U theirs memory 9000448 >log 2>&1 &
	pids="$pids $!"
	await theirs
	run $image convert from.raw nbd:unix:theirs --to-format raw
	run $image compare from.raw nbd:unix:theirs --to-format raw
	run $image bench nbd:unix:theirs --format raw --write --random --count 2000 --depth 64
	# no zeroes: they must be written
	nbdkit -f -U poor --filter=nozero --filter=fua memory 9000448 fuamode=discard >log 2>&1 &
	pids="$pids $!"
	await poor
	run $image convert from.raw nbd:unix:poor --to-format raw
	run $image compare from.raw nbd:unix:poor --to-format raw
	# every read fails
	nbdkit -f -U fails --filter=error memory 1M error-pread=EIO error-rate=100% >log 2>&1 &
	pids="$pids $!"
	await fails
	timeout 10 $image compare from.raw nbd:unix:fails --to-format raw >out 2>&1
	[ $? = 125 ] || fail "a failing server was not noticed: $(cat out)"
	grep -q 'Input/output error' out || fail "a failing server: $(cat out)"
	# qcow2 over NBD, on a server slow enough to have much underway
	nbdkit -f -U slow --filter=delay file from.qcow2 rdelay=2ms >log 2>&1 &
	pids="$pids $!"
	await slow
	run $image convert nbd:unix:slow back.raw --format qcow2
	run $image compare back.raw from.qcow2
	port=$((20000 + $$ % 20000))
	nbdkit -f -i 127.0.0.1 -p $port memory 1M >log 2>&1 &
	pids="$pids $!"
	sleep 0.3
	run $image info nbd:tcp:127.0.0.1:$port --format raw
else
	echo "no nbdkit: not compared with it"
fi
exit $failed
