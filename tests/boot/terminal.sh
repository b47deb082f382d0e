#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The terminal side, driven through tmux: the console attached, left and shared, its scroll-back; top; progress of image commands; and the
# terminal is as it was after the machine or the command has been killed.
# usage: terminal.sh OSPITE ASM-FOLDER
set -u
ospite=$(realpath "$1")
source=$(realpath "$2")
for program in tmux nasm; do command -v $program >/dev/null || { echo "skipped: $program is not installed"; exit 77; }; done
work=$(mktemp -d)
unset TMUX
t() { timeout 20 tmux -f /dev/null -S "$work/tmux" "$@"; }
OSPITE_ROOT=$work/root
export OSPITE_ROOT
o() { timeout -k 5 60 "$ospite" "$@"; }
trap 'o kill --all --quiet 2>/dev/null; t kill-server 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 143' TERM INT HUP # by way of EXIT
cd "$work" || exit 1
nasm -f bin -o echo.bin "$source/echo.asm" || exit 1
failed=0
passed=0
screen() { t capture-pane -p -S -200 -t "$1"; }
# see PANE TEXT: it comes, within what a busy host takes
see() {
	i=0
	until screen "$1" | grep -qE -- "$2"; do
		i=$((i + 1))
		if [ $i -gt 600 ]; then
			failed=$((failed + 1))
			echo "FAILED: no '$2' in pane $1:"
			screen "$1"
			return
		fi
		sleep 0.1
	done
	passed=$((passed + 1))
}
# the command that the shell of a pane runs
child() { cat "/proc/$(t display-message -p -t "$1" '#{pane_pid}')/task/"*"/children" | awk '{ print $NF }'; }
keys() { pane=$1; shift; t send-keys -t "$pane" "$@"; }
# The shell of a pane has its terminal back: in line mode, with echo and signals.
restored() {
	keys "$1" "stty -a | tr ';' '\\n' | grep -c -e ' icanon' -e '^icanon' -e 'isig icanon' | sed 's/^/line-mode=/'" Enter
	see "$1" 'line-mode=1'
	keys "$1" "stty -a | grep -q -e ' echo ' -e '^echo ' && stty -a | grep -q -e ' opost' -e '^opost' && echo tty=\$((40+2)); clear" Enter
}
# The terminal is in line mode: somebody has put it right; what is typed before would be for nobody.
lines() {
	tty=$(t display-message -p -t "$1" '#{pane_tty}')
	i=0
	until stty -F "$tty" -a | tr ' ' '\n' | grep -qx 'icanon;*' || [ $i = 600 ]; do i=$((i + 1)); sleep 0.1; done
	[ $i != 600 ] || { failed=$((failed + 1)); echo "FAILED: the terminal of $1 stays raw"; }
}
t new-session -d -s s -x 100 -y 30 "env PS1='prompt> ' sh" || { echo "skipped: tmux does not start here"; exit 77; }
t set-option -g history-limit 5000 >/dev/null
t split-window -t s -v "env PS1='prompt> ' sh"
t set-option -g remain-on-exit on >/dev/null
a=s:0.0
b=s:0.1
o create --quiet one --kernel echo.bin --memory 4M --engine interp
o start --quiet one

# two readers of one console; what was written before is shown to who comes
keys $a "$ospite console one" Enter
keys $a h c
see $a 'h1'
keys $b "$ospite console one" Enter
see $b 'h1'
keys $b c
see $a 'h12'
see $b 'h12'
# one leaves, the other goes on; the terminal is a shell's again
keys $a C-a d
see $a 'prompt> *$'
restored $a
keys $b c
see $b 'h123'
# killed: the command by its number, then the machine
kill -9 "$(child $b)"
see $b 'Killed'
lines $b
restored $b
keys $b "$ospite console one" Enter
see $b 'h123'
kill -9 "$(o ps --json | sed -n 's/.*"pid": \([0-9]*\).*/\1/p')"
see $b 'prompt> *$'
restored $b

# top: a table that lives, left by q
o start --quiet one
keys $a clear Enter
keys $a "$ospite top" Enter
see $a 'one +[0-9.]+ '
o create --quiet two --kernel echo.bin --memory 4M --engine interp
o start --quiet two
see $a 'two +[0-9.]+ '
see $a '2 running'
o kill --quiet two
see $a '1 running'
keys $a q
see $a 'prompt> *$'
restored $a
# top killed by a signal that can be caught
keys $a "$ospite top" Enter
see $a 'RESIDENT|MEMORY'
kill -TERM "$(child $a)"
see $a 'prompt> *$'
restored $a

# the console too
keys $a "$ospite console one" Enter
see $a 'Ctrl-A D'
kill -TERM "$(child $a)"
see $a 'left the console'
restored $a

# run in the terminal, left by Ctrl-A X; and killed
for how in leave kill KILL; do
	keys $b clear Enter
	keys $b "$ospite run --engine interp --memory 4M --kernel echo.bin --quiet" Enter
	keys $b h c
	see $b 'h1'
	if [ $how = leave ]; then
		keys $b C-a x
		see $b 'prompt> *$'
		restored $b
	else
		[ $how = KILL ] || how=TERM
		kill -$how "$(child $b)"
		lines $b
		see $b 'prompt> *$'
		restored $b
	fi
done
# top and a screen in the terminal, killed: the other screen is left too
keys $a clear Enter
keys $a "$ospite top" Enter
see $a 'RESIDENT'
kill -9 "$(child $a)"
lines $a # the shell's words may have gone with the other screen
restored $a
keys $a "$ospite run --engine interp --memory 4M --kernel echo.bin --quiet --display text" Enter
i=0
until [ "$(t display-message -p -t $a '#{alternate_on}')" = 1 ] || [ $i = 300 ]; do i=$((i + 1)); sleep 0.1; done
kill -9 "$(child $a)"
lines $a
keys $a '' Enter
see $a 'prompt> *$'
[ "$(t display-message -p -t $a '#{alternate_on}')" = 0 ] || { failed=$((failed + 1)); echo "FAILED: the other screen stays"; }
restored $a

# progress on a terminal, none where there is none
truncate -s 64M big.raw
dd if=/dev/urandom of=big.raw bs=1M count=48 conv=notrunc 2>/dev/null
keys $b clear Enter
keys $b "$ospite image convert --compress big.raw big.qcow2 && echo con\$((1))verted" Enter
see $b 'con1verted'
see $b 'converting \[#+\] 100 %'
# Ctrl-C: the terminal as it was; half a converted image goes
keys $b clear Enter
keys $b "$ospite image create --size 3G --preallocation full full.raw" Enter
see $b 'writing \[#+[.]*\] +[0-9]+ %'
keys $b C-c
see $b 'prompt> *$'
restored $b
rm -f full.raw
keys $b clear Enter
keys $b "$ospite image convert --compress big.raw half.qcow2" Enter
see $b 'converting \[#+[.]*\] +[0-9]+ %'
keys $b C-c
see $b 'prompt> *$'
restored $b
[ ! -e half.qcow2 ] || { failed=$((failed + 1)); echo "FAILED: half an image stays"; }
o image convert big.raw other.qcow2 >out 2>&1 </dev/null
if grep -q "$(printf '\r')" out; then failed=$((failed + 1)); echo "FAILED: progress in a file"; fi
echo "$passed passed, $failed failed"
[ $failed = 0 ]
