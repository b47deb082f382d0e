#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Machines with folders, as a user meets them: every command, what it says, what it leaves behind.
# usage: life.sh OSPITE ASM-FOLDER
# shellcheck source=tests/boot/life-lib.sh
. "$(dirname "$0")/life-lib.sh"
state() { o ps --all | awk -v n="$1" '$1 == n { print $2 }'; }
# say NAME TEXT EXPECTED: types into the console, waits for the answer, which must come of that text: then it has been typed
say() {
	printf %s "$2" | timeout 10 "$ospite" console "$1" >typed 2>&1 &
	typist=$!
	i=0
	while [ $i -lt 200 ] && ! o logs "$1" | grep -qF -- "$3"; do i=$((i + 1)); sleep 0.05; done
	check "console $1: $3" 0 "$3" o logs "$1"
	kill $typist 2>/dev/null
	wait $typist 2>/dev/null
}

check "no machines" 0 NAME o ps --all
check "create" 0 one o create one --kernel echo.bin --memory 4M --engine interp
check "create twice" 125 "already" o create one --kernel echo.bin
check "a bad name" 125 "no name for a machine" o create ../x --kernel echo.bin
check "a bad option" 125 "did you mean --memory" o create two --memry 3
check "nothing to start" 125 "nothing to start" o create two
check "kernel made absolute" 0 "kernel: $work/echo.bin" o config one
check "inactive" 0 "inactive" o ps --all
check "not in ps" 0 "" o ps
check "pause an inactive one" 125 "is inactive" o pause one
check "console of an inactive one" 125 "is inactive" o console one
check "no such machine" 125 "no machine 'none'" o start none
check "start" 0 one o start one
check "start twice" 125 "is running" o start one
check "rm a running one" 125 "running" o rm one
check "rename a running one" 125 "running" o rename one two
check "ps" 0 running o ps
check "ps --json" 0 '"state": "running"' o ps --json
check "ps --quiet" 0 one o ps --quiet
check "info" 0 "interp" o info one
say one "hcc" "h12"
check "pause" 0 one o pause one
check "pause twice" 125 "paused already" o pause one
check "paused" 0 paused o ps
check "wait until" 0 "" o wait --until paused one
check "wait for what does not come" 125 "is paused, not" o wait --until running --time 0 one
check "wait for nonsense" 125 "must be running" o wait --until happy one
check "resume" 0 one o resume one
check "resume twice" 125 "running, not paused" o resume one
check "ctl" 0 '"status": "running"' o ctl one query-status
check "ctl, unknown" 125 "no command 'nonsense'" o ctl one nonsense
check "ctl list" 0 system_powerdown o ctl list
check "stats" 0 virtual-ms o stats one
check "top" 0 RESIDENT o top --once
check "clone a running one" 125 "stop it first" o clone one other
check "suspend" 0 one o suspend one
check "clone a suspended one" 125 "is suspended" o clone one other
check "suspended" 0 suspended o ps --all
check "rm a suspended one" 125 "suspended" o rm one
check "resume from the folder" 0 one o resume one
timeout 10 "$ospite" console one </dev/null >watched &
watcher=$!
say one "c" "3"
[ -e root/machines/one/saved ] && { failed=$((failed + 1)); echo "FAILED: the saved state is still there"; }
check "stop" 0 one o stop one
wait $watcher
check "a console after the resume begins with what was written before" 0 ready cat watched
[ "$(state one)" = inactive ] || { failed=$((failed + 1)); echo "FAILED: stopped, but $(state one)"; }
check "powered off" 0 "powered off" o info one
check "wait, ended" 0 0 o wait one
check "start again" 0 one o start one
say one i "i"
check "nmi" 0 one o nmi one
check "stop by force" 0 one o stop --time 0 one
# a card that goes without a word, and another that gets its name: a saved machine finds each in its place
truncate -s 1M first.img second.img
check "another, to plug into" 0 plug o create plug --kernel echo.bin --memory 16M --engine interp
check "start" 0 plug o start plug
check "a disk comes" 0 disk0 o set plug --disk first.img
check "the guest does not let go" 125 "has not let go" o set plug --remove disk0 --time 0
check "it goes with the reset" 0 plug o reset plug
i=0
while o ctl plug query-block | grep -q disk0 && [ $i -lt 1000 ]; do i=$((i + 1)); done
check "another of that name" 0 disk0 o set plug --disk second.img
check "only that is in vm.yaml" 0 "second.img" o config plug
check "the first is not" 1 "" grep -q first.img root/machines/plug/vm.yaml
check "suspend" 0 plug o suspend plug
check "resume" 0 plug o resume plug
check "it is there" 0 "second.img" o ctl plug query-block
check "it does not let go either" 125 "has not let go" o set plug --remove disk0 --time 0
check "it goes with the reset" 0 plug o reset plug
i=0
while o ctl plug query-block | grep -q disk0 && [ $i -lt 1000 ]; do i=$((i + 1)); done
check "suspend" 0 plug o suspend plug
check "resume" 0 plug o resume plug
check "it comes again" 0 disk0 o set plug --disk second.img
[ "$(grep -c second.img root/machines/plug/vm.yaml)" = 1 ] || { failed=$((failed + 1)); echo "FAILED: vm.yaml has it twice"; }
check "kill" 0 plug o kill plug
check "rm" 0 plug o rm plug

