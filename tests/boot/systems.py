#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Systems that Debian packages, started as on a machine: by the firmware, from an image, read off the screen and typed at.

usage: systems.py OSPITE CASE     (the cases are the functions below whose names start with "case_")
"""
import atexit, mmap, os, queue, re, shutil, subprocess, sys, time
import guestlib
from guestlib import PARTITION, Control, Machine, fail, grub_on_disk, make, needs, skip, work_folder


class Screen(Machine):
    """A machine with a screen and a keyboard."""

    def __init__(self, work, ospite, *options, engine="dbt"):
        path = os.path.join(work, "control")
        super().__init__(work, [ospite, "run", "--engine", engine, "--no-reboot", "--control", path] + list(options))
        self.control = Control(path, self)

    def text(self):
        return self.control.ask("ospite-screen-text").get("text", "")

    def until(self, *words, seconds=guestlib.SECONDS):
        """Until all of these, words or patterns, are on the screen; what is there then."""
        end = time.monotonic() + seconds
        while True:
            text = self.text()
            if all(w.search(text) if isinstance(w, re.Pattern) else w in text for w in words):
                return text
            if time.monotonic() > end:
                self.explain()
                fail("not on the screen within %d seconds: %s" % (seconds, words), self)
            time.sleep(0.1)

    def explain(self):
        """Where a guest is that does not come to where it should: its screen, and twice, with a second between, what it does."""
        print("---- the screen\n%s\n----" % self.text())
        self.control.socket.settimeout(15)
        try:
            print(self.control.ask("ospite-query-machine"))
            for _ in range(2):
                print(self.control.ask("ospite-query-stats"))
                for cpu in self.control.ask("ospite-query-registers"):
                    print(" ".join("%s=%s" % pair for pair in cpu.items()))
                time.sleep(1)
        except (OSError, ValueError) as why:
            print("the control socket does not answer any more: %s" % why)
        print("load average: %s" % (os.getloadavg(),))

    def keys(self, *names):
        end = time.monotonic() + guestlib.SECONDS
        for name in names:
            while True:
                got = self.control.ask("send-key", keys=[{"type": "qcode", "data": k} for k in name.split("+")])
                if got == {}:
                    break
                if "try again" not in str(got) or time.monotonic() > end:
                    self.explain()
                    fail("key %s: %s" % (name, got), self)
                time.sleep(0.05)

    def write(self, text):
        """Type it and see it on the screen: the BIOS and some guests remember only so many keys."""
        special = {"/": "slash", " ": "spc", "+": "shift+equal", "\n": "ret"}
        for at in range(0, len(text), 8):
            piece = text[at:at + 8]
            self.keys(*(special.get(c, c) for c in piece))
            self.until(text[:at + 8].strip())

    def picture(self, work, width, height):
        path = os.path.join(work, "screen.png")
        assert self.control.ask("screendump", filename=path) == {}
        with open(path, "rb") as f:
            head = f.read(24)
        size = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
        assert head[:8] == b"\x89PNG\r\n\x1a\n" and size == (width, height), (head, size)


def cd_image(work, config, **files):
    """GRUB starts it, by the BIOS and by UEFI; files are by name in /boot."""
    needs("grub-common", "grub-mkrescue")
    needs("xorriso", "xorriso")
    needs("grub-pc-bin", "/usr/lib/grub/i386-pc")
    needs("seabios", "/usr/share/seabios/bios-256k.bin")
    folder = os.path.join(work, "cd")
    os.makedirs(folder + "/boot/grub")
    for name, path in files.items():
        shutil.copyfile(path, os.path.join(folder, "boot", name))
    with open(folder + "/boot/grub/grub.cfg", "w") as f:
        f.write(config)
    make("grub-mkrescue", "-o", work + "/cd.iso", folder)
    return work + "/cd.iso"


INSTALLER = "/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64"


def case_installer_kernel(work, ospite):
    """Debian's installer, its kernel started directly: it asks for the language on a text screen that no firmware has set up."""
    needs("debian-installer-12-netboot-amd64", INSTALLER + "/linux")
    needs("seabios", "/usr/share/seabios/vgabios-stdvga.bin")
    machine = Screen(work, ospite, "--memory", "1G", "--vga", "--serial", "null", "--kernel", INSTALLER + "/linux", "--initrd",
                     INSTALLER + "/initrd.gz", "--append", "nomodeset quiet")
    machine.until("Select a language", "Galician", "<Go Back>")
    machine.picture(work, 720, 400)
    machine.keys("ret")
    machine.until("Select your location", "United States")


