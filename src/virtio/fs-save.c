/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the guest knows of a shared folder, saved: every file by its number, its folder and its name, and what is open. Restored, each
 * is looked for again by its name; one that is not there any more, or is of another kind, is stale to the guest. A saved machine
 * is not to be trusted: numbers, names and order are checked, and names go the way the guest's own go.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/err.h"
#include "virtio/fs-private.h"

struct record { /* of a file; its name follows */
	uint64_t id, parent, lookups;
	uint32_t type, name;
} __attribute__((packed));

struct open_record {
	uint64_t id;
	uint32_t handle, flags;
} __attribute__((packed));

#define OPENED_AGAIN (O_ACCMODE | O_APPEND | O_DSYNC | O_SYNC)

uint64_t fs_session_size(const struct fs *fs)
{
	uint64_t size = 0;
	unsigned left = FS_NODES - 1 - fs->nfree;

	for (unsigned i = 1; left && i < FS_NODES; i++) {
		if (!fs->slot[i])
			continue;
		size += sizeof(struct record) + strlen(fs->slot[i]->name);
		left--;
	}
	return size + fs->nhandles * sizeof(struct open_record);
}

static void put(struct fs_hw *hw, const void *data, size_t n)
{
	CHECK(n <= sizeof(hw->session) - hw->used); /* fs_session_size was asked */
	memcpy(hw->session + hw->used, data, n);
	hw->used += (uint32_t)n;
}

static void put_node(struct fs_hw *hw, const struct fs_node *n)
{
	struct record r = { .id = n->id, .parent = n->parent->id, .lookups = n->lookups, .type = n->type,
			    .name = (uint32_t)strlen(n->name) };

	put(hw, &r, sizeof(r));
	put(hw, n->name, r.name);
	hw->nodes++;
}

void fs_session_save(struct fs *fs)
{
	struct fs_hw *hw = &fs->hw;
	struct fs_node **way = calloc(FS_NODES, sizeof(*way));
	bool *done = calloc(FS_NODES, sizeof(*done));
	unsigned left = FS_NODES - 1 - fs->nfree;

	memset(hw, 0, sizeof(*hw));
	if (!fs->ready || !way || !done)
		left = 0; /* without memory the guest's files are all stale afterwards */
	hw->ready = fs->ready;
	for (unsigned i = 1; left && i < FS_NODES; i++) {
		unsigned n = 0;

		/* folders before what is in them */
		for (struct fs_node *at = fs->slot[i]; at && at != &fs->root && !done[(uint32_t)at->id - 1]; at = at->parent) {
			done[(uint32_t)at->id - 1] = true;
			way[n++] = at;
		}
		while (n) {
			put_node(hw, way[--n]);
			left--;
		}
	}
	for (unsigned i = 0; fs->ready && way && done && i < FS_HANDLES; i++) {
		const struct fs_handle *h = &fs->handle[i];
		struct open_record r = { .handle = i, .flags = h->flags };

		if (h->fd < 0)
			continue;
		r.id = h->node->id;
		put(hw, &r, sizeof(r));
		hw->handles++;
	}
	free(way);
	free(done);
}

static bool get(const struct fs_hw *hw, uint32_t *at, void *data, size_t n)
{
	if (!range_fits(*at, n, MIN(hw->used, sizeof(hw->session))))
		return false;
	memcpy(data, hw->session + *at, n);
	*at += (uint32_t)n;
	return true;
}

/* One file, as far as the record makes sense. */
static bool node_load(struct fs *fs, const struct record *r, const char *name)
{
	struct fs_node *parent = fs_node_find(fs, r->parent), *n;
	struct stat st = { 0 };
	int folder;

	if (!parent || !fs_name_valid(name, r->name))
		return false;
	n = fs_node_restore(fs, r->id, r->type & S_IFMT, parent, name);
	if (!n)
		return false;
	n->lookups = r->lookups;
	folder = fs_node_place(fs, parent);
	if (folder >= 0 && !fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) && (st.st_mode & S_IFMT) == n->type)
		fs_node_is(fs, n, &st);
	return true;
}

void fs_session_load(struct fs *fs)
{
	const struct fs_hw *hw = &fs->hw;
	struct open_record o;
	struct record r;
	uint32_t at = 0;
	char name[256];

	fs_forget_all(fs);
	fs->ready = hw->ready;
	for (uint32_t i = 0; i < hw->nodes; i++) {
		if (!get(hw, &at, &r, sizeof(r)) || r.name >= sizeof(name) || !get(hw, &at, name, r.name))
			return;
		name[r.name] = 0;
		if (!node_load(fs, &r, name))
			return;
	}
	for (uint32_t i = 0; i < hw->handles && get(hw, &at, &o, sizeof(o)); i++) {
		struct fs_node *n = fs_node_find(fs, o.id);
		uint32_t flags = o.flags & OPENED_AGAIN;
		int fd;

		if (!n || o.handle >= FS_HANDLES || fs->handle[o.handle].fd >= 0 ||
		    (fs->read_only && (flags & O_ACCMODE) != O_RDONLY))
			continue;
		fd = fs_node_open(fs, n, (int)flags);
		if (fd >= 0)
			fs_handle_restore(fs, n, fd, flags, o.handle);
	}
}
