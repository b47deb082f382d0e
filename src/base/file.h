/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include <sys/types.h>

/*
 * Open a file below `folder`, made if it is not there. O_CREAT alone would not do where a machine's folder belongs to root and its files to
 * who runs it: with fs.protected_regular, which distributions set, the kernel refuses it to root for a file of somebody else's in a
 * folder with the sticky bit that a group may write to. -1 and errno.
 */
int file_open_or_make(int folder, const char *name, int flags, mode_t mode);

#endif
