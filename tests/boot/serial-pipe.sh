#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What is piped into the serial line from the first moment reaches the guest's shell whole, and all its output
# comes out of a pipe. usage: serial-pipe.sh OSPITE
set -u
ospite=$(realpath "$1")
cache=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/ospite
kernel=$(echo "$cache"/linux-image-cloud-amd64/vmlinuz-*)

skip() {
	echo "skipped: $*"
	exit 77
}
[ -s "$kernel" ] || skip "no kernel in the cache (./check fetches it)"
command -v busybox >/dev/null || skip "busybox-static is not installed"

source=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 143' TERM INT HUP # by way of EXIT
(
	# shellcheck source=scripts/lib.sh
	. "$source/scripts/lib.sh"
	top=$source
	cache=$work
	make_busybox_initrd
) || exit 1

printf 'echo "first $((6*7))"\nseq 1 20000 | md5sum\nseq 1 20000\npoweroff\n' |
	timeout 150 "$ospite" run --memory 512M --kernel "$kernel" --initrd "$work/busybox.cpio" \
		--append "console=ttyS0 quiet" 2>"$work/err" | tr -d '\r' >"$work/out"
grep -v '^[0-9]*$' "$work/out"
cat "$work/err"
grep -q '^first 42$' "$work/out" || { echo "failed: the first line did not arrive"; exit 1; }
grep -q "^$(seq 1 20000 | md5sum | cut -c1-32)" "$work/out" || { echo "failed: the guest's shell"; exit 1; }
[ "$(grep -c '^[0-9][0-9]*$' "$work/out")" = 20000 ] || { echo "failed: output is missing"; exit 1; }
