#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Machines on networks of `ospite net`: two reach each other, also by a VLAN, and not a third on another network or VLAN; frames of
9000 bytes pass whole, by IPv4 and IPv6, between virtio cards and between e1000s; a limit holds; a capture shows what passed; a switch
killed in the middle of a transfer is waited for, and the transfers go on; a machine killed then leaves nothing; the switch ends with
its last machine.

usage: net-switch.py OSPITE KERNEL-PACKAGE ENGINE
"""
import hashlib, json, os, signal, struct, subprocess, sys, time
from guestlib import *

MODULES = ["failover", "net_failover", "virtio_net", "e1000"]
JUMBO = 8900  # bytes of a ping
MIB, LIMIT = 8, 6.25e6  # 50 Mbit/s
SCRIPT = """
me=$(sed 's/.*me=\\([0-9]*\\).*/\\1/' /proc/cmdline)
wait_for '[ -e /sys/class/net/eth1 ]'
ip link set lo up
for n in 0 1; do
	ip link set eth$n up
	ip addr add 10.9.$n.$me/24 dev eth$n
done
if [ $me != 3 ]; then
	wait_for '[ -e /sys/class/net/eth3 ]'
	for n in 2 3; do
		ip link set eth$n mtu 9000
		ip link set eth$n up
		ip addr add 10.9.$n.$me/24 dev eth$n
		ip -6 addr add fd00:$n::$me/64 dev eth$n
	done
fi
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
	for to in 10.9.2.1 10.9.3.1 fd00:2::1 fd00:3::1; do
		wait_for "reach $to"
		ping -c 1 -W 30 -s %d $to >/dev/null || echo "BAD jumbo ping $to"
	done
	echo "jumbo"
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
""" % (MIB, JUMBO)


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


def check_whole(path):
    """Pings and their answers, of both protocols, by each of the four cards, uncut."""
    lengths = {}
    with open(path, "rb") as f:
        f.read(24)
        while head := f.read(16):
            kept, whole = struct.unpack("<8xII", head)
            frame = f.read(kept)
            if whole > 1514:
                lengths.setdefault(frame[6:12], set()).add(whole)
    whole = {14 + 20 + 8 + JUMBO, 14 + 40 + 8 + JUMBO}
    if len(lengths) != 4 or any(not whole <= got for got in lengths.values()):
        fail("jumbo frames: not all passed whole: %s" % lengths)


def kill_switch(word):
    """Of the network that the machine with that word in its command line started."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/comm" % pid) as name, open("/proc/%s/cmdline" % pid, "rb") as line:
                if name.read() == "ospite-net\n" and word in (text := line.read()) and os.environ["OSPITE_ROOT"].encode() in text:
                    found.append(int(pid))
        except OSError:
            pass
    if len(found) != 1:
        fail("the switch's processes: %s" % found)
    os.kill(found[0], signal.SIGKILL)


def sum_of(network, counter):
    return sum(port[counter] for port in network.get("ports", []))


def main():
    ospite, package, engine = os.path.realpath(sys.argv[1]), sys.argv[2], sys.argv[3]
    kernel, modules = kernel_of(package, MODULES)
    work = work_folder()
    os.environ["OSPITE_ROOT"] = work
    jumbo = ["switch:lab,vlan=7,mtu=9000", "switch:lab,vlan=8,mtu=9000,model=e1000"]
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
    one = machine(1, "switch:lab", "switch:lab,vlan=5", *jumbo)
    three = machine(3, "switch:other", "switch:lab,vlan=6")
    sum = one.wait("sum").split()[-1]
    one.wait("ready")
    three.wait("ready")
    capture = subprocess.Popen(net + ["capture", "lab", work + "/pcap", "--count", "100"], stderr=subprocess.DEVNULL)
    atexit.register(capture.kill)
    whole = subprocess.Popen(net + ["capture", "lab", work + "/whole"], stderr=subprocess.DEVNULL)
    atexit.register(whole.kill)
    until("captures", lambda: all(os.path.exists(work + name) and os.path.getsize(work + name) >= 24 for name in ("/pcap", "/whole")))
    until("capture", lambda: os.path.exists(work + "/pcap") and os.path.getsize(work + "/pcap") >= 24)
    two = machine(2, "switch:lab,limit-out=50Mbit", "switch:lab,vlan=5", *jumbo)
    two.wait("reached")
    two.wait("alone")
    two.wait("jumbo")
    whole.send_signal(signal.SIGINT)
    whole.wait(SECONDS)
    check_whole(work + "/whole")
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
    if members()["members"] != 9 or members("other")["members"] != 1:
        fail("not all are there")
    kill_switch(b"me=1")
    until("the switch's end", lambda: not members()["running"])
    run(net, "start", "lab")
    until("all members again", lambda: members()["members"] == 9)
    until("transfers again", lambda: sum_of(members(), "out-bytes") > MIB << 20)
    if "machines are on network lab" not in subprocess.run(net + ["rm", "lab"], stderr=subprocess.PIPE, text=True).stderr:
        fail("a network in use was removed")
    two.kill()
    until("the killed one's ports", lambda: members()["members"] == 5)
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