def case_installer(work, ospite):
    """Debian's installer from a CD asks for the language, and takes the answer."""
    needs("debian-installer-12-netboot-amd64", INSTALLER + "/linux")
    cd = cd_image(work, "set timeout=0\nset gfxpayload=text\nmenuentry installer {\n"
                  "linux /boot/linux nomodeset quiet\ninitrd /boot/initrd.gz\n}\n",
                  **{"linux": INSTALLER + "/linux", "initrd.gz": INSTALLER + "/initrd.gz"})
    machine = Screen(work, ospite, "--memory", "1G", "--cdrom", cd)
    machine.until("Select a language", "Galician", "<Go Back>")
    machine.picture(work, 720, 400)
    machine.keys("ret")
    machine.until("Select your location", "United States")


def case_memtest(work, ospite):
    """memtest86+ comes through a whole pass (without the test that waits five minutes for bits to fade)."""
    iso = "/usr/lib/memtest86+/memtest86+x64.iso"
    needs("memtest86+", iso)
    needs("seabios", "/usr/share/seabios/bios-256k.bin")
    machine = Screen(work, ospite, "--memory", "16M", "--cpus", "2", "--cdrom", iso)
    machine.until("Press <F1> to configure")
    machine.keys("f1")
    machine.until("Settings:", "Test selection")
    machine.keys("f1")
    machine.until("Remove one test")
    machine.keys("f2")
    machine.until("Enter test #")
    machine.keys("1", "0", "ret")
    machine.until("*.********.")
    machine.keys("f10")
    machine.until("Settings:")
    machine.keys("f10")
    end = time.monotonic() + guestlib.SECONDS
    text = ""
    while not re.search("Pass: +[1-9]", text):  # it goes on with a second, a third pass
        if time.monotonic() > end:
            machine.explain()
            fail("memtest86+ does not come through", machine)
        time.sleep(0.1)
        text = machine.text()
    if not re.search(r"Errors: 0 *$", text, re.M):
        print(text)
        fail("memtest86+ found errors", machine)


def case_ipxe(work, ospite, engine="dbt"):
    """iPXE from its CD: isolinux loads it; its command line answers and gets an address by both kinds of network cards."""
    iso = "/usr/lib/ipxe/ipxe.iso"
    needs("ipxe", iso)
    needs("seabios", "/usr/share/seabios/bios-256k.bin")
    machine = Screen(work, ospite, "--memory", "64M", "--cdrom", iso, "--net", "user", "--net", "user,model=e1000", engine=engine)
    machine.until("Open Source Network Boot Firmware", "Features:")
    # it waits two seconds of its own for the key, which this end may miss on a busy host: the BIOS keeps one that comes too early
    end = time.monotonic() + guestlib.SECONDS
    while "iPXE>" not in machine.text():
        machine.keys("ctrl+b")
        if time.monotonic() > end or machine.process.poll() is not None:
            machine.explain()
            fail("no prompt", machine)
        time.sleep(0.3)
    machine.keys("ret")
    for card in "0", "1":
        machine.write("dhcp net" + card)
        machine.keys("ret")
        machine.until(re.compile(r"Configuring \(net%s [0-9a-f:]*\)\.+ ok\niPXE>" % card))
        machine.write("show net%s/ip" % card)
        machine.keys("ret")
        machine.until("net%s.dhcp/ip:ipv4 = 10.0." % card)


def case_ipxe_interp(work, ospite):
    """The same, all of it interpreted."""
    case_ipxe(work, ospite, "interp")


