#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The stock kernel's virtio_net (or e1000) on the user network: DHCP, name server, TCP and UDP both ways through NAT and forwards,
IPv6, checksums of large transfers, the same after saving and restoring; and a machine killed in the middle leaves neither port nor process.

It runs in network and mount namespaces of its own where the host allows that: with a name server of its own there.

usage: net.py OSPITE KERNEL-PACKAGE DATAGRAM-PROGRAM ENGINE [RUN-OPTION...]
"""
import fcntl, hashlib, os, shutil, socket, struct, subprocess, sys, threading, time
from guestlib import *

MODULES = ["e1000"] if "model=e1000" in sys.argv[-1] else ["failover", "net_failover", "virtio_net"]
MIB = 16
SCRIPT = """
cat > /bin/dhcp <<'END'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add $ip/24 dev $interface
ip route add default via $router
echo "nameserver $dns" > /etc/resolv.conf
echo "bound $ip $router $dns"
END
chmod +x /bin/dhcp
mkdir -p /etc
ip link set lo up
wait_for '[ -e /sys/class/net/eth0 ]'
ip link set eth0 up
udhcpc -i eth0 -n -q -t 20 -T 1 -s /bin/dhcp >/dev/null 2>/tmp/dhcp || { cat /tmp/dhcp; echo "BAD dhcp"; }
grep -q 10.0.2.3 /etc/resolv.conf && echo "dhcp $(ip -4 addr show eth0 | grep -o 'inet [0-9.]*')"
cat /sys/class/net/eth0/address
wait_for 'ip -6 addr show dev eth0 scope global | grep -q fd6f'
wait_for 'ip -6 route | grep -q default'
echo "six $(ip -6 addr show dev eth0 scope global | grep -o 'fd6f[0-9a-f:]*')"
ping -c 1 -W 10 10.0.2.2 >/dev/null && echo pinged
%(before)s
httpd -p 80 -h /tmp
datagram echo 5353 &
echo serving
%(after)s
"""


def pattern(n):
    return b"".join(hashlib.sha256(b"%d" % i).digest() for i in range(n // 32))


class Server:
    """Gives `data` to who connects and asks for it, takes what else comes, and remembers its checksum."""

    def __init__(self, data, family=socket.AF_INET):
        self.data, self.sums, self.held = data, queue.Queue(), queue.Queue()
        self.socket = socket.socket(family)
        self.socket.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        self.socket.listen(64)
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            threading.Thread(target=self.serve, args=[self.socket.accept()[0]], daemon=True).start()

    def serve(self, s):
        with s:
            word = s.recv(4, socket.MSG_WAITALL)
            if word == b"give":
                s.sendall(self.data)
                return
            if word == b"wait":
                self.held.put(b"wait")
                s.recv(1)
                return
            if word == b"hold":
                self.held.put(s.recv(1))
                while s.recv(1 << 16):
                    pass
                return
            sum = hashlib.sha256()
            while part := s.recv(1 << 16):
                sum.update(part)
            self.sums.put(sum.hexdigest())


def free_port(kind=socket.SOCK_STREAM, address="127.0.0.1"):
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as s:
        s.bind((address, 0))
        return s.getsockname()[1]


def fetch(port, path, address="127.0.0.1"):
    with socket.create_connection((address, port), SECONDS) as s:
        s.sendall(b"GET /%s HTTP/1.0\r\n\r\n" % path.encode())
        got = b""
        while part := s.recv(1 << 16):
            got += part
    return got.split(b"\r\n\r\n", 1)[-1]


def name_server():
    """Answers every question for an IPv4 address; it is this namespace's."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("127.0.0.1", 53))

    def run():
        while True:
            q, at = s.recvfrom(512)
            end = q.index(b"\0", 12) + 5
            answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\x4d" if q[end - 4:end - 2] == b"\0\1" else b""
            s.sendto(q[:2] + b"\x81\x80\0\1\0" + (b"\1" if answer else b"\0") + b"\0\0\0\0" + q[12:end] + answer, at)
    threading.Thread(target=run, daemon=True).start()


