#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The stock kernel's vsock driver against UNIX sockets of the host: bulk data both ways, many connections, refusals, connections from
the host, and what a restored machine tells its guest.

usage: vsock.py OSPITE KERNEL-PACKAGE SOCKETS-PROGRAM ENGINE
"""
import os, socket, sys, threading
from guestlib import *

MIB, MANY = 4, 100
MODULES = ["vsock", "vmw_vsock_virtio_transport_common", "vmw_vsock_virtio_transport"]
SCRIPT = """
wait_for '[ -e /dev/vsock ]'
/bin/sockets nobody
/bin/sockets bulk %d
/bin/sockets many %d
/bin/sockets serve 3
/bin/sockets hold
poweroff -f
""" % (MIB, MANY)


def echo(connection):
    """All of it back; then our half ends too."""
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)


class Server(threading.Thread):
    def __init__(self, path):
        super().__init__(daemon=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(256)
        self.start()

    def run(self):
        while True:
            threading.Thread(target=echo, args=[self.listener.accept()[0]], daemon=True).start()


def dial(path, text):
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)  # without a time-out: it waits while the backlog is full
    s.settimeout(SECONDS)
    s.sendall(text)
    return s


def line(s):
    got = b""
    while not got.endswith(b"\n"):
        try:
            byte = s.recv(1)
        except ConnectionResetError:  # hung up on, with something unread
            byte = b""
        if not byte:
            return got
        got += byte
    return got


def main():
    ospite, package, program, engine = os.path.realpath(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
    kernel, modules = kernel_of(package, MODULES)
    work = work_folder()
    initramfs(work + "/initrd", modules, MODULES, SCRIPT, [("/bin/sockets", program)])
    path = work + "/sock"
    Server(path + "_7000")
    base = [ospite, "run", "--engine", engine, "--kernel", kernel, "--initrd", work + "/initrd", "--append",
            "console=ttyS0 quiet panic=-1", "--no-reboot", "--vsock", path]
    m = Machine(work, base + ["--memory", "192M", "--save-to", work + "/saved", "--control", work + "/control"])
    m.wait("nobody there")
    m.wait("bulk %d bytes" % (MIB << 20))
    m.wait("many %d" % MANY)
    m.wait("serving")

    # nonsense, and a port nobody listens on
    for text in (b"HELLO 1\n", b"CONNECT x\n", b"CONNECT 99999999999\n", b"C" * 100, b"CONNECT 4999\n"):
        if line(dial(path, text)) != b"":
            fail("a client that said %r was answered" % text, m)
    silent = [dial(path, b"CONN") for _ in range(40)]  # more than are kept
    data = os.urandom(1 << 20)
    for n in range(3):
        s = dial(path, b"CONNECT 5000\n" + (data[:1000] if n == 1 else b""))  # what follows the line at once is the guest's
        if not line(s).startswith(b"OK "):
            fail("the guest's server was not reached", m)
        threading.Thread(target=lambda: (s.sendall(data[1000:] if n == 1 else data), s.shutdown(socket.SHUT_WR)),
                         daemon=True).start()
        got = b""
        while part := s.recv(65536):
            got += part
        if got != data:
            fail("connection %d: %d bytes came back" % (n, len(got)), m)
    m.wait("served")
    m.wait("holding")
    for s in silent:
        s.close()
    Control(work + "/control").ask("ospite-suspend")
    m.end()
    m = Machine(work, base + ["--restore", work + "/saved"])
    m.wait("held -1 ")  # reset, or not connected any more when it began to wait
    m.end()
    if os.path.exists(path):
        fail("the socket was left behind")


main()
