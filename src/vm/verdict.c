/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was measured of KVM, kept for the next start: making a KVM machine and timing a loop in it takes 7 ms, sometimes 20, a third of
 * our share of a start. One line: what it holds for (the host's boot, the device, the processor, our program), the speed, a checksum.
 *
 * It is believed only if all of that is to the letter what it would be now. Then it still decides about speed alone: hardware
 * that is not there any more is noticed when the machine is attached, and measured (vm.c). Whoever may write to the file may write to
 * the machines beside it.
 *
 * Written in place, with one call, through a descriptor that was opened while we were still who owns the folder: a machine that runs
 * as another user could not rename. Two who write at once leave what the checksum does not fit, and the next start measures.
 */
#include <cpuid.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/base.h"
#include "base/file.h"
#include "vm/measure.h"
#include "vm/verdict.h"

/* FNV-1a, of bytes that nobody is tempted to forge. */
static uint64_t sum_of(uint64_t sum, const void *bytes, size_t size)
{
	const uint8_t *b = bytes;

	for (size_t i = 0; i < size; i++)
		sum = (sum ^ b[i]) * 0x100000001b3u;
	return sum;
}

#define SUM_START 0xcbf29ce484222325u

/* Model and features (virtualization among them), and what runs this host if it is a guest: a host may be moved while it is up. */
static uint64_t processor(void)
{
	static const uint32_t leaves[][2] = { { 0, 0 }, { 1, 0 }, { 7, 0 }, { 0x40000000, 0 }, { 0x80000001, 0 } };
	uint64_t sum = SUM_START;

	for (unsigned i = 0; i < ARRAY_LEN(leaves); i++) {
		uint32_t r[4];

		__cpuid_count(leaves[i][0], leaves[i][1], r[0], r[1], r[2], r[3]);
		if (leaves[i][0] == 1)
			r[1] = 0; /* has the number of the CPU that we happen to be on */
		sum = sum_of(sum, r, sizeof(r));
	}
	return sum;
}

static bool key_make(struct verdict *v, const struct verdict_host *host)
{
	const char *device = host && host->device ? host->device : "/dev/kvm";
	char id[HOST_BOOT_ID + 1];
	struct stat kvm, self;

	if (!host_boot_id(host ? host->boot_id : NULL, id) || stat(device, &kvm) || stat("/proc/self/exe", &self))
		return false;
	snprintf(v->key, sizeof(v->key), "1 boot %s kvm %jx.%jx.%jx.%jx.%lx processor %" PRIx64 " program %jx.%jx.%jx.%lx ", id,
		 (uintmax_t)kvm.st_dev, (uintmax_t)kvm.st_ino, (uintmax_t)kvm.st_rdev, (uintmax_t)kvm.st_ctim.tv_sec, kvm.st_ctim.tv_nsec,
		 processor(), (uintmax_t)self.st_dev, (uintmax_t)self.st_ino, (uintmax_t)self.st_mtim.tv_sec, self.st_mtim.tv_nsec);
	return true;
}

static size_t line_make(const struct verdict *v, double mips, char *line, size_t size)
{
	int n = snprintf(line, size, "%smips %.6g", v->key, mips);

	return (size_t)n + (size_t)snprintf(line + n, size - (size_t)n, " sum %016" PRIx64 "\n", sum_of(SUM_START, line, (size_t)n));
}

/* The line made again of what it says is the same line. */
static double line_read(const struct verdict *v, const char *line)
{
	size_t n = strlen(v->key);
	char again[VERDICT_KEY + 80];
	double mips;

	if (strncmp(line, v->key, n) || strncmp(line + n, "mips ", 5))
		return 0;
	mips = strtod(line + n + 5, NULL);
	line_make(v, mips, again, sizeof(again));
	return !strcmp(line, again) && mips > 0 && mips < 1e9 ? mips : 0;
}

void verdict_open(struct verdict *v, const char *folder, const struct verdict_host *host)
{
	int at _close_ = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const int flags = O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK;
	char line[VERDICT_KEY + 80];
	struct stat st;
	ssize_t n;

	*v = (struct verdict){ .fd = -1 };
	if (at < 0 || !file_is_ours(at, S_IFDIR, &st) || !key_make(v, host))
		return;
	v->fd = openat(at, "kvm-speed", O_RDWR | O_CREAT | flags, 0600);
	if (v->fd < 0) /* a folder that cannot be written to, or a full disk */
		v->fd = openat(at, "kvm-speed", O_RDONLY | flags);
	if (v->fd >= 0 && (!file_is_ours(v->fd, S_IFREG, &st) || st.st_nlink != 1)) /* nor under a second name */
		cleanup_close(&v->fd);
	n = v->fd < 0 ? 0 : pread(v->fd, line, sizeof(line) - 1, 0);
	line[MAX(n, 0)] = 0;
	v->mips = line_read(v, line);
}

void verdict_keep(struct verdict *v, double mips)
{
	char line[VERDICT_KEY + 80];
	size_t size;

	/* nearly fast enough is a matter of the moment: hardware has thousands, software less than one */
	if (v->fd < 0 || (mips >= MEASURE_ACCELERATED / 10 && mips < MEASURE_ACCELERATED))
		return;
	size = line_make(v, mips, line, sizeof(line));
	if (pwrite(v->fd, line, size, 0) != (ssize_t)size || ftruncate(v->fd, (off_t)size)) {
		/* a full disk: what is there fits no checksum, or is what was there before */
		return;
	}
	v->mips = mips;
}

void verdict_close(struct verdict *v)
{
	cleanup_close(&v->fd);
}
