#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Thousands of random operations on one qcow2 image, in turns by QEMU's own code and by ours (through our NBD server), with snapshots,
# resizing and discards between; odd seeds: with backing files, two deep. A raw file gets the same, and after each turn both programs must find the same content and no error.
# usage: image-soak.sh OSPITE [ROUNDS] [SEED]
set -u
ospite=$(realpath "$1")
rounds=${2:-24}
seed=${3:-1}
if ! command -v qemu-io >/dev/null; then
	echo "no qemu-io: skipped"
	exit 77
fi
work=$(mktemp -d -p "$([ -w /dev/shm ] && echo /dev/shm || echo /tmp)")
server=
stop() {
	[ -n "$server" ] && kill "$server" 2>/dev/null && wait "$server"
	rm -rf "$work"
}
trap stop EXIT
trap 'exit 143' TERM INT HUP # by way of EXIT
cd "$work" || exit 1
size=$((24 << 20))
image="$ospite image"
die() {
	echo "FAIL in round $round (seed $seed): $*"
	[ -s log ] && tail -n 5 log
	exit 1
}

# One line a command; the same for qcow2 and raw.
commands() {
	python3 - "$seed" "$1" "$size" <<'PY'
import random, sys
seed, turn, size = map(int, sys.argv[1:])
r = random.Random(seed * 1000 + turn)
for i in range(150):
    n = r.choice([512, 4096, 65536, r.randrange(1, 600) * 512])
    at = r.randrange(0, (size - n) // 512) * 512
    if r.random() < 0.3:
        at = at // 65536 * 65536
    k = r.random()
    if k < 0.7:
        print(f"write -P {r.randrange(1, 256)} {at} {n}")
    elif k < 0.85:
        print(f"write -z {'-u ' if r.random() < 0.5 else ''}{at} {n}")
    elif k < 0.95:
        print(f"read {at} {n}")
    else:
        print("flush")
PY
}

round=0
truncate -s $size ref.raw
case $((seed % 3)) in
0) options="--cluster-size 4096" ;;
1) options="" ;;
2) options="--lazy-refcounts --compression zstd" ;;
esac
behind=
if [ $((seed % 2)) = 1 ]; then
	# in front of two others: one of QEMU's making, shorter than the disk, and one of ours
	behind="base.qcow2 middle.qcow2"
	qemu-img create -q -f qcow2 base.qcow2 24M || die "qemu-img create"
	commands 1001 >commands
	qemu-io -f raw ref.raw <commands >log 2>&1 && qemu-io -f qcow2 base.qcow2 <commands >log 2>&1 || die "writing the base"
	size=$((size + 5 * 65536 + 1024))
	truncate -s $size ref.raw
	# shellcheck disable=SC2086
	$image create middle.qcow2 --size $((size >> 10))k --backing base.qcow2 --backing-format qcow2 $options || die "creating the middle"
	commands 1002 >commands
	qemu-io -f raw ref.raw <commands >log 2>&1 && qemu-io -f qcow2 middle.qcow2 <commands >log 2>&1 || die "writing the middle"
	# shellcheck disable=SC2086
	sha256sum $behind >behind.sum
	options="$options --backing middle.qcow2 --backing-format qcow2"
fi
# shellcheck disable=SC2086
$image create disk.qcow2 --size $((size >> 10))k $options || die create
for round in $(seq "$rounds"); do
	commands "$round" >commands
	qemu-io -f raw ref.raw <commands >log 2>&1 || die "qemu-io on the raw file"
	if [ $((round % 2)) = 1 ]; then
		$image serve disk.qcow2 --listen unix:sock >log 2>&1 &
		server=$!
		for _ in $(seq 100); do
			[ -S sock ] && break
			sleep 0.05
		done
		qemu-io -f raw "nbd+unix:///?socket=sock" <commands >log 2>&1 || die "qemu-io at our server"
		grep -qi 'failed\|error' log && die "qemu-io at our server"
		kill $server
		wait $server || die "the server"
		server=
	else
		qemu-io -f qcow2 disk.qcow2 <commands >log 2>&1 || die "qemu-io on the image"
		grep -qi 'failed\|error' log && die "qemu-io on the image"
	fi
	$image check disk.qcow2 >log 2>&1 || die "our check"
	qemu-img check -q -f qcow2 disk.qcow2 >log 2>&1 || die "qemu-img check"
	$image compare ref.raw disk.qcow2 >log 2>&1 || die "we read something else"
	qemu-img compare -q -f raw -F qcow2 ref.raw disk.qcow2 >log 2>&1 || die "qemu-img reads something else"
	case $((round % 8)) in
	1) $image snapshot disk.qcow2 --create "s$round" >log 2>&1 && cp --sparse=always ref.raw "s$round.raw" || die snapshot ;;
	2) qemu-img snapshot -c "s$round" disk.qcow2 >log 2>&1 && cp --sparse=always ref.raw "s$round.raw" || die snapshot ;;
	4) $image snapshot disk.qcow2 --apply "s$((round - 2))" >log 2>&1 && cp --sparse=always "s$((round - 2)).raw" ref.raw || die apply ;;
	5) qemu-img snapshot -a "s$((round - 4))" disk.qcow2 >log 2>&1 && cp --sparse=always "s$((round - 4)).raw" ref.raw || die apply ;;
	6) $image snapshot disk.qcow2 --delete "s$((round - 5))" >log 2>&1 || die delete ;;
	7)
		qemu-img snapshot -d "s$((round - 5))" disk.qcow2 >log 2>&1 || die delete
		$image resize disk.qcow2 --size +3333k >log 2>&1 || die resize
		size=$((size + 3333 * 1024))
		truncate -s $size ref.raw
		;;
	esac
done
if [ -n "$behind" ]; then
	sha256sum --quiet -c behind.sum || die "what is behind the image has changed"
fi
echo "$((rounds * 150)) operations, seed $seed${behind:+, in front of two images}"
