#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# `ospite image` on images of every kind; where QEMU's tools are installed both read what the other has written.
# usage: image.sh OSPITE
set -u
ospite=$(realpath "$1")
work=$(mktemp -d -p "$([ -w /dev/shm ] && echo /dev/shm || echo /tmp)")
trap 'umount "$work/full" 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 143' TERM INT HUP # by way of EXIT
cd "$work" || exit 1
failed=0

fail() {
	echo "FAIL: $*"
	failed=1
}
run() { # COMMAND...: must succeed
	"$@" >out 2>&1 || fail "$* gave $?: $(cat out)"
}
refuses() { # WORDS COMMAND...: one line with these words, status 125
	words=$1
	shift
	"$@" >out 2>&1
	status=$?
	[ $status = 125 ] || fail "$* gave $status, not 125: $(cat out)"
	[ "$(wc -l <out)" = 1 ] || fail "$* said more than a line: $(cat out)"
	grep -q -- "$words" out || fail "$* did not say '$words': $(cat out)"
}
image="$ospite image"

# Something to copy: text, noise, holes, an end that is no whole MiB.
truncate -s 7000064 from.raw
seq 1 60000 | dd of=from.raw conv=notrunc status=none
head -c 500000 /dev/urandom | dd of=from.raw bs=1000 seek=3000 conv=notrunc status=none

run $image create a.qcow2 --size 1G
run $image info a.qcow2
grep -q '1 GiB (1073741824 bytes)' out || fail "info: $(cat out)"
run $image info a.qcow2 --json
python3 -c 'import json,sys; d = json.load(open("out")); sys.exit(d["virtual-size"] != 1 << 30 or d["cluster-size"] != 65536)' || fail "info --json: $(cat out)"
refuses 'exists already' $image create a.qcow2 --size 2G
refuses 'never guessed' $image create b.disk --size 1G
refuses 'how large' $image create b.qcow2
refuses 'power of two' $image create b.qcow2 --size 1G --cluster-size 1000
refuses 'never guessed' $image create b.qcow2 --backing a.qcow2
refuses 'raw image has no' $image create b.raw --size 1G --lazy-refcounts
refuses 'No such file' $image info none.raw
refuses "another format's" $image info from.raw --format qcow2
refuses 'did you mean' $image creat b.qcow2
refuses 'unexpected' $image info a.qcow2 b.qcow2
refuses 'make it smaller' $image resize a.qcow2 --size 1M
run $image resize a.qcow2 --size +1G
run $image check a.qcow2

run $image convert from.raw plain.qcow2
run $image convert from.raw small.qcow2 --compress --compression zstd
run $image convert from.raw zlib.qcow2 --compress --cluster-size 4096
run $image convert from.raw lazy.qcow2 --lazy-refcounts
run $image convert from.raw full.qcow2 --preallocation metadata
for i in plain small zlib lazy full; do
	run $image check $i.qcow2
	run $image compare from.raw $i.qcow2
	run $image convert $i.qcow2 back.raw --force
	cmp from.raw back.raw || fail "convert from $i.qcow2"
done
[ "$(stat -c %s small.qcow2)" -lt 1500000 ] || fail "small.qcow2 is not small"
refuses 'exists already' $image convert from.raw plain.qcow2

run $image snapshot plain.qcow2 --create first
run $image bench plain.qcow2 --write --count 100 --block 64k
$image compare from.raw plain.qcow2 >out 2>&1 && fail "bench --write wrote nothing"
run $image snapshot plain.qcow2
grep -q first out || fail "snapshot list: $(cat out)"
run $image snapshot plain.qcow2 --apply first
run $image compare from.raw plain.qcow2
run $image check plain.qcow2
run $image snapshot plain.qcow2 --delete first
run $image check plain.qcow2
refuses 'no snapshot' $image snapshot plain.qcow2 --apply first

run $image create top.qcow2 --backing plain.qcow2 --backing-format qcow2
run $image compare from.raw top.qcow2
run $image bench top.qcow2 --write --random --count 200
run $image compare from.raw plain.qcow2
run $image check top.qcow2
run $image map top.qcow2 --json
python3 -c 'import json,sys; d = json.load(open("out")); sys.exit(sum(x["length"] for x in d) != 7000064 or not any(x["depth"] for x in d))' || fail "map --json: $(cat out)"

