/* SPDX-License-Identifier: Apache-2.0 */
/* The folders of networks: made and removed by one rename, as machines' are. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/base.h"
#include "base/file.h"
#include "store/network.h"
#include "store/private.h"

int store_networks_open(struct store *s, const char *root, struct err *e)
{
	return store_open_kind(s, root, "networks", e);
}

int store_network_create(struct store *s, const char *name, const char *text, struct err *e)
{
	int lock _close_ = -1, folder _close_ = -1;
	char temp[STORE_NAME + 8];
	int r = store_name_check(name, e);

	if (r)
		return r;
	lock = store_lock(s, e);
	if (lock < 0)
		return -EIO;
	snprintf(temp, sizeof(temp), ".new-%s", name);
	store_remove_tree(s->fd, temp); /* whoever began it has died: we hold the lock */
	if (mkdirat(s->fd, temp, 0700))
		return err_errno(e, "cannot make a folder in %.250s", s->path);
	folder = openat(s->fd, temp, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	r = folder < 0 ? err_errno(e, "cannot open the new folder") : store_write(folder, "network.json", text, e);
	if (!r && renameat2(s->fd, temp, s->fd, name, RENAME_NOREPLACE))
		r = errno == EEXIST ? err_set(e, EEXIST, "there is a network '%s' already: choose another name, or remove it with 'ospite net rm %s'",
					      name, name)
				    : err_errno(e, "cannot make the folder of network %s", name);
	if (r)
		store_remove_tree(s->fd, temp);
	else
		fsync(s->fd);
	return r;
}

int store_network_open(struct store *s, const char *name, struct err *e)
{
	int fd, r = store_name_check(name, e);

	if (r)
		return r;
	fd = openat(s->fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return err_set(e, ENOENT, "there is no network '%s': make it with 'ospite net create %s' ('ospite net ls' lists them)", name, name);
	return fd < 0 ? err_errno(e, "cannot open network %s", name) : fd;
}

int store_network_lock(int folder, struct err *e)
{
	int fd = file_open_or_make(folder, "lock", O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return err_errno(e, "cannot open the network's lock");
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		int r = errno == EWOULDBLOCK ? err_set(e, EBUSY, "the network's switch runs") : err_errno(e, "cannot lock the network");

		close(fd);
		return r;
	}
	return fd;
}

int store_network_remove(struct store *s, const char *name, struct err *e)
{
	int lock _close_ = -1, folder _close_ = -1, own _close_ = -1;
	char temp[STORE_NAME + 8];

	lock = store_lock(s, e);
	if (lock < 0)
		return -EIO;
	folder = store_network_open(s, name, e);
	if (folder < 0)
		return folder;
	own = store_network_lock(folder, e);
	if (own < 0)
		return own;
	snprintf(temp, sizeof(temp), ".old-%s", name);
	store_remove_tree(s->fd, temp);
	if (renameat(s->fd, name, s->fd, temp))
		return err_errno(e, "cannot remove network %s", name);
	store_remove_tree(s->fd, temp);
	return 0;
}
