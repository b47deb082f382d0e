/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files the guest knows. A node lives while the guest has not forgotten it, has it open, or knows something in it. Descriptors are
 * kept for FS_PLACES of them; another is opened again by its name when it is needed, and is then the same file or stale.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "virtio/fs-private.h"

static struct fs_bucket *bucket(struct fs *fs, dev_t dev, ino_t ino)
{
	return &fs->bucket[(ino * 0x9e3779b97f4a7c15ull + dev) >> 52];
}
_Static_assert(FS_HASH == 4096, "the upper 12 bits");

void fs_nodes_init(struct fs *fs)
{
	TAILQ_INIT(&fs->places);
	fs->root.id = 1;
	fs->root.lookups = 1;
	fs->slot[0] = &fs->root;
	fs->nfree = 0;
	for (unsigned i = FS_NODES; --i;)
		fs->free_slots[fs->nfree++] = i;
	for (unsigned i = 0; i < FS_HANDLES; i++)
		fs->handle[i].fd = -1;
}

struct fs_node *fs_node_find(struct fs *fs, uint64_t id)
{
	uint64_t slot = (id & UINT32_MAX) - 1;
	struct fs_node *n = slot < FS_NODES ? fs->slot[slot] : NULL;

	return n && n->id == id ? n : NULL;
}

static void unhash(struct fs_node *n)
{
	if (n->hashed)
		LIST_REMOVE(n, same);
	n->hashed = false;
}

static void place_close(struct fs *fs, struct fs_node *n)
{
	if (n->place < 0)
		return;
	close(n->place);
	n->place = -1;
	TAILQ_REMOVE(&fs->places, n, use);
	fs->nplaces--;
}

/* Takes the descriptor. */
static void place_set(struct fs *fs, struct fs_node *n, int fd)
{
	while (fs->nplaces >= FS_PLACES)
		place_close(fs, TAILQ_FIRST(&fs->places));
	n->place = fd;
	TAILQ_INSERT_TAIL(&fs->places, n, use);
	fs->nplaces++;
}

static void check_unused(struct fs *fs, struct fs_node *n)
{
	while (n && n != &fs->root && !n->lookups && !n->handles && !n->children) {
		struct fs_node *parent = n->parent;
		unsigned slot = (unsigned)(n->id & UINT32_MAX) - 1;

		place_close(fs, n);
		unhash(n);
		fs->slot[slot] = NULL;
		fs->generation[slot]++;
		fs->free_slots[fs->nfree++] = slot;
		free(n->name);
		free(n);
		if (parent)
			parent->children--;
		n = parent;
	}
}

void fs_node_forget(struct fs *fs, struct fs_node *n, uint64_t lookups)
{
	if (n == &fs->root)
		return;
	n->lookups -= MIN(n->lookups, lookups);
	check_unused(fs, n);
}

void fs_forget_all(struct fs *fs)
{
	unsigned left;

	for (unsigned i = 0; i < FS_HANDLES && fs->nhandles; i++)
		if (fs->handle[i].fd >= 0)
			fs_handle_close(fs, &fs->handle[i]);
	left = FS_NODES - 1 - fs->nfree;
	for (unsigned i = 1; left && i < FS_NODES; i++)
		if (fs->slot[i]) {
			fs->slot[i]->lookups = 0;
			left--;
		}
	/* one that is still somebody's parent goes with the last of its children */
	for (unsigned i = 1; fs->nfree < FS_NODES - 1 && i < FS_NODES; i++)
		if (fs->slot[i])
			check_unused(fs, fs->slot[i]);
}

/* ---- places */

static int open_beneath(int folder, const char *path)
{
	struct open_how how = { .flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
				.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS };
	int fd = (int)syscall(SYS_openat2, folder, path, &how, sizeof(how));

	return fd < 0 ? -errno : fd;
}

/* The names from the nearest folder that has a place; that folder in *from. */
static int path_to(const struct fs_node *n, char *path, const struct fs_node **from)
{
	size_t at = PATH_MAX - 1;

	path[at] = 0;
	for (; n->place < 0; n = n->parent) {
		size_t len = strlen(n->name);

		if (len + 1 > at)
			return -ENAMETOOLONG;
		if (path[at])
			path[--at] = '/';
		at -= len;
		memcpy(path + at, n->name, len);
	}
	memmove(path, path + at, PATH_MAX - at);
	*from = n;
	return 0;
}

int fs_node_place(struct fs *fs, struct fs_node *n)
{
	const struct fs_node *from;
	char path[PATH_MAX];
	struct stat st;
	int fd;

	if (n->place >= 0) {
		if (n != &fs->root) {
			TAILQ_REMOVE(&fs->places, n, use);
			TAILQ_INSERT_TAIL(&fs->places, n, use);
		}
		return n->place;
	}
	fd = path_to(n, path, &from);
	if (!fd)
		fd = open_beneath(from->place, path);
	if (fd < 0)
		return fd == -ENAMETOOLONG || fd == -EMFILE || fd == -ENFILE ? fd : -ESTALE;
	if (fstatat(fd, "", &st, AT_EMPTY_PATH) || st.st_dev != n->dev || st.st_ino != n->ino ||
	    (st.st_mode & S_IFMT) != n->type) {
		close(fd);
		return -ESTALE;
	}
	place_set(fs, n, fd);
	return fd;
}

