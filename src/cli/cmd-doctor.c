/* SPDX-License-Identifier: Apache-2.0 */
/* ospite doctor: what this host offers and lacks, and what to do about it. Looks only; how fast KVM is it remembers. */
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "cli/life.h"
#include "vm/view.h"
#include "vm/landlock.h"
#include "vm/measure.h"

enum goodness { GOOD, WEAK, BAD };

static void say(json_t *rows, const char *area, const char *what, enum goodness v, const char *finding, const char *remedy)
{
	static const char *const words[] = { "ok", "weak", "missing" };

	json_array_append_new(rows, json_pack("{s:s,s:s,s:s,s:s,s:s}", "area", area, "what", what, "verdict", words[v], "finding",
					      finding, "remedy", remedy ? remedy : ""));
}

static bool file_has(const char *path, const char *word)
{
	char text[16384];
	int fd _close_ = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

	text[MAX(n, (ssize_t)0)] = 0;
	return strstr(text, word);
}

/* What starts go by from now on. */
static void remember(const char *root, double mips)
{
	struct err e = { 0 };
	char path[PATH_MAX];
	struct verdict v;
	struct store s;

	if (store_open(&s, root, &e))
		return;
	store_root(&s, path);
	store_close(&s);
	verdict_open(&v, path, NULL);
	verdict_keep(&v, mips);
	verdict_close(&v);
}

static void look_at_engines(json_t *rows, const char *root)
{
	bool hardware = file_has("/proc/cpuinfo", " vmx") || file_has("/proc/cpuinfo", " svm");

	say(rows, "engine", "hardware", hardware ? GOOD : WEAK,
	    hardware ? "the processor has hardware virtualization" : "no hardware virtualization (off, or this is a virtual machine)",
	    hardware ? NULL : "the translator (dbt) works without; to have KVM, switch VT-x or AMD-V on in the firmware, or nesting in the "
			      "machine around");
	for (const struct engine_ops *const *l = engine_list(); *l; l++) {
		bool slow_kvm = false;
		struct err e = { 0 };
		char text[80];
		double mips = 0;

		if ((*l)->probe(&e) || measure_engine(*l, &mips, &e)) {
			char *colon = strstr(e.text, ": ");

			if (colon)
				*colon = 0;
			say(rows, "engine", (*l)->name, BAD, e.text, colon ? colon + 2 : "another engine does its work");
			continue;
		}
		snprintf(text, sizeof(text), mips < 100 ? "%.3g million instructions a second" : "%.0f million instructions a second", mips);
		slow_kvm = !strcmp((*l)->name, "kvm") && mips < MEASURE_ACCELERATED;
		if (!strcmp((*l)->name, "kvm"))
			remember(root, mips);
		say(rows, "engine", (*l)->name, slow_kvm ? WEAK : GOOD, text,
		    slow_kvm ? "/dev/kvm without hardware behind it: auto does not take it" : NULL);
	}
}

static void look_at_firmware(json_t *rows)
{
	static const struct {
		const char *what, *path, *package;
	} files[] = {
		{ "bios", "/usr/share/seabios/bios-256k.bin", "to start from disks: apt install seabios" },
		{ "uefi", "/usr/share/OVMF/OVMF_CODE_4M.fd", "for --firmware uefi: apt install ovmf" },
		{ "vga bios", "/usr/share/seabios/vgabios-stdvga.bin", "for text on the screen: apt install seabios" },
	};

	for (unsigned i = 0; i < ARRAY_LEN(files); i++) {
		bool there = !access(files[i].path, R_OK);

		say(rows, "firmware", files[i].what, there ? GOOD : BAD, files[i].path, there ? NULL : files[i].package);
	}
}

