/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file or block device of the host as a node. Where the request allows it, data in the page cache is read, and little is
 * written to it, at once; other reads, writes and flushes go to the io_uring; the rest, and everything where there is no
 * ring, to the pool.
 *
 * The node's size is in whole sectors; a file may end within the last one, what is behind its end reads as zeroes. Writing
 * behind the end makes the file grow (formats do).
 *
 * With O_DIRECT buffers that are not aligned are bounced. Offsets that are not aligned (a disk with 4 KiB sectors, a guest with
 * 512) need read-modify-write; that is exclusive: the file's own lock is held for writing, for all other writes through the
 * pool for reading. Ring writes would not be seen by it, so on such disks writes do not use the ring.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "backend/blk.h"

#define NOW_MAX 65536u /* longer reads are worth a thread switch */
#define NOW_WRITE_MAX 16384u
#define BOUNCE (1u << 20)

struct file {
	struct node n;
	int fd;
	bool device, direct, unsafe, dsync, discard;
	_Atomic bool no_zero_range, no_punch; /* the file system said so */
	unsigned memory_align;
	pthread_rwlock_t rmw;
};

/* ---- one operation, waiting */

/* Bytes moved or -errno, as preadv. */
static ssize_t file_once(struct file *f, bool write, const struct iovec *iov, unsigned n, uint64_t offset, bool dsync)
{
	ssize_t r;

	do
		r = write ? pwritev2(f->fd, iov, (int)MIN(n, (unsigned)IOV_MAX), (off_t)offset, dsync ? RWF_DSYNC : 0) :
			    preadv(f->fd, iov, (int)MIN(n, (unsigned)IOV_MAX), (off_t)offset);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

/* A plain range of memory, all of it; reads end early only at the end of the file, the rest is zero. */
static int file_range(struct file *f, bool write, uint8_t *buf, uint64_t offset, uint64_t length, bool dsync)
{
	while (length) {
		struct iovec one = { buf, MIN(length, 1u << 30) };
		ssize_t r = file_once(f, write, &one, 1, offset, dsync);

		if (r < 0)
			return (int)r;
		if (!r && write)
			return -EIO;
		if (!r) {
			memset(buf, 0, length);
			return 0;
		}
		buf += r;
		offset += (uint64_t)r;
		length -= (uint64_t)r;
	}
	return 0;
}

static bool is_aligned(const struct file *f, const struct block_request *r)
{
	if (!f->direct)
		return true;
	if ((r->offset | r->length) & (f->n.align - 1))
		return false;
	for (unsigned i = 0; i < r->iovcnt; i++)
		if (((uintptr_t)r->iov[i].iov_base & (f->memory_align - 1)) || (r->iov[i].iov_len & (f->n.align - 1)))
			return false;
	return true;
}

/* Through a buffer of ours that is aligned in every way. */
static int file_bounce_part(struct file *f, struct block_request *r, uint8_t *buf, uint64_t done, uint64_t len, bool dsync)
{
	uint64_t mask = f->n.align - 1, at = r->offset + done, first = at & ~mask;
	uint64_t end = (at + len + mask) & ~mask;
	bool write = r->op == BLOCK_WRITE;
	int e = 0;

	if (!write || first != at || end != at + len)
		e = file_range(f, false, buf, first, end - first, false);
	if (!e && write) {
		iov_to_buf(r->iov, r->iovcnt, done, buf + (at - first), len);
		e = file_range(f, true, buf, first, end - first, dsync);
	} else if (!e) {
		iov_from_buf(r->iov, r->iovcnt, done, buf + (at - first), len);
	}
	return e;
}

static int file_bounce(struct file *f, struct block_request *r, bool dsync)
{
	bool exclusive = r->op == BLOCK_WRITE && (r->offset | r->length) & (f->n.align - 1);
	uint64_t part = BOUNCE - 2 * f->n.align;
	uint8_t *buf = aligned_alloc(4096, BOUNCE);
	int e = 0;

	if (!buf)
		return -ENOMEM;
	if (exclusive)
		pthread_rwlock_wrlock(&f->rmw);
	else
		pthread_rwlock_rdlock(&f->rmw);
	for (uint64_t done = 0; !e && done < r->length; done += part)
		e = file_bounce_part(f, r, buf, done, MIN(part, r->length - done), dsync);
	pthread_rwlock_unlock(&f->rmw);
	free(buf);
	return e;
}

/* From `done` bytes on, piece by piece. */
static int file_rw_from(struct file *f, struct block_request *r, uint64_t done, bool dsync)
{
	struct iovec part[64];
	bool write = r->op == BLOCK_WRITE;

	while (done < r->length) {
		uint64_t skip = done;
		unsigned i = 0, n = 0;
		ssize_t got;

		for (; i < r->iovcnt && skip >= r->iov[i].iov_len; i++)
			skip -= r->iov[i].iov_len;
		for (; i < r->iovcnt && n < ARRAY_LEN(part); i++, n++) {
			part[n] = (struct iovec){ (uint8_t *)r->iov[i].iov_base + skip, r->iov[i].iov_len - skip };
			skip = 0;
		}
		got = file_once(f, write, part, n, r->offset + done, dsync);
		if (got < 0)
			return (int)got;
		if (!got && write)
			return -EIO;
		if (!got) {
			iov_fill(r->iov, r->iovcnt, done, r->length - done, 0);
			return 0;
		}
		done += (uint64_t)got;
	}
	return 0;
}

static int file_rw(struct file *f, struct block_request *r)
{
	bool dsync = r->op == BLOCK_WRITE && (f->dsync || r->fua) && !f->unsafe;
	int e;

	if (!is_aligned(f, r))
		return file_bounce(f, r, dsync);
	if (f->direct && f->n.align > BLOCK_SECTOR) {
		pthread_rwlock_rdlock(&f->rmw);
		e = file_rw_from(f, r, 0, dsync);
		pthread_rwlock_unlock(&f->rmw);
		return e;
	}
	return file_rw_from(f, r, 0, dsync);
}

static int file_sync_data(struct file *f)
{
	if (f->unsafe)
		return 0;
	return fdatasync(f->fd) ? -errno : 0;
}

static int file_fallocate(struct file *f, int mode, uint64_t offset, uint64_t length)
{
	int r;

	do
		r = fallocate(f->fd, mode, (off_t)offset, (off_t)length);
	while (r && errno == EINTR);
	return r ? -errno : 0;
}

static bool is_unsupported(int e)
{
	return e == -EOPNOTSUPP || e == -ENOSYS || e == -EINVAL || e == -ENOTTY;
}

static int file_discard(struct file *f, struct block_request *r)
{
	int e;

	if (!f->discard || f->no_punch)
		return 0; /* a hint */
	e = file_fallocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, r->offset, r->length);
	if (is_unsupported(e)) {
		f->no_punch = true;
		return 0;
	}
	return e;
}