def case_ipxe_uefi(work, ospite):
    """iPXE as a UEFI program: it drives a card whose registers the firmware has put at the end of the addresses."""
    needs("ipxe", "/boot/ipxe.efi")
    needs("mtools", "mcopy")
    needs("ovmf", "/usr/share/OVMF/OVMF_CODE_4M.fd")
    disk = work + "/efi.img"
    with open(disk, "wb") as f:
        f.truncate(40 << 20)
    make("mformat", "-i", disk, "-F", "::")
    make("mmd", "-i", disk, "::/EFI", "::/EFI/BOOT")
    make("mcopy", "-i", disk, "/boot/ipxe.efi", "::/EFI/BOOT/BOOTX64.EFI")
    machine = Machine(work, [ospite, "run", "--engine", "dbt", "--no-reboot", "--memory", "256M", "--firmware", "uefi", "--net", "user",
                             "--disk", "format=raw,file=" + disk])
    machine.wait("iPXE initialising devices...ok")
    machine.wait("net0: 10.0.")


def grub_disk(work, ospite, engine, bus, package, modules, device):
    needs("e2fsprogs", "mke2fs")
    needs("seabios", "/usr/share/seabios/bios-256k.bin")
    kernel, folder = guestlib.kernel_of(package, modules)
    root, disk, size = work + "/root", work + "/disk", 96 << 20
    os.makedirs(root + "/boot/grub")
    shutil.copy(kernel, root + "/boot/vmlinuz")
    guestlib.initramfs(root + "/boot/initrd", folder, modules, """
wait_for '[ -b /dev/DEVICE1 ]'
mount -t tmpfs t /tmp
dd if=/dev/DEVICE1 of=/tmp/super bs=1024 skip=1 count=1 2>/dev/null
hexdump -s 56 -n 2 -e '1/2 "magic %x\\n"' /tmp/super
poweroff -f
""".replace("DEVICE", device))
    with open(root + "/boot/grub/grub.cfg", "w") as f:
        f.write("set timeout=0\nmenuentry linux {\nlinux /boot/vmlinuz console=ttyS0 loglevel=4 panic=-1\n"
                "initrd /boot/initrd\n}\n")
    with open(disk, "wb") as f:
        f.truncate(size)
    make("mke2fs", "-q", "-t", "ext4", "-d", root, "-E", "offset=%d" % PARTITION, disk, "%dk" % ((size - PARTITION) >> 10))
    grub_on_disk(disk, size)
    machine = Screen(work, ospite, "--memory", "256M", "--disk", disk + ",bus=" + bus, engine=engine)
    machine.wait("magic ef53")
    machine.end()


def case_grub_disk(work, ospite):
    """GRUB from a hard disk's boot sector loads a stock kernel out of ext4; the kernel finds that disk again."""
    grub_disk(work, ospite, "dbt", "virtio", "linux-image-cloud-amd64", ["virtio_blk"], "vda")


def case_grub_ahci(work, ospite):
    """The same from a SATA disk, with a kernel that is not made for virtual machines."""
    grub_disk(work, ospite, "dbt", "ahci", "linux-image-amd64",
              ["crct10dif_common", "crct10dif_generic", "crc-t10dif", "crc64", "crc64_rocksoft_generic", "crc64-rocksoft", "t10-pi",
               "scsi_common", "scsi_mod", "libata", "libahci", "ahci", "sd_mod"], "sda")


def case_bios(work, ospite):
    """A program in real mode that calls the BIOS for disk, video, clock and keyboard."""
    needs("nasm", "nasm")
    needs("seabios", "/usr/share/seabios/bios-256k.bin")
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "guest/bios.asm")
    for engine in ("dbt", "interp"):
        folder = os.path.join(work, engine)
        os.mkdir(folder)
        make("nasm", "-f", "bin", "-o", folder + "/disk", source)
        machine = Screen(folder, ospite, "--memory", "64M", "--exit-port", "0xf4", "--disk", folder + "/disk,bus=ide", engine=engine)
        for question, key in (("press q", "q"), ("press F5", "f5"), ("press shift-a", "shift+a")):
            machine.until(question)
            machine.keys(key)
        machine.end(1)


