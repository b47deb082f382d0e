#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a machine's process sees of the host's files: its own folder and little else; and that what comes from outside of it still does:
disks, pictures, sockets, suspended states, the folder that goes with the machine. usage: view.py OSPITE ASM-FOLDER"""
import array, json, os, shutil, signal, socket, subprocess, sys, tempfile, time

ospite, source = (os.path.realpath(a) for a in sys.argv[1:3])
LIMIT = 120
if not shutil.which("nasm"):
    print("skipped: nasm is not installed")
    sys.exit(77)
work = tempfile.mkdtemp(prefix="view-")
os.environ["OSPITE_ROOT"] = work + "/root"
os.environ.pop("XDG_DATA_HOME", None)


def o(*words, status=0):
    got = subprocess.run([ospite, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT)
    assert got.returncode == status, "%s: status %d\n%s%s" % (words, got.returncode, got.stdout, got.stderr)
    return got.stdout + (got.stderr if status else "")


def pid_of(name):
    return next(row["pid"] for row in json.loads(o("ps", "--json")) if row["name"] == name)


def wait_for(what, condition):
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, "not within %d s: %s" % (LIMIT, what)
        time.sleep(0.02)


def seen_by(pid):
    """Everything below the process's root, but what is in /proc, in its own folder, and of networks."""
    root, found = "/proc/%d/root" % pid, set()
    for at, folders, files in os.walk(root):
        here = at[len(root):] or "/"
        if here == "/proc":
            numbers = [f for f in folders + files if f.isdigit()]
            assert numbers == [str(pid)], numbers
            folders[:] = []
        if here.startswith((work + "/root/machines/", work + "/root/networks/")):
            folders[:] = []
        else:
            found.update(here.rstrip("/") + "/" + f for f in files)
    return found


def processes():
    """Those of machines of ours."""
    def folder(p):
        try:
            return os.readlink("/proc/%s/cwd" % p)
        except OSError:
            return ""
    return [p for p in os.listdir("/proc") if p.isdigit() and folder(p).startswith(work + "/root")]


class Control:
    def __init__(self, name, folder=None):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(LIMIT)
        here = os.getcwd()
        os.chdir(folder or work + "/root/machines/" + name)
        self.s.connect("control")
        os.chdir(here)
        self.f = self.s.makefile()
        self.f.readline()
        self("qmp_capabilities")

    def __call__(self, command, fd=None, **arguments):
        text = json.dumps({"execute": command, "arguments": arguments}).encode()
        extra = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd is not None else []
        self.s.sendmsg([text], extra)
        while True:
            answer = json.loads(self.f.readline())
            if "event" not in answer:
                return answer


def look(pid):
    allowed = {"/dev/null", "/dev/kvm", "/dev/net/tun", "/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf",
               "/etc/gai.conf", "/etc/services", "/etc/localtime", work + "/echo.bin",
               "/usr/share/seabios/vgabios-stdvga.bin"}
    extra = seen_by(pid) - allowed
    assert not extra, "sees too much: %s" % sorted(extra)[:20]
    with open("/proc/%d/mountinfo" % pid) as f:
        points = {line.split()[4]: line.split()[5] for line in f}
    assert points["/"].startswith("ro,"), points
    assert set(points) <= allowed | {"/", "/proc/%d" % pid, work + "/root/machines/m", work + "/root/networks"}, points
    # no descriptor of a folder leads anywhere else
    for fd in os.listdir("/proc/%d/fd" % pid):
        path = "/proc/%d/fd/%s" % (pid, fd)
        if os.path.isdir(path):
            assert os.readlink(path) == work + "/root/machines/m", os.readlink(path)


def members(network):
    return json.loads(o("net", "show", network, "--json"))["members"]


