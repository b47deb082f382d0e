#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""File systems in the guest outlive what happens to the machine. A stock kernel makes an ext4 with mkfs, fills it and checks it with
fsck; then it writes on while its machine is killed. What it had been told was on the disk must be there: image, file system (fsck
again) and every byte of every file, read by another machine. Images with a snapshot go back to it, and what is behind an image
has not changed by a byte.

usage: filesystems.py OSPITE KERNEL-PACKAGE ENGINE FSLOAD [--cases raw,qcow2,chain] [--megabytes 40] [--kills 1] [--seed 1]
By hand, gigabytes: tests/boot/filesystems.py build/ospite linux-image-cloud-amd64 dbt build/tests/boot/fsload --megabytes 2048 --kills 5
"""
import argparse, hashlib, os, random, shutil, subprocess, sys, time
from guestlib import *

MODULES = ["virtio_blk"]
FILES = 40  # of the first filling
SCRIPT = """
wait_for '[ -b /dev/vda ]'
set -- $(tr ' ' '\\n' </proc/cmdline | sed -n 's/^do=//p' | tr ',' ' ')
echo "disk $(cat /sys/block/vda/mq/*/cpu_list | wc -l) queues $(cut -c 35 /sys/bus/virtio/devices/virtio0/features)"
check() { /sbin/e2fsck -fn /dev/vda >/tmp/log 2>&1 && echo "clean" || { cat /tmp/log; echo "BAD fsck"; }; }
case $1 in
make) /sbin/mke2fs -q -t ext4 /dev/vda || echo "BAD mkfs" ;;
*)
	/sbin/e2fsck -p /dev/vda >/tmp/log 2>&1
	[ $? -lt 2 ] || { cat /tmp/log; echo "BAD repair"; }
	check
	;;
esac
mount -t ext4 /dev/vda /mnt || echo "BAD mount"
case $1 in
make | more) /bin/fsload fill /mnt $2 $3 $4 ;;
verify) /bin/fsload verify /mnt $3 $4 ;;
esac
umount /mnt || echo "BAD umount"
check
echo "finished"
poweroff -f
"""


class Disk:
    """One image and how the guest sees it."""

    def __init__(self, o, work, name, packed, queues):
        self.o, self.work, self.name, self.queues = o, work, name, queues
        self.legacy = [] if packed else ["force_legacy=1"]
        self.bytes = max(16384, (o.megabytes << 20) // FILES * 8 // 5)  # sizes are five eighths of it on average
        self.size = "%dM" % (128 + o.megabytes * 3)
        self.written = 0

    def run(self, spec, what, first=0, last=0):
        o = self.o
        append = " ".join(["console=ttyS0 quiet panic=-1 do=%s,%d,%d,%d" % (what, first, last, self.bytes)] + self.legacy)
        return Machine(self.work, [o.ospite, "run", "--engine", o.engine, "--memory", "256M", "--cpus", str(self.queues), "--no-reboot",
                                   "--net", "none", "--kernel", o.kernel, "--initrd", self.work + "/initrd", "--append", append, "--disk",
                                   "%s,bus=virtio,queues=%d" % (spec, self.queues)])

    def whole(self, spec, what, first, last):
        """To the end; what the machine said it found intact."""
        m = self.run(spec, what, first, last)
        found = m.wait("intact").split() if what == "verify" else []
        m.wait("finished", 40 + self.o.megabytes)
        m.end()
        return found

    def until(self, spec, first, count):
        """Writes on, until it is killed after some files; the last that was durable."""
        m = self.run(spec, "more", first, 1 << 20)
        last = first
        for _ in range(count):
            last = int(m.wait("durable", 40 + self.o.megabytes).split()[-1])
        time.sleep(self.o.random.random() * 0.05)
        m.kill()
        while True:
            line = m.queue.get()
            if line is None:
                return last
            if "durable" in line:
                last = int(line.split()[-1])


def ospite_image(o, *arguments, allowed=(0,)):
    done = subprocess.run([o.ospite, "image"] + list(arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode not in allowed:
        fail("image %s: %d %s" % (" ".join(arguments), done.returncode, done.stdout.decode()))


def check_image(o, path):
    ospite_image(o, "check", path, "--format", "qcow2", allowed=(0, 3))  # space that is lost is allowed
    if shutil.which("qemu-img"):
        done = subprocess.run(["qemu-img", "check", "-f", "qcow2", path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode not in (0, 3):
            fail("qemu-img check: " + done.stdout.decode())


def digest(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else \
            subprocess.run(["sha256sum", path], stdout=subprocess.PIPE, check=True).stdout.split()[0]


def case(o, work, name):
    path, start = "%s/%s" % (work, name), time.monotonic()
    disk = Disk(o, work, name, packed=name != "raw", queues=1 if name == "raw" else 4 if name == "qcow2" else 2)
    spec = "format=%s,file=%s" % ("raw" if name == "raw" else "qcow2", path)
    if name == "raw":
        ospite_image(o, "create", path, "--format", "raw", "--size", disk.size)
    else:
        ospite_image(o, "create", path, "--format", "qcow2", "--size", disk.size)
    disk.whole(spec, "make", 0, FILES - 1)
    behind = None
    if name == "chain":  # an image in front of this one, with a snapshot of its own
        behind = path, digest(path)
        path += "-front"
        ospite_image(o, "create", path, "--format", "qcow2", "--backing", behind[0], "--backing-format", "qcow2")
        spec = "format=qcow2,file=%s,backing=header" % path
    if name != "raw":
        ospite_image(o, "snapshot", path, "--format", "qcow2", "--create", "first")
    last = FILES - 1
    for _ in range(o.kills):
        last = disk.until(spec, last + 1, o.random.randint(4, 15))
        if name != "raw":
            check_image(o, path)
        found = disk.whole(spec, "verify", 0, last)
    if name != "raw":
        ospite_image(o, "snapshot", path, "--format", "qcow2", "--apply", "first")
        ospite_image(o, "snapshot", path, "--format", "qcow2", "--delete", "first")
        disk.whole(spec, "verify", 0, FILES - 1)
        check_image(o, path)
    if behind and digest(behind[0]) != behind[1]:
        fail("the image behind has changed")
    print("%s: %d files, %d MiB verified after %d kills, %.1f s" % (name, int(found[1]), int(found[3]) >> 20, o.kills,
                                                               time.monotonic() - start))


def main():
    a = argparse.ArgumentParser()
    for name in ("ospite", "package", "engine", "fsload"):
        a.add_argument(name)
    a.add_argument("--cases", default="raw,qcow2,chain")
    a.add_argument("--megabytes", type=int, default=40)
    a.add_argument("--kills", type=int, default=1)
    a.add_argument("--seed", type=int, default=1)
    o = a.parse_args()
    o.ospite, o.fsload, o.random = os.path.realpath(o.ospite), os.path.realpath(o.fsload), random.Random(o.seed)
    o.kernel, modules = kernel_of(o.package, MODULES)
    work = work_folder()
    tools = [shutil.which(t, path="/usr/sbin:/sbin:/usr/bin") or skip("e2fsprogs is not installed") for t in ("mke2fs", "e2fsck")]
    files = [("/sbin/" + os.path.basename(t), t) for t in tools] + [(p, p) for t in tools for p in libraries(t)]
    initramfs(work + "/initrd", modules, MODULES, SCRIPT, files + [("/bin/fsload", o.fsload), ("/etc/mke2fs.conf", "/etc/mke2fs.conf")])
    for name in o.cases.split(","):
        case(o, work, name)


main()
