#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A stock kernel under load, suspended and resumed again and again: writers that check what they wrote to disk and memory, timers,
connections through the NAT. Everything goes on, nothing is wrong. A damaged state is refused and left as it was.

By hand: suspend-cycles.py OSPITE linux-image-cloud-amd64 100 dbt. The seed of the waits is in what it prints.

usage: suspend-cycles.py OSPITE KERNEL-PACKAGE CYCLES ENGINE [SEED]
"""
import http.server, random, re, sys
from guestlib import *

MODULES = ["failover", "net_failover", "virtio_net", "virtio_blk", "button"]
SCRIPT = """
stty -echo
mkdir -p /t
mount -t tmpfs t /t
ip link set lo up
wait_for '[ -e /sys/class/net/eth0 ]'
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
count() { # a file that counts
	n=$(cat /t/$1)
	echo $((n + 1)) > /t/$1.new
	mv /t/$1.new /t/$1
}
for f in disk memory timer net bad; do echo 0 > /t/$f; done
disk() {
	i=0
	while :; do
		at=$((i %% 15))
		dd if=/dev/urandom of=/t/block bs=64k count=4 2>/dev/null
		dd if=/t/block of=/dev/vda bs=256k seek=$at conv=fsync,notrunc 2>/dev/null
		sum=$(md5sum < /t/block)
		echo 1 > /proc/sys/vm/drop_caches
		[ "$(dd if=/dev/vda bs=256k skip=$at count=1 2>/dev/null | md5sum)" = "$sum" ] || { count bad; echo "BAD disk"; }
		count disk
		i=$((i + 1))
	done
}
memory() {
	while :; do
		dd if=/dev/urandom of=/t/pages bs=64k count=16 2>/dev/null
		sum=$(md5sum < /t/pages)
		for k in 1 2 3; do
			cp /t/pages /t/copy
			[ "$(md5sum < /t/copy)" = "$sum" ] || { count bad; echo "BAD memory"; }
		done
		count memory
	done
}
timer() {
	before=0
	while sleep 0.05; do
		now=$(cut -d. -f1 /proc/uptime)
		[ $now -ge $before ] || { count bad; echo "BAD time goes back"; }
		before=$now
		count timer
	done
}
net() {
	while :; do
		printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 5 nc 10.0.2.2 %(port)d 2>/t/why | grep -q hello && count net
		sleep 0.1
	done
}
wait_for '[ -b /dev/vda ]'
disk & memory & timer & net &
echo "ready=1"
while read -r line; do
	echo "report $(cat /t/disk) $(cat /t/memory) $(cat /t/timer) $(cat /t/net) bad $(cat /t/bad)"
done
"""


class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *args):
        pass


def report(m):
    m.console.type("")
    return [int(n) for n in re.findall(r"\d+", m.console.wait("report "))]


def progress(m, before):
    """Until every one of them has done something since."""
    end = time.monotonic() + SECONDS
    while True:
        now = report(m)
        if now[4]:
            fail("%d mistakes" % now[4], m.console)
        if all(a > b for a, b in zip(now[:4], before)):
            return now
        if time.monotonic() > end:
            fail("one of disk, memory, timer and net stands still: %s, before %s" % (now, before), m.console)
        time.sleep(0.1)


def refused(m, work):
    """A state that was damaged: one line, and the file is as it was."""
    saved = work + "/root/machines/a/saved"
    with open(saved, "rb") as f:
        good = f.read()
    for bad in (good[:len(good) // 2], good[:4096] + bytes(64) + good[4160:], b"", b"x" * 5000):
        with open(saved, "wb") as f:
            f.write(bad)
        said = m("resume", status=125)
        if said.count("\n") != 1:
            fail("not one line: " + said)
        with open(saved, "rb") as f:
            if f.read() != bad:
                fail("a state that was refused has changed")
        m("info", text="suspended")
    with open(saved, "wb") as f:
        f.write(good)


def main():
    ospite, package, cycles, engine = os.path.abspath(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
    seed = int(sys.argv[5]) if len(sys.argv) > 5 else int.from_bytes(os.urandom(3), "little")
    print("seed %d" % seed, flush=True)
    rng = random.Random(seed)
    kernel, modules = kernel_of(package, MODULES[2:])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    work = work_folder()
    initramfs(work + "/initrd", modules, MODULES, SCRIPT % {"port": server.server_address[1]})
    with open(work + "/disk", "wb") as f:
        f.truncate(4 << 20)
    m = Folder(work, ospite, "a")
    m("create", "a", "--kernel", kernel, "--initrd", "initrd", "--append", "console=ttyS0 panic=-1 quiet", "--memory", "192M", "--cpus", "2",
      "--engine", engine, "--disk", "disk,bus=virtio")
    m("start")
    m.attach()
    m.console.wait("ready=1")
    counts = progress(m, [0, 0, 0, 0])
    longest = 0
    for n in range(cycles):
        time.sleep(rng.random() * 0.5)
        begin = time.monotonic()
        m("suspend")
        if n == 0:
            refused(m, work)
            begin = time.monotonic()
        m("resume")
        longest = max(longest, time.monotonic() - begin)
        m.attach()
        counts = progress(m, counts)
        if n % 10 == 9:
            print("%d cycles: %s" % (n + 1, counts), flush=True)
    m("kill")
    left = set(os.listdir(work + "/root/machines/a")) - {"vm.yaml", "running.yaml", "lock", "status", "console.log", "log", "agent.lock"}
    if left:
        fail("left in the folder: %s" % left)
    print("%d cycles, longest %.2f s; blocks on disk, in memory, timers, connections: %s" % (cycles, longest, counts[:4]))


main()
