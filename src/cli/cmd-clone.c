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
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "cli/life.h"
#include "cli/run.h"

static bool belongs_to_run(const char *name)
{
	static const char *const names[] = { "vm.yaml", "lock", "status", "saved", "console.log", "console.log.1", "log", "temporary", "agent.lock" };

	for (unsigned i = 0; i < ARRAY_LEN(names); i++)
		if (!strcmp(names[i], name))
			return true;
	return name[0] == '.' || strstr(name, ".tmp.");
}

static int copy_range(int from, int to, off_t at, off_t end)
{
	off_t in = at, out = at;

	while (in < end) {
		ssize_t n = copy_file_range(from, &in, to, &out, (size_t)(end - in), 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -1 : 0;
	}
	return 0;
}

static int copy_data(int from, int to, off_t size)
{
	off_t at = 0, end;

	if (!ioctl(to, FICLONE, from))
		return 0;
	if (ftruncate(to, size))
		return -1;
	while ((at = lseek(from, at, SEEK_DATA)) >= 0) {
		end = lseek(from, at, SEEK_HOLE);
		if (end < 0 || copy_range(from, to, at, end))
			return -1;
		at = end;
	}
	return errno == ENXIO ? fsync(to) : -1;
}

static int copy_file(int from_folder, int to_folder, const char *name, struct err *e)
{
	int from _close_ = openat(from_folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	int to, r;

	if (from < 0 && errno != ELOOP && errno != ENXIO)
		return err_errno(e, "cannot read %.200s", name);
	if (from < 0 || fstat(from, &st) || !S_ISREG(st.st_mode))
		return 0; /* a link, a socket: not the machine's */
	to = openat(to_folder, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, st.st_mode & 0700);
	r = to < 0 || copy_data(from, to, st.st_size) ? err_errno(e, "cannot copy %.200s", name) : 0;
	if (to >= 0)
		close(to);
	return r;
}

static int copy_files(void *opaque, int folder, struct err *e)
{
	const struct store_vm *m = opaque;
	int fd = openat(m->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;
	int r = d ? 0 : err_errno(e, "cannot read the folder of machine %s", m->name);

	while (!r && (entry = readdir(d)))
		if (!belongs_to_run(entry->d_name))
			r = copy_file(fd, folder, entry->d_name, e);
	if (d)
		closedir(d);
	else
		cleanup_close(&fd);
	return r;
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

int life_clone(const struct life_command *c, struct life_args *a, struct store *s, struct err *e)
{
	char *yaml _free_ = NULL;
	struct store_status st;
	struct store_vm m;
	int r = store_vm_open(s, a->words[0], &m, e);

	if (r)
		return r;
	r = store_vm_lock(&m, e);
	if (r == -EBUSY)
		err_set(e, EBUSY, "machine '%s' is running: stop it first", m.name);
	if (!r)
		r = store_vm_status(&m, &st, e);
	if (!r && st.state == STORE_SUSPENDED)
		r = err_set(e, EBUSY, "machine '%s' is suspended: its disks are in use by what is suspended; start and stop it first", m.name);
	if (!r)
		r = store_read(m.fd, "vm.yaml", &yaml, e);
	if (!r && check_disks(yaml, e))
		r = err_prefix(e, "machine '%s'", m.name);
	if (!r)
		r = store_create_filled(s, a->words[1], yaml, copy_files, &m, e);
	store_vm_close(&m);
	if (!r && !a->quiet)
		puts(a->words[1]);
	return r;
}