static int file_zero_by_writing(struct file *f, uint64_t offset, uint64_t length)
{
	uint8_t *zeroes = aligned_alloc(4096, BOUNCE);
	int e = 0;

	if (!zeroes)
		return -ENOMEM;
	memset(zeroes, 0, BOUNCE);
	while (!e && length) {
		uint64_t part = MIN(length, BOUNCE);
		struct iovec iov = { zeroes, part };
		struct block_request w = { .op = BLOCK_WRITE, .offset = offset, .length = part, .iov = &iov, .iovcnt = 1 };

		e = file_rw(f, &w);
		offset += part;
		length -= part;
	}
	free(zeroes);
	return e;
}

static int file_write_zeroes(struct file *f, struct block_request *r)
{
	int e = -EOPNOTSUPP;
	struct stat st;

	if (r->unmap && f->discard && !f->no_punch) {
		e = file_fallocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, r->offset, r->length);
		f->no_punch = is_unsupported(e);
	}
	if (is_unsupported(e) && !f->no_zero_range) {
		/* a file grows by it as by writing */
		e = file_fallocate(f, FALLOC_FL_ZERO_RANGE | (f->device ? FALLOC_FL_KEEP_SIZE : 0), r->offset, r->length);
		f->no_zero_range = is_unsupported(e);
	} else if (!e && !f->device && !fstat(f->fd, &st) && (uint64_t)st.st_size < r->offset + r->length) {
		/* punching keeps the size */
		e = ftruncate(f->fd, (off_t)(r->offset + r->length)) ? -errno : 0;
	}
	if (is_unsupported(e))
		e = file_zero_by_writing(f, r->offset, r->length);
	if (!e && (r->fua || f->dsync))
		e = file_sync_data(f);
	return e;
}

