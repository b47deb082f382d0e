#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""ospite set: disks and network cards that come and go while a stock kernel runs (its acpiphp), through suspend and resume;
limits and memory; what vm.yaml says afterwards; the same changes to a machine that is off.

usage: hotplug.py OSPITE KERNEL-PACKAGE ENGINE
"""
import json, re, sys
from guestlib import *

MODULES = ["failover", "net_failover", "virtio_net", "virtio_blk", "virtio_balloon", "button"]
# Commands come by the console, which does not echo them.
SCRIPT = """
cat > /bin/dhcp <<'END'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add $ip/24 dev $interface
END
chmod +x /bin/dhcp
lease() {
	ip link set $1 up
	udhcpc -i $1 -n -q -t 20 -T 1 -s /bin/dhcp >/dev/null 2>&1 && echo "lease=$1 $(cat /sys/class/net/$1/address)"
}
wait_for '[ -b /dev/vda ]'
stty -echo
echo "ready=1"
while read -r line; do
	eval "$line"
done
poweroff -f
"""


def main():
    ospite, package, engine = os.path.abspath(sys.argv[1]), sys.argv[2], sys.argv[3]
    kernel, modules = kernel_of(package, MODULES[2:])
    work = work_folder()
    initramfs(work + "/initrd", modules, MODULES, SCRIPT)
    for name in ("one", "two", "three"):
        with open(work + "/" + name, "wb") as f:
            f.write(name.encode() + b"\n")
            f.truncate(8 << 20)
    m = Folder(work, ospite, "a")
    m("create", "a", "--kernel", kernel, "--initrd", "initrd", "--append", "console=ttyS0 panic=-1 quiet", "--memory", "256M",
      "--engine", engine, "--disk", "one,bus=virtio", "--balloon", "--rng")
    with open(work + "/root/machines/a/vm.yaml", "a") as f:
        f.write("# a word of mine\n")
    m("start")
    m.attach()
    m.console.wait("ready=1")

    # a disk comes
    m("set", "--disk", "two", text="disk1\n")
    m.guest("wait_for '[ -b /dev/vdb ]'; echo vdb=$(head -c 3 /dev/vdb; cat /sys/block/vdb/serial)", "vdb=twodisk1")
    m("set", "--disk", "none-such", status=125, text="none-such")
    m("set", "--disk", "two,bus=ide", status=125, text="bus=virtio")
    m("set", "--disk", "three,id=disk1,bus=virtio", status=125, text="has a 'disk1' already")
    # a card comes
    m("set", "--net", "user", text="net1\n")
    mac = m.guest("wait_for '[ -e /sys/class/net/eth1 ]'; lease eth1", "lease=eth1").split()[-1]
    m("set", "--net", "nonsense", status=125, text="does not exist")
    # limits, cable, memory
    m("set", "--limit", "disk1,bps=1000000,iops-read=50")
    m("ctl", "query-block", text='"bps": 1000000')
    m("set", "--limit", "disk9,bps=1", status=125, text="no disk 'disk9'")
    m("set", "--limit", "net1,in=10Mbit,out=2MB")
    m("set", "--limit", "net1,in=none")
    m("set", "--limit", "net9,in=1MB", status=125, text="no network card 'net9'")
    m("set", "--limit", "net1,in=fast", status=125, text="write 100Mbit")
    m("set", "--limit", "net1,in=1MB,bps=5", status=125, text="have in and out")
    m("set", "--limit", "net0,in=8Mbit")
    m("set", "--link", "net1=down")
    m.guest("wait_for '[ $(cat /sys/class/net/eth1/carrier) = 0 ]'; echo cable=down", "cable=down")
    m("set", "--link", "net1=up")
    m("set", "--memory", "128M")
    end = time.monotonic() + SECONDS
    while '"actual": %d' % (128 << 20) not in m("ctl", "query-balloon"):
        if time.monotonic() > end:
            fail("the balloon does not grow", m.console)
        time.sleep(0.2)
    m("set", "--memory", "1G", status=125, text="can have")
    m("set", "--memory", "256M")

    # they are there after a suspend, with what was written
    m.guest("echo written by the guest | dd of=/dev/vdb conv=fsync bs=512 seek=8 2>/dev/null; echo wrote=1", "wrote=1")
    m("suspend")
    m("set", "--disk", "three", status=125, text="is suspended")
    m("resume")
    m.attach()
    m.guest("echo 3 > /proc/sys/vm/drop_caches; echo again=$(dd if=/dev/vdb bs=512 skip=8 count=1 2>/dev/null | head -c 7)", "again=written")
    m.guest("udhcpc -i eth1 -n -q -t 20 -T 1 -s /bin/true >/dev/null 2>&1 && echo leased=again", "leased=again")
    if mac not in m("ctl", "ospite-query-networks"):
        fail("another address after resuming")
    limits = {c["name"]: (c["limit-in"], c["limit-out"]) for c in json.loads(m("ctl", "ospite-query-networks"))}
    if limits != {"net0": (1000000, 0), "net1": (0, 2000000)}:
        fail("other limits after resuming: %s" % limits)
    m("config", text="user,limit-in=8Mbit")

    # one goes that was there from the start, and the others keep their places over a suspend
    m("set", "--remove", "disk0")
    m.guest("wait_for '[ ! -e /dev/vda ]'; echo vda=gone", "vda=gone")
    m("suspend")
    m("resume")
    m.attach()
    m.guest("echo vdb=$(head -c 3 /dev/vdb)", "vdb=two")
    # and the others
    m("set", "--remove", "disk1", "--remove", "net1")
    m.guest("wait_for '[ ! -e /dev/vdb ] && [ ! -e /sys/class/net/eth1 ]'; echo all=gone", "all=gone")
    m("set", "--remove", "disk1", status=125, text="no disk or network card")
    m("set", "--disk", "three,bus=virtio,id=data", text="data\n")
    m.guest("wait_for '[ -b /dev/vda ]'; echo vda=$(head -c 5 /dev/vda)", "vda=three")
    m("suspend")
    m("resume")
    m.attach()
    m.guest("echo vda=$(head -c 5 /dev/vda)", "vda=three")

    # a guest that does nothing keeps it until it is reset
    m("set", "--disk", "two", text="disk0\n")
    m("pause")
    m("set", "--remove", "disk0", "--time", "1", status=125, text="has not let go")
    m("ctl", "query-block", text="/two")
    m("resume")
    m("set", "--remove", "disk0")
    m("set", "--remove", "net0")

    # the next start has what is there now
    config = m("config")
    if "a word of mine" not in config or "one" in re.findall(r"/(\w+),", config) or "two" in re.findall(r"/(\w+),", config) or "slot=" in config:
        fail("vm.yaml says\n" + config)
    m.console.type("poweroff -f")
    m("wait", text="0\n")
    m("config", text="- none")
    m("start")
    m.attach()
    m.console.wait("ready=1")
    m.guest("echo vda=$(head -c 5 /dev/vda) $(ls /sys/class/net | grep -c eth)", "vda=three 0")
    m("kill")

    # and while it is off
    m("set", "--disk", "two,bus=virtio", "--net", "user,model=e1000", "--memory", "192M", "--limit", "data,iops=77", "--limit", "net0,out=3MB")
    config = m("config")
    for text in ("memory: 192M", "/two,bus=virtio", "- user,model=e1000,limit-out=3MB", "iops=77", "a word of mine"):
        if text not in config:
            fail("no '%s' in\n%s" % (text, config))
    m("set", "--remove", "disk1", "--remove", "net0")
    m("set", "--remove", "disk1", status=125, text="no disk or network card 'disk1'")
    if "two" in m("config"):
        fail("still there")
    print("passed")


main()
