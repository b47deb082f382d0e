#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Completion as shells have it: bash's function called as bash does, fish asked by 'complete -C', zsh by the Tab key in a terminal (tmux).
# usage: completion.sh OSPITE ASM-FOLDER
set -u
ospite=$(realpath "$1")
source=$(realpath "$2")
passed=0
failed=0
command -v nasm >/dev/null || { echo "skipped: nasm is not installed"; exit 77; }
work=$(mktemp -d)
mkdir "$work/bin"
ln -s "$ospite" "$work/bin/ospite"
PATH=$work/bin:$PATH
OSPITE_ROOT=$work/root
export PATH OSPITE_ROOT
terminal=ospite-completion-$$
trap 'tmux -L $terminal kill-server 2>/dev/null; ospite kill --all --quiet 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 143' TERM INT HUP # by way of EXIT
cd "$work" || exit 1
nasm -f bin -o echo.bin "$source/echo.asm" || exit 1
touch 'a disk.qcow2'
for name in run-er off-er halt-er; do ospite create "$name" --kernel echo.bin --memory 4M --engine interp --quiet || exit 1; done
ospite start run-er --quiet && ospite start halt-er --quiet && ospite pause halt-er --quiet || exit 1
ospite net create lan --quiet || exit 1

result() { # WHAT EXPECTED GOT: all of EXPECTED, each a line of GOT; "!x" must not be one
	local want
	[ -z "$(sort <<<"$3" | uniq -d)" ] || { failed=$((failed + 1)); echo "FAILED: $1: twice: $(sort <<<"$3" | uniq -d)"; }
	for want in $2; do
		if case $want in !*) ! grep -qxF -- "${want#!}" <<<"$3" ;; *) grep -qxF -- "$want" <<<"$3" ;; esac; then
			passed=$((passed + 1))
		else
			failed=$((failed + 1))
			echo "FAILED: $1: expected $want of: ${3//$'\n'/ }"
		fi
	done
}

# shellcheck disable=SC1090 # what it prints
. <(ospite completion bash)
compopt() { :; } # only within a completion that is under way
# bash's words are cut at '=' and ':'
b() { # EXPECTED WORD...
	local expected=$1
	shift
	COMP_WORDS=(ospite "$@")
	COMP_CWORD=$#
	_ospite
	result "bash: ospite $*" "$expected" "$(printf '%s\n' "${COMPREPLY[@]}")"
}
b "start stop stats !suspend" st
b "run-er !off-er halt-er" stop ""
b "off-er !run-er !halt-er" start ""
b "run-er !halt-er !off-er" pause ""
b "halt-er !run-er !off-er" resume ""
b "off-er !run-er" clone ""
b "halt-er !run-er" stop run-er ""
b "off-er run-er halt-er" info ""
b "!run-er off-er" rm ""
b "run-er off-er" rm --force ""
b "--all --time --root --quiet --help !--memory" stop --
b "!--all --time" stop --all --
b "auto interp dbt" run --engine ""
b "interp !dbt" run --engine = i
b "interp dbt" engine run-er ""
b "create ls show capture start stop rm" net ""
b "lan" net show ""
b "--uplink --isolate" net create x --
b "user tap: bridge:" net create x --uplink ""
b "lan" run --net switch : ""
b "create info convert check" image ""
b "--to-format --compress" image convert --
b "raw qcow2 vmdk" image create x --format ""
b "create list rm" template ""
b "debian" template create ""
b "debian echo.bin" run ""
b "de fr us" run --keyboard ""
b "system_powerdown query-status" ctl run-er ""
b "run-er halt-er list !off-er" ctl ""
b "net0" set run-er --remove ""
b "net0=up net0=down" set run-er --link ""
b "memory= cpus= !detach=" config off-er --set ""
b "interp" config off-er --set engine = i
b "run-er: !off-er:" cp ""
b "bash zsh fish man" completion ""
b "set run" help ""

if command -v fish >/dev/null; then
	ospite completion fish >ospite.fish
	f() {
		result "fish: $2" "$1" "$(env HOME="$work" fish -c "source ospite.fish; complete -C '$2'" 2>&1 | cut -f 1)"
	}
	f "start stop" "ospite st"
	f "run-er halt-er !off-er" "ospite stop "
	f "--engine=interp !--engine=dbt" "ospite run --engine=i"
	f "echo.bin debian" "ospite run "
	f "lan" "ospite net rm "
else
	echo "fish is not installed: left out"
fi

if command -v zsh >/dev/null && command -v tmux >/dev/null; then
	ospite completion zsh >ospite.zsh
	zsh -n ospite.zsh || failed=$((failed + 1))
	t() { tmux -L $terminal "$@"; }
	t -f /dev/null new-session -d -x 150 -y 40 "env HOME=$work zsh -f"
	wait_for() { # TEXT: shown
		local i=0
		until t capture-pane -p | grep -qF -- "$1" || [ $i = 600 ]; do i=$((i + 1)); sleep 0.1; done
		result "zsh: $1" "found" "$([ $i = 600 ] && t capture-pane -p || echo found)"
	}
	t send-keys "PS1='ready> '; autoload -Uz compinit; compinit -u -D; source ./ospite.zsh; echo load''ed" Enter
	wait_for "loaded"
	t send-keys C-l "ospite pau" Tab
	wait_for "ospite pause"
	t send-keys Tab
	wait_for "ospite pause run-er"
	t send-keys C-u C-l "ospite net sh" Tab "l" Tab
	wait_for "ospite net show lan"
	t send-keys C-u C-l "ospite run --engine=in" Tab
	wait_for "--engine=interp"
else
	echo "zsh or tmux is not installed: left out"
fi
echo "$passed passed, $failed failed"
[ $failed = 0 ]
