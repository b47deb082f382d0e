/* SPDX-License-Identifier: Apache-2.0 */
/* What is in files and folders. Data goes straight between the guest's pages and the host's files. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include "virtio/fs-private.h"

#define OPEN_FLAGS (O_ACCMODE | O_APPEND | O_TRUNC | O_DSYNC | O_SYNC)
#define DIRENTS 32768u

/* ---- open files */

int fs_open(struct fs_request *r)
{
	uint32_t flags = FS_ARG(r, fuse_open_in)->flags & OPEN_FLAGS;
	struct fuse_open_out *o = fs_answer(r, sizeof(*o));
	int fd;

	if (!o)
		return -EINVAL;
	if (!S_ISREG(r->node->type))
		return S_ISDIR(r->node->type) ? -EISDIR : -EACCES;
	if (r->fs->read_only && ((flags & O_ACCMODE) != O_RDONLY || flags & O_TRUNC))
		return -EROFS;
	fd = fs_node_open(r->fs, r->node, (int)flags);
	return fd < 0 ? fd : fs_handle_make(r->fs, r->node, fd, flags, &o->fh);
}

int fs_opendir(struct fs_request *r)
{
	struct fuse_open_out *o = fs_answer(r, sizeof(*o));
	int fd;

	if (!o)
		return -EINVAL;
	if (!S_ISDIR(r->node->type))
		return -ENOTDIR;
	fd = fs_node_open(r->fs, r->node, O_RDONLY | O_DIRECTORY);
	return fd < 0 ? fd : fs_handle_make(r->fs, r->node, fd, 0, &o->fh);
}

int fs_release(struct fs_request *r)
{
	struct fs_handle *h = fs_handle_find(r->fs, FS_ARG(r, fuse_release_in)->fh, r->node);

	if (!h)
		return -EBADF;
	fs_handle_close(r->fs, h);
	return 0;
}

int fs_flush(struct fs_request *r)
{
	return fs_handle_find(r->fs, FS_ARG(r, fuse_flush_in)->fh, r->node) ? 0 : -EBADF;
}

int fs_fsync(struct fs_request *r)
{
	const struct fuse_fsync_in *in = FS_ARG(r, fuse_fsync_in);
	struct fs_handle *h = fs_handle_find(r->fs, in->fh, r->node);

	if (!h)
		return -EBADF;
	return (in->fsync_flags & FUSE_FSYNC_FDATASYNC ? fdatasync(h->fd) : fsync(h->fd)) ? -errno : 0;
}

/* ---- data */

/* The part [skip, +len) of n pieces; the number of pieces. */
static unsigned pieces(const struct iovec *from, unsigned n, uint64_t skip, uint64_t len, struct iovec out[VQ_IOV_MAX])
{
	unsigned count = 0;

	for (unsigned i = 0; i < n && len; i++) {
		uint64_t part;

		if (skip >= from[i].iov_len) {
			skip -= from[i].iov_len;
			continue;
		}
		part = MIN(len, from[i].iov_len - skip);
		out[count++] = (struct iovec){ (uint8_t *)from[i].iov_base + skip, part };
		len -= part;
		skip = 0;
	}
	return count;
}

int fs_read(struct fs_request *r)
{
	const struct fuse_read_in *in = FS_ARG(r, fuse_read_in);
	struct fs *fs = r->fs;
	struct fs_handle *h = fs_handle_find(fs, in->fh, r->node);
	uint32_t size = MIN(in->size, MIN(r->room, FS_DATA));
	struct iovec iov[VQ_IOV_MAX];
	unsigned count;
	ssize_t n;

	if (!h || S_ISDIR(r->node->type))
		return -EBADF;
	if (in->offset > INT64_MAX - FS_DATA)
		return -EINVAL;
	if (!mem_dma_direct(r->vq->mem)) { /* engine=verify */
		n = pread(h->fd, fs->data, size, (off_t)in->offset);
		r->answer = n > 0 ? (uint32_t)n : 0;
		return n < 0 ? -errno : 0;
	}
	count = pieces(fs->chain.iov + fs->chain.nout, fs->chain.nin, sizeof(struct fuse_out_header), size, iov);
	n = preadv(h->fd, iov, (int)count, (off_t)in->offset);
	if (n > 0) {
		vq_written(r->vq, &fs->chain, sizeof(struct fuse_out_header), (uint64_t)n);
		r->direct = (uint32_t)n;
	}
	return n < 0 ? -errno : 0;
}

int fs_write(struct fs_request *r)
{
	const struct fuse_write_in *in = FS_ARG(r, fuse_write_in);
	struct fs *fs = r->fs;
	struct fs_handle *h = fs_handle_find(fs, in->fh, r->node);
	uint64_t at = sizeof(struct fuse_in_header) + sizeof(*in);
	struct fuse_write_out *o = fs_answer(r, sizeof(*o));
	struct iovec iov[VQ_IOV_MAX];
	unsigned count;
	ssize_t n;

	if (!h || !o)
		return -EBADF;
	if (in->size > FS_DATA || in->size > fs->chain.out_len - at || in->offset > INT64_MAX - FS_DATA)
		return -EINVAL;
	count = pieces(fs->chain.iov, fs->chain.nout, at, in->size, iov);
	n = pwritev(h->fd, iov, (int)count, (off_t)in->offset);
	if (n < 0)
		return -errno;
	o->size = (uint32_t)n;
	return 0;
}

