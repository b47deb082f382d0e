/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kernels as they come out of their bzImages, kept as files for the next start: unpacking one takes longer than everything else that a
 * start does. Such a file is lent to the guest's memory (boot-load.c), so that only pages that somebody looks at cost anything, and
 * machines with the same kernel share them.
 *
 * A file is found by what its kernel is (device, inode, size, times) and by the host's boot, so nothing that a power cut may have left is
 * ever used, and nothing has to be forced to the disk. A kernel that was written to a moment ago is not kept: its time would not tell of
 * another write. Whatever goes wrong here only means that there is no such file. Our user's folder, our user's files: whoever
 * can write there can write to the machines beside it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "base/file.h"
#include "board/boot-source.h"

#define KEPT 4u
#define SETTLED_S 2

static bool settled(const struct timespec *t)
{
	return t->tv_sec < time(NULL) - SETTLED_S;
}

static bool name_of(char name[NAME_MAX], const struct boot_bytes *kernel, uint64_t size)
{
	char id[HOST_BOOT_ID + 1];
	struct stat st;

	if (!kernel->source || fstat(kernel->source->fd, &st) || !settled(&st.st_mtim) || !settled(&st.st_ctim) || !host_boot_id(NULL, id))
		return false;
	snprintf(name, NAME_MAX, "%s-%llx-%llx-%llx-%llx.%lx-%llx.%lx-%llx", id, (unsigned long long)st.st_dev,
		 (unsigned long long)st.st_ino, (unsigned long long)st.st_size, (unsigned long long)st.st_mtim.tv_sec,
		 st.st_mtim.tv_nsec, (unsigned long long)st.st_ctim.tv_sec, st.st_ctim.tv_nsec, (unsigned long long)size);
	return true;
}

static int folder_open(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct stat st;

	if (fd >= 0 && !file_is_ours(fd, S_IFDIR, &st))
		cleanup_close(&fd);
	return fd;
}

/* From here on `out` is of the file, which is closed with it. */
static bool adopt(struct boot_bytes *out, const struct boot_bytes *kernel, int fd)
{
	struct boot_source *s = out->source ? out->source : calloc(1, sizeof(*s));

	if (!s)
		return false;
	free(s->frame);
	*s = (struct boot_source){ .fd = fd, .what = kernel->source->what, .path = kernel->source->path, .lend = true };
	out->source = s;
	madvise(out->data, out->size, MADV_DONTNEED);
	return true;
}

static bool find(struct boot_bytes *out, const struct boot_bytes *kernel, int folder, const char *name)
{
	int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
	struct stat st;

	if (fd >= 0 && file_is_ours(fd, S_IFREG, &st) && (uint64_t)st.st_size == out->size && adopt(out, kernel, fd))
		return true;
	cleanup_close(&fd);
	return false;
}

bool boot_cache_find(struct boot_bytes *out, const struct boot_bytes *kernel, const char *path)
{
	int folder _close_ = folder_open(path);
	char name[NAME_MAX];

	return folder >= 0 && name_of(name, kernel, out->size) && find(out, kernel, folder, name);
}

static bool write_full(int fd, const uint8_t *data, uint64_t size)
{
	while (size) {
		ssize_t n = write(fd, data, size);

		if (n <= 0)
			return false;
		data += n;
		size -= (uint64_t)n;
	}
	return true;
}

static bool write_bytes(int fd, const struct boot_bytes *b)
{
	struct boot_scratch scratch = { 0 };
	uint64_t at, len;
	bool good = true;

	if (!b->source)
		return write_full(fd, b->data, b->size);
	for (unsigned n = 0; good && boot_piece(b, n, &at, &len); n++) {
		const uint8_t *data;

		good = !boot_piece_get(b, n, &scratch, &data, NULL) && write_full(fd, data, len);
	}
	boot_bytes_dispose(&scratch.in);
	boot_bytes_dispose(&scratch.out);
	return good;
}

/* Those of earlier boots, halves that somebody left, and the oldest of too many. */
static void tidy(int folder, const char *id)
{
	int again = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = again < 0 ? NULL : fdopendir(again);
	char oldest[NAME_MAX + 1] = "";
	struct timespec when = { 0 };
	struct dirent *entry;
	unsigned kept = 0;

	if (!d)
		cleanup_close(&again);
	while (d && (entry = readdir(d))) {
		const char *name = entry->d_name;
		struct stat st;

		if (fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode))
			continue;
		if (strncmp(name + (*name == '.'), id, HOST_BOOT_ID) || (*name == '.' && st.st_mtim.tv_sec < time(NULL) - 60)) {
			unlinkat(folder, name, 0);
		} else if (*name != '.') {
			bool older = st.st_atim.tv_sec < when.tv_sec || (st.st_atim.tv_sec == when.tv_sec && st.st_atim.tv_nsec < when.tv_nsec);

			if (!kept++ || older) {
				when = st.st_atim;
				snprintf(oldest, sizeof(oldest), "%s", name);
			}
		}
	}
	if (kept >= KEPT)
		unlinkat(folder, oldest, 0);
	if (d)
		closedir(d);
}

void boot_cache_keep(struct boot_bytes *out, const struct boot_bytes *kernel, const char *path)
{
	char name[NAME_MAX], half[NAME_MAX + 32], id[HOST_BOOT_ID + 1];
	int folder _close_ = -1, fd _close_ = -1;
	bool good;

	mkdir(path, 0700);
	folder = folder_open(path);
	if (folder < 0 || !name_of(name, kernel, out->size) || !host_boot_id(NULL, id))
		return;
	tidy(folder, id);
	if ((size_t)snprintf(half, sizeof(half), ".%s.%d", name, getpid()) > NAME_MAX)
		return;
	fd = openat(folder, half, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return;
	good = write_bytes(fd, out) && !renameat(folder, half, folder, name);
	if (!good)
		unlinkat(folder, half, 0);
	else
		find(out, kernel, folder, name);
}