def unnamed():
    """A machine without a folder: a card that comes later finds its network, and finds it again when the switch has been away."""
    os.mkdir(work + "/here")
    os.mkdir(work + "/served")
    subprocess.run(["truncate", "-s", "1M", work + "/disk.raw"], check=True)
    server = subprocess.Popen([ospite, "image", "serve", work + "/disk.raw", "--listen", "unix:" + work + "/served/sock"])
    wait_for("the server", lambda: os.path.exists(work + "/served/sock"))
    m = subprocess.Popen([ospite, "run", "--kernel", work + "/echo.bin", "--memory", "8M", "--engine", "interp", "--control", work + "/here/control",
                          "--disk", "readonly,nbd=unix:" + work + "/served/sock"],
                         stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        wait_for("the control socket", lambda: os.path.exists(work + "/here/control"))
        c = Control("", work + "/here")

        def up():
            return [card["up"] for card in c("ospite-query-networks")["return"] if card["kind"] == "switch"]
        o("net", "start", "late")
        assert "return" in c("ospite-net-add", net="switch:late")
        assert members("late") == 1 and up() == [True]
        assert not os.path.exists("/proc/%d/root/etc/passwd" % m.pid)
        assert os.path.exists("/proc/%d/root%s/served/sock" % (m.pid, work)) # a connection that breaks is made again
        o("net", "stop", "late")
        wait_for("the link goes", lambda: up() == [False])
        o("net", "start", "late")
        wait_for("the link comes", lambda: up() == [True])
        assert members("late") == 1
        assert "there is no network" in c("ospite-net-add", net="switch:none")["error"]["desc"]
        c("quit")
        m.wait(LIMIT)
    finally:
        m.kill()
        server.kill()
        server.wait()


def main():
    subprocess.run(["nasm", "-f", "bin", "-o", work + "/echo.bin", source + "/echo.asm"], check=True)
    doctor = next(row for row in json.loads(o("doctor", "--json")) if row["what"] == "view of files")
    if doctor["verdict"] != "ok":
        o("create", "m", "--kernel", work + "/echo.bin", "--memory", "8M", "--engine", "interp")
        o("start", "m")  # a host that refuses is no reason not to start
        o("kill", "m")
        unseen()
        print("skipped: this host has no name spaces for us: " + doctor["finding"])
        sys.exit(77)
    o("create", "m", "--kernel", work + "/echo.bin", "--memory", "8M", "--engine", "interp", "--vga", "--cdrom", "none")
    o("start", "m")
    look(pid_of("m"))
    # what is not there by itself is handed over
    os.mkdir(work + "/images")
    for name in ("raw.img", "base.img", "by-ctl.img", "cd.iso"):
        with open(work + "/images/" + name, "wb") as f:
            f.truncate(1 << 20)
    o("image", "create", "--backing", work + "/images/base.img", "--backing-format", "raw", work + "/images/top.qcow2")
    assert o("set", "m", "--disk", work + "/images/raw.img").strip() == "disk1"
    chain = "format=qcow2,file=%s/images/top.qcow2,backing=%s/images/base.img,backing-format=raw" % (work, work)
    assert o("set", "m", "--disk", chain).strip() == "disk2"
    o("medium", "m", work + "/images/cd.iso")
    assert work + "/images/cd.iso" in o("medium", "m")
    o("screenshot", "m", work + "/shot.png")
    with open(work + "/shot.png", "rb") as f:
        assert f.read(4) == b"\x89PNG"
    assert not [f for f in os.listdir(work) if f.startswith("shot.png.")]
    o("ctl", "m", "screendump", "filename=%s/shot2.png" % work)
    with open(work + "/shot2.png", "rb") as f:
        assert f.read(4) == b"\x89PNG"
    assert "disk" in o("ctl", "m", "ospite-disk-add", "disk=file=%s/images/by-ctl.img,format=raw" % work)
    o("ctl", "m", "blockdev-change-medium", "device=disk0", "filename=%s/images/cd.iso" % work)
    look(pid_of("m"))
    # the same by a client of its own: as a name, as a set, not at all, for reading only
    c = Control("m")
    plain = "file=%s/images/base.img,readonly" % work
    answer = c("ospite-disk-add", disk=plain)
    assert "No such file" in answer["error"]["desc"] and "add-fd" in answer["error"]["desc"], answer
    answer = c("ospite-save", path=work + "/images/state")
    assert "--view" in answer["error"]["desc"], answer
    assert "SCM_RIGHTS" in c("add-fd")["error"]["desc"]
    fd = os.open(work + "/images/base.img", os.O_RDONLY)
    got = c("add-fd", fd, opaque=work + "/images/base.img")
    assert got["return"]["fdset-id"] == 0, got
    assert c("query-fdsets")["return"][0]["fds"][0]["opaque"] == work + "/images/base.img"
    answer = c("ospite-disk-add", disk="file=%s/images/base.img" % work)
    assert "ermission" in answer["error"]["desc"], answer
    assert "return" in c("ospite-disk-add", disk=plain)
    assert "return" in c("ospite-disk-add", disk="file=/dev/fdset/0,readonly")
    assert "return" in c("remove-fd", **{"fdset-id": 0}) and "error" in c("remove-fd", **{"fdset-id": 0})
    for _ in range(200):  # more than it keeps: closed, not gathered
        c.s.sendmsg([b" "], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd] * 10))])
    assert "return" in c("query-status")
    pid = pid_of("m")
    assert len(os.listdir("/proc/%d/fd" % pid)) < 200
    c.s.close()
    # a card on a network, where there was none when the machine started
    assert not os.path.exists(work + "/root/networks")
    o("net", "create", "late")
    assert o("set", "m", "--net", "switch:late").strip() == "net1"
    assert members("late") == 1
    # suspended, resumed, logged, ended; the same view again
    o("suspend", "m")
    o("resume", "m")
    look(pid_of("m"))
    assert "disk2" in o("ctl", "m", "query-block")
    assert members("late") == 1
    o("logs", "m")
    pid = pid_of("m")
    o("kill", "m")
    wait_for("the process ends", lambda: not os.path.exists("/proc/%d" % pid))
    assert not os.path.exists(work + "/root/machines/m/control")
    o("rm", "m")
    # a folder that is to be seen, and one that goes with the machine
    o("run", "--detach", "--rm", "--name", "t", "--kernel", work + "/echo.bin", "--memory", "8M", "--engine", "interp", "--view",
      work + "/images", "--quiet")
    pid = pid_of("t")
    assert sorted(os.listdir("/proc/%d/root%s/images" % (pid, work))) == ["base.img", "by-ctl.img", "cd.iso", "raw.img", "top.qcow2"]
    c = Control("t")
    assert "return" in c("ospite-disk-add", disk=plain)
    c.s.close()
    o("kill", "t")
    wait_for("the machine's folder goes", lambda: not os.path.exists(work + "/root/machines/t"))
    wait_for("its processes end", lambda: not processes())
    unnamed()
    # a socket in the folder over which the new root would be made
    control = tempfile.mktemp(dir="/tmp", prefix="view-")
    machine = subprocess.Popen([ospite, "run", "--kernel", work + "/echo.bin", "--memory", "8M", "--engine", "interp", "--serial", "null",
                                "--control", control], stdin=subprocess.DEVNULL)
    try:
        wait_for("the machine or its end", lambda: os.path.exists(control) or machine.poll() is not None)
        assert machine.poll() is None
        wait_for("its own view", lambda: machine.poll() is not None or not os.path.exists("/proc/%d/root/etc/passwd" % machine.pid))
        assert machine.poll() is None
    finally:
        machine.terminate()
        machine.wait()
    # unconfined: as the host is
    o("run", "--detach", "--name", "u", "--kernel", work + "/echo.bin", "--memory", "8M", "--engine", "interp", "--unconfined", "--quiet")
    assert os.path.samefile("/proc/%d/root/etc" % pid_of("u"), "/etc")
    o("kill", "u")