int fs_lseek(struct fs_request *r)
{
	const struct fuse_lseek_in *in = FS_ARG(r, fuse_lseek_in);
	struct fs_handle *h = fs_handle_find(r->fs, in->fh, r->node);
	struct fuse_lseek_out *o = fs_answer(r, sizeof(*o));
	off_t at;

	if (!h || !o)
		return -EBADF;
	if (in->whence != SEEK_DATA && in->whence != SEEK_HOLE)
		return -EINVAL;
	at = lseek(h->fd, (off_t)in->offset, (int)in->whence);
	if (at < 0)
		return -errno;
	o->offset = (uint64_t)at;
	return 0;
}

int fs_fallocate(struct fs_request *r)
{
	const struct fuse_fallocate_in *in = FS_ARG(r, fuse_fallocate_in);
	struct fs_handle *h = fs_handle_find(r->fs, in->fh, r->node);

	if (!h)
		return -EBADF;
	return fallocate(h->fd, (int)in->mode, (off_t)in->offset, (off_t)in->length) ? -errno : 0;
}

int fs_copy(struct fs_request *r)
{
	const struct fuse_copy_file_range_in *in = FS_ARG(r, fuse_copy_file_range_in);
	struct fs_node *to = fs_node_find(r->fs, in->nodeid_out);
	struct fs_handle *a = fs_handle_find(r->fs, in->fh_in, r->node), *b = to ? fs_handle_find(r->fs, in->fh_out, to) : NULL;
	struct fuse_write_out *o = fs_answer(r, sizeof(*o));
	off_t from = (off_t)in->off_in, into = (off_t)in->off_out;
	ssize_t n;

	if (!a || !b || !o)
		return -EBADF;
	/* in pieces, so that pausing does not wait for long */
	n = copy_file_range(a->fd, &from, b->fd, &into, MIN(in->len, 64ull << 20), 0);
	if (n < 0)
		return -errno;
	o->size = (uint32_t)n;
	return 0;
}

/* ---- folders */

struct linux_dirent64 {
	uint64_t ino;
	int64_t offset;
	uint16_t length;
	uint8_t type;
	char name[];
};

static bool is_dots(const char *name)
{
	return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

/*
 * One name into the answer, with a look-up of it where `plus`; false: no room for it. The guest has to forget what it was
 * told about here as after a look-up.
 */
static bool add_name(struct fs_request *r, const struct linux_dirent64 *from, uint32_t limit, bool plus)
{
	uint32_t len = (uint32_t)strlen(from->name);
	uint32_t head = plus ? (uint32_t)FUSE_NAME_OFFSET_DIRENTPLUS : (uint32_t)FUSE_NAME_OFFSET;
	uint32_t total = (head + len + 7) & ~7u;
	uint8_t *at = r->fs->data + r->answer;
	struct fuse_dirent *d = (struct fuse_dirent *)(void *)(plus ? at + sizeof(struct fuse_entry_out) : at);
	struct fs_node *n;
	struct stat st;

	if (total > limit - r->answer)
		return false;
	memset(at, 0, total);
	/* without an entry the guest looks it up itself */
	if (plus && !is_dots(from->name) && !fs_node_lookup(r->fs, r->node, from->name, &n, &st))
		fs_entry(r, n, &st, (struct fuse_entry_out *)(void *)at);
	d->ino = from->ino;
	d->off = (uint64_t)from->offset;
	d->namelen = len;
	d->type = from->type;
	memcpy(d->name, from->name, len);
	r->answer += total;
	return true;
}

int fs_readdir(struct fs_request *r)
{
	const struct fuse_read_in *in = FS_ARG(r, fuse_read_in);
	struct fs_handle *h = fs_handle_find(r->fs, in->fh, r->node);
	uint32_t limit = MIN(MIN(in->size, r->room), FS_DATA);
	bool plus = r->h.opcode == FUSE_READDIRPLUS;
	_Alignas(8) uint8_t names[DIRENTS];
	ssize_t n;

	if (!h || !S_ISDIR(r->node->type))
		return -EBADF;
	if (lseek(h->fd, (off_t)in->offset, SEEK_SET) < 0)
		return -errno;
	while ((n = getdents64(h->fd, names, sizeof(names))) > 0) {
		for (ssize_t at = 0; at < n;) {
			const struct linux_dirent64 *d = (const void *)(names + at);

			if (!add_name(r, d, limit, plus))
				return 0;
			at += d->length;
		}
	}
	return n < 0 && !r->answer ? -errno : 0;
}
