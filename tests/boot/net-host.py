#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A machine on the host's own links, in namespaces of the test's: TAP interfaces (jumbo frames, virtio with a pair of queues for each
of two CPUs, and e1000), and networks whose uplinks are NAT, a TAP interface, a bridge. Large transfers with checksums both ways; limits
in both directions, of a network and of cards, and changed while it all runs; the guest announces itself after a restore; killed in the middle of it all, the machine leaves no interface, socket
or process.

usage: net-host.py OSPITE KERNEL-PACKAGE DATAGRAM-PROGRAM ENGINE [SECONDS]
SECONDS: of the limits' measurement; from 10 on they have to be reached within 5 %, too (for a host with nothing else to do).
"""
import fcntl, hashlib, os, shutil, socket, struct, subprocess, sys, threading, time
from guestlib import *

MODULES = ["failover", "net_failover", "virtio_net", "e1000"]
LIMIT = 5_000_000  # bytes a second: 40 Mbit/s
MIB = 4
# card of the guest, its address, the host's end and its address
CARDS = [("eth1", "10.9.1.2", "up0", "10.9.1.1"), ("eth2", "10.9.2.2", "br0", "10.9.2.1"), ("eth3", "10.9.3.2", "direct0", "10.9.3.1"),
         ("eth5", "10.9.4.2", "direct1", "10.9.4.1")]
JUMBO = {"up0": 9014, "direct0": 9014, "direct1": 9014}
SCRIPT = """
wait_for '[ -e /sys/class/net/eth5 ]'
ip link set lo up
ip link set eth0 up
cat > /bin/dhcp <<'END'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add $ip/24 dev $interface
echo "bound $ip $router"
END
chmod +x /bin/dhcp
udhcpc -i eth0 -n -q -t 20 -T 1 -s /bin/dhcp 2>/dev/null || echo "BAD dhcp"
ip link set eth4 up # drivers are loaded in turn: e1000 is the last
ip addr add 10.0.7.15/24 dev eth4
echo "mtu $(cat /sys/class/net/eth0/mtu /sys/class/net/eth1/mtu /sys/class/net/eth2/mtu /sys/class/net/eth3/mtu | tr '\\n' ' ')"
echo "queues $(ls -d /sys/class/net/eth3/queues/rx-* | wc -l)"
ip link set eth5 mtu 9000
%(addresses)s
dd if=/dev/urandom of=/tmp/data bs=1M count=%(mib)d 2>/dev/null
echo ready
read line
exchange() { # host's address, port, name
	wait_for "ping -c 1 -W 2 $1 >/dev/null"
	[ $3 = br0 ] || ping -c 1 -s 8972 -W 20 $1 >/dev/null || echo "BAD jumbo ping $3"
	datagram send $1 $4 10 8000
	(echo -n take; cat /tmp/data) | nc $1 $2
	(echo -n give; sleep 600) | nc $1 $2 > /tmp/got.$3 &
	wait_for "[ \\$(wc -c < /tmp/got.$3) = %(bytes)d ]"
	echo "exchanged $3 $(sha256sum /tmp/data | cut -c 1-64) $(sha256sum /tmp/got.$3 | cut -c 1-64)"
	rm /tmp/got.$3
}
%(exchanges)s
echo "interrupts $(grep 'virtio3-' /proc/interrupts | grep -v config | awk '{ print $2 + $3 }' | tr '\\n' ' ')"
transfer() { # what, host
	case $1 in
	*pull*) (echo -n pull; sleep 600) | nc $2 %(port)d > /dev/null & pids=$! ;;
	esac
	case $1 in
	*push*) (echo -n push; cat /dev/zero) | nc $2 %(port)d & pids="$pids $!" ;;
	esac
	echo "limited $1 $2"
	read line
	kill $pids
	pids=
}
transfer pull+push 10.1.1.2
for host in 10.1.1.2 10.9.3.1 10.0.7.2; do # by the switch, TAP, NAT
	transfer pull $host
	transfer push $host