check "create with a file that is not there" 0 "there is no file nowhere.qcow2; 'ospite start typo' will look for it in " \
	o create typo --kernel echo.bin --disk nowhere.qcow2
check "rm" 0 typo o rm typo
check "rename" 0 two o rename one two
check "config --set" 0 "" o config two --set no-reboot=true --set memory=8M
check "config, bad value" 125 "vm.yaml, line 3: memory: 1K" o config two --set memory=1K
check "config, bad key" 125 "did you mean memory" o config two --set memroy=1K
printf '\n# a remark\nmemory: 6M # small\n' | cat - root/machines/two/vm.yaml | grep -v 'memory: 8M' >new
cp new root/machines/two/vm.yaml
check "config keeps comments" 0 "" o config two --set memory=5M
check "config keeps comments" 0 "memory: 5M # small" o config two
check "config keeps comments" 0 "# a remark" o config two
# one that is just starting (its kernel comes slowly) is waited for
mkfifo late.bin
check "create" 0 late o create late --kernel late.bin --memory 4M --engine interp
o start late >started 2>&1 &
starter=$!
i=0
until o ps --quiet | grep -q late || [ $i = 300 ]; do i=$((i + 1)); sleep 0.02; done
o pause late >paused 2>&1 &
pauser=$!
sleep 0.2
cat echo.bin >late.bin
check "start" 0 "" wait $starter
check "pause while it starts" 0 "" wait $pauser
check "it is" 0 paused o ps
check "rm" 0 late o rm --force late
# several at once, and one while an editor is open: nothing is lost
for key in hostname cpu-weight memory-max append; do o config two --set $key=100 & done
wait
for key in hostname cpu-weight memory-max append; do check "config, at once" 0 "$key: 100" o config two; done
printf '%s\n' '#!/bin/sh' "'$ospite' config two --set cpus=2" 'echo "cpus: 3" >>"$1"' >editor
chmod +x editor
check "config --edit, changed meanwhile" 125 "your text is in /tmp/" env EDITOR=./editor "$ospite" config two --edit
rm -f "$(sed -n 's/.*your text is in \([^)]*\)).*/\1/p' out)"
check "what came between stays" 0 "cpus: 2" o config two
printf '%s\n' '#!/bin/sh' 'echo "# edited" >>"$1"' >editor
check "config --edit" 0 "" env EDITOR=./editor "$ospite" config two --edit
check "is there" 0 "# edited" o config two
cp new root/machines/two/vm.yaml
echo "cpu: [1" >>root/machines/two/vm.yaml
check "broken yaml" 125 "vm.yaml" o start two
cp new root/machines/two/vm.yaml
echo "colour: red" >>root/machines/two/vm.yaml
check "unknown key" 125 "colour" o start two
cp new root/machines/two/vm.yaml
check "start two" 0 two o start two
timeout 10 "$ospite" events two >events.txt &
events=$!
timeout 10 "$ospite" console two </dev/null >watched &
watcher=$!
sleep 0.2
say two "t" "T"
o wait two >waited
check "crashed" 0 crashed o ps --all
check "why" 0 "triple fault" o info two
wait $events $watcher
check "wait gives the status" 0 126 cat waited
check "events" 0 "GUEST_PANICKED" cat events.txt
check "a second console saw it too" 0 "ready" cat watched
# killed without a word
check "start after a crash" 0 two o start two
kill -9 "$(o ps --json | sed -n 's/.*"pid": \([0-9]*\).*/\1/p')"
o wait --quiet two
check "killed" 0 "crashed" o ps --all
check "start after a kill" 0 two o start two
check "kill" 0 two o kill two
check "kill twice" 125 "not running" o kill two
check "rm" 0 two o rm two
# another like it, with what is in its folder
check "create with a disk" 0 three o create three --kernel echo.bin --memory 4M --disk format=raw,file=d.img,bus=virtio
truncate -s 1M root/machines/three/d.img
echo notes >root/machines/three/d.tmp.txt
printf data | dd of=root/machines/three/d.img bs=1 seek=500000 conv=notrunc status=none
ln -s /etc/passwd root/machines/three/link
check "clone" 0 four o clone three four
check "clone: its disk" 0 "" cmp root/machines/three/d.img root/machines/four/d.img
check "clone: a name like a temporary file's" 0 "" cmp root/machines/three/d.tmp.txt root/machines/four/d.tmp.txt
check "clone: no links" 1 "" test -e root/machines/four/link
check "clone to a name that is taken" 125 "already" o clone three four
check "start the clone" 0 four o start four
# logs: of the log that was full before and this one, and on where the machine begins another
timeout 60 "$ospite" logs --follow four >followed &
follower=$!
followed() { i=0; until grep -q "$1" followed || [ $i = 300 ]; do i=$((i + 1)); sleep 0.1; done; }
followed ready
mv root/machines/four/console.log root/machines/four/console.log.1
echo another >root/machines/four/console.log
followed another
check "followed into the next log" 0 "another" cat followed
check "both logs" 0 "ready" o logs four
check "kill the clone" 0 four o kill four
wait $follower
printf 'a\nb\nc\n' >root/machines/four/console.log.1
printf 'd\ne' >root/machines/four/console.log
for n in 0 1 2 3 4 5 6; do printf 'a\nb\nc\nd\ne' | tail -n $n >want; o logs --lines $n four >got; check "the last $n lines" 0 "" cmp want got; done
check "a disk outside" 0 "" o config three --set "disk=format=raw,file=$work/out.img"
check "clone with a disk outside" 125 "written by both" o clone three five
check "rm both" 0 three o rm three four
# files that say by their names what they are
check "create from a kernel" 0 k o create k ./echo.bin --memory 4M --engine interp
check "a kernel's console" 0 "append: console=ttyS0" o config k
check "a kernel and words" 125 "unexpected 'more'" o create k2 ./echo.bin more
check "two kernels" 125 "there can be one kernel" o create k2 ./echo.bin ./echo.bin
check "a file that is not there" 125 "there is no file ./no.iso" o run ./no.iso
check "a folder" 125 "is a folder" o run "$work"
check "a name that says nothing" 125 "write ./echo for a kernel" o run echo
truncate -s 1M 'd,1.qcow2' e.IMG f.iso g.vmdk
check "a disk that can only be read" 125 "image convert ./g.vmdk" o run ./g.vmdk
check "create from images" 0 i o create i 'd,1.qcow2' ./e.IMG f.iso
check "qcow2 by its ending" 0 "format=qcow2,bus=virtio,file=$work/d,,1.qcow2" o config i
check "raw by its ending" 0 "format=raw,bus=virtio,file=$work/./e.IMG" o config i
check "a CD by its ending" 0 "- $work/f.iso" o config i
check "what is no qcow2 is not started" 125 "d,1.qcow2" o start i
check "run a kernel with a name" 0 named o run --detach ./echo.bin named --memory 4M --engine interp
check "kill it" 0 named o rm --force named
check "rm them" 0 k o rm k i
# autostart, and limits of the process where this host lets us have control groups
check "create auto" 0 auto o create auto --kernel echo.bin --memory 4M --engine interp --autostart
check "create other" 0 other o create other --kernel echo.bin --memory 4M --engine interp
check "start --autostart" 0 auto o start --autostart
check "only that" 0 inactive sh -c "'$ospite' ps --all | grep other"
check "start --autostart of none more" 0 "" o start --autostart
check "stop it" 0 auto o kill auto
check "a quota that is none" 125 "must be from 1" o config auto --set cpu-quota=0
check "limits" 0 "" o config auto --set cpu-quota=150% --set cpu-weight=50 --set memory-max=300M
if o start auto >refused 2>&1; then
	pid=$(o ps --json | sed -n 's/.*"pid": \([0-9]*\).*/\1/p')
	check "its control group" 0 "/ospite/vm-$pid" cat "/proc/$pid/cgroup"
	limits() { find /sys/fs/cgroup -path "*/ospite/vm-$pid/$1" -exec cat {} + 2>/dev/null; }
	check "its quota" 0 150000 limits "cpu*[xs]"
	check "limits changed while it runs" 0 "" o set auto --cpu-quota 20% --cpu-weight none --memory-max 400M
	check "another quota" 0 "20000" limits "cpu*[xs]"
	check "another size" 0 419430400 limits "memory*[xs]"
	check "a limit taken away" 0 "" o set auto --memory-max none
	check "no size" 125 "" sh -c "grep -q memory-max root/machines/auto/vm.yaml || exit 125"
	check "the quota kept" 0 "cpu-quota: 20%" o config auto
	check "too small" 125 "more is in use" o set auto --memory-max 100K
	check "a limit that is none" 125 "must be from 1" o set auto --cpu-weight 0
	check "end it" 0 auto o kill auto