def case_bad_images(work, ospite):
    """Images that are none: the firmware says so, in its own words."""
    needs("seabios", "/usr/share/seabios/bios-256k.bin")
    junk = b"This is not a disk. " * 10000
    image = bytearray(junk[:0x8000]) + bytes(4096)  # an ISO image up to its boot catalogue, which is behind the end
    image[0x8000:0x8007] = b"\x01CD001\x01"
    image[0x8800:0x8827] = b"\0CD001\x01EL TORITO SPECIFICATION".ljust(0x27, b"\0")
    image[0x8847:0x884b] = (1000).to_bytes(4, "little")
    for option, data, answer in (
            ("--disk", b"", "Boot failed: could not read the boot disk"),
            ("--disk", junk[:300], "Boot failed: not a bootable disk"),
            ("--disk", junk, "Boot failed: not a bootable disk"),
            ("--cdrom", b"", "Boot failed: Could not read from CDROM (code 000"),
            ("--cdrom", junk, "Boot failed: Could not read from CDROM (code 000"),
            ("--cdrom", image, "Boot failed: Could not read from CDROM (code 000")):
        with open(work + "/image", "wb") as f:
            f.write(data)
        machine = Screen(work, ospite, "--memory", "64M", option, work + "/image")
        machine.until(answer, "No bootable device.")
        machine.control.ask("quit")
        machine.end()


def other_kernel(package):
    """From the cache, unpacked."""
    kernel = os.path.join(guestlib.cache_folder(), package)
    if not os.path.isfile(kernel):
        skip("no %s in the cache (./check fetches it)" % package)
    return kernel


def case_mach(work, ospite):
    """GNU Mach, by Multiboot from GRUB: no Linux, no BIOS calls of ours; it asks for the Hurd, which it does not get."""
    cd = cd_image(work, "set timeout=0\nmenuentry mach {\nmultiboot /boot/mach console=com0\n}\n",
                  mach=other_kernel("gnumach-image-1.8-486"))
    machine = Screen(work, ospite, "--memory", "128M", "--cdrom", cd)
    machine.wait("GNU Mach 1.8")
    machine.wait("vm_page: DMA32")
    machine.wait("No bootstrap code loaded with the kernel")


def case_xen(work, ospite):
    """Xen, by Multiboot 2 from GRUB, and on it Debian's kernel as its first domain, with ring 3 for a kernel's own."""
    kernel, modules = INSTALLER + "/linux", "/nowhere"
    needs("debian-installer-12-netboot-amd64", kernel)
    guestlib.initramfs(work + "/initrd", modules, [], """
echo "first domain: $(uname -s) on $(cat /sys/hypervisor/type), $(grep -c ^processor /proc/cpuinfo) CPUs"
poweroff -f
""")
    cd = cd_image(work, "set timeout=0\nmenuentry xen {\nmultiboot2 /boot/xen dom0_mem=300M com1=115200,8n1 console=com1\n"
                  "module2 --nounzip /boot/linux console=hvc0 quiet\nmodule2 --nounzip /boot/initrd\n}\n",
                  xen=other_kernel("xen-hypervisor-4.17-amd64"), linux=kernel, initrd=work + "/initrd")
    machine = Screen(work, ospite, "--memory", "512M", "--cpus", "2", "--cdrom", cd)
    machine.wait("Xen version 4.17")
    machine.wait("first domain: Linux on xen, 2 CPUs")
    machine.end()


