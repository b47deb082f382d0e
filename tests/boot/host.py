#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""ospite on a host of its own: a Debian with systemd as a guest, the package installed there by apt, machines in it, as root and as a user: units,
control groups, a reboot of that host, removal of the package. What runs in there is translated twice: it takes a minute.

usage: host.py OSPITE SOURCE-FOLDER BUILD-FOLDER KERNEL-PACKAGE
"""
import os, shutil, subprocess, sys, time
from guestlib import *

ospite, source, build = [os.path.abspath(p) for p in sys.argv[1:4]]
MODULES = ["failover", "net_failover", "virtio_net"]

# The machine in the machine: by the network it reaches its host, and says so when asked.
INNER = """
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up || echo "no network"
route add default gw 10.0.2.2
echo inner ready
while read word; do
	case $word in
	get) echo "got $(wget -q -O - http://10.0.2.2:8000/word) uptime $(cut -d. -f1 /proc/uptime)" ;;
	off) poweroff -f ;;
	esac
done
"""

# What the commands below use: pid and group of a machine; a word typed at its console, and its answer awaited.
TOOLS = r"""
pid() { ospite ps --json | tr -d ' ",' | awk -F: -v n="$1" '$1 == "name" { hit = $2 == n } $1 == "pid" && hit { print $2 }'; }
group() { echo "/sys/fs/cgroup$(cut -d: -f3 "/proc/$(pid "$1")/cgroup")"; }
until_true() { n=0; until eval "$1"; do n=$((n + 1)); [ $n -lt 1000 ] || { echo "not there: $1"; return 1; }; sleep 0.2; done; }
say() {
	{ echo "$2"; sleep 600; } | ospite console "$1" >/dev/null 2>&1 &
	until_true "ospite logs $1 | grep -q '$3'" || { ospite logs "$1" | tail -5; exit 1; }
	kill $!
}
is() { [ "$1" = "$2" ] || { echo "line: $3: '$1', expected '$2'"; exit 1; }; }
quota() { cut -d' ' -f1 "$(group "$1")/cpu.max"; }
"""

ROOT = r"""
mkdir -p /srv/guests/www
cp /root/echo.bin /root/kernel /root/initrd /srv/guests
echo answered >/srv/guests/www/word
cd /srv/guests
ospite create web --kernel echo.bin --memory 4M
systemctl enable -q --now ospite@web
is "$(systemctl is-active ospite@web)" active started
is "$(systemctl show ospite@web -p MainPID --value)" "$(pid web)" 'main process'
is "$(stat -c %U "/proc/$(pid web)/")" ospite 'whose process'
# its group is systemd's
ospite set web --cpu-quota 50% --memory-max 200M
is "$(group web)" /sys/fs/cgroup/system.slice/system-ospite.slice/ospite@web.service 'still in its unit'
is "$(quota web)" 50000 quota
is "$(cat "$(group web)/memory.max")" 209715200 max
ospite stop web
until_true '[ "$(systemctl is-active ospite@web)" = inactive ]' # not failed
ospite start web --quiet && ospite stop web --quiet # a second time, by hand: the lock is another user's
# a group of its own
ospite create lim --kernel echo.bin --memory 4M --cpu-weight 50 --cpu-quota 50% --memory-max 100M
ospite start lim
is "$(group lim)" "/sys/fs/cgroup/ospite/vm-$(pid lim)" group
is "$(cat "$(group lim)/cpu.weight") $(quota lim) $(cat "$(group lim)/memory.max")" '50 50000 104857600' limits
ospite set lim --cpu-weight 70 --cpu-quota none --memory-max 200M
is "$(cat "$(group lim)/cpu.weight") $(quota lim) $(cat "$(group lim)/memory.max")" '70 max 209715200' 'limits, live'
! ospite set lim --memory-max 1M 2>/dev/null
systemctl daemon-reload
is "$(cat "$(group lim)/cpu.weight") $(cat "$(group lim)/memory.max")" '70 209715200' 'limits after daemon-reload'
ospite stop lim
until_true '[ -z "$(ospite ps --quiet; ls /sys/fs/cgroup/ospite | grep vm-)" ]'
# two who end it at once: nobody kills it
systemctl start ospite@lim
ospite stop lim --quiet & ospite stop lim --quiet || :
wait
ospite info lim | grep -q 'the guest powered off'
# killed: seen as crashed, by systemd too
systemctl start ospite@lim
kill -9 "$(pid lim)"
until_true '[ "$(systemctl is-active ospite@lim)" = failed ]'
ospite ps --all | grep -q '^lim *crashed'
systemctl reset-failed ospite@lim
"""

USER = r"""
ospite doctor | grep -q 'each machine sees its own files only'
ospite create lim --kernel echo.bin --memory 4M --cpu-weight 50 --cpu-quota 50% --memory-max 100M
ospite start lim
is "$(basename "$(group lim)")" "ospite-$(pid lim).scope" 'a scope of the user'"'"'s systemd'
is "$(cat "$(group lim)/cpu.weight") $(quota lim) $(cat "$(group lim)/memory.max")" '50 50000 104857600' limits
ospite set lim --cpu-weight 70 --cpu-quota none
is "$(cat "$(group lim)/cpu.weight") $(quota lim)" '70 max' 'limits, live'
ospite stop lim
until_true '[ -z "$(systemctl --user list-units --all --no-legend "ospite-*")" ]'
ospite set lim --cpu-quota 10% # this guest never halts
ospite start lim
"""

BEFORE = r"""
cd /srv/guests
ospite create net ./kernel --initrd initrd --memory 96M --net user
ospite start net
until_true 'ospite logs net | grep -q "inner ready"'
systemd-run -q --unit=www busybox httpd -f -p 8000 -h /srv/guests/www
say net get 'got answered'
[ -n "$(ls /var/lib/ospite/kernels-ospite)" ] || { echo 'no unpacked kernel is kept'; exit 1; }
ospite suspend net
ospite create auto --kernel echo.bin --memory 4M --autostart
systemctl enable -q --now ospite-autostart
systemctl start ospite@web
ospite start lim
kill -STOP "$(pid lim)" # it does not notice the button
"""

AFTER = r"""
ospite ps --all
is "$(systemctl is-active ospite@web) $(systemctl is-active ospite-autostart) $(systemctl is-system-running)" 'active active running' units
is "$(ospite ps --all --json | tr -d ' ",' | awk -F: '$1 == "name" { n = $2 } $1 == "state" { printf "%s=%s ", n, $2 }')" \
	'auto=running lim=inactive net=suspended web=running ' states # all ended in good order, as far as they could
