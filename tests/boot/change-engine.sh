#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A guest is asked through the control socket to go on under other engines, and finishes as if nothing had been.
# usage: change-engine.sh OSPITE IMAGE      (IMAGE: the bare-metal guest endless64, which goes on until told)
set -u
command -v python3 >/dev/null || { echo "skipped: no python3"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 143' TERM INT HUP # by way of EXIT
timeout 50 python3 - "$work/c" <<'END' >"$work/talk" 2>&1 &
import json, socket, sys, time
print('ready', flush=True)
for _ in range(1000):
    try:
        s = socket.socket(socket.AF_UNIX)
        s.connect(sys.argv[1])
        break
    except OSError:
        time.sleep(0.005)
f = s.makefile("rw")
def ask(name, **arguments):
    f.write(json.dumps({"execute": name, "arguments": arguments}))
    f.flush()
    while True:
        reply = json.loads(f.readline())
        if "event" not in reply:
            return reply
f.readline()
ask("qmp_capabilities")
while ask("query-status")["return"]["status"] == "prelaunch":
    time.sleep(0.005)
for engine in ["dbt", "interp", "dbt"]:
    assert ask("ospite-change-engine", engine=engine)["return"]["engine"] == engine, engine
    assert ask("query-status")["return"]["status"] == "running"
assert "no engine" in ask("ospite-change-engine", engine="steam")["error"]["desc"]
ask("stop")
assert ask("ospite-change-engine", engine="interp")["return"]["engine"] == "interp"
assert ask("query-status")["return"]["status"] == "paused", "a paused machine stays paused"
ask("cont")
print("fine")
END
talk=$!
until grep -q ready "$work/talk" || ! kill -0 $talk 2>/dev/null; do sleep 0.05; done
mkfifo "$work/in"
exec 3<>"$work/in"
timeout 60 "$1" run --engine interp --kernel "$2" --memory 16M --exit-port 0xf4 --no-reboot --control "$work/c" \
	<"$work/in" 3>&- >"$work/out" 2>"$work/err" &
vm=$!
wait $talk
echo >&3
wait $vm
status=$?
if [ $status != 1 ] || ! grep -q fine "$work/talk" || ! grep -q '^PASS' "$work/out"; then
	echo "failed: exit status $status"
	tail -n 20 "$work/talk" "$work/out" "$work/err"
	exit 1
fi
exit 0
