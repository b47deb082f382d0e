#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The commands of the README and of docs/machines.md, as a newcomer types them: taken from the documents and run as they stand (but for how long 'stop' waits), in a folder with
the files they name. Started by root they run twice, as root and as a user without privileges. A command that is neither run nor
named below with its reason fails the test. usage: readme.py OSPITE SOURCE KERNEL-PACKAGE"""
import glob, os, re, shutil, signal, subprocess, sys, tempfile, threading

ospite, source, package = os.path.realpath(sys.argv[1]), os.path.realpath(sys.argv[2]), sys.argv[3]
inside = len(sys.argv) > 4
LIMIT = 240
# beginnings of commands that are not run here, and why
LEFT_OUT = {
    "./try": "fetches packages",
    "./check": "runs this",
    "meson setup build": "has been done: its result is what runs here",
    "build/ospite run debian web": "fetches a Debian; test debian",
    "ospite set web": "needs drivers of hot-plug in the guest; test hotplug",
    "ospite exec": "needs the guest's agent; test agent",
    "ospite cp": "needs the guest's agent; test agent",
}
# what is to be seen; such a machine may go on for ever and is ended then
SHOWS = {
    "run ./vmlinuz": "Linux 6",
    "run ./disk.qcow2": "started from a disk",
    "run ./debian.iso ./disk.img": "started from a disk",
}
BOOT_SECTOR = """
	bits 16
	org 0x7c00
	xor ax, ax
	mov ds, ax
	mov si, text
next:	lodsb
	test al, al
	jz stay
	mov dx, 0x3f8
	out dx, al
	jmp next
stay:	hlt
	jmp stay
text:	db "started from a disk", 10, 0
	times 510-($-$$) db 0
	dw 0xaa55
"""


def skip(why):
    print("skipped: " + why)
    sys.exit(77)


def commands(document, begins):
    """What is typed: lines that are indented, in examples after a '$ '. Remarks go."""
    for line in open(os.path.join(source, document), encoding="utf-8"):
        m = re.match(r"    (?:\$ )?((?:%s).*)" % begins, line)
        if m:
            yield re.sub(r"\s+#.*", "", m.group(1)).strip()


def prepare(work):
    cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "ospite")
    kernel = glob.glob("%s/%s/vmlinuz-*" % (cache, package))
    if not kernel or not os.path.exists(cache + "/busybox.cpio"):
        skip("no kernel of %s with its first programs in the cache (./check fetches it)" % package)
    for tool in ("nasm", "setpriv"):
        shutil.which(tool) or skip("no " + tool)
    shutil.copy(kernel[0], work + "/vmlinuz")
    shutil.copy(cache + "/busybox.cpio", work + "/initrd.img")
    with open(work + "/boot.asm", "w") as f:
        f.write(BOOT_SECTOR)
    subprocess.run(["nasm", "-f", "bin", "-o", work + "/disk.img", work + "/boot.asm"], check=True)
    with open(work + "/disk.img", "r+b") as f:
        f.truncate(4 << 20)
    subprocess.run([ospite, "image", "convert", "--quiet", work + "/disk.img", work + "/disk.qcow2"], check=True)
    with open(work + "/debian.iso", "wb") as f:
        f.truncate(1 << 20)
    os.mkdir(work + "/build")
    shutil.copy(ospite, work + "/build/ospite")
    shutil.copy(__file__, work + "/readme.py")
    os.mkdir(work + "/bin")
    os.symlink("../build/ospite", work + "/bin/ospite")
    os.makedirs(work + "/source/docs")
    for document in ("README.md", "docs/machines.md"):
        shutil.copy(os.path.join(source, document), work + "/source/" + document)
    os.mkdir(work + "/home")


def run(command, shows, seen=None):
    p = subprocess.Popen(["sh", "-c", "exec " + command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    alarm = threading.Timer(LIMIT, p.kill)
    alarm.start()
    out = b""
    while True:
        data = os.read(p.stdout.fileno(), 65536)
        out += data
        if not data or (shows and shows.encode() in out):
            break
    if shows and shows.encode() in out:
        p.terminate()
    p.wait()
    alarm.cancel()
    ok = shows.encode() in out if shows else p.returncode == 0
    print("%s: %s" % ("ok" if ok else "FAILED, status %d" % p.returncode, command), flush=True)
    if not ok:
        print(out.decode(errors="replace")[-3000:])
    return ok


def main():
    failed = done = 0
    todo = list(commands("README.md", r"\./try|\./check|meson|build/ospite|ospite (?=\w)"))
    assert any(c.startswith("build/ospite run ./vmlinuz") for c in todo) and len(todo) >= 6, todo
    machines = list(commands("docs/machines.md", "ospite"))
    assert machines[0].startswith("ospite create web") and len(machines) >= 6, machines
    for command in todo + machines:
        why = next((w for c, w in LEFT_OUT.items() if command.startswith(c)), None)
        if why:
            print("left out, %s: %s" % (why, command))
            continue
        shows = next((t for c, t in SHOWS.items() if c in command), None)
        if command == "ospite console web":
            shows = "Ctrl-A D" if sys.stdin.isatty() else "Linux"
        if command == "ospite stop web":
            command += " --time 2"  # nobody in this guest hears the power button: force comes then
        failed += not run(command, shows)
        done += 1
    print("%d commands run, %d failed" % (done, failed))
    return failed != 0


work = os.getcwd() if inside else tempfile.mkdtemp(prefix="readme-")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of what is below
try:
    if not inside:
        prepare(work)
        os.chmod(work, 0o755)
        status = 0
        users = [[]]
        if os.geteuid() == 0:
            users.append(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--bounding-set=-all"])
        for user in users:
            if user:
                for at, folders, files in os.walk(work):
                    for name in [at] + [os.path.join(at, f) for f in files]:
                        os.chown(name, 65534, 65534, follow_symlinks=False)
            env = {"PATH": work + "/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": work + "/home", "TMPDIR": work,
                   "OSPITE_ROOT": work + ("/user" if user else "/root")}
            print("as %s:" % ("a user" if user else "whoever started this"), flush=True)
            status |= subprocess.run(user + ["/usr/bin/python3", work + "/readme.py", work + "/build/ospite", work + "/source", package, "inside"],
                                     cwd=work, env=env).returncode
            subprocess.run(user + [work + "/build/ospite", "kill", "--all", "--quiet"], env=env, capture_output=True)
    else:
        status = main()
finally:
    if not inside:
        shutil.rmtree(work, ignore_errors=True)
sys.exit(status)