int fs_node_open(struct fs *fs, struct fs_node *n, int flags)
{
	int fd = fs_node_place(fs, n);
	char name[16];

	if (fd < 0)
		return fd;
	if (!S_ISREG(n->type) && !S_ISDIR(n->type))
		return -EACCES;
	snprintf(name, sizeof(name), "%d", fd);
	fd = openat(fs->proc, name, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	return fd < 0 ? -errno : fd;
}

/* ---- making them */

struct fs_node *fs_node_known(struct fs *fs, const struct stat *st)
{
	struct fs_node *n;

	if (st->st_dev == fs->root.dev && st->st_ino == fs->root.ino)
		return &fs->root;
	LIST_FOREACH(n, bucket(fs, st->st_dev, st->st_ino), same)
		if (n->dev == st->st_dev && n->ino == st->st_ino)
			return n;
	return NULL;
}

void fs_node_moved(struct fs *fs, struct fs_node *n, struct fs_node *parent, const char *name)
{
	struct fs_node *old = n->parent, *p;
	char *copy;

	if (n == &fs->root || (old == parent && n->name && !strcmp(n->name, name)))
		return;
	for (p = parent; p; p = p->parent) /* a folder put into itself, as it looks to us: somebody else moves things too */
		if (p == n)
			return;
	copy = strdup(name);
	if (!copy)
		return;
	free(n->name);
	n->name = copy;
	n->parent = parent;
	parent->children++;
	if (old) {
		old->children--;
		check_unused(fs, old);
	}
}

static struct fs_node *node_create(struct fs *fs, const struct stat *st)
{
	struct fs_node *n = fs->nfree ? calloc(1, sizeof(*n)) : NULL;
	unsigned slot;

	if (!n)
		return NULL;
	slot = fs->free_slots[--fs->nfree];
	n->id = (slot + 1) | (uint64_t)fs->generation[slot] << 32;
	n->place = -1;
	n->type = st->st_mode & S_IFMT;
	n->dev = st->st_dev;
	n->ino = st->st_ino;
	n->hashed = true;
	LIST_INSERT_HEAD(bucket(fs, n->dev, n->ino), n, same);
	fs->slot[slot] = n;
	return n;
}

int fs_node_lookup(struct fs *fs, struct fs_node *parent, const char *name, struct fs_node **out, struct stat *st)
{
	int folder = fs_node_place(fs, parent), fd;
	struct fs_node *n;

	if (folder < 0)
		return folder;
	fd = openat(folder, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fstatat(fd, "", st, AT_EMPTY_PATH)) {
		close(fd);
		return -EIO;
	}
	n = fs_node_known(fs, st);
	if (n && n->type != (st->st_mode & S_IFMT)) { /* another file with the number of one that is gone */
		unhash(n);
		n = NULL;
	}
	if (!n)
		n = node_create(fs, st);
	if (!n) {
		close(fd);
		return -ENFILE;
	}
	if (n->place < 0)
		place_set(fs, n, fd);
	else
		close(fd);
	n->lookups++; /* before the old folder may go */
	fs_node_moved(fs, n, parent, name);
	if (!n->name && n != &fs->root) { /* no memory for it */
		fs_node_forget(fs, n, 1);
		return -ENOMEM;
	}
	*out = n;
	return 0;
}

struct fs_node *fs_node_restore(struct fs *fs, uint64_t id, mode_t type, struct fs_node *parent, const char *name)
{
	uint32_t slot = (uint32_t)id - 1;
	struct fs_node *n;
	unsigned free_at = 0;

	if (!slot || slot >= FS_NODES || fs->slot[slot])
		return NULL;
	/* they are handed out in order, so it is near the end */
	for (free_at = fs->nfree; free_at && fs->free_slots[free_at - 1] != slot;)
		free_at--;
	n = free_at ? calloc(1, sizeof(*n)) : NULL;
	if (n)
		n->name = strdup(name);
	if (!n || !n->name) {
		free(n);
		return NULL;
	}
	fs->free_slots[free_at - 1] = fs->free_slots[--fs->nfree];
	fs->generation[slot] = (uint32_t)(id >> 32);
	fs->slot[slot] = n;
	n->id = id;
	n->place = -1;
	n->type = type;
	n->parent = parent;
	parent->children++;
	return n;
}

void fs_node_is(struct fs *fs, struct fs_node *n, const struct stat *st)
{
	n->dev = st->st_dev;
	n->ino = st->st_ino;
	if (!fs_node_known(fs, st)) {
		n->hashed = true;
		LIST_INSERT_HEAD(bucket(fs, n->dev, n->ino), n, same);
	}
}

/* ---- handles */

void fs_handle_restore(struct fs *fs, struct fs_node *n, int fd, uint32_t flags, unsigned at)
{
	fs->handle[at] = (struct fs_handle){ fd, n, flags };
	fs->nhandles++;
	n->handles++;
}

struct fs_handle *fs_handle_find(struct fs *fs, uint64_t fh, const struct fs_node *n)
{
	struct fs_handle *h = fh < FS_HANDLES ? &fs->handle[fh] : NULL;

	return h && h->fd >= 0 && h->node == n ? h : NULL;
}

int fs_handle_make(struct fs *fs, struct fs_node *n, int fd, uint32_t flags, uint64_t *fh)
{
	for (unsigned i = 0; i < FS_HANDLES; i++) {
		unsigned at = (fs->next_handle + i) % FS_HANDLES;

		if (fs->handle[at].fd >= 0)
			continue;
		fs->handle[at] = (struct fs_handle){ fd, n, flags };
		fs->next_handle = at + 1;
		fs->nhandles++;
		n->handles++;
		*fh = at;
		return 0;
	}
	close(fd);
	return -ENFILE;
}

void fs_handle_close(struct fs *fs, struct fs_handle *h)
{
	struct fs_node *n = h->node;

	close(h->fd);
	h->fd = -1;
	fs->nhandles--;
	n->handles--;
	check_unused(fs, n);
}