def namespaces():
    """True: they are our own, loopback is up, the name server runs. Starts this program again in them."""
    unshare = shutil.which("unshare")
    if "OSPITE_TEST_NAMESPACES" not in os.environ:
        if not unshare or subprocess.run([unshare, "-Urnm", "true"], stderr=subprocess.DEVNULL).returncode:
            return False
        os.environ["OSPITE_TEST_NAMESPACES"] = "1"
        os.execv(unshare, [unshare, "-Urnm", sys.executable] + sys.argv)
    with socket.socket() as s:
        fcntl.ioctl(s, 0x8914, struct.pack("16sH14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
    with open(os.path.join(work_folder(), "resolv.conf"), "w") as f:
        f.write("nameserver 127.0.0.1\n")
    if subprocess.run(["mount", "--bind", f.name, os.path.realpath("/etc/resolv.conf")]).returncode:
        return False
    name_server()
    return True


def main():
    ospite, package, program, engine, more = os.path.realpath(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4], sys.argv[5:]
    own_namespaces = namespaces()
    kernel, modules = kernel_of(package, MODULES)
    work = work_folder()
    data = pattern(MIB << 20)
    sum = hashlib.sha256(data).hexdigest()
    server, echo = Server(data), udp_echo("127.0.0.1")
    has6 = True
    try:
        server6 = Server(data, socket.AF_INET6)
    except OSError:
        has6, server6 = False, server
    before = """
(echo -n give; sleep 600) | nc 10.0.2.2 %d > /tmp/data &
wait_for '[ -f /tmp/data ] && [ "$(wc -c < /tmp/data)" = %d ]'
sha256sum /tmp/data | cut -c 1-64 | sed 's/^/received /'
(echo -n take; cat /tmp/data) | nc 10.0.2.2 %d
echo sent
datagram send 10.0.2.2 %d 20 1000
datagram send 10.0.2.2 %d 5 20000
""" % (server.port, len(data), server.port, echo, echo)
    if own_namespaces:
        before += "nslookup -type=a machine.example 10.0.2.3 | grep -A1 Name: | tail -n 1 | sed 's/^/named /'\n"
    if has6:
        before += "(echo -n take; cat /tmp/data) | nc fd6f:7370:6974:2::2 %d\necho sent6\n" % server6.port
    waiting = [("10.0.2.2", server)] + ([("fd6f:7370:6974:2::2", server6)] if has6 else [])
    after = "".join("(echo -n wait; sleep 600) | nc %s %d > /tmp/waited%d &\n" % (address, s.port, i)
                    for i, (address, s) in enumerate(waiting))
    after += """
(echo -n hold; while sleep 0.1; do echo x || break; done) | nc 10.0.2.2 %d
echo "old connection over"
wait_for '! pidof nc'
echo "connections that only waited over"
(echo -n take; cat /tmp/data) | nc 10.0.2.2 %d
echo "new connection over"
cat
poweroff -f
""" % (server.port, server.port)
    forward, forward_udp = free_port(), free_port(socket.SOCK_DGRAM)
    forwards = ["--port", "%d:80" % forward, "--port", "%d:5353/udp" % forward_udp]
    if has6:
        forward6, forward6_udp = free_port(address="::1"), free_port(socket.SOCK_DGRAM, "::1")
        forwards += ["--port", "[::1]:%d:80" % forward6, "--port", "[::1]:%d:5353/udp" % forward6_udp]
    initramfs(work + "/initrd", modules, MODULES, SCRIPT % {"before": before, "after": after},
              [("/bin/datagram", program)])
    base = [ospite, "run", "--engine", engine, "--kernel", kernel, "--initrd", work + "/initrd", "--append",
            "console=ttyS0 quiet panic=-1", "--no-reboot", "--control", work + "/control"] + forwards + more
    m = Machine(work, base + ["--memory", "256M", "--save-to", work + "/saved"])
    m.wait("dhcp inet 10.0.2.15")
    m.wait("six fd6f:7370:6974:2:")
    m.wait("pinged")
    if m.wait("received").split()[1] != sum:
        fail("what the guest received is something else", m)
    m.wait("sent")
    if server.sums.get(timeout=SECONDS) != sum:
        fail("what the guest sent is something else", m)
    m.wait("datagrams 20 of 1000")
    m.wait("datagrams 5 of 20000")
    if own_namespaces and "192.0.2.77" not in m.wait("named"):
        fail("the name server's answer", m)
    if has6:
        m.wait("sent6")
        if server6.sums.get(timeout=SECONDS) != sum:
            fail("what the guest sent by IPv6 is something else", m)
    m.wait("serving")

    def check_forwards():
        if fetch(forward, "data") != data:
            fail("the forward gave something else", m)
        if has6 and fetch(forward6, "data", "::1") != data:
            fail("the forward by IPv6 gave something else", m)

    def check_datagrams(family, address, port):
        with socket.socket(family, socket.SOCK_DGRAM) as s:
            s.settimeout(SECONDS)
            s.connect((address, port))
            s.send(b"datagram")
            if s.recv(100) != b"datagram":
                fail("the UDP forward at %s" % address, m)
    check_forwards()
    check_datagrams(socket.AF_INET, "127.0.0.1", forward_udp)
    if has6:
        check_datagrams(socket.AF_INET6, "::1", forward6_udp)
    for s in [server] + [s for _, s in waiting]:
        s.held.get(timeout=SECONDS)
    Control(work + "/control").ask("ospite-suspend")
    m.end()
    m = Machine(work, base + ["--restore", work + "/saved"])
    Control(work + "/control")
    check_forwards()
    check_datagrams(socket.AF_INET, "127.0.0.1", forward_udp)
    # what went through the NAT is over, and the guest is told; what it begins now goes
    m.wait("old connection over")
    m.wait("connections that only waited over")
    m.wait("new connection over")
    if server.sums.get(timeout=SECONDS) != sum:
        fail("what the guest sent after it was restored is something else", m)

    # killed in the middle of a transfer
    s = socket.create_connection(("127.0.0.1", forward), SECONDS)
    s.sendall(b"GET /data HTTP/1.0\r\n\r\n")
    s.recv(1000)
    m.kill()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", forward))


main()