static int file_sync(struct node *n, struct block_request *r)
{
	struct file *f = container_of(n, struct file, n);

	switch (r->op) {
	case BLOCK_READ:
	case BLOCK_WRITE:
		return file_rw(f, r);
	case BLOCK_FLUSH:
		return file_sync_data(f);
	case BLOCK_DISCARD:
		return file_discard(f, r);
	case BLOCK_WRITE_ZEROES:
		return file_write_zeroes(f, r);
	}
	return -EINVAL;
}

/* ---- without waiting */

static void file_completed(struct block_request *r, int result)
{
	struct file *f = r->backend[3];

	if (result >= 0 && (r->op == BLOCK_READ || r->op == BLOCK_WRITE)) {
		/* short at the end of the file, or by a signal, or where the disk is full: the rest says which */
		bool dsync = r->op == BLOCK_WRITE && (f->dsync || r->fua) && !f->unsafe;

		result = (uint64_t)result == r->length ? 0 : file_rw_from(f, r, (uint64_t)result, dsync);
	} else if (result == -EAGAIN || result == -EINTR || result == -EOPNOTSUPP || result == -EINVAL) {
		node_submit_by_sync(&f->n, r); /* what the ring cannot do here */
		return;
	}
	r->done(r, result);
}

/* Into the page cache only: a copy, unless the host is short of memory, and then it is the writer who should wait. */
static bool file_now(struct file *f, struct block_request *r)
{
	bool write = r->op == BLOCK_WRITE;
	ssize_t got;

	if (!r->now || f->direct || r->iovcnt > IOV_MAX || r->length > (write ? NOW_WRITE_MAX : NOW_MAX))
		return false;
	if (write)
		got = f->dsync || r->fua ? -1 : pwritev(f->fd, r->iov, (int)r->iovcnt, (off_t)r->offset);
	else
		got = r->op == BLOCK_READ ? preadv2(f->fd, r->iov, (int)r->iovcnt, (off_t)r->offset, RWF_NOWAIT) : -1;
	return got >= 0 && (uint64_t)got == r->length;
}

static void file_submit(struct node *n, struct block_request *r)
{
	struct file *f = container_of(n, struct file, n);
	struct aio_ring *ring = aio_get_ring(n->aio);
	bool rw = r->op == BLOCK_READ || r->op == BLOCK_WRITE;

	if (file_now(f, r) || (r->op == BLOCK_FLUSH && f->unsafe) || (rw && !r->length)) {
		r->done(r, 0);
		return;
	}
	r->backend[3] = f;
	if (ring && (rw || r->op == BLOCK_FLUSH) && (!rw || is_aligned(f, r)) &&
	    !(f->direct && f->n.align > BLOCK_SECTOR && r->op == BLOCK_WRITE) &&
	    ring_submit(ring, f->fd, r, r->op == BLOCK_WRITE && (f->dsync || r->fua) && !f->unsafe, file_completed))
		return;
	node_submit_by_sync(n, r);
}

/* ---- the rest */

