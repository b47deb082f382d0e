#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a person sees and types: SeaBIOS's boot menu read as text, as a screenshot and by VNC, with keys sent both ways.

usage: screen.py OSPITE ENGINE
"""
import json, os, shutil, socket, struct, subprocess, sys, tempfile, time

SECONDS = 60
FIRMWARE = "/usr/share/seabios/bios-256k.bin"


class Control:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(SECONDS)
        self.socket.connect(path)
        self.file = self.socket.makefile("rw")
        self.file.readline()
        self.ask("qmp_capabilities")

    def ask(self, command, **arguments):
        self.file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.file.flush()
        while True:
            reply = json.loads(self.file.readline())
            if "return" in reply or "error" in reply:
                return reply

    def text(self):
        return self.ask("ospite-screen-text").get("return", {}).get("text", "")


def until(what, look):
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.1)
    sys.exit("not within %d seconds: %s" % (SECONDS, what))


def exactly(s, n):
    data = b""
    while len(data) < n:
        part = s.recv(n - len(data))
        if not part:
            raise EOFError("the VNC server hung up")
        data += part
    return data


class Vnc:
    """As much of a client as it takes: no security, raw pictures of 32 bits."""

    def __init__(self, port, version=b"RFB 003.008\n"):
        self.s = s = socket.create_connection(("127.0.0.1", port))
        s.settimeout(SECONDS)
        assert exactly(s, 12) == b"RFB 003.008\n"
        s.sendall(version)
        assert 1 in exactly(s, exactly(s, 1)[0])
        s.sendall(b"\x01")
        if version == b"RFB 003.008\n":
            assert exactly(s, 4) == bytes(4)
        s.sendall(b"\x01")
        self.width, self.height = struct.unpack(">HH", exactly(s, 4))
        exactly(s, 16)
        exactly(s, struct.unpack(">I", exactly(s, 4))[0])
        s.sendall(struct.pack(">BxxxBBBBHHHBBBxxx", 0, 32, 24, 0, 1, 255, 255, 255, 16, 8, 0))
        s.sendall(struct.pack(">BxHiii", 2, 3, 0, -223, -308))  # raw, and new sizes

    def picture(self):
        self.s.sendall(struct.pack(">BBHHHH", 3, 0, 0, 0, self.width, self.height))
        kind, count = struct.unpack(">BxH", exactly(self.s, 4))
        assert kind == 0, "message %d instead of a picture" % kind
        seen = 0
        for _ in range(count):
            x, y, w, h, encoding = struct.unpack(">HHHHi", exactly(self.s, 12))
            if encoding == -223:
                self.width, self.height = w, h
                continue
            assert encoding == 0, "encoding %d was not asked for" % encoding
            pixels = exactly(self.s, w * h * 4)
            seen += sum(1 for i in range(0, len(pixels), 4) if pixels[i:i + 3] != b"\0\0\0")
        return seen

    def key(self, symbol):
        for down in (1, 0):
            self.s.sendall(struct.pack(">BBxxI", 4, down, symbol))


def snapshot(port, folder):
    """Debian's own VNC client sees a picture of the text screen: a JPEG of its size that is not of one colour."""
    if not shutil.which("vncsnapshot"):
        print("no vncsnapshot: that client is left out")
        return
    file = os.path.join(folder, "snapshot.jpg")
    done = subprocess.run(["vncsnapshot", "-quiet", "-quality", "90", "127.0.0.1:%d" % (port - 5900), file], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS)
    assert done.returncode == 0, done.stdout
    with open(file, "rb") as f:
        data = f.read()
    os.unlink(file)
    frame = data.index(b"\xff\xc0")  # its dimensions
    assert data[:2] == b"\xff\xd8" and struct.unpack(">HH", data[frame + 5:frame + 9]) == (400, 720), data[:32]
    assert len(data) > 10000, "a picture of %d bytes has no text on it" % len(data)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def main():
    ospite, engine = sys.argv[1:3]
    if not os.access(FIRMWARE, os.R_OK):
        print("skipped: the package seabios is not there")
        sys.exit(77)
    folder = tempfile.mkdtemp()
    path, disk, port = os.path.join(folder, "control"), os.path.join(folder, "disk"), free_port()
    with open(disk, "wb") as f:
        f.truncate(1 << 20)
    machine = subprocess.Popen(["timeout", str(3 * SECONDS), ospite, "run", "--engine", engine, "--memory", "64M", "--boot-menu",
                                "--serial", "null", "--disk", disk, "--display", "vnc:%d" % port, "--keyboard", "fr", "--control", path],
                               stdin=subprocess.DEVNULL)
    try:
        until("the control socket", lambda: os.path.exists(path) or machine.poll() is not None)
        control = Control(path)
        until("SeaBIOS's question", lambda: "Press ESC for boot menu" in control.text())
        assert control.ask("send-key", keys=[{"type": "qcode", "data": "nonsense"}])["error"]
        vnc = Vnc(port)
        until("a picture by VNC", lambda: vnc.picture() > 500)
        vnc.key(0xff1b)
        until("the boot menu", lambda: "Select boot device:" in control.text())
        snapshot(port, folder)
        file = os.path.join(folder, "screen.png")
        assert "return" in control.ask("screendump", filename=file)
        with open(file, "rb") as f:
            head = f.read(24)
        assert head[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", head[16:]) == (720, 400), head
        assert "error" in control.ask("screendump", filename=os.path.join(folder, "no/such/folder.png"))
        assert sorted(os.listdir(folder)) == ["control", "disk", "screen.png"], os.listdir(folder)
        until("the disk in the menu", lambda: "\n1. " in control.text())
        vnc.key(ord("&"))  # what the key 1 types on a French keyboard
        until("the empty disk's refusal", lambda: "not a bootable disk" in control.text())
        # noise on the same port harms nothing
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port)) as s:
                try:
                    s.sendall(os.urandom(5000))
                except OSError:
                    pass  # it hangs up
        assert control.ask("query-status")["return"]["status"] == "running"
        another = Vnc(port, b"RFB 003.007\n")
        until("a picture for another client", lambda: another.picture() > 500)
        control.ask("quit")
        assert machine.wait(SECONDS) == 0
        assert not os.path.exists(path)
    finally:
        if machine.poll() is None:
            machine.terminate()  # timeout passes it on
            machine.wait()
        shutil.rmtree(folder)


main()
