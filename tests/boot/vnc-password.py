#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The password of VNC clients: asked for within TLS, by a certificate made for it or the user's; without it, or with another one, nobody
gets in.

usage: vnc-password.py OSPITE
"""
import os, shutil, socket, ssl, struct, subprocess, sys, time
from guestlib import *

FIRMWARE = "/usr/share/seabios/bios-256k.bin"


def exactly(s, n):
    data = b""
    while len(data) < n:
        part = s.recv(n - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def connect(port, machine):
    end = time.monotonic() + SECONDS
    while True:
        try:
            s = socket.create_connection(("127.0.0.1", port))
            s.settimeout(SECONDS)
            return s
        except OSError:
            if time.monotonic() > end or machine.process.poll() is not None:
                fail("nobody listens", machine)
            time.sleep(0.05)


def visit(port, machine, password, authority=None):
    """The screen's size, or None when we are not let in."""
    s = connect(port, machine)
    exactly(s, 12)
    s.sendall(b"RFB 003.008\n")
    kinds = exactly(s, exactly(s, 1)[0])
    if kinds != b"\x13":
        fail("security types %r" % kinds, machine)
    if password is None:  # as if there were none
        s.sendall(b"\x01")
        try:
            return None if exactly(s, 4) != bytes(4) else (0, 0)
        except (EOFError, ConnectionError):
            return None
    s.sendall(b"\x13")
    exactly(s, 2)
    s.sendall(b"\0\2")
    assert exactly(s, 1) == b"\0"
    kinds = struct.unpack(">%dI" % (n := exactly(s, 1)[0]), exactly(s, 4 * n))
    assert 262 in kinds, kinds
    s.sendall(struct.pack(">I", 262))
    assert exactly(s, 1) == b"\1"
    context = ssl.create_default_context(cafile=authority)
    context.check_hostname = False
    if not authority:
        context.verify_mode = ssl.CERT_NONE
    s = context.wrap_socket(s)
    s.sendall(struct.pack(">II", 4, len(password)) + b"user" + password)
    if exactly(s, 4) != bytes(4):
        why = exactly(s, struct.unpack(">I", exactly(s, 4))[0])
        if why != b"the password is bad":
            fail("refused because %r" % why, machine)
        return None
    s.sendall(b"\1")
    data = exactly(s, 24)
    if not exactly(s, struct.unpack(">I", data[20:])[0]).endswith(b"vm"):
        fail("no name", machine)
    return struct.unpack(">HH", data[:4])


def main():
    ospite = os.path.realpath(sys.argv[1])
    os.access(FIRMWARE, os.R_OK) or skip("the package seabios is not there")
    work = work_folder()
    with open(work + "/password", "w") as f:
        f.write("open sesame\nanother line\n")
    base = [ospite, "run", "--engine", "dbt", "--memory", "32M", "--boot-menu", "--serial", "null"]
    for options, text in ((["--display", "vnc", "--vnc-password", work + "/none"], "cannot read"),
                          (["--display", "vnc", "--vnc-password", "/dev/null"], "1 to 255"),
                          (["--display", "vnc", "--vnc-password", work + "/password", "--vnc-tls", work + "/password"], "PEM"),
                          (["--vnc-password", work + "/password"], "--display vnc")):
        got = subprocess.run(base + options + (["--display", "none"] if len(options) == 2 else []), stdin=subprocess.DEVNULL,
                             capture_output=True, timeout=SECONDS)
        if got.returncode != 125 or text not in got.stderr.decode():
            fail("%s: %d %s" % (options, got.returncode, got.stderr))

    authorities = [None]
    if shutil.which("openssl"):
        made = subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-days", "2", "-keyout",
                               work + "/key", "-out", work + "/cert"], capture_output=True)
        if made.returncode == 0:
            with open(work + "/both", "w") as f:
                f.write(open(work + "/cert").read() + open(work + "/key").read())
            authorities.append(work + "/cert")
    for authority in authorities:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        m = Machine(work, base + ["--display", "vnc:%d" % port, "--vnc-password", work + "/password"] +
                    (["--vnc-tls", work + "/both"] if authority else []))
        for wrong in (b"", b"open sesam", b"open sesame\n", b"x" * 1000, None):
            if visit(port, m, wrong) is not None:
                fail("password %r is good enough" % wrong, m)
        size = visit(port, m, b"open sesame", authority)
        if not size or not all(size):
            fail("the password does not help: %s" % (size,), m)
        m.process.terminate()  # it takes its folder along
        m.process.wait(SECONDS)


main()
