/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The folder of all machines. Making, renaming and removing machines happens under a lock on the folder itself, which
 * goes with the process that holds it; each is one rename from being done or not done.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "base/base.h"
#include "store/private.h"

/* ---- where it is */

/* kind: the folder in it, "machines" */
static int root_choose(const char *root, const char *kind, char *path, size_t size, struct err *e)
{
	const char *env = getenv("OSPITE_ROOT"), *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
	int n;

	if (!root && env && *env)
		root = env;
	if (root)
		n = snprintf(path, size, "%s/%s", root, kind);
	else if (!geteuid())
		n = snprintf(path, size, "/var/lib/ospite/%s", kind);
	else if (data && *data == '/')
		n = snprintf(path, size, "%s/ospite/%s", data, kind);
	else if (home && *home == '/')
		n = snprintf(path, size, "%s/.local/share/ospite/%s", home, kind);
	else
		return err_set(e, ENOENT, "there is no home folder for %s: set HOME, or give --root FOLDER", kind);
	return n < (int)size ? 0 : err_set(e, ENAMETOOLONG, "the path of the folder of %s is too long", kind);
}

static int make_folders(char *path)
{
	for (char *p = path + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = 0;
		if (mkdir(path, 0755) && errno != EEXIST) {
			*p = '/';
			return -1;
		}
		*p = '/';
	}
	return mkdir(path, 0700) && errno != EEXIST ? -1 : 0;
}

