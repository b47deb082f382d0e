#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The balloon with a stock kernel's driver. What the guest has freed goes back to the host by itself (reporting of free pages), seen
in the process's own memory; its statistics say what the guest itself says; a target is met, told as an event, and undone.

usage: balloon.py OSPITE KERNEL-PACKAGE ENGINE
"""
import os, sys, time
from guestlib import *

MODULES = ["virtio_balloon"]
MEMORY = 512 << 20
USED = 160  # MiB of it the guest fills for a while
SCRIPT = """
mount -t tmpfs -o size=400m t /mnt
echo "total $(sed -n 's/^MemTotal: *\\([0-9]*\\).*/\\1/p' /proc/meminfo)"
read go
dd if=/dev/zero bs=1M count=%d 2>/dev/null | tr '\\0' 'x' >/mnt/big
echo "filled"
read go
rm /mnt/big
echo "freed $(sed -n 's/^MemAvailable: *\\([0-9]*\\).*/\\1/p' /proc/meminfo)"
read go
poweroff -f
""" % USED


def resident(m):
    """MiB of guest memory the process holds."""
    with open("/proc/%d/smaps_rollup" % m.process.pid) as f:
        return sum(int(line.split()[1]) for line in f if line.startswith("Rss:")) >> 10


def until(what, true, m):
    end = time.monotonic() + SECONDS
    while not true():
        if time.monotonic() > end:
            fail(what, m)
        time.sleep(0.1)


def near(a, b, within):
    return abs(a - b) <= within


def main():
    ospite, package, engine = os.path.realpath(sys.argv[1]), sys.argv[2], sys.argv[3]
    kernel, modules = kernel_of(package, MODULES)
    work = work_folder()
    initramfs(work + "/initrd", modules, MODULES, SCRIPT)
    m = Machine(work, [ospite, "run", "--engine", engine, "--kernel", kernel, "--initrd", work + "/initrd", "--append",
                       "console=ttyS0 quiet panic=-1", "--no-reboot", "--net", "none", "--memory", "512M", "--balloon", "--control",
                       work + "/control"])
    c = Control(work + "/control", m)
    total = int(m.wait("total").split()[-1]) << 10
    before = resident(m)
    m.type("go")
    m.wait("filled")
    full, given = resident(m), c.ask("query-balloon")["ospite-given-back"]
    if full < before + USED * 9 // 10:
        fail("%d MiB before, %d MiB with the guest's file" % (before, full), m)
    m.type("go")
    available = int(m.wait("freed").split()[-1]) << 10
    until("the guest has freed %d MiB and the process still has %d of %d" % (USED, resident(m), full),
          lambda: resident(m) < full - USED * 3 // 4, m)
    if c.ask("query-balloon")["ospite-given-back"] - given < USED * 3 // 4 << 20:
        fail("given back: %r" % c.ask("query-balloon"), m)
    print("%d MiB, %d with %d filled, %d after they were freed" % (before, full, USED, resident(m)))

    def told():
        stats = c.ask("query-balloon")["ospite-stats"]  # as of the last question; asks anew
        return stats.get("stat-total-memory") == total and near(stats["stat-available-memory"], available, 48 << 20) and \
            0 < stats["stat-free-memory"] <= total and stats["stat-minor-faults"] > 100
    until("statistics: %r; the guest says %d, %d" % (c.ask("query-balloon"), total, available), told, m)
    for target in (MEMORY - (128 << 20), MEMORY):
        c.ask("balloon", value=target)
        while c.event("BALLOON_CHANGE")["data"]["actual"] != target:
            pass
        if c.ask("query-balloon")["actual"] != target:
            fail("told of a change that was not: %r" % c.ask("query-balloon"), m)
    m.type("go")
    m.end()


main()
