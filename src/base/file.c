/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include "base/base.h"
#include "base/file.h"

int file_open_or_make(int folder, const char *name, int flags, mode_t mode)
{
	for (unsigned tries = 0;; tries++) { /* others make it and remove it meanwhile */
		int fd = openat(folder, name, flags);

		if (fd >= 0 || errno != ENOENT)
			return fd;
		fd = openat(folder, name, flags | O_CREAT | O_EXCL, mode);
		if (fd >= 0 || errno != EEXIST || tries == 100)
			return fd;
	}
}

bool file_is_ours(int fd, mode_t kind, struct stat *st)
{
	return !fstat(fd, st) && (st->st_mode & S_IFMT) == kind && st->st_uid == geteuid() && !(st->st_mode & 022);
}

bool host_boot_id(const char *path, char id[HOST_BOOT_ID + 1])
{
	int fd _close_ = open(path ? path : "/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

	memset(id, 0, HOST_BOOT_ID + 1);
	return fd >= 0 && read(fd, id, HOST_BOOT_ID) == HOST_BOOT_ID && strlen(id) == HOST_BOOT_ID && !strchr(id, '/');
}
