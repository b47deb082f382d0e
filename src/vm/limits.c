/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control groups. Version 2 is at /sys/fs/cgroup: our groups are in "ospite" at its top, as a group with processes of its own may
 * have none below it with controllers. Version 1 has a hierarchy for each controller: ours are below the group the process
 * is in, so that its limits stay. Groups are named by process number; those left by processes that have ended are
 * removed by whoever makes the next.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "base/base.h"
#include "vm/limits.h"

#define TOP "/sys/fs/cgroup"
#define CGROUP2_MAGIC 0x63677270
#define PERIOD_US 100000u

static bool unified(void)
{
	struct statfs fs;

	return !statfs(TOP, &fs) && fs.f_type == CGROUP2_MAGIC;
}

static int put(const char *folder, const char *file, const char *text)
{
	char path[PATH_MAX + 64];
	int fd, r = 0;

	snprintf(path, sizeof(path), "%s/%s", folder, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		r = -errno;
	close(fd);
	return r;
}

static int put_number(const char *folder, const char *file, uint64_t v)
{
	char text[32];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)v);
	return put(folder, file, text);
}

static void tidy_in(const char *folder)
{
	DIR *d = opendir(folder);
	const struct dirent *entry;

	while (d && (entry = readdir(d)))
		if (!strncmp(entry->d_name, "vm-", 3))
			unlinkat(dirfd(d), entry->d_name, AT_REMOVEDIR); /* refused while there are processes in it */
	if (d)
		closedir(d);
}

/* The group the process is in, in the hierarchy of a controller: "" at the top. False: there is no such hierarchy. */
static bool own_group(const char *controller, char *group, size_t size)
{
	FILE *f = fopen("/proc/self/cgroup", "re");
	char line[PATH_MAX + 64];
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f)) {
		char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;

		if (!path)
			continue;
		*path++ = 0;
		path[strcspn(path, "\n")] = 0;
		for (char *at = names + 1, *word; !found && (word = strsep(&at, ","));)
			found = !strcmp(word, controller);
		if (found)
			snprintf(group, size, "%s", strcmp(path, "/") ? path : "");
	}
	if (f)
		fclose(f);
	return found;
}

/* Where groups of ours are; made if need be. */
static int base_of(const char *controller, char *base, size_t size)
{
	char group[PATH_MAX] = "";
	struct stat st;

	if (unified()) {
		snprintf(base, size, TOP "/ospite");
	} else {
		if (!own_group(controller, group, sizeof(group)))
			return -ENOENT;
		snprintf(base, size, TOP "/%s%.2000s", controller, group);
		if (stat(base, &st)) /* another view of the hierarchy than ours, as in a container */
			snprintf(base, size, TOP "/%s", controller);
		snprintf(base + strlen(base), size - strlen(base), "/ospite");
	}
	if (!mkdir(base, 0755) || errno == EEXIST)
		return 0;
	return -errno;
}

static int join(const char *controller, char *folder, size_t size)
{
	char base[PATH_MAX];
	int r = base_of(controller, base, sizeof(base));

	if (r)
		return r;
	tidy_in(base);
	if (unified()) {
		r = put(TOP, "cgroup.subtree_control", "+cpu +memory");
		if (!r)
			r = put(base, "cgroup.subtree_control", "+cpu +memory");
	}
	snprintf(folder, size, "%.3900s/vm-%d", base, (int)getpid());
	if (!r && mkdir(folder, 0755) && errno != EEXIST)
		r = -errno;
	return r;
}

static int cpu_limits(const struct limits *l, const char *folder)
{
	char text[64];
	int r = 0;

	if (unified()) {
		if (l->cpu_weight)
			r = put_number(folder, "cpu.weight", l->cpu_weight);
		snprintf(text, sizeof(text), "%u %u", l->cpu_quota * (PERIOD_US / 100), PERIOD_US);
		return r || !l->cpu_quota ? r : put(folder, "cpu.max", text);
	}
	if (l->cpu_weight)
		r = put_number(folder, "cpu.shares", MAX(l->cpu_weight * 1024ull / 100, 2ull));
	if (!r && l->cpu_quota)
		r = put_number(folder, "cpu.cfs_period_us", PERIOD_US);
	return r || !l->cpu_quota ? r : put_number(folder, "cpu.cfs_quota_us", l->cpu_quota * (PERIOD_US / 100));
}

int limits_apply(const struct limits *l, struct err *e)
{
	static const char *const controllers[] = { "cpu", "memory" };
	char folder[PATH_MAX];
	int r = 0;

	if (!limits_any(l))
		return 0;
	for (unsigned i = 0; i < ARRAY_LEN(controllers) && !r; i++) {
		if (!(i ? l->memory_max : l->cpu_weight || l->cpu_quota))
			continue;
		r = join(controllers[i], folder, sizeof(folder));
		if (!r && !i)
			r = cpu_limits(l, folder);
		if (!r && i)
			r = put_number(folder, unified() ? "memory.max" : "memory.limit_in_bytes", l->memory_max);
		if (!r)
			r = put(folder, "cgroup.procs", "0");
	}
	if (!r)
		return 0;
	return err_set(e, -r, "this host does not let the machine have a control group (%s): leave --cpu-weight, --cpu-quota and --memory-max "
			      "out, or start it by systemd-run with CPUWeight=, CPUQuota= and MemoryMax=", strerror(-r));
}
