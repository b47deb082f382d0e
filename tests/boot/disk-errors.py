#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A disk that fails under a stock kernel pauses the machine and loses nothing: a network block device without space, that fails
again when the machine goes on too early, and again in the machine that is made of the saved one; a full file system of the host. Beside that the commands about disks and the balloon.

usage: disk-errors.py OSPITE KERNEL-PACKAGE ENGINE
"""
import os, shutil, subprocess, sys, time
from guestlib import *

MODULES = ["virtio_blk", "virtio_balloon"]
SCRIPT = """
wait_for '[ -b /dev/vda ]'
n() { md5sum | cut -c 1-8; }
dd if=/dev/urandom of=/tmp/data bs=64k count=96 2>/dev/null
echo ready
read go
dd if=/tmp/data of=/dev/vda bs=64k oflag=direct 2>/dev/null || echo "BAD an error came through"
[ "$(dd if=/dev/vda bs=64k count=96 iflag=direct 2>/dev/null | n)" = "$(n </tmp/data)" ] && echo "all there"
if [ -b /dev/vdb ]; then
	echo "size $(cat /sys/block/vdb/size)"
	read go
	wait_for '[ $(cat /sys/block/vdb/size) = 196608 ]'
	dd if=/tmp/data of=/dev/vdb bs=64k seek=1440 oflag=direct 2>/dev/null && echo "written behind the old end"
