#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Devices that have nothing to do wake nobody: the threads that serve disks, shared folder, sockets, networks and the rest are counted while
a stock kernel with all of their drivers sleeps, and so are those of the switch its second card is on.

usage: idle-devices.py OSPITE KERNEL-PACKAGE ENGINE
"""
import glob, os, sys, time
from guestlib import *

MODULES = ["virtio_blk", "virtio-rng", "virtio_console", "fuse", "virtiofs", "vsock",
           "vmw_vsock_virtio_transport_common", "vmw_vsock_virtio_transport", "libnvdimm", "nd_btt", "nd_pmem", "nd_virtio", "virtio_pmem",
           "failover", "net_failover", "virtio_net"]
SCRIPT = """
wait_for '[ -b /dev/vdb ]'
mount -t virtiofs share /mnt || echo "BAD mount"
wait_for '[ -e /sys/class/net/eth1 ]'
for n in 0 1; do echo 1 > /proc/sys/net/ipv6/conf/eth$n/disable_ipv6; done # it asks for routers for a while
ip link set eth0 up
udhcpc -i eth0 -n -q -t 20 -T 1 -s /bin/true >/dev/null 2>&1 || echo "BAD dhcp"
ip link set eth1 up
ip addr add 10.9.0.1/24 dev eth1
cat /mnt/file /dev/vda /dev/vdb >/dev/null
echo idle
read go
poweroff -f
"""
SAMPLE = 1.0


def switches(pid):
    """Of each thread but the CPUs': how often it has gone to sleep by itself, which is how often it was woken."""
    counts = {}
    for status in glob.glob("/proc/%d/task/*/status" % pid):
        try:
            with open(status) as f:
                words = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
        except FileNotFoundError:
            continue
        name = words["Name"]
        if not name.startswith(("vcpu", "cpu", "ospite-cpu")):
            counts[name, status] = int(words["voluntary_ctxt_switches"])
    return counts


def is_switch(pid, work):
    try:
        with open("/proc/%d/comm" % pid) as comm, open("/proc/%d/cmdline" % pid) as command:
            return comm.read() == "ospite-net\n" and work in command.read()
    except OSError:
        return False


def main():
    ospite, package, engine = os.path.realpath(sys.argv[1]), sys.argv[2], sys.argv[3]
    kernel, modules = kernel_of(package, MODULES)
    work = work_folder()
    initramfs(work + "/initrd", modules, MODULES, SCRIPT)
    os.mkdir(work + "/shared")
    for name in ("shared/file", "raw", "pmem"):
        with open(work + "/" + name, "wb") as f:
            f.write(os.urandom(1 << 20))
    subprocess.run([ospite, "image", "convert", work + "/raw", work + "/disk.qcow2", "--format", "raw", "--quiet"], check=True)
    os.environ["OSPITE_ROOT"] = work
    subprocess.run([ospite, "net", "create", "lab"], check=True, stdout=subprocess.DEVNULL)
    m = Machine(work, [ospite, "run", "--engine", engine, "--kernel", kernel, "--initrd", work + "/initrd", "--append",
                       "console=ttyS0 quiet panic=-1", "--no-reboot", "--memory", "192M", "--control", work + "/control",
                       "--disk", "file=%s/raw,bus=virtio" % work, "--disk", "format=qcow2,file=%s/disk.qcow2,bus=virtio" % work,
                       "--rng", "--port", "null", "--share", work + "/shared", "--vsock", work + "/sock", "--pmem",
                       work + "/pmem", "--net", "user", "--net", "switch:lab"])
    m.wait("idle")
    switch = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if is_switch(pid, work)]
    if len(switch) != 1:
        fail("switches: %s" % switch, m)
    # what wakes up for ever does so in each sample (no balloon: its guest reports what it has freed for some seconds)
    for attempt in range(40):
        before = switches(m.process.pid) | switches(switch[0])
        time.sleep(SAMPLE)
        after = switches(m.process.pid) | switches(switch[0])
        woken = {name: after[name, at] - count for (name, at), count in before.items() if after.get((name, at), count) != count}
        if not woken:
            break
    else:
        fail("idle, and still woken within %.1f s: %r" % (SAMPLE, woken), m)
    print("after %d samples" % attempt)
    print("threads: %s" % ", ".join(sorted({name for name, _ in after})))
    m.type("go")
    m.end()


main()
