#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`ospite run debian` as a user meets it: the console, exec, ssh, a shared folder, a forwarded port, a thin clone, the end. The template is the
one in the cache (./check makes it); a copy of it is used.

usage: debian.py OSPITE
"""
import os, shutil, subprocess, sys, urllib.request
import guestlib

ospite = os.path.abspath(sys.argv[1])
shutil.which("ssh") or guestlib.skip("ssh is not installed")
work = guestlib.work_folder()
root = guestlib.debian_root(work)
os.mkdir(work + "/folder")
with open(work + "/folder/file", "w") as f:
    f.write("from the host\n")


def run(*command, status=0, seconds=guestlib.SECONDS):
    r = subprocess.run([ospite] + list(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                       timeout=seconds + 30)
    text = r.stdout.decode(errors="replace")
    if r.returncode != status:
        guestlib.fail("ospite %s: status %d, expected %d: %s" % (" ".join(command), r.returncode, status, text), machine)
    return text


def expect(what, word, text):
    if word not in text:
        guestlib.fail("%s: no '%s' in '%s'" % (what, word, text), machine)


def free_port():
    import socket
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


port = free_port()
machine = None
machine = guestlib.Machine(work, [ospite, "run", "debian", "web", "--memory", "512M", "--share", work + "/folder", "--port", "%d:80" % port])
try:
    machine.wait("(automatic login)")
    machine.type("echo typed $((40 + 2)) by $(id -un)")
    machine.wait("typed 42 by root")
    expect("exec", "web", run("exec", "--time", "120", "web", "--", "hostname"))
    expect("ssh", "from the host", run("ssh", "web", "cat /mnt/share/file; echo back >/mnt/share/answer"))
    with open(work + "/folder/answer") as f:
        expect("the shared folder", "back", f.read())
    run("exec", "web", "--", "sh", "-c", "mkdir /srv/www && echo served >/srv/www/index && "
        "busybox httpd -p 80 -h /srv/www")
    with urllib.request.urlopen("http://127.0.0.1:%d/index" % port, timeout=guestlib.SECONDS) as answer:
        expect("the port", "served", answer.read().decode())
    expect("ps", "running", run("ps"))
    run("template", "rm", "debian", status=125)
    machine.type("sync; poweroff")
    machine.end()
    run("wait", "--time", "60", "web")
    run("clone", "--thin", "web", "second")
    run("config", "second", "--unset", "port")
    run("start", "second")
    expect("the clone", "second\nserved", run("ssh", "second", "hostname; cat /srv/www/index"))
    run("kill", "second")
    expect("both", "second", run("rm", "web", "second"))
finally:
    subprocess.run([ospite, "kill", "--all", "--quiet"], stderr=subprocess.DEVNULL)
if os.listdir(root + "/machines"):
    guestlib.fail("left: " + " ".join(os.listdir(root + "/machines")))
print("passed")
