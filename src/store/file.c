/* SPDX-License-Identifier: Apache-2.0 */
/* Small files, read and replaced as a whole. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/base.h"
#include "store/store.h"

#define FILE_MAX (1u << 20)
#define FOLDER_GONE "cannot write %s: its folder has been removed meanwhile"

static int read_all(int fd, const char *name, char *text, size_t size, struct err *e)
{
	size_t at = 0;
	ssize_t n;

	while (at < size && (n = read(fd, text + at, size - at)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(e, "cannot read %s", name);
		at += (size_t)n;
	}
	text[at] = 0;
	return 0;
}

int store_read(int folder, const char *name, char **text, struct err *e)
{
	int fd _close_ = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	int r;

	if (fd < 0)
		return err_errno(e, "cannot open %s", name);
	if (fstat(fd, &st))
		return err_errno(e, "cannot read %s", name);
	if (!S_ISREG(st.st_mode))
		return err_set(e, EINVAL, "%s is not a file", name);
	if (st.st_size > FILE_MAX)
		return err_set(e, EFBIG, "%s is larger than a mebibyte", name);
	*text = malloc((size_t)st.st_size + 1);
	if (!*text)
		return err_set(e, ENOMEM, "no memory to read %s", name);
	r = read_all(fd, name, *text, (size_t)st.st_size, e);
	if (r) {
		free(*text);
		*text = NULL;
	}
	return r;
}

static int write_all(int fd, const char *text, bool sync)
{
	size_t len = strlen(text);

	while (len) {
		ssize_t n = write(fd, text, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		text += n;
		len -= (size_t)n;
	}
	return sync ? fsync(fd) : 0;
}

static int write_file(int folder, const char *name, const char *text, bool sync, struct err *e)
{
	char temp[64];
	int fd, r = 0;

	snprintf(temp, sizeof(temp), "%.40s.tmp.%d", name, (int)getpid());
	unlinkat(folder, temp, 0); /* of a process that had the same number, and died */
	fd = openat(folder, temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return errno == ENOENT ? err_set(e, ENOENT, FOLDER_GONE, name) : err_errno(e, "cannot write %s", name);
	if (write_all(fd, text, sync))
		r = err_errno(e, "cannot write %s", name);
	if (close(fd) && !r)
		r = err_errno(e, "cannot write %s", name);
	if (!r && renameat(folder, temp, folder, name))
		r = errno == ENOENT ? err_set(e, ENOENT, FOLDER_GONE, name) : err_errno(e, "cannot replace %s", name);
	if (r)
		unlinkat(folder, temp, 0);
	return r;
}

int store_write(int folder, const char *name, const char *text, struct err *e)
{
	return write_file(folder, name, text, true, e);
}

int store_write_quick(int folder, const char *name, const char *text, struct err *e)
{
	return write_file(folder, name, text, false, e);
}
