#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""apt in a Debian guest, through the NAT: the host's name server and mirror, lists with their signatures, a package. Skipped where the
host reaches no mirror by plain http, or no Debian is in the cache.

usage: net-apt.py OSPITE KERNEL-PACKAGE ENGINE
"""
import os, sys, time
from guestlib import *

MODULES = ["virtio_blk", "failover", "net_failover", "virtio_net"]
SCRIPT = """
wait_for '[ -b /dev/vda1 ] && [ -e /sys/class/net/eth0 ]'
mount -t ext4 /dev/vda1 /mnt || echo "BAD mount"
for d in dev proc sys; do mount --bind /$d /mnt/$d; done
ip link set lo up
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2
rm -rf /mnt/etc/apt/sources.list /mnt/etc/apt/sources.list.d/*
echo nameserver 10.0.2.3 >/mnt/etc/resolv.conf
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %(mirror)s %(suite)s-updates main" >/mnt/etc/apt/sources.list
date -s @%(now)d >/dev/null
cat >/mnt/tmp/go <<'END'
set -e
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
options="-o APT::Sandbox::User=root -o Acquire::Retries=3 -o Acquire::http::Timeout=30"
apt-get $options -q update
cd /tmp
# the smallest of the list
package=$(cat /var/lib/apt/lists/*_Packages | awk '/^Package:/ { p = $2 } /^Size:/ { print $2, p }' | sort -n | head -n 1 | cut -d ' ' -f 2)
[ -n "$package" ] || exit 0 # a suite as good as new
apt-get $options -q download $package/%(suite)s-updates
dpkg-deb --info ${package}_*.deb | grep "Package: $package"
END
chroot /mnt /bin/sh /tmp/go >/tmp/log 2>&1 && echo "apt went" || { cat /tmp/log; echo "apt failed"; }
umount /mnt/dev /mnt/proc /mnt/sys /mnt
poweroff -f
"""


def main():
    ospite, package, engine = os.path.realpath(sys.argv[1]), sys.argv[2], sys.argv[3]
    kernel, modules = kernel_of(package, MODULES)
    disk = os.path.join(cache_folder(), "debian/disk.img")
    if not os.path.exists(disk):
        skip("no Debian in the cache (./check makes it, as root, with mmdebstrap)")
    uri, suite = mirror() or skip("no mirror is reached by http from here")
    work = work_folder()
    initramfs(work + "/initrd", modules, MODULES, SCRIPT % {"mirror": uri, "suite": suite, "now": time.time()})
    subprocess.run([ospite, "image", "create", work + "/over.qcow2", "--backing", disk, "--backing-format", "raw"], check=True,
                   stdout=subprocess.DEVNULL)
    m = Machine(work, [ospite, "run", "--engine", engine, "--kernel", kernel, "--initrd", work + "/initrd", "--append",
                       "console=ttyS0 quiet panic=-1", "--no-reboot", "--memory", "512M", "--disk",
                       "format=qcow2,bus=virtio,backing=header,file=" + work + "/over.qcow2"])
    try:
        line = m.wait("apt ", 240)
    finally:
        print("\n".join(m.lines[-20:]))
    if "apt went" not in line:
        try:  # a mirror that has just gone is no fault of ours
            urllib.request.urlopen("%s/dists/%s-updates/InRelease" % (uri, suite), timeout=10).close()
        except OSError:
            skip("the mirror is reached no more")
        fail("apt in the guest", m)
    m.end()


main()
