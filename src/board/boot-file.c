/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files a machine is started from. They are read, never mapped: a file that shrinks under a mapping would kill the
 * process. Of a regular file no bytes are kept: it stays open and is read again at a reset, as are the blocks of an LZ4 payload that
 * are unpacked anew then; `data` is only the place for those that a loader looks at. Packages replace files by
 * new ones, so the open one stays as it was; what has been written into since is noticed by its time and size (boot.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "board/boot-source.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#define POPULATE (64u << 10)

int boot_bytes_alloc(struct boot_bytes *b, uint64_t size, struct err *e)
{
	void *p = mmap(NULL, size ? size : 1, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return err_errno(e, "cannot get %llu MiB of memory", (unsigned long long)(size >> 20));
	*b = (struct boot_bytes){ .data = p, .size = size };
	return 0;
}

void boot_bytes_populate(void *at, uint64_t len)
{
	uintptr_t from = (uintptr_t)at & ~(uintptr_t)(GUEST_PAGE - 1), to = ((uintptr_t)at + len + GUEST_PAGE - 1) & ~(uintptr_t)(GUEST_PAGE - 1);

	if (len >= POPULATE)
		madvise((void *)from, to - from, MADV_POPULATE_WRITE);
}

void boot_bytes_dispose(struct boot_bytes *b)
{
	if (b->data)
		munmap(b->data, b->size ? b->size : 1);
	if (b->source) {
		cleanup_close(&b->source->fd);
		free(b->source->frame);
		free(b->source);
	}
	*b = (struct boot_bytes){ 0 };
}

/* Read until `size` bytes are there or the file ends; -1 on error. `at`: where in the file; -1: where it stands. */
static int64_t read_full(int fd, uint8_t *data, uint64_t size, off_t at)
{
	uint64_t have = 0;

	while (have < size) {
		size_t want = MIN(size - have, 1ull << 30);
		ssize_t n = at < 0 ? read(fd, data + have, want) : pread(fd, data + have, want, at + (off_t)have);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (!n)
			break;
		have += (uint64_t)n;
	}
	return (int64_t)have;
}

int boot_file_read(const struct boot_source *s, uint8_t *to, uint64_t at, uint64_t len, struct err *e)
{
	int64_t got = read_full(s->fd, to, len, (off_t)at);

	if (got < 0)
		return err_errno(e, "cannot be read");
	if ((uint64_t)got != len)
		return err_set(e, EIO, "changed while it was read; try again");
	return 0;
}

int boot_bytes_need(struct boot_bytes *b, uint64_t at, uint64_t len, struct err *e)
{
	struct boot_source *s = b->source;
	int r;

	if (!s || at >= b->size)
		return 0;
	len = MIN(len, b->size - at);
	if (s->frame)
		return lz4_need(b, at, len, e);
	if (at < s->have) {
		uint64_t there = MIN(len, s->have - at);

		at += there;
		len -= there;
	}
	boot_bytes_populate(b->data + at, len);
	r = len ? boot_file_read(s, b->data + at, at, len, e) : 0;
	if (!r && at == s->have)
		s->have += len;
	return r;
}

void boot_bytes_drop(struct boot_bytes *b)
{
	if (!b->source || madvise(b->data, b->size, MADV_DONTNEED))
		return;
	b->source->have = 0;
	if (b->source->frame)
		lz4_drop(b->source->frame);
}

bool boot_bytes_changed(const struct boot_bytes *b)
{
	const struct boot_source *s = b->source;
	struct stat st;

	if (!s || s->frame)
		return false;
	return fstat(s->fd, &st) || (uint64_t)st.st_size != b->size || st.st_mtim.tv_sec != s->written.tv_sec ||
	       st.st_mtim.tv_nsec != s->written.tv_nsec;
}

/* Pipes and the like have no size: read with room for one byte over the limit, then give back the rest. */
static int read_stream(struct boot_bytes *b, int fd, const char *what, const char *path, uint64_t limit,
		       struct err *e)
{
	uint64_t room = limit + 1;
	int64_t got;
	void *p;
	int r = boot_bytes_alloc(b, room, e);

	if (r)
		return r;
	got = read_full(fd, b->data, room, -1);
	if (got < 0)
		return err_errno(e, "%s '%s': cannot read", what, path);
	if ((uint64_t)got > limit)
		return err_set(e, EFBIG, "%s '%s': larger than the %llu MiB that fit; give the machine more --memory",
			       what, path, (unsigned long long)(limit >> 20));
	p = mremap(b->data, room, got ? (size_t)got : 1, 0);
	if (p != MAP_FAILED) {
		b->data = p;
		b->size = (uint64_t)got;
	}
	return 0;
}

static int open_regular(struct boot_bytes *b, int fd, const char *what, const char *path, uint64_t limit, struct err *e)
{
	struct boot_source *s;
	struct stat st;
	int r;

	if (fstat(fd, &st))
		return err_errno(e, "%s '%s': cannot open", what, path);
	if ((uint64_t)st.st_size > limit)
		return err_set(e, EFBIG,
			       "%s '%s': %llu MiB is larger than the %llu MiB that fit; give the machine more --memory",
			       what, path, (unsigned long long)(((uint64_t)st.st_size + (1 << 20) - 1) >> 20),
			       (unsigned long long)(limit >> 20));
	r = boot_bytes_alloc(b, (uint64_t)st.st_size, e);
	if (r)
		return r;
	s = calloc(1, sizeof(*s));
	if (!s)
		return err_set(e, ENOMEM, "out of memory");
	*s = (struct boot_source){ .fd = fcntl(fd, F_DUPFD_CLOEXEC, 3), .what = what, .path = path, .written = st.st_mtim };
	b->source = s;
	return s->fd < 0 ? err_errno(e, "%s '%s': cannot open", what, path) : 0;
}

static int bytes_from(struct boot_bytes *b, int fd, const char *what, const char *path, uint64_t limit, struct err *e)
{
	struct stat st;
	int r;

	*b = (struct boot_bytes){ 0 };
	if (fd < 0 || fstat(fd, &st))
		return err_errno(e, "%s '%s': cannot open", what, path);
	if (S_ISDIR(st.st_mode))
		return err_set(e, EISDIR, "%s '%s': is a directory; give a file", what, path);
	if (S_ISREG(st.st_mode))
		r = open_regular(b, fd, what, path, limit, e);
	else if (S_ISFIFO(st.st_mode))
		r = read_stream(b, fd, what, path, limit, e);
	else
		r = err_set(e, EINVAL, "%s '%s': is not a file; give a regular file or a pipe", what, path);
	if (!r && !b->size)
		r = err_set(e, EINVAL, "%s '%s': is empty; give a complete file", what, path);
	if (r)
		boot_bytes_dispose(b);
	return r;
}

int boot_bytes_open(struct boot_bytes *b, const char *what, const char *path, uint64_t limit, struct err *e)
{
	int fd _close_ = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);

	return bytes_from(b, fd, what, path, limit, e);
}

int boot_bytes_again(struct boot_bytes *b, uint64_t limit, struct err *e)
{
	struct boot_bytes now;
	int r = bytes_from(&now, b->source->fd, b->source->what, b->source->path, limit, e);

	if (r)
		return r;
	boot_bytes_dispose(b);
	*b = now;
	return 0;
}

int boot_bytes_read(struct boot_bytes *b, const char *what, const char *path, uint64_t limit,
		    struct err *e)
{
	int r = boot_bytes_open(b, what, path, limit, e);

	if (!r && boot_bytes_need(b, 0, b->size, e))
		r = err_prefix(e, "%s '%s'", what, path);
	if (r)
		boot_bytes_dispose(b);
	return r;
}
