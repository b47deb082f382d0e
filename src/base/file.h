/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>

/*
 * Open a file below `folder`, made if it is not there. O_CREAT alone would not do where a machine's folder belongs to root and its files to
 * who runs it: with fs.protected_regular, which distributions set, the kernel refuses it to root for a file of somebody else's in a
 * folder with the sticky bit that a group may write to. -1 and errno.
 */
int file_open_or_make(int folder, const char *name, int flags, mode_t mode);

/* Is it of this kind (S_IFREG, S_IFDIR), our user's, and nobody else's to write to? *st: what it is. */
bool file_is_ours(int fd, mode_t kind, struct stat *st);

#define HOST_BOOT_ID 36
/* Which start of the host this is; fit for a file's name. `path`: where it stands, NULL: where the kernel has it. */
bool host_boot_id(const char *path, char id[HOST_BOOT_ID + 1]);

#endif
