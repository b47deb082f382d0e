#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Two images as read-only memory of a stock kernel: a file system mounted with and without dax, checksums of all of it, a program run in
place, writes that change nothing; the same machine saved, and restored under another engine.

usage: pmem.py OSPITE KERNEL-PACKAGE ENGINE OTHER-ENGINE
"""
import hashlib, os, sys
from guestlib import *

MODULES = ["libnvdimm", "nd_btt", "nd_pmem", "nd_virtio", "virtio_pmem"]
SCRIPT = """
wait_for '[ -b /dev/pmem0 ] && [ -b /dev/pmem1 ]'
echo "sizes $(cat /sys/block/pmem0/size) $(cat /sys/block/pmem1/size)"
mount -t ext4 -o ro,dax /dev/pmem0 /mnt || echo "BAD mount"
[ "$(/mnt/busybox echo in place)" = "in place" ] && echo "ran in place"
look() { echo "$1 $(md5sum </mnt/data | cut -c 1-32) $(head -c 3000001 /dev/pmem1 | md5sum | cut -c 1-32)"; }
look first
dd if=/dev/urandom of=/dev/pmem1 bs=4096 count=10 2>/dev/null
echo 3 >/proc/sys/vm/drop_caches
look second
read go
look third
umount /mnt
mount -t ext4 -o ro /dev/pmem0 /mnt || echo "BAD mount again"
look fourth
poweroff -f
"""


def main():
    ospite, package, engine, other = os.path.realpath(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
    kernel, modules = kernel_of(package, MODULES)
    shutil.which("mke2fs") or skip("mke2fs is not installed")
    work = work_folder()
    os.mkdir(work + "/tree")
    data, raw = os.urandom(5000000), os.urandom(3000001)  # neither a multiple of anything
    with open(work + "/tree/data", "wb") as f:
        f.write(data)
    shutil.copy(shutil.which("busybox"), work + "/tree/busybox")
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-b", "4096", "-d", work + "/tree", work + "/image", "12M"],
                   check=True, stdout=subprocess.DEVNULL)
    with open(work + "/raw", "wb") as f:
        f.write(raw)
    initramfs(work + "/initrd", modules, MODULES, SCRIPT)
    base = [ospite, "run", "--kernel", kernel, "--initrd", work + "/initrd", "--append", "console=ttyS0 quiet panic=-1",
            "--no-reboot", "--pmem", work + "/image", "--pmem", work + "/raw", "--control", work + "/control"]
    m = Machine(work, base + ["--engine", engine, "--memory", "192M", "--save-to", work + "/saved"])
    sums = "%s %s" % (hashlib.md5(data).hexdigest(), hashlib.md5(raw).hexdigest())
    m.wait("sizes %d %d" % (12 << 11, 4 << 11))
    m.wait("ran in place")
    m.wait("first " + sums)
    m.wait("second " + sums)
    Control(work + "/control").ask("ospite-suspend")
    m.end()
    m = Machine(work, base + ["--engine", other, "--restore", work + "/saved"])
    m.type("go")
    m.wait("third " + sums)
    m.wait("fourth " + sums)
    m.end()
    with open(work + "/raw", "rb") as f:
        if f.read() != raw:
            fail("the file was written")


main()
