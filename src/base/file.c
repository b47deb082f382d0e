/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
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