# A full disk: the write that does not fit fails, what was written before stays. Needs a file system of its own.
mkdir full
if mount -t tmpfs -o size=4m none full 2>/dev/null; then
	for size in 4k 64k 512; do
		run $image create full/f.qcow2 --size 64M --cluster-size $size --force
		run $image bench full/f.qcow2 --write --block 64k --count 10
		refuses 'No space left' $image bench full/f.qcow2 --write --random --count 4000
		run $image check full/f.qcow2
		refuses 'No space left' $image bench full/f.qcow2 --write --block 64k --count 200
		run $image check full/f.qcow2
	done
	umount full
else
	echo "cannot mount: no test of a full disk"
fi

if command -v qemu-img >/dev/null && command -v qemu-io >/dev/null; then
	for i in a plain small zlib lazy full top; do
		run qemu-img check -q -f qcow2 $i.qcow2
	done
	for i in plain small zlib lazy full; do
		run qemu-img compare -f raw -F qcow2 from.raw $i.qcow2
	done
	# the other direction
	for options in compat=1.1 compat=0.10 cluster_size=512 cluster_size=2M lazy_refcounts=on refcount_bits=1 refcount_bits=64 \
		compat=1.1,compression_type=zstd preallocation=metadata; do
		run qemu-img create -q -f qcow2 -o $options q.qcow2 7000064
		run qemu-img convert -n -f raw -O qcow2 from.raw q.qcow2
		run $image check q.qcow2
		run $image compare from.raw q.qcow2
		run $image bench q.qcow2 --write --random --count 50
		run $image check q.qcow2
		run qemu-img check -q -f qcow2 q.qcow2
		run $image convert q.qcow2 back.raw --force
		run qemu-img compare -f raw -F qcow2 back.raw q.qcow2
	done
	run qemu-img convert -c -f raw -O qcow2 from.raw qz.qcow2
	run $image compare from.raw qz.qcow2
	run qemu-img snapshot -c one qz.qcow2
	run qemu-io -f qcow2 -c 'write -P 7 0 3M' -c 'write -z 3M 1M' qz.qcow2
	run qemu-img convert -f qcow2 -O raw qz.qcow2 now.raw
	run $image compare now.raw qz.qcow2
	run $image snapshot qz.qcow2 --create two
	run $image bench qz.qcow2 --write --random --count 50
	run $image snapshot qz.qcow2 --apply one
	run $image compare from.raw qz.qcow2
	run qemu-img check -q -f qcow2 qz.qcow2
	run qemu-img snapshot -a two qz.qcow2
	run $image compare now.raw qz.qcow2
	run $image snapshot qz.qcow2 --delete one
	run qemu-img snapshot -d two qz.qcow2
	run $image check qz.qcow2
	# other programs' formats
	truncate -s 60M big.raw
	dd if=from.raw of=big.raw conv=notrunc status=none
	dd if=from.raw of=big.raw bs=1M seek=50 conv=notrunc status=none
	for i in vmdk: vmdk:-osubformat=streamOptimized vdi: vdi:-ostatic=on vhdx: vhdx:-osubformat=fixed vhdx:-oblock_size=1M; do
		format=${i%%:*}
		options=${i#*:}
		rm -f other
		run qemu-img convert -f raw -O "$format" ${options:+"$options"} big.raw other
		run $image compare big.raw other --to-format "$format"
		run $image convert other new.qcow2 --format "$format" --force
		run $image compare big.raw new.qcow2
		refuses 'only be read' $image resize other --format "$format" --size +1G
	done
	run qemu-img convert -f raw -O vmdk -o subformat=monolithicFlat from.raw flat.vmdk
	refuses 'names other files' $image info flat.vmdk
	refuses 'no VDI' $image info from.raw --format vdi
	# refused clearly
	run qemu-img create -q -f qcow2 -o extended_l2=on q.qcow2 1M
	refuses 'extended L2' $image info q.qcow2
	run qemu-img create -q -f qcow2 -o data_file=data.raw q.qcow2 1M
	refuses 'another file' $image info q.qcow2
	# one has it open, the other keeps off
	qemu-io -f qcow2 plain.qcow2 -c 'sleep 700' >/dev/null 2>&1 &
	other=$!
	sleep 0.3
	refuses 'in use' $image resize plain.qcow2 --size +1M
	wait $other
else
	echo "no qemu-img: not compared with QEMU"
fi
exit $failed
