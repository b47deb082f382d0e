#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Callers and hosts that are not as one is used to: standard streams closed or full, limits, masks, ignored signals, pipes where files are
# expected. Every command works or says one line and ends with 125; none waits for ever. usage: odd-host.sh OSPITE ASM-FOLDER
# shellcheck source=tests/boot/life-lib.sh
. "$(dirname "$0")/life-lib.sh"

# full COMMAND...: what has something to say notices that nobody can hear it
full() { o "$@" >/dev/full; }
# limited LIMIT COMMAND...
limited() {
	ulimit -f "$1"
	shift
	# shellcheck disable=SC2094 # a pipe, so that the limit is not that of the test's own files
	o "$@" 2>&1 | cat
	exit "${PIPESTATUS[0]}"
}
limited_run() { (limited "$@"); }
# closed DIGITS COMMAND...
closed() {
	case $1 in *0*) exec <&- ;; esac
	case $1 in *1*) exec >&- ;; esac
	case $1 in *2*) exec 2>&- ;; esac
	shift
	o "$@"
}
closed_run() { (closed "$@"); }
masked_run() { (umask 777 && o "$@"); }

check "create" 0 "" o create m --kernel echo.bin --memory 4M --engine interp
check "image" 0 "" o image create d.qcow2 --size 1M

for words in "help" "version" "run --help" "engines" "ps --all" "image info d.qcow2" "config m" "info m" "doctor" "ctl list" "completion bash" \
	"start m" "pause m" "resume m" "stats m" "logs m" "top --once" "net ls" "kill m"; do
	# shellcheck disable=SC2086 # words
	check "$words to a full device" 125 "cannot write to standard output" full $words
done
check "start" 0 "" o start m
timeout -k 5 60 "$ospite" events >/dev/full 2>events.err &
events=$!
i=0
while kill -0 $events 2>/dev/null && [ $i -lt 300 ]; do # until it listens, and hears
	o pause m >/dev/null && o resume m >/dev/null
	i=$((i + 1))
done
check "events to a full device" 125 "" wait $events

for streams in 0 1 2 01 02 12 012; do
	check "kill, $streams closed" "$([ "${streams/1/}" = "$streams" ] && echo 0 || echo 125)" "" closed_run $streams kill m
	check "start, $streams closed" "$([ "${streams/1/}" = "$streams" ] && echo 0 || echo 125)" "" closed_run $streams start m
	check "it runs" 0 "running" o info m
	rm -f out.qcow2
	check "convert, $streams closed" 0 "" closed_run $streams image convert d.qcow2 out.qcow2
	check "and is the same" 0 "" o image compare d.qcow2 out.qcow2
done
check "kill" 0 "" o kill m

check "no room for guest memory" 125 "ulimit -f counts here too" limited_run 1000 start m
check "it is not running" 0 "inactive" o info m
check "no room for an image" 125 "cannot resize big.img: File too large" limited_run 1000 image create big.img --size 8M
check "no room for its head" 125 "cannot write big.qcow2: File too large" limited_run 10 image create big.qcow2 --size 8M
check "nothing half made" 1 "" sh -c "ls | grep big"

for words in "create x --kernel echo.bin --memory 4M --engine interp" "start x" "suspend x" "resume x" "config x" "clone x y" "kill x" "clone x y" "rm x y"; do
	case $words in "clone x y") [ "$(o info x | grep -c running)" = 0 ] || continue ;; esac
	# shellcheck disable=SC2086 # words
	check "$words with umask 777" 0 "" masked_run $words
done

# Pipes in a machine's folder, where somebody else may have put them.
folder=$OSPITE_ROOT/machines/m
for name in log console.log saved status lock; do
	rm -f "$folder/$name"
	mkfifo "$folder/$name"
	for words in "ps --all" "info m" "start m" "logs m" "logs --ospite m" "kill m"; do
		# shellcheck disable=SC2086 # words
		timeout -k 1 20 "$ospite" $words >out 2>&1 </dev/null
		status=$?
		if [ $status != 0 ] && { [ $status != 125 ] || [ "$(wc -l <out)" != 1 ]; }; then
			failed=$((failed + 1))
			echo "FAILED: $words with a pipe as $name: $status, $(cat out)"
		fi
	done
	rm -f "$folder/$name"
done
check "it starts without them" 0 "" o start m
check "kill" 0 "" o kill m

# vm.yaml is written to a file of its own, not to one that somebody has put in its place.
cat >write.sh <<'END'
ln "$folder/../../secret" "$folder/vm.yaml.tmp.$$" && exec "$ospite" config m --set memory=5M
END
echo secret >"$OSPITE_ROOT/secret"
folder=$folder ospite=$ospite check "config" 0 "" sh write.sh
check "the other file is as it was" 0 "secret" cat "$OSPITE_ROOT/secret"

# What a process says of itself is not for the terminal to obey.
printf '%s' '{"state":"inactive","ended":1,"reason":"\u001b[2J\u009b2J evil\u0007"}' >"$folder/status"
for words in "info m" "ps --all"; do
	# shellcheck disable=SC2086 # words
	check "$words" 0 "?[2J?2J evil?" o $words
	cp out shown
	check "without escape" 1 "" env LC_ALL=C grep -qP '[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]' shown
done
rm -f "$folder/status"

# What a machine is made of may take its time; it can be ended meanwhile.
mkfifo kernel
for number in TERM INT HUP; do
	timeout -k 5 60 "$ospite" run --kernel kernel --memory 4M --engine interp </dev/null >run.out 2>&1 &
	pid=$!
	child=
	while [ -z "$child" ] || ! grep -q "^SigBlk:.*[4-7c-f]...$" "/proc/$child/status" 2>/dev/null; do child=$(cat /proc/$pid/task/$pid/children); child=${child%% *}; done
	kill -s $number "$child"
	check "SIG$number while the kernel is waited for" $((128 + $(kill -l $number))) "" wait $pid
done

# nohup's promise
for words in "run --kernel echo.bin --memory 4M --engine interp --serial null" "image serve d.qcow2 --listen unix:$work/nbd"; do
	# shellcheck disable=SC2086 # words
	(trap '' HUP && exec "$ospite" $words) </dev/null >run.out 2>&1 &
	pid=$!
	while ! grep -q "^ospite: engine\|^serving" run.out; do sleep 0.05; done
	kill -s HUP $pid
	check "nohup" 124 "" timeout 0.5 tail --pid=$pid -f /dev/null
	kill -s TERM $pid
	check "TERM ends it" "$([ "${words#run}" = "$words" ] && echo 0 || echo 143)" "" wait $pid
done
# A process that stands still for longer than an answer takes is not killed for it: the button is pressed when it goes on.
check "start" 0 "" o start m
pid=$(o ps --json | sed -n 's/.*"pid": \([0-9]*\).*/\1/p')
kill -s STOP "$pid"
timeout -k 5 120 "$ospite" stop --time 100 m >stop.out 2>&1 &
stopper=$!
sleep 7
kill -s CONT "$pid"
check "stop" 0 "" wait $stopper
check "by its power button" 0 "powered off" o info m
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