fi
read go
echo "errors $(dmesg | grep -c 'I/O error')"
poweroff -f
"""


def refused(reply, word, m):
    if "error" not in reply or word not in reply["error"]["desc"]:
        fail("not refused as it should be: %r" % reply, m)


def stopped(c, reason, m, operation="write"):
    data = c.event("BLOCK_IO_ERROR")["data"]
    c.event("STOP")
    status = c.ask("query-status")
    if data["device"] != "disk0" or data["reason"] != reason or data["operation"] != operation or status["status"] != "io-error":
        fail("stopped, but: %r %r" % (data, status), m)


def remote(ospite, base, work, engine):
    """NBD: errors come and go with a file."""
    if not shutil.which("nbdkit"):
        print("nbdkit is not installed: that part is left out")
        return
    switch, socket = work + "/fail", work + "/nbd"
    server = subprocess.Popen(["nbdkit", "-f", "-U", socket, "--exit-with-parent", "--filter=error", "memory", "64M",
                               "error-pwrite=ENOSPC", "error-pwrite-rate=1", "error-pwrite-file=" + switch])
    atexit.register(server.kill)
    end = time.monotonic() + SECONDS
    while not os.path.exists(socket) and time.monotonic() < end:
        time.sleep(0.05)
    with open(work + "/second", "wb") as f:
        f.truncate(90 << 20)
    command = base + ["--balloon", "--disk", "nbd=unix:%s,bus=virtio,werror=enospc" % socket, "--disk",
                      "file=%s/second,bus=virtio" % work]
    m = Machine(work, command)
    c = Control(work + "/control")
    m.wait("ready")
    open(switch, "w").close()
    m.type("go")
    stopped(c, "No space left on device", m)
    disk = c.ask("query-block")[0]
    if disk["io-status"] != "nospace" or disk["inserted"]["image"]["virtual-size"] != 64 << 20:
        fail("query-block says %r" % disk, m)
    refused(c.ask("block_resize", device="disk0", size=128 << 20), "tried again", m)
    c.ask("cont")
    stopped(c, "No space left on device", m)  # too early
    c.ask("ospite-change-engine", engine="interp")
    # what is held goes with the machine, and is held again where it still fails
    reply = c.ask("ospite-save", path=work + "/saved")
    if "error" in reply:
        fail("not saved: %r" % reply, m)
    m.kill()
    m = Machine(work, [word for word in command if word not in ("--memory", "192M")] + ["--restore", work + "/saved"])
    c = Control(work + "/control", m)
    end = time.monotonic() + SECONDS
    while c.ask("query-status")["status"] != "io-error":  # told before anybody listened
        if time.monotonic() > end:
            fail("restored: %r %r" % (c.ask("query-status"), c.ask("query-block")), m)
        time.sleep(0.05)
    os.unlink(switch)
    c.ask("cont")
    m.wait("all there")
    c.ask("ospite-change-engine", engine=engine)
    m.wait("size %d" % (90 << 11))
    if "error" in c.ask("block_resize", device="disk1", size=96 << 20):
        fail("not resized", m)
    m.type("go")
    m.wait("written behind the old end")
    stats = {d["device"]: d["stats"] for d in c.ask("query-blockstats")}
    if stats["disk1"]["wr_bytes"] < 6 << 20 or stats["disk0"]["rd_bytes"] < 6 << 20:
        fail("query-blockstats says %r" % stats, m)
    none = dict(bps=0, bps_rd=0, bps_wr=0, iops=0, iops_rd=0, iops_wr=0)
    c.ask("block_set_io_throttle", id="disk1", **dict(none, iops_rd=100, iops_rd_max=10))
    if c.ask("query-block")[1]["inserted"]["iops_rd"] != 100:
        fail("no limit", m)
    c.ask("block_set_io_throttle", id="disk1", **none)
    refused(c.ask("block_set_io_throttle", id="disk7", **none), "no disk", m)
    c.ask("balloon", value=160 << 20)
    end = time.monotonic() + SECONDS
    while c.ask("query-balloon")["actual"] != 160 << 20:
        if time.monotonic() > end:
            fail("the balloon stays at %r" % c.ask("query-balloon"), m)
        time.sleep(0.1)
    refused(c.ask("balloon", value=1 << 40), "the guest can have", m)
    m.type("go")
    m.wait("errors 0")
    m.end()
    server.kill()


def full(ospite, base, work, form):
    """A file system of the host that fills up, under an image."""
    folder = work + "/small-" + form
    os.mkdir(folder)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4M", "small", folder], stderr=subprocess.DEVNULL).returncode:
        print("a small file system cannot be mounted here: that part is left out")
        return
    atexit.register(subprocess.run, ["umount", "-l", folder])
    image = "%s/disk.%s" % (folder, form)
    subprocess.run([ospite, "image", "create", image, "--format", form, "--size", "64M"], check=True, stdout=subprocess.DEVNULL)
    m = Machine(work, base + ["--disk", "format=%s,file=%s,bus=virtio,werror=stop" % (form, image)])
    c = Control(work + "/control", m)
    m.wait("ready")
    m.type("go")
    stopped(c, "No space left on device", m)
    subprocess.run(["mount", "-o", "remount,size=32M", folder], check=True)
    c.ask("cont")
    m.wait("all there")
    m.type("go")
    m.wait("errors 0")
    m.end()
    if form == "qcow2":
        subprocess.run([ospite, "image", "check", image], check=True, stdout=subprocess.DEVNULL)


def main():
    ospite, package, engine = os.path.realpath(sys.argv[1]), sys.argv[2], sys.argv[3]
    kernel, modules = kernel_of(package, MODULES)
    work = work_folder()
    initramfs(work + "/initrd", modules, MODULES, SCRIPT)
    base = [ospite, "run", "--engine", engine, "--kernel", kernel, "--initrd", work + "/initrd", "--append",
            "console=ttyS0 quiet panic=-1", "--no-reboot", "--memory", "192M"]
    r = subprocess.run(base + ["--disk", "file=%s/initrd,readonly,bus=virtio,rerror=stop" % work], capture_output=True, text=True)
    if r.returncode != 125 or "--control" not in r.stderr:
        fail("a machine that could never go on was started: " + r.stderr)
    base += ["--control", work + "/control"]
    remote(ospite, base, work, engine)
    for form in ("qcow2", "raw"):
        full(ospite, base, work, form)


main()