else
	check "a host without control groups of ours" 0 "systemd-run" cat refused
fi
check "rm auto" 0 auto o rm auto other
check "doctor" 0 seccomp o doctor
check "doctor --json" 0 '"verdict": "ok"' o doctor --json
# what it measured of KVM is what the next start goes by
if grep -q "without hardware behind it" out; then
	check "a speed is kept" 0 " mips " cat root/kvm-speed
	check "run --engine auto" 0 slow o run --detach --name slow --kernel echo.bin --memory 4M --engine auto
	check "a start remembers" 0 "when last measured" cat root/machines/slow/log
	check "rm slow" 0 slow o rm --force slow
fi
check "run --detach" 0 vm1 o run --detach --kernel echo.bin --memory 4M --engine interp
check "run --detach --rm" 0 tmp o run --detach --rm --name tmp --kernel echo.bin --memory 4M --engine interp
check "run --detach --rm, to be waited for" 0 brief o run --detach --rm --name brief --kernel echo.bin --memory 4M --engine interp --no-reboot
o wait brief >waited &
waiter=$!
sleep 0.3 # it waits; where it does not yet, it finds no machine, and is told so
printf t | timeout 10 "$ospite" console brief >typed 2>&1
wait $waiter
check "the status of one that is gone" 0 126 cat waited
check "create" 0 brief o create brief --kernel echo.bin
o wait --until running brief >waited 2>&1 &
waiter=$!
check "rm" 0 brief o rm brief
check "wait for one that is removed" 125 "" wait $waiter
check "says so" 0 "there is no machine 'brief'" cat waited
check "run --detach of nothing" 125 "nothing.bin" o run --detach --name n --kernel nothing.bin
check "rm --force" 0 vm1 o rm --force vm1
check "stop --all" 0 tmp o stop --all
sleep 0.2
[ "$(o ps --all --quiet)" = "" ] || { failed=$((failed + 1)); echo "FAILED: left: $(o ps --all --quiet)"; }
[ "$(ls -A root/machines)" = "" ] || { failed=$((failed + 1)); echo "FAILED: left:"; ls -A root/machines; }
echo "$passed passed, $failed failed"
[ $failed = 0 ]