static int file_resize(struct node *n, uint64_t size, struct err *e)
{
	struct file *f = container_of(n, struct file, n);

	if (f->device)
		return size == n->size ? 0 : err_set(e, ENOTSUP, "%s is a device, its size is what it is", n->path);
	if (n->read_only)
		return err_set(e, EROFS, "%s is open for reading only", n->path);
	if (ftruncate(f->fd, (off_t)size))
		return err_errno(e, "cannot resize %s", n->path);
	n->size = (size + BLOCK_SECTOR - 1) & ~(uint64_t)(BLOCK_SECTOR - 1);
	return 0;
}

static int file_map(struct node *n, uint64_t offset, uint64_t length, struct block_extent *out)
{
	struct file *f = container_of(n, struct file, n);
	off_t data = lseek(f->fd, (off_t)offset, SEEK_DATA), end;

	*out = (struct block_extent){ .length = length, .allocated = true, .has_host = true, .host = offset };
	if (data < 0 && errno != ENXIO)
		return 0; /* a file system that does not know */
	if (data < 0 || (uint64_t)data > offset) {
		out->zero = true;
		out->allocated = false;
		if (data >= 0)
			out->length = MIN(length, (uint64_t)data - offset);
		return 0;
	}
	end = lseek(f->fd, (off_t)offset, SEEK_HOLE);
	if (end > 0)
		out->length = MIN(length, (uint64_t)end - offset);
	return 0;
}

static void file_close(struct node *n)
{
	struct file *f = container_of(n, struct file, n);

	pthread_rwlock_destroy(&f->rmw);
	close(f->fd);
	free(n->path);
	free(f);
}

static const struct node_ops file_ops = {
	.name = "file",
	.submit = file_submit,
	.sync = file_sync,
	.resize = file_resize,
	.map = file_map,
	.close = file_close,
};

/*
 * Locks against double use, on the bytes QEMU uses for its images, so that each refuses what the other has open: a shared lock
 * on 100 + i says "I use right i", on 200 + i "nobody else may use right i". Rights: 0 read consistent data, 1 write, 3 resize.
 * They belong to the open file, so they go with it whatever happens.
 */
static int file_lock_byte(int fd, short type, off_t at, bool test)
{
	struct flock l = { .l_type = type, .l_whence = SEEK_SET, .l_start = at, .l_len = 1 };

	if (fcntl(fd, test ? F_OFD_GETLK : F_OFD_SETLK, &l))
		return errno == EACCES || errno == EAGAIN ? -EBUSY : -errno;
	return test && l.l_type != F_UNLCK ? -EBUSY : 0;
}

static int file_lock(int fd, bool write)
{
	static const uint8_t rights[] = { 0, 1, 3 };
	int r = 0;

	for (unsigned i = 0; i < ARRAY_LEN(rights) && !r; i++) {
		if (!rights[i] || write)
			r = file_lock_byte(fd, F_RDLCK, 100 + rights[i], false);
		if (!r && rights[i])
			r = file_lock_byte(fd, F_RDLCK, 200 + rights[i], false);
	}
	for (unsigned i = 0; i < ARRAY_LEN(rights) && !r; i++) {
		if (!rights[i] || write)
			r = file_lock_byte(fd, F_WRLCK, 200 + rights[i], true);
		if (!r && rights[i])
			r = file_lock_byte(fd, F_WRLCK, 100 + rights[i], true);
	}
	return r == -EBUSY ? r : 0; /* a file system without locks has none to offer */
}

bool file_in_use(int fd)
{
	return file_lock(fd, true) == -EBUSY;
}

static int file_alignment(struct file *f, const char *path, struct err *e)
{
	struct statx x;
	int logical = 512, physical = 4096;

	f->memory_align = 4096;
	if (f->device) {
		if (ioctl(f->fd, BLKSSZGET, &logical))
			return err_errno(e, "cannot ask %s for its sector size", path);
		if (ioctl(f->fd, BLKPBSZGET, &physical) || physical < logical)
			physical = logical;
	} else if (f->direct) {
		logical = 4096; /* fits everything, when the kernel does not say */
#ifdef STATX_DIOALIGN
		if (!statx(f->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &x) && x.stx_mask & STATX_DIOALIGN &&
		    x.stx_dio_offset_align) {
			logical = (int)x.stx_dio_offset_align;
			f->memory_align = MAX(x.stx_dio_mem_align, 1u);
		}
#else
		(void)x;
#endif
	}
	f->n.align = f->direct ? (unsigned)MAX(logical, 512) : 1;
	f->n.physical = (unsigned)MAX(physical, 512);
	if (f->n.align > 65536 || (f->n.align & (f->n.align - 1)))
		return err_set(e, ENOTSUP, "%s has sectors of %u bytes", path, f->n.align);
	return 0;
}