[ ! -e /var/lib/ospite/machines/net/control ] || exit 1
systemd-run -q --unit=www busybox httpd -f -p 8000 -h /srv/guests/www
echo anew >/srv/guests/www/word
ospite stop web auto # they never halt
ospite start net
say net get 'got anew'
ospite start lim
sync
seconds=$(ospite logs net | sed -n 's/.*got anew uptime //p')
[ "$seconds" -gt 0 ]
"""

CUT = r"""
is "$(ospite ps --all --json | tr -d ' ",' | awk -F: '$1 == "name" { n = $2 } $1 == "state" { printf "%s=%s ", n, $2 }')" \
	'auto=running lim=crashed net=crashed web=running ' states
[ -S /var/lib/ospite/machines/net/control ] || { echo 'nothing stale to look at'; exit 1; }
ospite stop web auto
ospite start net
until_true 'ospite logs net | grep -c "inner ready" | grep -q 2'
ospite start lim
is "$(ls /var/lib/ospite/kernels-ospite | wc -l)" 1 'kernels kept: those of other boots of the host are not'
"""

GONE = r"""
: >>/var/lib/ospite/kvm-speed # as where KVM was measured
apt-get purge -y -q ospite >/tmp/purge 2>&1 || { cat /tmp/purge; exit 1; }
is "$(ls -d /usr/bin/ospite /lib/systemd/system/ospite@.service /usr/share/doc/ospite /sys/fs/cgroup/ospite /var/lib/ospite/kvm-speed /var/lib/ospite/kernels* /etc/systemd/system/*.wants/ospite@* /etc/systemd/system/*.wants/ospite-autostart* 2>/dev/null || :)" '' 'what is left'
is "$(pgrep -u ospite || :)" '' 'processes left'
is "$(grep -l '"state": "running"' /var/lib/ospite/machines/*/status || :)" '' 'machines that were not told'
"""


def main():
    os.geteuid() == 0 or skip("packages are made and taken apart by root")
    for program in ["dpkg-shlibdeps", "nasm"]:
        shutil.which(program) or skip(program + " is not installed")
    mirror() or skip("no mirror is reached from here: apt in the guest has nothing to install from")
    begun = time.monotonic()
    work = work_folder()
    debian_root(work)
    os.chdir(work)
    kernel, modules = kernel_of(sys.argv[4], MODULES)
    initramfs(work + "/initrd", modules, MODULES, INNER)
    shutil.copy(kernel, work + "/kernel")
    make("nasm", "-f", "bin", "-o", "echo.bin", source + "/tests/boot/guest/echo.asm")
    make(source + "/scripts/deb", build, work)

    def run(*command, seconds=SECONDS):
        r = subprocess.run([ospite] + list(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           timeout=seconds + 30)
        text = r.stdout.decode(errors="replace")
        if r.returncode:
            fail("ospite %s: status %d: %s" % (" ".join(command)[:200], r.returncode, text))
        return text

    def host(what, script, user=None, seconds=600):
        with open("script", "w") as f:
            f.write("set -eu\n" + TOOLS + script + "\necho all of it\n")
        run("cp", "--quiet", "script", "host:/tmp/script")
        command = "sh /tmp/script" if not user else "su - %s -c 'sh /tmp/script'" % user
        text = run("exec", "--time", str(seconds), "host", "--", "sh", "-c", command + " 2>&1 || :", seconds=seconds)
        "all of it" in text or fail("%s, on the host that is a guest:\n%s" % (what, text))
        print("passed: %s (%d s)" % (what, time.monotonic() - begun), flush=True)
        return text

    def up():
        run("exec", "--time", "300", "host", "--", "systemctl", "is-system-running", "--wait", seconds=300)

    def boot_id():
        return subprocess.run([ospite, "exec", "--time", "300", "host", "--", "cat", "/proc/sys/kernel/random/boot_id"], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, timeout=330).stdout.decode().strip()

    def reboot(how):
        before = boot_id()
        how()
        while boot_id() in ("", before):
            pass
        up()
        print("up again (%d s)" % (time.monotonic() - begun), flush=True)

    try:
        run("run", "--detach", "debian", "host", "--memory", "1G", "--cpus", "2")
        up()
        for name in [n for n in os.listdir(".") if n.endswith(".deb")] + ["kernel", "initrd", "echo.bin"]:
            run("cp", "--quiet", name, "host:/root/" + name)
        host("apt", "cd /root; { apt-get update && apt-get install -y --no-install-recommends dbus-user-session ./ospite_*.deb; } >log 2>&1 || cat log\n"
             "ospite doctor | grep -q 'machines with a folder run as user ospite'\nuseradd -m ann\ncp echo.bin ~ann/")
        host("units and control groups", ROOT)
        host("a user", USER, "ann")
        host("before the reboot", BEFORE)
        reboot(lambda: subprocess.run([ospite, "exec", "host", "--", "systemctl", "reboot"], stderr=subprocess.DEVNULL))
        host("after the reboot", AFTER)
        reboot(lambda: run("reset", "host"))
        host("after a power cut", CUT)
        host("the user afterwards", "ospite ps --all | grep -q '^lim *\\(inactive\\|crashed\\)'\nospite start lim\nospite rm --force lim", "ann")
        host("the package removed", GONE)
        run("kill", "host")
    finally:
        subprocess.run([ospite, "kill", "--all", "--quiet"], stderr=subprocess.DEVNULL)
    print("passed")


main()