def case_debian(work, ospite):
    """A whole Debian by GRUB from its disk: logins on screen and serial line; the power button shuts it down."""
    disk = os.path.join(guestlib.cache_folder(), "debian/disk.img")
    if not os.path.exists(disk):
        skip("no Debian in the cache (./check makes it, as root, with mmdebstrap)")
    needs("seabios", "/usr/share/seabios/bios-256k.bin")
    make(ospite, "image", "create", work + "/over.qcow2", "--backing", disk, "--backing-format", "raw")
    machine = Screen(work, ospite, "--memory", "512M", "--disk", "format=qcow2,bus=virtio,backing=header,file=" + work + "/over.qcow2")
    machine.until("ospite-debian login:")
    machine.keys("r", "o", "o", "t", "ret")
    machine.until("Password:")
    machine.keys(*"ospite", "ret")
    machine.until("root@ospite-debian:~#")
    machine.write("expr 6006 + 4002")
    machine.keys("ret")
    machine.until("\n10008")
    # the serial line's prompt has no end of line: type until it comes back with the name
    end = time.monotonic() + guestlib.SECONDS
    machine.type("root")
    while not any("login: root" in line for line in machine.lines):
        if time.monotonic() > end:
            fail("no login on the serial line", machine)
        try:
            machine.lines.append(machine.queue.get(timeout=5) or " ")
        except queue.Empty:
            machine.type("root")
    machine.control.ask("system_powerdown")
    machine.end()


def case_debian_ide(work, ospite):
    """The same Debian on an IDE disk, with 16 CPUs in two sockets, as a machine with a folder: `ospite stop` presses its power button."""
    disk = os.path.join(guestlib.cache_folder(), "debian/disk.img")
    if not os.path.exists(disk):
        skip("no Debian in the cache (./check makes it, as root, with mmdebstrap)")
    needs("seabios", "/usr/share/seabios/bios-256k.bin")
    needs("qemu-utils", "qemu-io")
    over = work + "/over.qcow2"
    make(ospite, "image", "create", over, "--backing", disk, "--backing-format", "raw")
    with open(disk, "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as data:  # its boot menu names the disk
        at = data.find(b"root=/dev/vda1")
        assert at >= 0
        sector = at & -512
        with open(work + "/sector", "wb") as out:
            out.write(data[sector:sector + 1024].replace(b"root=/dev/vda1", b"root=/dev/sda1"))
    make("qemu-io", "-f", "qcow2", "-c", "write -s %s/sector %d 1024" % (work, sector), over)
    os.environ["OSPITE_ROOT"] = work + "/machines"
    atexit.register(subprocess.run, [ospite, "kill", "deb"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    make(ospite, "run", "--detach", "--name", "deb", "--engine", "dbt", "--memory", "768M", "--cpus", "16,sockets=2,cores=4,threads=2",
         "--disk", "format=qcow2,bus=ide,backing=header,file=" + over)

    def output(*command):
        return subprocess.run([ospite] + list(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout.decode(errors="replace")

    def until(*words):
        end = time.monotonic() + guestlib.SECONDS
        while True:
            text = output("screenshot", "deb", "--text")
            if all(w in text for w in words):
                return
            if time.monotonic() > end:
                print(text, output("logs", "deb")[-3000:], output("info", "deb"))
                fail("not on the screen: %s" % (words,))
            time.sleep(0.3)

    until("ospite-debian login:")
    make(ospite, "sendkey", "deb", *"root", "ret")
    until("Password:")
    make(ospite, "sendkey", "deb", *"ospite", "ret")
    until("root@ospite-debian:~#")
    make(ospite, "sendkey", "deb", *"lscpu", "spc", "minus", "p", "equal", *"socket", "comma", *"core", "ret")
    until("\n0,0\n0,0\n0,1\n0,1\n", "\n1,7\n1,7\n")
    print(output("stop", "--time", str(guestlib.SECONDS), "deb"))
    if "Power down" not in output("logs", "deb"):
        fail("the button has not powered it off: " + output("logs", "deb")[-3000:] + output("info", "deb"))


def main():
    case = globals().get("case_" + sys.argv[2]) or sys.exit("no case " + sys.argv[2])
    work = work_folder()
    start = time.monotonic()
    case(work, os.path.abspath(sys.argv[1]))
    print("%.1f seconds" % (time.monotonic() - start))


main()
