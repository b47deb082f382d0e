# SPDX-License-Identifier: Apache-2.0
"""Stock kernels in machines, for tests in Python: an initramfs of busybox and a script, lines of the console, the control socket."""
import atexit, glob, json, os, queue, re, shutil, signal, socket, subprocess, sys, tempfile, threading, time, urllib.request

SECONDS = 120  # more than anything here takes on a busy host
GRUB = "/usr/lib/grub/i386-pc"
PARTITION = 1 << 20  # where the only one starts; GRUB's core is before it

PRELUDE = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs d /dev
mount -t proc p /proc
mount -t sysfs s /sys
for m in virtio_ring virtio virtio_ring virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci %s; do
	options=
	[ $m != virtio_pci ] || options=$(tr ' ' '\\n' </proc/cmdline | grep force_legacy)
	[ ! -f /m/$m.ko ] || insmod /m/$m.ko $options 2>/dev/null
done
wait_for() { # a test: until it is true
	n=0
	until eval "$1"; do
		n=$((n + 1))
		[ $n -lt 600 ] || { echo "BAD not there: $1"; return; }
		sleep 0.1
	done
}
"""

# Told to end, as by Meson after its time is up: what was started and made goes away as at any other end.
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, lambda n, _: sys.exit(128 + n))


def skip(why):
    print("skipped: " + why)
    sys.exit(77)


def fail(why, machine=None):
    print("failed: " + why)
    if machine:
        print("\n".join(machine.lines[-60:]))
        print(open(machine.err).read())
    sys.exit(1)


def work_folder():
    path = tempfile.mkdtemp(prefix="ospite-test-")
    atexit.register(shutil.rmtree, path, True)
    return path


def cache_folder():
    return os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "ospite")


def kernel_of(package, needed):
    cache = os.path.join(cache_folder(), package)
    kernel = glob.glob(cache + "/vmlinuz-*")
    if not kernel:
        skip("no kernel of %s in the cache (./check fetches it)" % package)
    for name in needed:
        if not os.path.exists("%s/modules/%s.ko" % (cache, name)):
            skip("no module %s of %s in the cache (./check fetches it)" % (name, package))
    return kernel[0], cache + "/modules"


def initramfs(path, modules_folder, modules, script, files=()):
    """files: (path in the guest, path here)"""
    busybox = shutil.which("busybox") or skip("busybox is not installed")
    shutil.which("cpio") or skip("cpio is not installed")
    root = path + ".root"
    for folder in ("bin", "m", "dev", "proc", "sys", "mnt", "tmp"):
        os.makedirs(os.path.join(root, folder))
    shutil.copy(busybox, root + "/bin/busybox")
    names = ["virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci"] + modules
    for name in names:
        if os.path.exists("%s/%s.ko" % (modules_folder, name)):
            shutil.copy("%s/%s.ko" % (modules_folder, name), root + "/m/")
    for inside, here in files:
        os.makedirs(os.path.dirname(root + inside), exist_ok=True)
        shutil.copy(here, root + inside)
    with open(root + "/init", "w") as f:
        f.write(PRELUDE % " ".join(modules) + script)
    os.chmod(root + "/init", 0o755)
    with open(path, "wb") as out:
        names = subprocess.run(["find", "."], cwd=root, stdout=subprocess.PIPE, check=True).stdout
        subprocess.run(["cpio", "-o", "-H", "newc", "-R", "0:0", "--quiet"], cwd=root, input=names, stdout=out, check=True)
    shutil.rmtree(root)


def libraries(program):
    """What a program is linked with, for an initramfs."""
    text = subprocess.run(["ldd", program], stdout=subprocess.PIPE, check=True, text=True).stdout
    return sorted(set(re.findall(r"(/\S+)", text)))


class Machine:
    """One `ospite run`; its console's lines arrive as they are written."""

    def __init__(self, work, command):
        self.err = tempfile.mkstemp(dir=work)[1]
        self.lines, self.queue, self.seen = [], queue.Queue(), 0
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=open(self.err, "w"))
        atexit.register(self.kill)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for raw in self.process.stdout:
            self.queue.put(raw.decode(errors="replace").strip())
        self.queue.put(None)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def wait(self, word, seconds=SECONDS):
        """The next line with this in it; each line is looked at once."""
        end = time.monotonic() + seconds
        while True:
            while self.seen < len(self.lines):
                line = self.lines[self.seen]
                self.seen += 1
                if "BAD" in line or "Kernel panic" in line or "Call Trace" in line:
                    fail("the guest complained: " + line, self)
                if word in line:
                    return line
            try:
                line = self.queue.get(timeout=max(0.01, end - time.monotonic()))
            except queue.Empty:
                fail("no line with '%s' within %d seconds" % (word, seconds), self)
            if line is None:
                fail("the machine ended before a line with '%s'" % word, self)
            self.lines.append(line)

    def type(self, text):
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def end(self, status=0):
        try:
            got = self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            fail("the machine does not end", self)
        if got != status:
            fail("exit status %d" % got, self)


