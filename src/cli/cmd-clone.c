/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ospite clone: another machine like one that is off. What is in its folder is copied (shared by the file system where it can, holes stay
 * holes); a disk outside of it would be written by both, so that is refused unless it is only read.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "cli/life.h"
#include "cli/progress.h"
#include "cli/run.h"
#include "cli/thin.h"

static bool belongs_to_run(const char *name)
{
	static const char *const names[] = { "vm.yaml", "running.yaml", "lock", "status", "saved", "console.log", "console.log.1", "log", "temporary", "agent.lock",
					     "ssh-port", "instance", "seed.iso", "known_hosts" };

	for (unsigned i = 0; i < ARRAY_LEN(names); i++)
		if (!strcmp(names[i], name))
			return true;
	return name[0] == '.' || store_is_half(name);
}

#define STEP (64u << 20) /* at once, between two looks at the bar */

static int copy_range(int from, int to, off_t at, off_t end, struct progress *bar)
{
	off_t in = at, out = at;

	while (in < end) {
		ssize_t n = copy_file_range(from, &in, to, &out, MIN((size_t)(end - in), (size_t)STEP), 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -1 : 0;
		progress_add(bar, (uint64_t)n);
	}
	return 0;
}

static int copy_data(int from, int to, off_t size, struct progress *bar)
{
	off_t at = 0, end;

	if (!ioctl(to, FICLONE, from))
		return 0;
	if (ftruncate(to, size))
		return -1;
	while ((at = lseek(from, at, SEEK_DATA)) >= 0) {
		end = lseek(from, at, SEEK_HOLE);
		if (end < 0 || copy_range(from, to, at, end, bar))
			return -1;
		at = end;
	}
	return errno == ENXIO ? fsync(to) : -1;
}

int file_copy(int from_folder, const char *from_name, int to_folder, const char *to_name, struct progress *bar, struct err *e)
{
	int from _close_ = openat(from_folder, from_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	int to, r;

	if (from < 0 && errno != ELOOP && errno != ENXIO)
		return err_errno(e, "cannot read %.200s", from_name);
	if (from < 0 || fstat(from, &st) || !S_ISREG(st.st_mode))
		return 0; /* a link, a socket: not the machine's */
	to = openat(to_folder, to_name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, (st.st_mode & 0700) | 0600);
	r = to < 0 || copy_data(from, to, st.st_size, bar) ? err_errno(e, "cannot copy %.200s", from_name) : 0;
	if (to >= 0)
		close(to);
	return r;
}

static bool is_copied(const char *name, const struct thin *thin)
{
	return !belongs_to_run(name) && !(thin && thin_links(thin, name));
}

int folder_copy(int from, int to, const struct thin *thin, bool quiet, struct err *e)
{
	int fd = openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;
	struct progress bar;
	uint64_t total = 0;
	struct stat st;
	int r = d ? 0 : err_errno(e, "cannot read the folder");

	while (d && (entry = readdir(d)))
		if (is_copied(entry->d_name, thin) && !fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW))
			total += (uint64_t)st.st_blocks * 512;
	if (d)
		rewinddir(d);
	progress_start(&bar, "copying", total, quiet);
	while (!r && (entry = readdir(d)))
		if (is_copied(entry->d_name, thin))
			r = file_copy(fd, entry->d_name, to, entry->d_name, &bar, e);
	progress_end(&bar);
	if (d)
		closedir(d);
	else
		cleanup_close(&fd);
	return r;
}

struct clone {
	const struct store_vm *from;
	struct thin thin; /* --thin */
	bool is_thin, quiet;
};

static int fill(void *opaque, int folder, struct err *e)
{
	const struct clone *c = opaque;
	int r = c->is_thin ? thin_link(&c->thin, c->from->fd, folder, e) : 0;

	if (!r)
		r = folder_copy(c->from->fd, folder, c->is_thin ? &c->thin : NULL, c->quiet, e);
	return r || !c->is_thin ? r : thin_make(&c->thin, folder, 0, e);
}

static bool is_outside(const char *spec)
{
	const char *file = !strncmp(spec, "file=", 5) ? spec + 5 : strstr(spec, ",file=") ? strstr(spec, ",file=") + 6 : spec;

	return *file == '/' || !strncmp(file, "../", 3) || strstr(file, "://") || !strncmp(file, "nbd:", 4);
}

/* Would the two write to the same disk? */
static int check_disks(const char *yaml, struct err *e)
{
	struct run_options o;
	int r;

	run_options_init(&o);
	r = run_config_load(&o, yaml, e);
	for (unsigned i = 0; i < o.pc.ndisks && !r; i++) {
		const struct pc_disk *d = &o.pc.disk[i];

		if (d->spec && !d->cdrom && is_outside(d->spec) && !strstr(d->spec, "readonly"))
			r = err_set(e, EBUSY, "its disk %.150s is outside of its folder and would be written by both: move it into the "
					      "folder, or make an overlay ('ospite image create --backing')", d->spec);
	}
	run_options_dispose(&o);
	return r;
}

/* The machine's disks become bases: from now on it writes to overlays of them, as the clone does. */
static int freeze(struct clone *c, struct store *s, const char *name, char **yaml, struct err *e)
{
	char *next = NULL;
	int r = thin_plan(&c->thin, *yaml, c->from->fd, e);

	c->is_thin = true;
	if (!r)
		r = store_name_check(name, e);
	if (!r && !faccessat(s->fd, name, F_OK, AT_SYMLINK_NOFOLLOW))
		r = err_set(e, EEXIST, "there is a machine '%s' already: choose another name", name);
	if (!r)
		r = thin_yaml(&c->thin, *yaml, &next, e);
	if (!r)
		r = thin_make(&c->thin, c->from->fd, 0, e);
	if (!r)
		r = store_write(c->from->fd, "vm.yaml", next, e);
	if (r) {
		for (unsigned i = 0; next && i < c->thin.noverlays; i++)
			unlinkat(c->from->fd, c->thin.overlay[i].name, 0);
		free(next);
		return r;
	}
	free(*yaml);
	*yaml = next;
	return 0;
}

int source_lock(struct store_vm *m, char **yaml, struct err *e)
{
	struct store_status st;
	int r = store_vm_lock(m, e);

	if (r == -EBUSY)
		err_set(e, EBUSY, "machine '%s' is running: stop it first", m->name);
	if (!r)
		r = store_vm_status(m, &st, e);
	if (!r && st.state == STORE_SUSPENDED)
		r = err_set(e, EBUSY, "machine '%s' is suspended: its disks are in use by what is suspended; start and stop it first", m->name);
	return r ? r : store_read(m->fd, "vm.yaml", yaml, e);
}

int life_clone(const struct life_command *c, struct life_args *a, struct store *s, struct err *e)
{
	char *yaml _free_ = NULL;
	struct store_vm m;
	struct clone clone = { .from = &m, .quiet = a->quiet };
	int r = store_vm_open(s, a->words[0], &m, e);

	if (r)
		return r;
	if (a->thin && flock(m.fd, LOCK_EX)) /* of those who change vm.yaml, as we do */
		r = err_errno(e, "cannot lock the folder of machine '%s'", m.name);
	if (!r)
		r = source_lock(&m, &yaml, e);
	if (!r && (a->thin ? freeze(&clone, s, a->words[1], &yaml, e) : check_disks(yaml, e)))
		r = err_prefix(e, "machine '%s'", m.name);
	if (!r)
		r = store_create_filled(s, a->words[1], yaml, fill, &clone, e);
	thin_dispose(&clone.thin);
	store_vm_close(&m);
	if (!r && !a->quiet)
		puts(a->words[1]);
	return r;
}