static int file_measure(struct file *f, const char *path, struct err *e)
{
	struct stat st;
	uint64_t size;

	if (fstat(f->fd, &st))
		return err_errno(e, "cannot look at %s", path);
	if (S_ISBLK(st.st_mode)) {
		f->device = true;
		if (ioctl(f->fd, BLKGETSIZE64, &size))
			return err_errno(e, "cannot ask %s for its size", path);
	} else if (S_ISREG(st.st_mode)) {
		size = (uint64_t)st.st_size;
		f->n.grows = true;
	} else {
		return err_set(e, EINVAL, "%s is neither a file nor a block device", path);
	}
	f->n.size = (size + BLOCK_SECTOR - 1) & ~(uint64_t)(BLOCK_SECTOR - 1);
	f->n.discard_granularity = f->discard && !f->n.read_only ? 4096 : 0;
	return file_alignment(f, path, e);
}

static int file_open_fd(struct file *f, const struct blk_spec *s, struct err *e)
{
	int flags = (s->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;

	f->direct = s->cache == BLK_DIRECT;
	f->fd = s->files ? s->files->open(s->files->opaque, s->path, !s->read_only) : -1;
	if (f->fd >= 0 && f->direct && fcntl(f->fd, F_SETFL, O_DIRECT)) {
		cleanup_close(&f->fd);
		f->fd = -1;
	} else if (f->fd < 0 && (!s->files || errno == ENOENT)) {
		f->fd = open(s->path, flags | (f->direct ? O_DIRECT : 0));
	}
	if (f->fd < 0 && f->direct && errno == EINVAL)
		return err_set(e, EINVAL, "cache=none: the file system of %s does not have O_DIRECT", s->path);
	if (f->fd < 0 && !s->read_only && (errno == EACCES || errno == EROFS))
		return err_errno(e, "cannot open %s for writing (readonly would do without)", s->path);
	if (f->fd < 0)
		return err_errno(e, "cannot open %s", s->path);
	fcntl(f->fd, F_SETFL, f->direct ? O_DIRECT : 0); /* O_NONBLOCK was for FIFOs in the way */
	return 0;
}

int file_open(struct node **out, struct aio *a, const struct blk_spec *s, struct err *e)
{
	struct file *f = calloc(1, sizeof(*f));
	int r;

	if (!f)
		return err_set(e, ENOMEM, "no memory for a disk");
	f->n = (struct node){ .ops = &file_ops, .aio = a, .read_only = s->read_only, .path = strdup(s->path) };
	f->unsafe = s->cache == BLK_UNSAFE;
	f->dsync = s->cache == BLK_WRITETHROUGH;
	f->discard = s->discard;
	pthread_rwlock_init(&f->rmw, NULL);
	r = f->n.path ? file_open_fd(f, s, e) : err_set(e, ENOMEM, "no memory for a disk");
	if (r) {
		f->fd = -1;
		goto fail;
	}
	r = file_measure(f, s->path, e);
	if (!r && !s->no_lock && file_lock(f->fd, !s->read_only))
		r = err_set(e, EBUSY, "%s is in use by another process%s", s->path,
			    s->read_only ? ", which writes to it" : "");
	if (r)
		goto fail;
	*out = &f->n;
	return 0;
fail:
	if (f->fd >= 0)
		close(f->fd);
	pthread_rwlock_destroy(&f->rmw);
	free(f->n.path);
	free(f);
	return r;
}
