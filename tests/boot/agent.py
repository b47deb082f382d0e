#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""exec and cp against Debian's own guest agent in a machine with a folder: output as it comes, status, input, files and folders
both ways, several at once; and against agents that lie.

usage: agent.py OSPITE KERNEL-PACKAGE ENGINE
"""
import fcntl, filecmp, os, socket, struct, subprocess, sys, threading
from guestlib import *

MODULES = ["virtio_console"]
SCRIPT = """
wait_for '[ -e /sys/class/virtio-ports/vport0p0/name -o -e /sys/class/virtio-ports/vport0p1/name ]'
mkdir -p /dev/virtio-ports /run /var/log
for p in /sys/class/virtio-ports/*; do ln -s /dev/${p##*/} /dev/virtio-ports/$(cat $p/name); done
echo "agent starts"
exec qemu-ga -m virtio-serial -p /dev/virtio-ports/org.qemu.guest_agent.0 -t /run
"""


def main():
    ospite, package, engine = os.path.realpath(sys.argv[1]), sys.argv[2], sys.argv[3]
    agent = shutil.which("qemu-ga", path="/usr/sbin:/usr/bin") or skip("qemu-guest-agent is not installed")
    kernel, modules = kernel_of(package, MODULES)
    work = work_folder()
    env = dict(os.environ, OSPITE_ROOT=work + "/root")
    files = [("/bin/qemu-ga", agent)] + [(path, path) for path in libraries(agent)]
    initramfs(work + "/initrd", modules, MODULES, SCRIPT, files)

    def ospite_run(*args, status=0, data=None, seconds=SECONDS):
        done = subprocess.run([ospite] + list(args), env=env, input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=seconds)
        if done.returncode != status:
            log = subprocess.run([ospite, "logs", "one"], env=env, stdout=subprocess.PIPE).stdout.decode(errors="replace")
            fail("%s: status %d, not %d\n%s\n%s\n%s" % (" ".join(args), done.returncode, status, done.stdout[-2000:],
                                                       done.stderr.decode(errors="replace"), log[-3000:]))
        return done

    try:
        ospite_run("create", "one", "--engine", engine, "--memory", "256M", "--kernel", kernel, "--initrd", work + "/initrd",
                   "--append", "console=ttyS0 quiet panic=-1")
        ospite_run("exec", "one", "true", status=125)
        ospite_run("start", "one")
        ospite_run("exec", "--time", str(SECONDS), "one", "true")

        done = ospite_run("exec", "--env", "A=x y", "--env", "B=", "one", "--", "sh", "-c", 'echo "$A/$B/$1"; echo no >&2; exit 7',
                          "sh", "--help", status=7)
        if done.stdout != b"x y//--help\n" or done.stderr != b"no\n":
            fail("exec said %r, %r" % (done.stdout, done.stderr))
        ospite_run("exec", "one", "no-such-program", status=127)
        ospite_run("exec", "one", "sh", "-c", "kill -9 $$", status=137)
        data = os.urandom(300000)
        if ospite_run("exec", "--stdin", "one", "cat", data=data).stdout != data:
            fail("cat gave something else than what it got")
        if ospite_run("exec", "--direct", "one", "/bin/echo", "straight").stdout != b"straight\n":
            fail("--direct")

        # output comes while the program runs; an interrupt reaches it
        p = subprocess.Popen([ospite, "exec", "one", "sh", "-c", "trap 'echo caught; exit 9' INT; echo first; "
                              "while :; do sleep 0.1; done"], env=env, stdout=subprocess.PIPE)
        if p.stdout.readline() != b"first\n":
            fail("no first line")
        # others are served meanwhile
        threads = [threading.Thread(target=ospite_run, args=("exec", "one", "true")) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        p.send_signal(2)
        if p.stdout.read() != b"caught\n" or p.wait(SECONDS) != 9:
            fail("the interrupt did not arrive: status %s" % p.returncode)
        if ospite_run("exec", "--direct", "one", "/bin/sh", "-c", "ls -a /tmp | grep ospite || :").stdout:
            fail("something is left in the guest's /tmp")

        # files and folders
        tree = work + "/tree"
        os.makedirs(tree + "/a/b")
        for name, size in (("a/b/big", 500001), ("a/empty", 0), ("a/sm all", 3)):
            with open(os.path.join(tree, name), "wb") as f:
                f.write(os.urandom(size))
        os.chmod(tree + "/a/sm all", 0o750)
        ospite_run("cp", tree + "/a/b/big", "one:/tmp/big")
        ospite_run("cp", "one:/tmp/big", work + "/big")
        if not filecmp.cmp(tree + "/a/b/big", work + "/big", False):
            fail("a file came back changed")
        ospite_run("cp", tree, "one:/tmp")
        ospite_run("exec", "one", "sh", "-c", "chmod 4755 /tmp/tree/a/empty; mknod /tmp/tree/a/b/sda b 8 0; ln -s /etc /tmp/tree/link")
        ospite_run("cp", "one:/tmp/tree", work + "/back", status=125)  # what can be is there, the device is not
        if os.path.exists(work + "/back/a/b/sda") or os.stat(work + "/back/a/empty").st_mode & 0o6000:
            fail("a device or a set-user-ID file came out of the guest")
        for name in ("a/b/big", "a/empty", "a/sm all"):
            if not filecmp.cmp(os.path.join(tree, name), os.path.join(work, "back", name), False):
                fail(name + " came back changed")
        if os.stat(work + "/back/a/sm all").st_mode & 0o777 != 0o750:
            fail("the mode changed")
        ospite_run("cp", "one:/no/such", work + "/x", status=125)
        ospite_run("cp", work + "/no", "one:/tmp/x", status=125)
        ospite_run("cp", work + "/no", work + "/x", status=125)
        # several at once, into a folder only
        for name in ("m1", "m2"):
            with open(work + "/" + name, "w") as f:
                f.write(name)
        ospite_run("cp", work + "/m1", work + "/m2", "one:/tmp")
        ospite_run("cp", work + "/m1", work + "/m2", "one:/tmp/m1", status=125)
        ospite_run("cp", work + "/m1", "one:/tmp/m1", "one:/tmp", status=125)
        ospite_run("cp", "one:/tmp/m1", "two:/tmp/m2", work, status=125)
        os.mkdir(work + "/several")
        ospite_run("cp", "one:/tmp/m1", "one:/tmp/m2", work + "/several")
        if [open(work + "/several/" + n).read() for n in ("m1", "m2")] != ["m1", "m2"]:
            fail("several files are not as they were")
        ospite_run("cp", "one:/tmp/m1", "one:/tmp/m2", work + "/several/m1", status=125)
        # the same kernel again, unpacked again
        ospite_run("reset", "one")
        done = subprocess.run([ospite, "exec", "--time", str(SECONDS), "one", "test", "-e", "/tmp/big"], env=env)
        while done.returncode == 0:  # it has not noticed yet
            done = subprocess.run([ospite, "exec", "--time", str(SECONDS), "one", "test", "-e", "/tmp/big"], env=env)
        if done.returncode not in (1, 125):
            fail("after a reset: status %d" % done.returncode)
        ospite_run("exec", "--time", str(SECONDS), "one", "true")
        # the clock stood still, and is put right
        ospite_run("suspend", "one")
        time.sleep(8)
        before = time.time()
        ospite_run("start", "one")
        guest = float(ospite_run("exec", "--time", str(SECONDS), "one", "date", "+%s").stdout)
        if guest < before - 5 or guest > time.time() + 1:
            fail("after resuming the guest's clock is wrong by %.1f s" % (guest - before))
        ospite_run("kill", "one")
        liars(work, ospite_run)
    finally:
        subprocess.run([ospite, "kill", "--all", "--quiet"], env=env, stderr=subprocess.DEVNULL)


def liars(work, ospite_run):
    """The machine's port, served by something else: what the command has to survive."""
    def sync(c):
        text = b""
        while not text.endswith(b"\n"):
            part = c.recv(4096)
            if not part:
                return False
            text += part
        number = json.loads(text[text.rindex(b"\xff") + 1:])["arguments"]["id"]
        c.sendall(b'junk\n{"return": 1}\n\xff{"return": %d}\n' % number)
        return True

    def endless(c):
        try:
            while True:
                c.sendall(b"[" * 65536)
        except OSError:
            pass
    def slow(c):
        """It wakes up late, and answers everything it was asked meanwhile, the byte before each request too."""
        time.sleep(4)
        for raw in c.makefile("rb"):
            word = json.loads(raw.lstrip(b"\xff"))
            if raw.startswith(b"\xff"):
                c.sendall(b'{"error": {"class": "GenericError", "desc": "JSON parse error"}}\n\xff{"return": %d}\n' % word["arguments"]["id"])
            else:
                c.sendall({"guest-exec": b'{"return": {"pid": 5}}\n',
                           "guest-exec-status": b'{"return": {"exited": true, "exitcode": 7}}\n'}[word["execute"]])

    answers = [lambda c: c.sendall(b"\n"), lambda c: c.sendall(b'{"return": {"pid": "x"}}\n'), lambda c: c.sendall(b'{"return": {}}\n'),
               lambda c: c.sendall(b"[" * 5000 + b"\n"), lambda c: c.sendall(b'{"error": {"desc": "\\u001b[2J"}}\n'), endless,
               lambda c: c.sendall(b'{"return": {"pid": 1, "exited": true, "out-data": "====", "exitcode": 99999999999}}\n' * 2)]
    ospite_run("create", "liar", "--kernel", work + "/initrd", "--no-agent", "--port", "other=socket:agent")
    folder = work + "/root/machines/liar"
    for i, answer in enumerate(answers + [slow]):
        path = folder + "/agent"
        if os.path.exists(path):
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(8)

        def serve():
            while True:
                try:
                    c = listener.accept()[0]
                except OSError:
                    return
                with c:
                    try:
                        if answer == slow or (sync(c) and c.recv(65536)):
                            answer(c)
                    except OSError:
                        pass
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        # the lock makes it a running machine
        lock = os.open(folder + "/lock", os.O_RDWR | os.O_CREAT)
        fcntl.fcntl(lock, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))  # F_OFD_SETLK
        done = ospite_run("exec", "--direct", "liar", "x", status=7 if answer == slow else 125)
        if answer == slow:
            pass
        elif b"\x1b" in done.stderr or done.stderr.count(b"\n") != 1:
            fail("answer %d made it say %r" % (i, done.stderr))
        listener.close()
        os.close(lock)


main()