static void look_at_disks(json_t *rows, const char *root)
{
	struct io_uring_params p = { 0 };
	int ring _close_ = (int)syscall(SYS_io_uring_setup, 1, &p);
	struct statvfs fs;
	struct err e = { 0 };
	struct store s;
	char text[PATH_MAX + 80], size[32];

	say(rows, "disk", "io_uring", ring < 0 ? WEAK : GOOD, ring < 0 ? strerror(errno) : "works",
	    ring < 0 ? "threads do its work; sysctl kernel.io_uring_disabled=0, or allow it in the container, for less CPU time" : NULL);
	if (store_open(&s, root, &e)) {
		say(rows, "disk", "folder of machines", BAD, e.text, "give --root FOLDER, or set OSPITE_ROOT");
		return;
	}
	if (!fstatvfs(s.fd, &fs)) {
		uint64_t space = (uint64_t)fs.f_bavail * fs.f_frsize;

		snprintf(text, sizeof(text), "%s: %s free", s.path, short_size(space, size));
		say(rows, "disk", "folder of machines", faccessat(s.fd, ".", W_OK, 0) ? BAD : space < (1ull << 30) ? WEAK : GOOD, text,
		    space < (1ull << 30) ? "little room for disks and suspended machines" : NULL);
	}
	store_close(&s);
}

static void look_at_net(json_t *rows)
{
	int tun _close_ = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	say(rows, "network", "tap", tun < 0 ? WEAK : GOOD, tun < 0 ? strerror(errno) : "/dev/net/tun can be opened",
	    tun < 0 ? "networks in user mode need nothing; for bridges: modprobe tun, and root to make interfaces" : NULL);
}

static void look_at_memory(json_t *rows)
{
	uint64_t host = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	bool never = file_has("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "[never]");
	char size[32];

	say(rows, "memory", "size", host < (1ull << 30) ? WEAK : GOOD, short_size(host, size), NULL);
	say(rows, "memory", "huge pages", never ? WEAK : GOOD, never ? "not for shared memory" : "can be asked for",
	    never ? "guests with large memory get faster by: echo advise >/sys/kernel/mm/transparent_hugepage/shmem_enabled" : NULL);
}

static void look_at_landlock(json_t *rows)
{
	int version = landlock_version();
	char text[96];

	if (version < 2)
		say(rows, "confinement", "files", WEAK, version ? "Landlock of a kernel before 5.19" : "the kernel has no Landlock",
		    "machines are confined by their view of files alone; have landlock among the kernel's security modules (lsm=landlock,...)");
	else {
		snprintf(text, sizeof(text), "what is not a machine's it cannot open (Landlock %d)", version);
		say(rows, "confinement", "files", GOOD, text, NULL);
	}
}

static void look_at_confinement(json_t *rows)
{
	const uint32_t action = SECCOMP_RET_ERRNO;
	bool filter = !syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action);
	struct err e = { 0 };
	int r;

	say(rows, "confinement", "system calls", filter ? GOOD : BAD, filter ? "seccomp filters" : "the kernel has no seccomp filters",
	    filter ? NULL : "machines start only with --unconfined; use a kernel with CONFIG_SECCOMP_FILTER");
	r = view_probe(&e);
	say(rows, "confinement", "view of files", r ? WEAK : GOOD, r ? e.text : "each machine sees its own files only",
	    !r ? NULL : landlock_version() >= 2 ?
		"machines see the names of the host's files, and open their own only; allow user namespaces (sysctl user.max_user_namespaces)" :
		"machines see the host's files as their user does; allow user namespaces (sysctl user.max_user_namespaces), or start as root");
	look_at_landlock(rows);
	if (!geteuid())
		say(rows, "confinement", "user", getpwnam("ospite") ? GOOD : WEAK,
		    getpwnam("ospite") ? "machines with a folder run as user ospite" : "machines run as root, with few capabilities",
		    getpwnam("ospite") ? NULL : "adduser --system --group ospite");
}

int life_doctor(const struct life_command *c, struct life_args *a, struct err *e)
{
	static const struct column columns[] = {
		{ "area", "AREA" }, { "what", "WHAT" }, { "verdict", "VERDICT" }, { "finding", "FINDING" }, { NULL },
	};
	json_t *rows = json_array(), *row;
	size_t i;

	look_at_engines(rows, a->root);
	look_at_firmware(rows);
	look_at_disks(rows, a->root);
	look_at_net(rows);
	look_at_memory(rows);
	look_at_confinement(rows);
	table_print(rows, columns, a->json);
	json_array_foreach(rows, i, row) {
		const char *remedy = json_string_value(json_object_get(row, "remedy"));

		if (!a->json && remedy && *remedy)
			printf("%s %s: %s\n", json_string_value(json_object_get(row, "area")),
			       json_string_value(json_object_get(row, "what")), remedy);
	}
	json_decref(rows);
	return 0;
}
