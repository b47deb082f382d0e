# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# What tests of machines with folders begin with, after OSPITE and ASM-FOLDER: a folder of their own, a small guest, check.
set -u
ospite=$(realpath "$1")
source=$(realpath "$2")
passed=0
failed=0
command -v nasm >/dev/null || { echo "skipped: nasm is not installed"; exit 77; }
work=$(mktemp -d)
OSPITE_ROOT=$work/root
export OSPITE_ROOT
o() { timeout -k 5 60 "$ospite" "$@"; }
trap 'o kill --all --quiet 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 143' TERM INT HUP # by way of EXIT
cd "$work" || exit 1
nasm -f bin -o echo.bin "$source/echo.asm" || exit 1

# check WHAT STATUS TEXT COMMAND...: the status, and a text in what it says
check() {
	what=$1
	want=$2
	text=$3
	shift 3
	"$@" >out 2>&1 </dev/null
	status=$?
	if [ $status = "$want" ] && { [ -z "$text" ] || grep -qF -- "$text" out; }; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "FAILED: $what: status $status, expected $want with '$text':"
		cat out
	fi
}