class Control:
    def __init__(self, path, machine=None):
        end = time.monotonic() + SECONDS
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(SECONDS)
        while True:
            try:
                self.socket.connect(path)
                break
            except OSError:
                if time.monotonic() > end or machine and machine.process.poll() is not None:
                    fail("no control socket at " + path, machine)
                time.sleep(0.05)
        self.file, self.events = self.socket.makefile("rw"), []
        self.file.readline()
        self.ask("qmp_capabilities")

    def ask(self, command, **arguments):
        self.file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.file.flush()
        while True:
            reply = json.loads(self.file.readline())
            if "event" in reply:
                self.events.append(reply)
            elif "error" in reply:
                return reply
            else:
                return reply["return"]

    def event(self, name):
        """The next event of this name."""
        while True:
            for i, e in enumerate(self.events):
                if e["event"] == name:
                    return self.events.pop(i)
            reply = json.loads(self.file.readline())
            if "event" in reply:
                self.events.append(reply)


class Folder:
    """A machine with a folder: its commands, and its console as a Machine."""

    def __init__(self, work, ospite, name):
        self.work, self.ospite, self.name, self.console = work, ospite, name, None
        self.environment = dict(os.environ, OSPITE_ROOT=work + "/root")
        os.environ["OSPITE_ROOT"] = work + "/root"
        atexit.register(lambda: subprocess.run([ospite, "kill", "--all", "--quiet"], env=self.environment, stderr=subprocess.DEVNULL))

    def __call__(self, *words, status=0, text=""):
        done = subprocess.run([self.ospite, words[0], *([self.name] if words[0] != "create" else []), *words[1:]], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self.environment, cwd=self.work, timeout=SECONDS)
        said = done.stdout.decode(errors="replace")
        if done.returncode != status or text not in said:
            fail("%s: status %d, expected %d with '%s':\n%s" % (" ".join(words), done.returncode, status, text, said), self.console)
        return said

    def attach(self):
        if self.console:
            self.console.kill()
        self.console = Machine(self.work, [self.ospite, "console", self.name])

    def guest(self, line, answer):
        self.console.type(line)
        return self.console.wait(answer)


def needs(package, *paths):
    for path in paths:
        if not (shutil.which(path) or os.access(path, os.R_OK)):
            skip("%s is not there (package %s)" % (path, package))


def make(*command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    if done.returncode:
        fail("%s: %s" % (command[0], done.stdout.decode(errors="replace")))


def grub_on_disk(disk, size):
    """Boot sector, partition table and GRUB, put where they belong without GRUB's installer, which wants a real disk."""
    needs("grub-pc-bin", GRUB + "/boot.img")
    needs("grub-common", "grub-mkimage")
    core = disk + ".core"
    make("grub-mkimage", "-O", "i386-pc", "-p", "(hd0,msdos1)/boot/grub", "-o", core, "biosdisk", "part_msdos", "ext2",
         "linux", "normal", "configfile", "echo")
    with open(GRUB + "/boot.img", "rb") as f:
        sector = bytearray(f.read())
    # one bootable partition of type Linux; GRUB's boot sector loads its core from sector 1 if nothing else is written there
    sector[446:510] = bytes([0x80, 0, 2, 0, 0x83, 0xfe, 0xff, 0xff]) + (PARTITION // 512).to_bytes(4, "little") + \
        ((size - PARTITION) // 512).to_bytes(4, "little") + bytes(48)
    sector[510:512] = b"\x55\xaa"
    with open(core, "rb") as f:
        loader = f.read()
    assert len(loader) <= PARTITION - 512
    with open(disk, "r+b") as f:
        f.write(sector + loader)


def udp_echo(address=""):
    """Sends every datagram back, on a thread of its own; its port."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((address, 0))

    def run():
        while True:
            data, at = s.recvfrom(65536)
            s.sendto(data, at)
    threading.Thread(target=run, daemon=True).start()
    return s.getsockname()[1]


def mirror():
    """What the host's apt uses and its release, if that can be reached by plain http; or None."""
    with open("/etc/os-release") as f:
        suite = re.search("^VERSION_CODENAME=(.*)", f.read(), re.M)
    text = ""
    for path in ["/etc/apt/sources.list"] + glob.glob("/etc/apt/sources.list.d/*"):
        if os.path.isfile(path):
            with open(path) as f:
                text += f.read()
    for uri in re.findall(r"^(?:URIs:|deb(?: +\[[^]]*\])?) +(http://\S+)", text, re.M):
        try:
            urllib.request.urlopen("%s/dists/%s-updates/InRelease" % (uri, suite.group(1)), timeout=10).close()
            return uri, suite.group(1)
        except (OSError, AttributeError):
            pass
    return None


def debian_root(work):
    """A folder of machines with the template debian, a copy of the one in the cache (./check makes that), as OSPITE_ROOT."""
    cached = os.path.join(cache_folder(), "root/templates/debian")
    if not os.path.exists(cached + "/disk.img"):
        skip("no template debian in the cache (./check makes it)")
    root = work + "/root"
    os.makedirs(root + "/templates")
    subprocess.run(["cp", "-a", "--sparse=always", "--reflink=auto", cached, root + "/templates/"], check=True)
    os.environ["OSPITE_ROOT"] = root
    return root
