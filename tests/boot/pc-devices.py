#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The stock kernel's own drivers for what a PC has: AHCI with a disk and CDs that are changed, the shape of the CPUs, NMI, a tablet and a
keyboard, the power button; saved and restored in between.

usage: pc-devices.py OSPITE KERNEL-PACKAGE ENGINE
"""
import hashlib, os, sys
from guestlib import *

SHAPE = "4,sockets=2,cores=1,threads=2"
MODULES = ["crct10dif_common", "crct10dif_generic", "crc-t10dif", "crc64", "crc64_rocksoft_generic", "crc64-rocksoft", "t10-pi",
           "scsi_common", "scsi_mod", "libata", "libahci", "ahci", "ata_piix", "sd_mod", "cdrom", "sr_mod", "crc32c_generic",
           "libcrc32c", "crc16", "mbcache", "jbd2", "ext4", "button", "evdev", "virtio_input"]
SCRIPT = """
for c in /sys/devices/system/cpu/cpu[0-9]*; do
	echo "place ${c##*/} $(cat $c/topology/physical_package_id) $(cat $c/topology/thread_siblings_list) $(cat $c/cache/index3/shared_cpu_list)"
done
wait_for '[ -b /dev/sda ] && [ -b /dev/sr0 ] && [ -b /dev/sr1 ]'
grep -q ahci /proc/interrupts || echo BAD interrupts
echo "disk $(cat /sys/block/sda/device/model) depth $(cat /sys/block/sda/device/queue_depth) size $(cat /sys/block/sda/size)"
mke2fs -q /dev/sda >/dev/null && mount -t ext4 /dev/sda /mnt || echo BAD file system
for n in 1 2 3 4; do head -c 2000000 /dev/urandom >/mnt/$n & done
wait
a=$(cat /mnt/[1-4] | md5sum)
sync
echo 3 >/proc/sys/vm/drop_caches
[ "$a" = "$(cat /mnt/[1-4] | md5sum)" ] || echo BAD file
for d in sr0 sr1; do
	# the drives are found in any order: the AHCI one has a medium
	[ "$(cat /sys/block/$d/size)" = 1000 ] && cd=$d
done
echo "cd $(md5sum </dev/$cd)"
# not from the page cache, which pages that are in use just then outlive
wait_for '! dd if=/dev/$cd of=/tmp/cd bs=64k count=1 iflag=direct 2>/dev/null'
echo "cd out"
wait_for 'dd if=/dev/$cd of=/tmp/cd bs=64k iflag=direct 2>/dev/null'
echo "cd $(md5sum </tmp/cd)"
for n in 1 2 3; do head -c 1000000 /dev/urandom >/mnt/new$n; done
b=$(cat /mnt/new* | md5sum)
echo "to be saved"
read x
sync
echo 3 >/proc/sys/vm/drop_caches
[ "$b" = "$(cat /mnt/new* | md5sum)" ] && [ "$a" = "$(cat /mnt/[1-4] | md5sum)" ] || echo BAD file after restoring
umount /mnt
echo "restored"
event() { # NAME: the device file
	n=$(grep -l "$1" /sys/class/input/event*/device/name)
	n=${n#/sys/class/input/}
	echo /dev/input/${n%%/*}
}
show() { # the next $1 events of descriptor 3 as TYPE CODE VALUE
	n=0
	while [ $n -lt $1 ]; do
		n=$((n + 1))
		set -- $1 $(dd bs=24 count=1 <&3 2>/dev/null | od -An -v -tx2)
		echo "event ${10} ${11} ${12}"
	done
}
exec 3<$(event "ospite tablet")
echo "tablet ready"
show 4
exec 3<$(event "ospite keyboard")
echo "keyboard ready"
show 4
dmesg | grep -E "exception Emask|failed command|hard resetting|I/O error, dev sda" && echo BAD disk
exec 3<$(event "Power Button")
echo "button ready"
show 1
poweroff -f
"""


def image(path, size, seed):
    data = hashlib.sha256(seed).digest() * (size // 32)
    with open(path, "wb") as f:
        f.write(data)
    return hashlib.md5(data).hexdigest()


def done(reply, machine):
    if "error" in reply:
        fail(reply["error"]["desc"], machine)


def main():
    ospite, package, engine = os.path.realpath(sys.argv[1]), sys.argv[2], sys.argv[3]
    kernel, modules = kernel_of(package, ["ahci", "sr_mod", "virtio_input", "button"])
    work = work_folder()
    initramfs(work + "/initrd", modules, MODULES, SCRIPT)
    first, second = image(work + "/a,1.iso", 512000, b"1"), image(work + "/b,2.iso", 1024000, b"2")
    with open(work + "/disk", "wb") as f:
        f.truncate(64 << 20)
    base = [ospite, "run", "--engine", engine, "--kernel", kernel, "--initrd", work + "/initrd", "--append",
            "console=ttyS0 quiet panic=-1", "--no-reboot", "--disk", work + "/disk,bus=ahci", "--cdrom",
            "file=%s/a,,1.iso,bus=ahci" % work, "--cdrom", "none", "--input", "tablet", "--input", "keyboard",
            "--control", work + "/control"]
    m = Machine(work, base + ["--memory", "192M", "--cpus", SHAPE, "--save-to", work + "/saved"])
    for n in range(4):
        m.wait("place cpu%d %d %s %s" % (n, n // 2, *["0-1", "2-3"][n // 2:][:1] * 2))
    m.wait("disk OSPITE HARDDISK  depth 32 size %d" % ((64 << 20) // 512))
    m.wait("cd " + first)
    c = Control(work + "/control")
    if "error" not in c.ask("eject", device="disk0"):
        fail("a disk could be ejected", m)
    done(c.ask("eject", device="disk1", force=True), m)
    m.wait("cd out")
    if "error" not in c.ask("blockdev-change-medium", device="disk1", filename=work + "/nothing"):
        fail("a file that is not there could be put in", m)
    done(c.ask("blockdev-change-medium", device="disk1", filename=work + "/b,2.iso"), m)
    for opened in (True, False):
        if c.event("DEVICE_TRAY_MOVED")["data"]["tray-open"] != opened:
            fail("wrong event", m)
    m.wait("cd " + second)
    m.wait("to be saved")
    c.ask("ospite-suspend")
    m.end()

    m = Machine(work, base + ["--restore", work + "/saved"])
    m.type("go")
    m.wait("restored")
    c = Control(work + "/control")
    done(c.ask("inject-nmi"), m)
    m.wait("NMI received for unknown reason")
    m.wait("tablet ready")
    done(c.ask("input-send-event", events=[{"type": "abs", "data": {"axis": "x", "value": 0x1234}},
                                           {"type": "abs", "data": {"axis": "y", "value": 0x7fff}},
                                           {"type": "btn", "data": {"button": "left", "down": True}}]), m)
    for line in ("0003 0000 1234", "0003 0001 7fff", "0001 0110 0001", "0000 0000 0000"):
        m.wait("event " + line)
    m.wait("keyboard ready")
    done(c.ask("send-key", keys=[{"type": "qcode", "data": "a"}]), m)
    for line in ("0001 001e 0001", "0000 0000 0000", "0001 001e 0000", "0000 0000 0000"):
        m.wait("event " + line)
    m.wait("button ready")
    done(c.ask("system_powerdown"), m)
    m.wait("event 0001 0074 0001")
    m.end()


main()
