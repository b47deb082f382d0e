/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control groups. Version 2 is at /sys/fs/cgroup: our groups are in "ospite" at its top, as a group with processes of its own may
 * have none below it with controllers. Version 1 has a hierarchy for each controller: ours are below the group the process
 * is in, so that its limits stay. Groups are named by process number; those left by processes that have ended are
 * removed by whoever makes the next, and by commands. Groups that are systemd's, it is asked to change (limits-systemd.c); users
 * ask their systemd for one, and without it have groups beside the one they are in.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "base/base.h"
#include "vm/limits-private.h"

#define TOP "/sys/fs/cgroup"
#define CGROUP2_MAGIC 0x63677270
#define PERIOD_US 100000u

void cgroups_find(struct cgroups *c)
{
	struct statfs fs;

	*c = (struct cgroups){ .top = TOP, .proc = "/proc", .systemctl = "systemctl", .busctl = "busctl",
			       .unified = !statfs(TOP, &fs) && fs.f_type == CGROUP2_MAGIC };
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

static void tidy_in(const struct cgroups *c, const char *folder)
{
	DIR *d = opendir(folder);
	const struct dirent *entry;
	char process[128];

	while (d && (entry = readdir(d))) {
		if (strncmp(entry->d_name, "vm-", 3))
			continue;
		snprintf(process, sizeof(process), "%.80s/%.30s", c->proc, entry->d_name + 3);
		if (access(process, F_OK)) /* else it may be about to go in there */
			unlinkat(dirfd(d), entry->d_name, AT_REMOVEDIR); /* refused while there are processes in it */
	}
	if (d)
		closedir(d);
}

/* The group the process is in, in the hierarchy of a controller ("": version 2): "" at the top. False: there is no such hierarchy. */
static bool group_of(const struct cgroups *c, pid_t pid, const char *controller, char *group, size_t size)
{
	char line[PATH_MAX + 64];
	bool found = false;
	FILE *f;

	snprintf(line, sizeof(line), "%.1000s/%d/cgroup", c->proc, pid);
	f = fopen(line, "re");
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

/* Below `parent`, with the controllers in version 2. */
static int base_in(const struct cgroups *c, const char *parent, char *base, size_t size)
{
	int r = 0;

	if ((size_t)snprintf(base, size, "%.3000s/ospite", parent) >= size)
		return -ENAMETOOLONG;
	if (mkdir(base, 0755) && errno != EEXIST)
		return -errno;
	if (c->unified)
		r = put(parent, "cgroup.subtree_control", "+cpu +memory");
	return r || !c->unified ? r : put(base, "cgroup.subtree_control", "+cpu +memory");
}

/*
 * Where groups of ours are; made if need be. In version 2 at the top, or for those who may not, beside the group they are in:
 * that is where a user's own services have groups which are the user's.
 */
static int base_of(const struct cgroups *c, pid_t pid, const char *controller, char *base, size_t size)
{
	char group[PATH_MAX] = "", parent[PATH_MAX + 64];
	struct stat st;
	int r;

	if (!group_of(c, pid, c->unified ? "" : controller, group, sizeof(group)))
		return -ENOENT;
	if (c->unified) {
		r = base_in(c, c->top, base, size);
		if ((r != -EACCES && r != -EPERM && r != -EROFS) || !*group)
			return r;
		*strrchr(group, '/') = 0;
		snprintf(parent, sizeof(parent), "%.60s%s", c->top, group);
		return base_in(c, parent, base, size);
	}
	snprintf(parent, sizeof(parent), "%.60s/%s%.2000s", c->top, controller, group);
	if (stat(parent, &st)) /* another view of the hierarchy than ours, as in a container */
		snprintf(parent, sizeof(parent), "%.60s/%s", c->top, controller);
	return base_in(c, parent, base, size);
}

void limits_tidy(const struct cgroups *c)
{
	char base[PATH_MAX];

	if (!c->unified)
		return;
	snprintf(base, sizeof(base), "%.60s/ospite", c->top);
	tidy_in(c, base);
}

/* Is the process in a group of ours already? */
static bool own_group(const struct cgroups *c, pid_t pid, const char *controller, char *group, size_t size)
{
	char name[32];
	size_t len, tail = (size_t)snprintf(name, sizeof(name), "/ospite/vm-%d", pid);

	return group_of(c, pid, controller, group, size) && (len = strlen(group)) >= tail && !strcmp(group + len - tail, name);
}

/* The process's group: the one it has of us already, or a new one, which it is not in yet. */
static int group_get(const struct cgroups *c, pid_t pid, const char *controller, char *folder, size_t size)
{
	char base[PATH_MAX];
	int r;

	if (own_group(c, pid, c->unified ? "" : controller, base, sizeof(base))) {
		snprintf(folder, size, "%.60s%s%s%.3000s", c->top, c->unified ? "" : "/", c->unified ? "" : controller, base);
		return 0;
	}
	r = base_of(c, pid, controller, base, sizeof(base));
	if (r)
		return r;
	tidy_in(c, base);
	snprintf(folder, size, "%.3900s/vm-%d", base, pid);
	rmdir(folder); /* one left by a process of the same number has its limits */
	return mkdir(folder, 0755) && errno != EEXIST ? -errno : 0;
}

static int cpu_limits(const struct cgroups *c, const struct limits *l, const char *folder)
{
	unsigned weight = l->cpu_weight == LIMIT_NONE ? 100 : l->cpu_weight;
	char text[64] = "-1";
	int r = 0;

	if (weight)
		r = c->unified ? put_number(folder, "cpu.weight", weight) : put_number(folder, "cpu.shares", MAX(weight * 1024ull / 100, 2ull));
	if (r || !l->cpu_quota)
		return r;
	if (c->unified) {
		snprintf(text, sizeof(text), "max %u", PERIOD_US);
		if (l->cpu_quota != LIMIT_NONE)
			snprintf(text, sizeof(text), "%llu %u", l->cpu_quota * (PERIOD_US / 100ull), PERIOD_US);
		return put(folder, "cpu.max", text);
	}
	if (l->cpu_quota != LIMIT_NONE)
		snprintf(text, sizeof(text), "%llu", l->cpu_quota * (PERIOD_US / 100ull));
	r = put_number(folder, "cpu.cfs_period_us", PERIOD_US);
	return r ? r : put(folder, "cpu.cfs_quota_us", text);
}

/* In version 2 the kernel would make room by ending the process. */
static bool uses_more(const char *folder, uint64_t max)
{
	char path[PATH_MAX + 128], text[32] = "";
	int fd _close_ = -1;

	snprintf(path, sizeof(path), "%s/memory.current", folder);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd >= 0 && read(fd, text, sizeof(text) - 1) > 0 && strtoull(text, NULL, 10) > max;
}

static int memory_limit(const struct cgroups *c, const struct limits *l, const char *folder)
{
	const char *file = c->unified ? "memory.max" : "memory.limit_in_bytes";

	if (c->unified && uses_more(folder, l->memory_max))
		return -EBUSY;
	return l->memory_max == UINT64_MAX ? put(folder, file, c->unified ? "max" : "-1") : put_number(folder, file, l->memory_max);
}

static int apply_own(const struct cgroups *c, pid_t pid, const struct limits *l)
{
	static const char *const controllers[] = { "cpu", "memory" };
	char folder[PATH_MAX + 64];
	int r = 0;

	for (unsigned i = 0; i < ARRAY_LEN(controllers) && !r; i++) {
		if (!(i ? l->memory_max != 0 : l->cpu_weight || l->cpu_quota))
			continue;
		r = group_get(c, pid, controllers[i], folder, sizeof(folder));
		if (!r)
			r = i ? memory_limit(c, l, folder) : cpu_limits(c, l, folder);
		if (!r)
			r = put_number(folder, "cgroup.procs", (uint64_t)pid);
	}
	return r;
}

static int too_low(struct err *e)
{
	return err_set(e, EBUSY, "--memory-max: more is in use than that, and it cannot be made less");
}

/* The unit of systemd's that the process is in, if it is one for machines. */
static bool unit_of(const struct cgroups *c, pid_t pid, char *group, size_t size, const char **unit)
{
	char scope[64];

	snprintf(scope, sizeof(scope), "/" LIMITS_SCOPE, (int)pid);
	if (!group_of(c, pid, c->unified ? "" : "name=systemd", group, size) || !*group)
		return false;
	*unit = strrchr(group, '/') + 1;
	return (!strncmp(*unit, "ospite@", 7) && strstr(*unit, ".service")) || !strcmp(*unit - 1, scope);
}

static int apply_unit(const struct cgroups *c, const char *group, const char *unit, const struct limits *l, struct err *e)
{
	char folder[PATH_MAX + 64];

	snprintf(folder, sizeof(folder), "%.60s%.4000s", c->top, group);
	if (c->unified && l->memory_max && uses_more(folder, l->memory_max))
		return too_low(e);
	return limits_ask_systemd(c, unit, strstr(group, "/user.slice/") != NULL, l, e);
}

/* Of a user's systemd, if there is one; it answers before the process is moved. */
static int scope_get(const struct cgroups *c, pid_t pid, struct err *e)
{
	char group[PATH_MAX];
	const char *unit;
	int r = limits_make_scope(c, pid, e);

	for (unsigned i = 0; !r && i < 1000; i++) {
		if (unit_of(c, pid, group, sizeof(group), &unit))
			return 0;
		usleep(10000);
	}
	return r ? r : err_set(e, ETIMEDOUT, "systemd does not move the process");
}

int limits_apply(const struct cgroups *c, pid_t pid, const struct limits *l, struct err *e)
{
	char group[PATH_MAX];
	struct err why = { 0 };
	const char *unit;
	int r;

	if (!limits_any(l))
		return 0;
	if (!pid)
		pid = getpid();
	if (unit_of(c, pid, group, sizeof(group), &unit))
		return apply_unit(c, group, unit, l, e);
	if (geteuid() && c->unified && !own_group(c, pid, "", group, sizeof(group)) && !scope_get(c, pid, &why) && unit_of(c, pid, group, sizeof(group), &unit))
		return apply_unit(c, group, unit, l, e);
	r = apply_own(c, pid, l);
	if (!r)
		return 0;
	if (r == -EBUSY)
		return too_low(e);
	if (why.text[0] && (r == -EACCES || r == -EPERM))
		return err_set(e, EACCES, "no control group for the machine: this user may not make one, and has no systemd that does (%.200s): "
					  "leave --cpu-weight, --cpu-quota and --memory-max out, or 'apt install dbus-user-session' and log in anew",
			       why.text);
	return err_set(e, -r, "this host does not let the machine have a control group (%s): leave --cpu-weight, --cpu-quota and --memory-max "
			      "out, or start it by systemd-run with CPUWeight=, CPUQuota= and MemoryMax=", strerror(-r));
}
