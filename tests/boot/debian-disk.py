#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A disk image with a whole Debian: partition table, GRUB, ext4; root's password is "ospite". Needs root, and a mirror: the one apt
uses. The file appears only when it is complete.

usage: debian-disk.py FILE
"""
import glob, os, re, shutil, subprocess, sys, tempfile
import guestlib

SIZE = 700 << 20
PACKAGES = "linux-image-cloud-amd64,systemd-sysv,udev,login,dbus,libpam-systemd,kmod,initramfs-tools"
CONFIG = """set timeout=0
menuentry debian {
	linux /vmlinuz root=/dev/vda1 rw console=ttyS0 console=tty0 quiet
	initrd /initrd.img
}
"""


def main():
    file = os.path.abspath(sys.argv[1])
    if os.getuid():
        sys.exit("a Debian is made by root only")
    os.makedirs(os.path.dirname(file), exist_ok=True)
    with open("/etc/os-release") as f:
        suite = re.search("^VERSION_CODENAME=(.*)", f.read(), re.M).group(1)
    sources = [p for p in glob.glob("/etc/apt/sources.list") + glob.glob("/etc/apt/sources.list.d/*.sources") +
               glob.glob("/etc/apt/sources.list.d/*.list") if os.path.getsize(p)]
    work = tempfile.mkdtemp(dir=os.path.dirname(file))
    root, disk = work + "/root", work + "/disk"
    try:
        paths = ["--dpkgopt=path-exclude=/usr/share/%s/*" % p for p in ("man", "locale", "doc")]
        subprocess.run(["timeout", "400", "mmdebstrap", "--mode=root", "--variant=minbase", "--include=" + PACKAGES,
                        "--aptopt=APT::Sandbox::User \"root\""] + paths +
                       ["--customize-hook=echo root:ospite | chroot \"$1\" chpasswd",
                        "--customize-hook=echo ospite-debian >\"$1/etc/hostname\"", suite, root] + sources, check=True)
        shutil.rmtree(root + "/var/lib/apt/lists")
        os.makedirs(root + "/boot/grub", exist_ok=True)
        with open(root + "/boot/grub/grub.cfg", "w") as f:
            f.write(CONFIG)
        with open(disk, "wb") as f:
            f.truncate(SIZE)
        guestlib.make("mke2fs", "-q", "-t", "ext4", "-d", root, "-E", "offset=%d" % guestlib.PARTITION, disk,
                      "%dk" % ((SIZE - guestlib.PARTITION) >> 10))
        guestlib.grub_on_disk(disk, SIZE)
        os.rename(disk, file)
    finally:
        shutil.rmtree(work, ignore_errors=True)


main()