int store_open_kind(struct store *s, const char *root, const char *kind, struct err *e)
{
	int r;

	s->fd = -1;
	s->noun = "machine";
	s->list = "ps --all";
	r = root_choose(root, kind, s->path, sizeof(s->path), e);
	if (r)
		return r;
	s->fd = open(s->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->fd < 0 && errno == ENOENT && !make_folders(s->path))
		s->fd = open(s->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return s->fd < 0 ? err_errno(e, "cannot use %.250s (--root names another place)", s->path) : 0;
}

int store_open(struct store *s, const char *root, struct err *e)
{
	return store_open_kind(s, root, "machines", e);
}

int store_templates_open(struct store *s, const char *root, struct err *e)
{
	int r = store_open_kind(s, root, "templates", e);

	s->noun = "template";
	s->list = "template list";
	return r;
}

int store_root_choose(const char *root, char path[PATH_MAX], struct err *e)
{
	int r = root_choose(root, "machines", path, PATH_MAX, e);

	if (!r)
		*strrchr(path, '/') = 0;
	return r;
}

void store_root(const struct store *s, char root[PATH_MAX])
{
	snprintf(root, PATH_MAX, "%s", s->path);
	*strrchr(root, '/') = 0;
}

void store_close(struct store *s)
{
	cleanup_close(&s->fd);
	s->fd = -1;
}

/* ---- names */

int store_name_check(const char *name, struct err *e)
{
	size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.");

	if (!name[0] || name[n] || !isalnum((unsigned char)name[0]))
		return err_set(e, EINVAL, "'%.60s' is no name for a machine, template or network: use letters, digits, '-', '_' and '.'", name);
	if (n >= STORE_NAME)
		return err_set(e, ENAMETOOLONG, "a name has at most %d characters", STORE_NAME - 1);
	return 0;
}

int store_name_free(struct store *s, char name[STORE_NAME], struct err *e)
{
	for (unsigned i = 1; i < 1000000; i++) {
		snprintf(name, STORE_NAME, "vm%u", i);
		if (faccessat(s->fd, name, F_OK, AT_SYMLINK_NOFOLLOW))
			return 0;
	}
	return err_set(e, ENOSPC, "too many machines: give a name");
}

/* ---- the root's lock, and what is left behind */

int store_lock(struct store *s, struct err *e)
{
	/* a descriptor of our own: flock belongs to the open file */
	int fd = openat(s->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || flock(fd, LOCK_EX)) {
		err_errno(e, "cannot lock %.250s", s->path);
		cleanup_close(&fd);
		return -1;
	}
	return fd;
}

static void remove_entry(int folder, const char *name, unsigned depth)
{
	int fd;
	DIR *d;
	struct dirent *entry;

	if (!unlinkat(folder, name, 0) || errno == ENOENT || depth > 16)
		return;
	fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	d = fd < 0 ? NULL : fdopendir(fd);
	if (!d) {
		cleanup_close(&fd);
		return;
	}
	while ((entry = readdir(d))) {
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			remove_entry(dirfd(d), entry->d_name, depth + 1);
	}
	closedir(d);
	unlinkat(folder, name, AT_REMOVEDIR);
}

void store_remove_tree(int folder, const char *name)
{
	remove_entry(folder, name, 0);
}

static bool is_machine(const char *name)
{
	return store_name_check(name, NULL) == 0;
}

static DIR *store_entries(struct store *s)
{
	int fd = openat(s->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d)
		cleanup_close(&fd);
	return d;
}

/* Whoever made these has died: we hold the lock. */
static void remove_halves(struct store *s)
{
	DIR *d = store_entries(s);
	struct dirent *entry;

	while (d && (entry = readdir(d))) {
		if (!strncmp(entry->d_name, ".new-", 5) || !strncmp(entry->d_name, ".old-", 5))
			store_remove_tree(s->fd, entry->d_name);
	}
	if (d)
		closedir(d);
}

/* Made, and who was to start it died: starting follows at once. */
static bool never_started(const struct store_vm *m)
{
	struct stat st;

	return !fstatat(m->fd, "temporary", &st, AT_SYMLINK_NOFOLLOW) && time(NULL) - st.st_mtime > 600;
}

/* Machines that were to vanish at their end, whose process could not do it. */
static void remove_orphans(struct store *s)
{
	DIR *d = store_entries(s);
	struct dirent *entry;

	while (d && (entry = readdir(d))) {
		struct store_status st;
		struct store_vm m;

		if (!is_machine(entry->d_name) || store_vm_open(s, entry->d_name, &m, NULL))
			continue;
		if (store_vm_temporary(&m) && !store_vm_status(&m, &st, NULL) && (st.started || never_started(&m)) &&
		    st.state != STORE_RUNNING && st.state != STORE_SUSPENDED && !store_vm_lock(&m, NULL))
			store_vm_remove_locked(s, &m, NULL);
		store_vm_close(&m);
	}
	if (d)
		closedir(d);
}

void store_clean(struct store *s)
{
	int lock _close_ = openat(s->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (lock < 0 || flock(lock, LOCK_EX | LOCK_NB))
		return; /* somebody is at work: next time */
	remove_halves(s);
	remove_orphans(s);
}

static int by_name(const void *a, const void *b)
{
	return strverscmp(*(char *const *)a, *(char *const *)b);
}

int store_list(struct store *s, char ***names, unsigned *count, struct err *e)
{
	struct dirent *entry;
	unsigned size = 0;
	DIR *d;

	store_clean(s);
	*names = NULL;
	*count = 0;
	d = store_entries(s);
	if (!d)
		return err_errno(e, "cannot read %.250s", s->path);
	while ((entry = readdir(d))) {
		char **more;

		if (!is_machine(entry->d_name))
			continue;
		if (*count == size) {
			size = size ? size * 2 : 16;
			more = realloc(*names, size * sizeof(char *));
			if (!more)
				break;
			*names = more;
		}
		(*names)[*count] = strdup(entry->d_name);
		if (!(*names)[*count])
			break;
		(*count)++;
	}
	closedir(d);
	if (*count)
		qsort(*names, *count, sizeof(char *), by_name);
	return 0;
}

static int name_taken(const struct store *s, const char *name, struct err *e)
{
	return err_set(e, EEXIST, "there is a %s '%s' already: choose another name, or remove it with 'ospite %srm %s'", s->noun, name,
		       strcmp(s->noun, "machine") ? "template " : "", name);
}

static int fill_temporary(void *opaque, int folder, struct err *e)
{
	return *(const bool *)opaque ? store_write(folder, "temporary", "This machine is removed at its end.\n", e) : 0;
}

int store_create(struct store *s, const char *name, const char *yaml, bool temporary, struct err *e)
{
	return store_create_filled(s, name, yaml, fill_temporary, &temporary, e);
}

int store_create_filled(struct store *s, const char *name, const char *yaml, int (*fill)(void *opaque, int folder, struct err *e),
			void *opaque, struct err *e)
{
	int lock _close_ = -1, folder _close_ = -1;
	char temp[STORE_NAME + 8];
	int r = store_name_check(name, e);

	if (r)
		return r;
	lock = store_lock(s, e);
	if (lock < 0)
		return -EIO;
	if (!faccessat(s->fd, name, F_OK, AT_SYMLINK_NOFOLLOW)) /* before gigabytes are copied */
		return name_taken(s, name, e);
	remove_halves(s);
	snprintf(temp, sizeof(temp), ".new-%s", name);
	if (mkdirat(s->fd, temp, 0700))
		return err_errno(e, "cannot make a folder in %.250s", s->path);
	folder = openat(s->fd, temp, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	r = folder < 0 ? err_errno(e, "cannot open the new folder") : store_write(folder, "vm.yaml", yaml, e);
	if (!r)
		r = fill(opaque, folder, e);
	if (!r && renameat2(s->fd, temp, s->fd, name, RENAME_NOREPLACE))
		r = errno == EEXIST ? name_taken(s, name, e)
				    : err_errno(e, "cannot make the folder of %s %s", s->noun, name);
	if (r)
		store_remove_tree(s->fd, temp);
	else
		fsync(s->fd);
	return r;
}