def unseen():
    """A user's shared folder: no view, but Landlock."""
    doctor = next(row for row in json.loads(o("doctor", "--json")) if row["what"] == "files")
    if os.geteuid() or doctor["verdict"] != "ok":
        print("skipped in part: Landlock of a user's machine: " + doctor["finding"])
        return
    home = work + "/user"
    for folder in (home, home + "/shared", home + "/other"):
        os.mkdir(folder)
        os.chown(folder, 65534, 65534)
    for name in (home + "/ospite", home + "/echo.bin"):
        shutil.copy(ospite if name.endswith("ospite") else work + "/echo.bin", name)
        os.chmod(name, 0o755)
    for name in ("/shared/in.img", "/other/out.img"):
        with open(home + name, "wb") as f:
            f.truncate(1 << 20)
        os.chown(home + name, 65534, 65534)

    def u(*words, status=0):
        got = subprocess.run([home + "/ospite", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT, user=65534,
                             group=65534, extra_groups=[], cwd=home, env={"OSPITE_ROOT": home + "/root", "PATH": os.environ["PATH"]})
        assert got.returncode == status, "%s: status %d\n%s%s" % (words, got.returncode, got.stdout, got.stderr)
        return got.stdout + got.stderr

    os.chmod(work, 0o755)
    u("create", "s", "--kernel", "echo.bin", "--memory", "8M", "--engine", "interp", "--share", home + "/shared")
    try:
        for start in (["start", "s"], ["resume", "s"]):
            u(*start)
            pid = json.loads(u("ps", "--json"))[0]["pid"]
            assert os.path.samefile("/proc/%d/root/etc" % pid, "/etc")  # no view of its own
            c = Control("s", home + "/root/machines/s")
            for path in (home + "/other/out.img", "/etc/passwd"):
                answer = c("ospite-disk-add", disk="file=%s,readonly" % path)
                assert "ermission denied" in answer["error"]["desc"] and "add-fd" in answer["error"]["desc"], answer
            if start[0] == "start":
                assert "return" in c("ospite-disk-add", disk="file=%s/shared/in.img" % home)
                u("set", "s", "--disk", home + "/other/out.img")  # handed over by who may
                u("suspend", "s")
    finally:
        u("kill", "s")


REFUSED = r"""
echo 0 >/proc/sys/user/max_user_namespaces || exit 77
exec setpriv --ambient-caps=-all --inh-caps=-all sh -ec '
"$0" doctor --json | grep -q "no user namespaces for this user"
"$0" create m --kernel "$1/echo.bin" --memory 8M --engine interp --quiet
"$0" start m --quiet
exec sleep 600' "$0" "$1"
"""


def refused():
    """A host that lets users have no name spaces: Landlock alone."""
    home = work + "/refused"
    os.mkdir(home)
    os.chmod(home, 0o777)
    if not shutil.which("unshare") or not shutil.which("setpriv"):
        return
    inside = subprocess.Popen(["unshare", "-U", "--map-user=1000", "--map-group=1000", "--keep-caps", "sh", "-c", REFUSED, ospite, work],
                              env=dict(os.environ, OSPITE_ROOT=home))
    try:
        wait_for("the machine starts", lambda: inside.poll() is not None or os.path.exists(home + "/machines/m/control"))
        if inside.poll() == 77:
            return
        c = Control("m", home + "/machines/m")
        wait_for("the machine runs", lambda: c("query-status")["return"]["running"])
        answer = c("ospite-disk-add", disk="file=/etc/passwd,readonly")
        assert "ermission denied" in answer["error"]["desc"], answer
        c("quit")
    finally:
        inside.kill()
        inside.wait()
        subprocess.run([ospite, "kill", "--all", "--quiet"], env=dict(os.environ, OSPITE_ROOT=home), timeout=LIMIT, capture_output=True)


signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of what is below
try:
    os.chdir(work)
    main()
    unseen()
    refused()
finally:
    subprocess.run([ospite, "kill", "--all", "--quiet"], timeout=LIMIT, capture_output=True)
    os.chdir("/")
    shutil.rmtree(work, ignore_errors=True)
