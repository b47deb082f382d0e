#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Saved machines that are damaged, cut short or of another kind: refused with exit status 125 and one line, untouched. And a
# machine that is killed leaves nothing but what it had finished.
# usage: bad-saved.sh EXCHANGE OSPITE IMAGE      (IMAGE: the bare-metal guest plain64)
set -u
exchange=$(realpath "$1") ospite=$(realpath "$2") image=$(realpath "$3")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 143' TERM INT HUP # by way of EXIT
cd "$work" || exit 1
failed=0

timeout 60 "$exchange" --every 12 --count 1 --through good --kernel "$image" interp dbt </dev/null >out 2>&1
[ -s good ] || { tail -n 3 out; exit 1; }
size=$(wc -c <good)

# refuse PATTERN FILE [OPTION...]
refuse() {
	pattern=$1 file=$2
	shift 2
	before=$(cksum <"$file")
	timeout 20 "$ospite" run --serial null --no-agent --net none --engine interp --restore "$file" "$@" </dev/null >out 2>err
	status=$?
	if [ $status != 125 ] || [ "$(wc -l <err)" != 1 ] || ! grep -q "$pattern" err || [ "$before" != "$(cksum <"$file")" ]; then
		failed=$((failed + 1))
		echo "FAILED: $file, expected: $pattern; status $status, said: $(cat err)"
	fi
}

for cut in 0 10 16 40 $((size / 3)) $((size - 33)) $((size - 1)); do
	head -c $cut good >bad
	refuse 'too short\|truncated\|end mark' bad
done
# flip AT: one bit there
flip() {
	cp good bad
	byte=$(od -An -tu1 -j "$1" -N 1 good | tr -d ' ')
	printf "\\$(printf %03o $((byte ^ 1)))" | dd of=bad bs=1 seek="$1" conv=notrunc 2>/dev/null
}
flip 0
refuse 'is not a saved machine' bad
flip 8
refuse 'format version' bad
for at in 17 24 33 60 200 $((size / 2)) $((size - 40)) $((size - 10)); do
	flip $at
	refuse 'damaged\|truncated\|no section' bad
done
{ cat good; echo more; } >bad
refuse 'damaged' bad
head -c 4096 /dev/urandom >bad
refuse 'is not a saved machine' bad
refuse 'takes memory, CPUs and CPU model from the file' good --cpus 2

# A KVM without hardware cannot do what the software engines have promised: it says what, for a file and for a running machine, which
# goes on as it was.
if "$ospite" engines 2>/dev/null | grep -q '^kvm .*not accelerated'; then
	refuse 'lacks what the guest was promised:.* sse4_2 ' good --engine kvm
	timeout 60 "$exchange" --every 12 --min 1 --refuse kvm --kernel "$image" interp dbt </dev/null >out 2>err
	status=$?
	if [ $status != 1 ] || ! grep -q PASS out || ! grep -q 'lacks what the guest was promised:.* sse4_2 ' err; then
		failed=$((failed + 1))
		echo "FAILED: exchange to a lesser KVM: status $status, said: $(cat err)"
	fi
	for model in v2 v3; do
		timeout 20 "$ospite" run --engine kvm --cpu $model --kernel "$image" </dev/null >out 2>err
		status=$?
		if [ $status != 125 ] || ! grep -q "cannot offer CPU model $model .*it lacks:.* sse4_2 " err; then
			failed=$((failed + 1))
			echo "FAILED: --cpu $model: status $status, said: $(cat err)"
		fi
	done
fi

# Killed in the middle: the process is gone, the file saved before is whole, and a save that was not finished shows nothing.
cp good other
timeout 60 "$ospite" run --serial null --no-agent --net none --engine interp --restore good --save-to other </dev/null >out 2>err &
vm=$!
sleep 0.3
child=$(ps -o pid= --ppid $vm | tr -d ' ')
kill -USR1 "$child" 2>/dev/null
kill -KILL "$child" 2>/dev/null
wait $vm 2>/dev/null
timeout 20 "$ospite" run --serial null --no-agent --net none --engine interp --exit-port 0xf4 --restore other </dev/null >out 2>err
[ $? = 1 ] || { failed=$((failed + 1)); echo "FAILED: after a kill: $(cat err)"; }
[ "$(echo *)" = "bad err good other out" ] || { failed=$((failed + 1)); echo "FAILED: left behind: $(echo *)"; }

[ $failed = 0 ] && echo "all refused"
[ $failed = 0 ]
