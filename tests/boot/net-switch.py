#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Machines on networks of `ospite net`: two reach each other, also by a VLAN, and not a third on another network or VLAN; a limit
holds; a capture shows what passed; a machine killed in the middle leaves nothing; the switch ends with its last machine.

usage: net-switch.py OSPITE KERNEL-PACKAGE ENGINE
"""
import hashlib, json, os, struct, subprocess, sys, time
from guestlib import *

MODULES = ["failover", "net_failover", "virtio_net"]
MIB, LIMIT = 8, 6.25e6  # 50 Mbit/s
SCRIPT = """
me=$(sed 's/.*me=\\([0-9]*\\).*/\\1/' /proc/cmdline)
wait_for '[ -e /sys/class/net/eth1 ]'
ip link set lo up
for n in 0 1; do
	ip link set eth$n up
	ip addr add 10.9.$n.$me/24 dev eth$n
done
reach() { ping -c 1 -W 2 $1 >/dev/null 2>&1; }
if [ $me = 1 ]; then
	dd if=/dev/urandom of=/tmp/data bs=1M count=%d 2>/dev/null
	httpd -p 80 -h /tmp
	echo "sum $(sha256sum /tmp/data | cut -c 1-64)"
elif [ $me = 2 ]; then
	wait_for 'reach 10.9.0.1'
	wait_for 'reach 10.9.1.1'
	echo "reached"
	reach 10.9.0.3 && echo "BAD another network"
	reach 10.9.1.3 && echo "BAD another VLAN"
	echo "alone"
	start=$(cut -d ' ' -f 1 /proc/uptime)
	wget -q -O /tmp/got http://10.9.0.1/data || echo "BAD wget"
	echo "took $start $(cut -d ' ' -f 1 /proc/uptime)"
	echo "sum $(sha256sum /tmp/got | cut -c 1-64)"
	echo looping
	while :; do wget -q -O /dev/null http://10.9.0.1/data; done
fi
echo ready
read line
poweroff -f
""" % MIB


def run(command, *more, status=0):
    p = subprocess.run(command + list(more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=SECONDS)
    if p.returncode != status:
        fail("%s: status %d: %s" % (more, p.returncode, p.stderr))
    return p.stdout


def until(what, test):
    end = time.monotonic() + SECONDS
    while not test():
        if time.monotonic() > end:
            fail("not in time: " + what)
        time.sleep(0.1)


def main():
    ospite, package, engine = os.path.realpath(sys.argv[1]), sys.argv[2], sys.argv[3]
    kernel, modules = kernel_of(package, MODULES)
    work = work_folder()
    os.environ["OSPITE_ROOT"] = work
    net = [ospite, "net"]
    initramfs(work + "/initrd", modules, MODULES, SCRIPT)

    def machine(me, *cards):
        command = [ospite, "run", "--engine", engine, "--kernel", kernel, "--initrd", work + "/initrd", "--memory", "192M",
                   "--append", "console=ttyS0 quiet panic=-1 me=%d" % me, "--no-reboot"]
        for card in cards:
            command += ["--net", card]
        return Machine(work, command)

    if "ospite net create lab" not in subprocess.run([ospite, "run", "--kernel", kernel, "--net", "switch:lab"], stderr=subprocess.PIPE,
                                                      text=True, timeout=SECONDS).stderr:
        fail("a network that is not there is not named with its remedy")
    run(net, "create", "lab")
    run(net, "create", "other")
    one = machine(1, "switch:lab", "switch:lab,vlan=5")
    three = machine(3, "switch:other", "switch:lab,vlan=6")
    sum = one.wait("sum").split()[-1]
    one.wait("ready")
    three.wait("ready")
    capture = subprocess.Popen(net + ["capture", "lab", work + "/pcap", "--count", "100"], stderr=subprocess.DEVNULL)
    atexit.register(capture.kill)
    until("capture", lambda: os.path.exists(work + "/pcap") and os.path.getsize(work + "/pcap") >= 24)
    two = machine(2, "switch:lab,limit-out=50Mbit", "switch:lab,vlan=5")
    two.wait("reached")
    two.wait("alone")
    times = two.wait("took").split()
    seconds = float(times[-1]) - float(times[-2])
    if (MIB << 20) > (seconds + 0.12) * LIMIT * 1.05:  # a tenth of a second's worth may come at once
        fail("%d MiB in %.2f s: the limit did not hold" % (MIB, seconds), two)
    if two.wait("sum").split()[-1] != sum:
        fail("something else arrived", two)
    if capture.wait(SECONDS):
        fail("capture: status %d" % capture.returncode)
    with open(work + "/pcap", "rb") as f:
        if struct.unpack("<I", f.read(4))[0] != 0xa1b23c4d or len(f.read()) < 100 * 16:
            fail("that is no capture")

    two.wait("looping")

    def members(name="lab"):
        return json.loads(run(net, "show", name, "--json"))
    if members()["members"] != 5 or members("other")["members"] != 1:
        fail("not all are there")
    if "machines are on network lab" not in subprocess.run(net + ["rm", "lab"], stderr=subprocess.PIPE, text=True).stderr:
        fail("a network in use was removed")
    two.kill()
    until("the killed one's ports", lambda: members()["members"] == 3)
    for m in (one, three):
        m.type("")
        m.end()
    until("the switches' ends", lambda: not any(n["running"] for n in json.loads(run(net, "ls", "--json"))))
    if os.path.exists(work + "/networks/lab/switch"):
        fail("the socket was left behind")
    run(net, "rm", "lab", "other")
    if run(net, "ls", "--quiet"):
        fail("networks were left behind")


main()
