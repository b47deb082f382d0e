#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A fixed short time of fuzzing from the checked-in corpus; new inputs are thrown away.
# usage: run.sh FUZZER CORPUS SECONDS. By hand, keeping what is found: FUZZER MY-FOLDER CORPUS
set -u
fuzzer=$(realpath "$1")
corpus=$(realpath "$2")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 143' TERM INT HUP # by way of EXIT
mkdir "$work/new"
cd "$work" || exit 1
"$fuzzer" -max_total_time="$3" -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 "$work/new" "$corpus" >"$work/log" 2>&1
status=$?
grep -E 'stat::number_of_executed_units|ERROR|SUMMARY' "$work/log"
if [ $status != 0 ]; then
	tail -n 40 "$work/log"
	for crash in crash-* oom-* timeout-*; do
		[ -f "$crash" ] && cp "$crash" /tmp/ && echo "input kept: /tmp/$crash"
	done
fi
exit $status
