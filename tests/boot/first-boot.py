#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""First-boot data in a Debian of `ospite run debian --user-data`: host name, user, ssh key, file, command, and a package where the host reaches a
mirror.

usage: first-boot.py OSPITE
"""
import os, shutil, socket, subprocess, sys
from guestlib import *

DATA = """#cloud-config
users:
  - name: ann
    groups: sudo
    sudo: "ALL=(ALL) NOPASSWD:ALL"
    shell: /bin/bash
    ssh_authorized_keys: ["%s"]
write_files:
  - path: /etc/written
    content: by first boot
runcmd:
  - echo ran as $(id -un) >/var/lib/ran
"""


def main():
    ospite = os.path.abspath(sys.argv[1])
    for program in ["ssh", "ssh-keygen"]:
        shutil.which(program) or skip(program + " is not installed")
    work = work_folder()
    debian_root(work)
    os.chdir(work)

    def run(*command, seconds=SECONDS):
        r = subprocess.run([ospite] + list(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           timeout=seconds + 30)
        text = r.stdout.decode(errors="replace")
        if r.returncode:
            fail("ospite %s: status %d: %s" % (" ".join(command), r.returncode, text))
        return text

    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "key"], check=True)
    with open("key.pub") as key, open("data.yaml", "w") as data:
        data.write(DATA % key.read().strip())
        online = mirror()
        if online:
            data.write("packages: [hello]\n")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    try:
        run("run", "--detach", "debian", "web", "--memory", "1G", "--cpus", "2", "--hostname", "fancy", "--user-data", "data.yaml",
            "--port", "127.0.0.1:%d:22" % port)
        run("exec", "--time", "300", "web", "--", "cloud-init", "status", "--wait", seconds=300)
        seen = run("exec", "web", "--", "sh", "-c", "hostname; cat /etc/written /var/lib/ran; id -nG ann")
        for word in ["fancy", "by first boot", "ran as root", "ann sudo"]:
            word in seen or fail("no '%s' in '%s'" % (word, seen))
        r = subprocess.run(["ssh", "-i", "key", "-p", str(port), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
                            "-o", "BatchMode=yes", "-o", "ConnectTimeout=60", "ann@127.0.0.1", "sudo id -un; hello"],
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS)
        for word in ["root"] + (["Hello, world!"] if online else []):
            word in r.stdout.decode(errors="replace") or fail("by ssh: no '%s' in '%s'" % (word, r.stdout.decode(errors="replace")))
        run("kill", "web")
    finally:
        subprocess.run([ospite, "kill", "--all", "--quiet"], stderr=subprocess.DEVNULL)
    print("passed" + ("" if online else ", without a package: no mirror is reached from here"))


main()
