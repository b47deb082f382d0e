/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the files a machine is started from. They are copied, never mapped: a file that shrinks under a
 * mapping would kill the process, and a reset must find the bytes of the first start.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "board/private.h"

int boot_bytes_alloc(struct boot_bytes *b, uint64_t size, struct err *e)
{
	void *p = mmap(NULL, size ? size : 1, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return err_errno(e, "cannot get %llu MiB of memory", (unsigned long long)(size >> 20));
	b->data = p;
	b->size = size;
	return 0;
}

void boot_bytes_dispose(struct boot_bytes *b)
{
	if (b->data)
		munmap(b->data, b->size ? b->size : 1);
	b->data = NULL;
	b->size = 0;
}

/* Read until `size` bytes are there or the file ends; -1 on error. */
static int64_t read_full(int fd, uint8_t *data, uint64_t size)
{
	uint64_t have = 0;

	while (have < size) {
		ssize_t n = read(fd, data + have, MIN(size - have, 1ull << 30));

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
	got = read_full(fd, b->data, room);
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

static int read_regular(struct boot_bytes *b, int fd, uint64_t size, const char *what, const char *path,
			uint64_t limit, struct err *e)
{
	int64_t got;
	int r;

	if (size > limit)
		return err_set(e, EFBIG,
			       "%s '%s': %llu MiB is larger than the %llu MiB that fit; give the machine more --memory",
			       what, path, (unsigned long long)((size + (1 << 20) - 1) >> 20),
			       (unsigned long long)(limit >> 20));
	r = boot_bytes_alloc(b, size, e);
	if (r)
		return r;
	got = read_full(fd, b->data, size);
	if (got < 0)
		return err_errno(e, "%s '%s': cannot read", what, path);
	if ((uint64_t)got != size)
		return err_set(e, EIO, "%s '%s': changed while it was read; try again", what, path);
	return 0;
}

int boot_bytes_read(struct boot_bytes *b, const char *what, const char *path, uint64_t limit,
		    struct err *e)
{
	int fd _close_ = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	struct stat st;
	int r;

	*b = (struct boot_bytes){ 0 };
	if (fd < 0 || fstat(fd, &st))
		return err_errno(e, "%s '%s': cannot open", what, path);
	if (S_ISDIR(st.st_mode))
		return err_set(e, EISDIR, "%s '%s': is a directory; give a file", what, path);
	if (S_ISREG(st.st_mode))
		r = read_regular(b, fd, (uint64_t)st.st_size, what, path, limit, e);
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