done
ip link set eth0 down
echo quiet
read line
for n in 1 2 3 5; do ip neigh flush dev eth$n; done # the host's ends are new ones
(echo -n push; cat /dev/zero) | nc 10.9.3.1 %(port)d &
(echo -n push; cat /dev/zero) | nc 10.9.4.1 %(port)d &
(echo -n pull; sleep 600) | nc 10.9.1.1 %(port)d > /dev/null &
(echo -n push; cat /dev/zero) | nc 10.9.2.1 %(port)d &
echo transfers
cat
"""


def namespaces():
    if "OSPITE_TEST_NAMESPACES" not in os.environ:
        unshare = shutil.which("unshare") or skip("unshare is not installed")
        shutil.which("ip") or skip("ip is not installed")
        if subprocess.run([unshare, "-Urn", "true"], stderr=subprocess.DEVNULL).returncode:
            skip("no namespaces of our own here")
        os.environ["OSPITE_TEST_NAMESPACES"] = "1"
        os.execv(unshare, [unshare, "-Urn", sys.executable] + sys.argv)
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as e:
        skip("no TAP interfaces here: %s" % e)
    ip("link set lo up")


def ip(command):
    if subprocess.run(["ip"] + command.split()).returncode:
        fail("ip " + command)


class Server:
    """The first four bytes say what is wanted: `take` and `give` a file, `push` and `pull` without end."""

    def __init__(self, data):
        self.data, self.sums = data, queue.Queue()
        self.socket = socket.create_server(("", 0), backlog=64)
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            threading.Thread(target=self.serve, args=[self.socket.accept()[0]], daemon=True).start()

    def serve(self, s):
        try:
            with s:
                word = s.recv(4, socket.MSG_WAITALL)
                if word == b"give":
                    s.sendall(self.data)
                elif word == b"take":
                    sum = hashlib.sha256()
                    while part := s.recv(1 << 16):
                        sum.update(part)
                    self.sums.put(sum.hexdigest())
                while word == b"pull":
                    s.sendall(bytes(1 << 16))
                while word == b"push" and s.recv(1 << 18):
                    pass
        except OSError:
            pass  # it has gone


class Listener:
    """Sees the frames of an interface."""

    def __init__(self, name):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.bind((name, 0))
        self.socket.settimeout(SECONDS)

    def wait(self, what, test):
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            frame, at = self.socket.recvfrom(70000)
            if test(frame, at[2] == socket.PACKET_OUTGOING):
                return
        fail("not seen: " + what)


def until(what, test):
    end = time.monotonic() + SECONDS
    while not test():
        if time.monotonic() > end:
            fail("not in time: " + what)
        time.sleep(0.05)


def interfaces():
    return {name for _, name in socket.if_nameindex()}


def received(name):
    """Bytes, as of this namespace."""
    with open("/proc/net/dev") as f:
        return int([line.split(":")[1].split()[0] for line in f if line.split(":")[0].strip() == name][0])


def check_limits(counters, limits, seconds, m):
    """Bytes that passed between two looks; each look was somewhere between two readings of the clock."""
    def look():
        before = time.monotonic()
        seen = counters()
        return before, time.monotonic(), seen

    def moving():
        a = look()[2]
        time.sleep(0.1)
        b = look()[2]
        return all(b[way] > a[way] + limits[way] / 100 for way in limits)
    until("all transfers", moving)
    a = look()
    time.sleep(seconds)
    b = look()
    for way, limit in limits.items():
        n = b[2][way] - a[2][way]
        print("limit %s: %.4f of %d in %.1f s" % (way, n / limit / (b[0] - a[0]), limit, b[0] - a[0]))
        if n > (b[1] - a[0]) * limit * 1.05 + limit * 0.1:
            fail("limit %s: %d bytes in %.2f s" % (way, n, b[1] - a[0]), m)
        if seconds >= 10 and n < (b[0] - a[1]) * limit * 0.95:
            fail("limit %s: only %d bytes in %.2f s" % (way, n, b[0] - a[1]), m)


def check_live(control, name, way, seconds, m):
    """A limit lowered and raised in the middle of a transfer."""
    def card():
        return [c for c in control.ask("ospite-query-networks") if c["name"] == name][0]

    def counters():
        return {way: card()["sent-bytes" if way == "in" else "received-bytes"]}
    for limit in (LIMIT // 2, LIMIT * 9 // 10):
        control.ask("ospite-net-set-limits", name=name, **{way: limit})
        check_limits(counters, {way: limit}, seconds if seconds >= 10 else seconds / 2, m)
        if card()["limit-" + way] != limit:
            fail("another limit: %s" % card())
    if "error" not in control.ask("ospite-net-set-limits", name=name, out=5) or "error" not in control.ask("ospite-net-set-limits", name="net9"):
        fail("a limit that is none")
    control.ask("ospite-net-set-limits", name=name, **{way: 0})


def processes(word):
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % pid, "rb") as f:
                if word.encode() in f.read() and int(pid) != os.getpid():
                    found.append(pid)
        except OSError:
            pass
    return found


def switches(word):
    return [pid for pid in processes(word) if open("/proc/%s/comm" % pid).read() == "ospite-net\n"]


def main():
    ospite, package, program, engine = os.path.realpath(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
    seconds = int(sys.argv[5]) if len(sys.argv) > 5 else 2
    kernel, modules = kernel_of(package, MODULES)
    namespaces()
    work = work_folder()
    os.environ["OSPITE_ROOT"] = work
    data = os.urandom(MIB << 20)
    server, echo = Server(data), udp_echo()
    exchanges = "".join("exchange %s %d %s %d\n" % (host, server.port, name, echo) for _, _, name, host in CARDS)
    addresses = "".join("ip link set %s up\nip addr add %s/24 dev %s\n" % (card, own, card) for card, own, _, _ in CARDS)
    initramfs(work + "/initrd", modules, MODULES, SCRIPT % {"addresses": addresses, "exchanges": exchanges, "mib": MIB, "bytes": MIB << 20,
                                                            "port": server.port}, [("/bin/datagram", program)])

    def net(*command):
        p = subprocess.run([ospite, "net"] + list(command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=SECONDS)
        return p.stdout if not p.returncode else fail("%s: %s" % (command, p.stderr))

    def show(name):
        return json.loads(net("show", name, "--json"))
    ip("link add br0 type bridge")
    ip("link set br0 up")
    ip("tuntap add dev direct0 mode tap vnet_hdr")  # there before and after; direct1 comes and goes with the machine
    net("create", "nat", "--uplink", "user", "--limit-in", "40Mbit")
    net("create", "wire", "--uplink", "tap:up0,mtu=9000")
    net("create", "bridged", "--uplink", "bridge:br0")
    before = interfaces()
    command = [ospite, "run", "--engine", engine, "--kernel", kernel, "--initrd", work + "/initrd", "--append", "console=ttyS0 quiet panic=-1", "--no-reboot", "--control", work + "/control"]
    for card in ("switch:nat,limit-out=40Mbit", "switch:wire,mtu=9000", "switch:bridged", "tap:direct0,mtu=9000",
                 "tap:direct1,model=e1000,mtu=9000", "user"):
        command += ["--net", card]

    def start(*more):
        m = Machine(work, command + list(more))
        m.control = Control(work + "/control", m)
        for _, _, name, host in CARDS:
            subprocess.run(["ip", "addr", "add", host + "/24", "dev", name], stderr=subprocess.DEVNULL)  # some have it still
        return m
    m = start("--memory", "256M", "--cpus", "2", "--save-to", work + "/saved")
    if m.wait("bound").split()[1:] != ["10.1.1.15", "10.1.1.2"]:
        fail("the address by the uplink", m)
    if m.wait("mtu").split()[1:] != ["1500", "9000", "1500", "9000"]:
        fail("the guest's MTUs", m)
    if m.wait("queues").split()[1] != "2":
        fail("not a pair of queues for each CPU", m)
    m.wait("ready")
    listeners = [(name, Listener(name)) for name in JUMBO]
    m.type("")
    for _, _, name, _ in CARDS:
        words = m.wait("exchanged " + name).split()
        if server.sums.get(timeout=SECONDS) != words[2]:
            fail("what the guest sent by %s is something else" % name, m)
        if hashlib.sha256(data).hexdigest() != words[3]:
            fail("what the guest received by %s is something else" % name, m)
    for name, listener in listeners:
        for way in (False, True):
            listener.wait("a frame of %d bytes %s the guest by %s" % (JUMBO[name], "to" if way else "from", name),
                          lambda frame, out: len(frame) == JUMBO[name] and out == way)
        listener.socket.close()
    if m.wait("interrupts").split().count("0") > 2:  # of two pairs: all of a flow may be on one
        fail("queues nobody uses", m)
    m.wait("limited")

    def port_counters():
        port = [p for p in show("nat")["ports"] if p["kind"] == "member"][0]
        return {way: port[way + "-bytes"] for way in ("in", "out")}
    check_limits(port_counters, {"in": LIMIT, "out": LIMIT}, seconds, m)
    for name, host in (("net0", "10.1.1.2"), ("net3", "10.9.3.1"), ("net5", "10.0.7.2")):
        for what, way in (("pull", "out"), ("push", "in")):
            m.type("")
            m.wait("limited %s %s" % (what, host))
            check_live(m.control, name, way, seconds, m)
    m.type("")
    m.wait("quiet")

    found = switches(work)
    if len(found) != 3:
        fail("switches: %s" % found)
    for pid in found:
        with open("/proc/%s/status" % pid) as f:
            status = dict(line.split(":\t") for line in f.read().splitlines() if ":\t" in line)
        if int(status["CapEff"], 16) or int(status["CapPrm"], 16) or status["NoNewPrivs"] != "1" or status["Seccomp"] != "2":
            fail("a switch that is not confined: %s" % status)

    # somewhere else, for all the bridges know
    m.control.ask("ospite-suspend")
    m.end()
    if "direct1" in interfaces() or "direct0" not in interfaces():
        fail("interfaces after the machine's end: %s" % interfaces())
    until("the switches' ends", lambda: not any(n["running"] for n in json.loads(net("ls", "--json"))))
    listener = Listener("direct0")
    m = start("--restore", work + "/saved")
    listener.wait("the guest's announcement", lambda frame, out: not out and frame[12:14] == b"\x08\x06" and frame[28:32] == frame[38:42] ==
                  socket.inet_aton("10.9.3.2"))
    m.type("")
    m.wait("transfers")
    until("transfers on all links", lambda: all(received(name) > 1 << 20 for name in ("br0", "direct0", "direct1")))
    m.kill()
    until("the switches' ends", lambda: not any(n["running"] for n in json.loads(net("ls", "--json"))))
    until("the interfaces' ends", lambda: interfaces() == before)
    until("the processes' ends", lambda: not processes(work))
    if [n for n in ("nat", "wire", "bridged") if os.path.exists("%s/networks/%s/switch" % (work, n))]:
        fail("a socket was left behind")


main()
