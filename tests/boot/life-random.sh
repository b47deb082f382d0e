#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Random commands on machines with folders, some of them and some of the machines' processes killed at random instants.
# Afterwards nothing is wrong: every machine can be asked, started and removed; no process, socket or temporary file is left.
# usage: life-random.sh OSPITE ASM-FOLDER ROUNDS [SEED]
# shellcheck source=tests/boot/life-lib.sh
. "$(dirname "$0")/life-lib.sh"
rounds=$3
seed=${4:-$(date +%s)}
o() { timeout -k 5 30 "$ospite" "$@"; }
echo "seed $seed"
fail() {
	failed=$((failed + 1))
	echo "FAILED: $*"
}
random() { # 0..$1-1
	seed=$(((seed * 1103515245 + 12345) % 2147483648))
	echo $((seed / 65536 % $1))
}
pids() { o ps --json | sed -n 's/.*"pid": \([0-9]*\).*/\1/p'; }
seen=""
i=0
for n in 0 1 2; do o create --quiet m$n --kernel echo.bin --memory 4M --engine interp || fail create; done
while [ $i -lt "$rounds" ]; do
	i=$((i + 1))
	random 3 >r; read -r n <r; seed=$(((seed * 69069 + 1) % 2147483648))
	random 24 >r; read -r what <r; seed=$(((seed * 69069 + 1) % 2147483648))
	random 6 >r; read -r cut <r; seed=$(((seed * 69069 + 1) % 2147483648))
	random 40 >r; read -r delay <r; seed=$(((seed * 69069 + 1) % 2147483648))
	limit=30
	case $what in
	0) set -- create "m$n" --kernel echo.bin --memory 4M --engine interp ;;
	1 | 2 | 3 | 4) set -- start "m$n" ;;
	5) set -- stop --time 1 "m$n" ;;
	6) set -- kill "m$n" ;;
	7) set -- pause "m$n" ;;
	8) set -- resume "m$n" ;;
	9 | 10) set -- suspend "m$n" ;;
	11) set -- rename "m$n" "m$(((n + 1) % 3))" ;;
	12) # two of three times something harmless, or there would soon be none
		set -- rm "m$n"
		[ $((i % 3)) = 0 ] || set -- wait --time 0 "m$n"
		;;
	13 | 14)
		set -- console "m$n"
		limit=0.3
		;;
	15) set -- config "m$n" --set memory=5M ;;
	16) set -- reset "m$n" ;;
	17) set -- clone "m$n" "m$(((n + 1) % 3))" ;;
	18) set -- engine "m$n" "$([ $((i % 2)) = 0 ] && echo interp || echo dbt)" ;;
	19) set -- set "m$n" --net user ;;
	20) # its own: the same twice could not be started
		truncate -s 1M "disk$i.raw"
		set -- set "m$n" --disk "$work/disk$i.raw"
		;;
	21) set -- set "m$n" --remove net1 --remove disk0 --time 0 ;;
	22) set -- stats "m$n" ;;
	23) set -- start --autostart ;;
	esac
	timeout -k 1 "$limit" "$ospite" "$@" >out 2>&1 </dev/null &
	command=$!
	other=
	if [ $((i % 3)) = 0 ]; then # another one on the same machine, at once
		case $((i / 3 % 5)) in 0) with=start ;; 1) with=suspend ;; 2) with=pause ;; 3) with=kill ;; 4) with=resume ;; esac
		timeout -k 1 60 "$ospite" $with "m$n" >with.out 2>&1 </dev/null &
		other=$!
	fi
	for p in $(pids); do
		case " $seen " in *" $p "*) ;; *) seen="$seen $p" ;; esac
	done
	if [ "$cut" = 0 ]; then # the command
		sleep "0.0$delay"
		pkill -9 -P $command 2>/dev/null
		kill -9 $command 2>/dev/null
	elif [ "$cut" = 1 ]; then # the machine's process
		sleep "0.0$delay"
		for p in $(pids); do kill -9 "$p" 2>/dev/null; break; done
	fi
	wait $command 2>/dev/null
	status=$?
	case $status in
	0 | 124 | 125 | 137) ;;
	*) fail "ospite $* ended with $status: $(cat out)" ;;
	esac
	if [ -n "$other" ]; then
		wait $other
		status=$?
		case $status in
		0) ;;
		125) [ "$(wc -l <with.out)" = 1 ] || fail "ospite $with m$n beside $*: $(cat with.out)" ;;
		*) fail "ospite $with m$n beside $* ended with $status: $(cat with.out)" ;;
		esac
	fi
	o ps --all >out 2>&1 || fail "ps: $(cat out)"
done
o kill --all --quiet >/dev/null 2>&1 # two may have the same disk by now
for m in $(o ps --all --quiet); do
	o info "$m" >out 2>&1 || fail "info $m: $(cat out)"
	o kill --quiet "$m" >/dev/null 2>&1
	o start --quiet "$m" >out 2>&1 || fail "start $m: $(cat out)"
	o kill --quiet "$m" >out 2>&1 || fail "kill $m: $(cat out)"
	left=$(find "root/machines/$m" -type s -o -name '*.tmp.*' -o -name saved)
	[ -z "$left" ] || fail "left in $m: $left"
	o rm --quiet "$m" >out 2>&1 || fail "rm $m: $(cat out)"
done
[ -z "$(ls -A root/machines 2>/dev/null)" ] || fail "left: $(ls -A root/machines)"
for p in $seen; do
	if [ -e "/proc/$p" ] && tr '\0' ' ' <"/proc/$p/cmdline" | grep -qF "$ospite"; then fail "process $p still runs"; fi
done
echo "$i commands, $failed failed"
[ $failed = 0 ]
