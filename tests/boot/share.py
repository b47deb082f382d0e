#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A folder shared with a stock kernel's virtiofs: a tree's checksums seen from both sides, many files made, moved and removed (more than
the host keeps descriptors for), attributes, mapped files, a read-only share; all of it in use while the machine is saved and restored.

usage: share.py OSPITE KERNEL-PACKAGE FILES-PROGRAM ENGINE [UID]    (as this user instead of the caller's)
"""
import hashlib, os, sys
from guestlib import *

MODULES = ["fuse", "virtiofs"]
MANY = 2600 if len(sys.argv) < 6 else 400
SCRIPT = """
mkdir /ro
mount -t virtiofs tree /mnt || echo "BAD mount"
mount -t virtiofs share1 /ro || echo "BAD mount ro"
echo "tree $(cd /mnt/tree && find . -type f | sort | xargs md5sum | md5sum | cut -c 1-32)"
echo "links $(find /mnt/tree -type l | wc -l) $(ls -l /mnt/tree/link | sed 's/.*-> //')"
cp -a /mnt/tree /mnt/copy || echo "BAD copy"
mkdir /mnt/many
n=0
while [ $n -lt %d ]; do
	n=$((n + 1))
	echo $n >/mnt/many/$n
done
echo "many $(ls /mnt/many | wc -l) $(cat /mnt/many/* | md5sum | cut -c 1-32)"
mv /mnt/many /mnt/more
mkdir /mnt/more/sub
mv /mnt/more/1* /mnt/more/sub || echo "BAD mv"
echo "moved $(cat /mnt/more/[1-9]* /mnt/more/sub/* | sort -n | md5sum | cut -c 1-32)"
rm /mnt/more/2*
mkdir /mnt/work
/bin/files /mnt/work
dd if=/dev/zero of=/mnt/zeroes bs=1M count=8 2>/dev/null
echo 3 >/proc/sys/vm/drop_caches
echo "zeroes $(md5sum </mnt/zeroes | cut -c 1-32)"
echo x >/ro/x 2>/dev/null && echo "BAD written"
rm /ro/tree/0/0 2>/dev/null && echo "BAD removed"
echo "ro $(md5sum </ro/tree/0/0 | cut -c 1-32)"
exec 5</mnt/tree/0/0 6>/mnt/held
echo before >&6
cd /mnt/more
echo mounted
read go
echo "again $(cat <&5 | md5sum | cut -c 1-32) $(ls | wc -l) $(cat 3)"
echo after >&6
exec 5<&- 6>&-
cd /
umount /mnt /ro || echo "BAD umount"
echo unmounted
poweroff -f
""" % MANY


def md5(data):
    return hashlib.md5(data).hexdigest()


def plant(tree):
    """Some hundred files of many sizes; the checksum that the guest's pipeline gives."""
    lines = []
    for i in range(12):
        os.makedirs("%s/%d/deep/er" % (tree, i))
        for j in range(20):
            data = os.urandom((i * 20 + j) ** 2 % 70000)
            name = "%d/%s%d" % (i, ("", "deep/", "deep/er/")[j % 3], j)
            with open("%s/%s" % (tree, name), "wb") as f:
                f.write(data)
            lines.append(("./" + name, md5(data)))
    os.symlink("../../outside", tree + "/link")
    return md5("".join("%s  %s\n" % (sum, name) for name, sum in sorted(lines)).encode())


def main():
    ospite, package, program, engine = os.path.realpath(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
    kernel, modules = kernel_of(package, MODULES)
    work = work_folder()
    os.mkdir(work + "/shared")
    tree = plant(work + "/shared/tree")
    with open(work + "/outside", "w") as f:
        f.write("not for the guest")
    initramfs(work + "/initrd", modules, MODULES, SCRIPT, [("/bin/files", program)])
    command = [ospite, "run", "--engine", engine, "--kernel", kernel, "--initrd", work + "/initrd", "--append",
               "console=ttyS0 quiet panic=-1", "--no-reboot", "--memory", "192M", "--share", work + "/shared:tree", "--share",
               work + "/shared,ro", "--control", work + "/control", "--save-to", work + "/saved"]
    if len(sys.argv) > 5:
        uid = sys.argv[5]
        if os.geteuid():
            skip("only root can become another user")
        shutil.copy(kernel, work + "/kernel")
        shutil.copy(ospite, work + "/ospite")
        command[0], command[command.index(kernel)] = work + "/ospite", work + "/kernel"
        subprocess.run(["chown", "-R", uid + ":" + uid, work], check=True)
        command = ["setpriv", "--reuid", uid, "--regid", uid, "--clear-groups"] + command
    m = Machine(work, command)
    m.wait("tree " + tree)
    m.wait("links 1 ../../outside")
    numbers = "".join("%d\n" % n for n in sorted(range(1, MANY + 1), key=str)).encode()
    m.wait("many %d %s" % (MANY, md5(numbers)))
    m.wait("moved " + md5("".join("%d\n" % n for n in range(1, MANY + 1)).encode()))
    m.wait("files done")
    m.wait("zeroes " + md5(bytes(8 << 20)))
    with open(work + "/shared/tree/0/0", "rb") as f:
        m.wait("ro " + md5(f.read()))
    m.wait("mounted")
    c = Control(work + "/control")
    # the host's view
    shared = work + "/shared"
    if subprocess.run(["diff", "-r", "--no-dereference", shared + "/tree", shared + "/copy"]).returncode:
        fail("the guest's copy differs", m)
    left = sorted(os.listdir(shared + "/more"))
    if left != sorted([str(n) for n in range(1, MANY + 1) if str(n)[0] not in "12"] + ["sub"]):
        fail("removed and moved files do not show", m)
    data = bytes((i * 7 + (i >> 12)) & 255 for i in range(64 * 4096))
    with open(shared + "/work/mapped", "rb") as f:
        if f.read() != data:
            fail("what the guest wrote into a mapped file is not there", m)
    if os.stat(shared + "/work/mapped").st_mode & 0o7777 != 0o640:
        fail("the guest's permissions are not there", m)
    # the guest knows thousands of files by now; it goes on elsewhere, in the middle of things
    if "error" in c.ask("ospite-suspend"):
        fail("not saved", m)
    m.end()
    restored = [word for word in command if word not in ("--memory", "192M")] + ["--restore", work + "/saved"]
    restored[restored.index(engine)] = "interp"
    m = Machine(work, restored)
    m.type("go")
    with open(work + "/shared/tree/0/0", "rb") as f:
        m.wait("again %s %d 3" % (md5(f.read()), len(left)))
    m.wait("unmounted")
    m.end()
    with open(shared + "/held") as f:
        if f.read() != "before\nafter\n":
            fail("a file written to before and after is not whole")


main()
