/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control groups that are systemd's: those of ospite@NAME.service, and, for users whose session is in a group of root's (by ssh, at a
 * terminal), a scope of their own systemd's made for one machine. What is in them is asked of systemd, by its programs: it
 * would write its own values over ours at its next reload. The settings hold until the unit ends or the host goes down.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/base.h"
#include "vm/limits-private.h"

/* All that it says, or writing the rest would be the end of it; the first 199 bytes are kept. */
static void listen_to(int fd, char said[200])
{
	char rest[512];
	size_t n = 0;
	ssize_t got;

	do {
		got = read(fd, n < 199 ? said + n : rest, n < 199 ? 199 - n : sizeof(rest));
		if (n < 199 && got > 0)
			n += (size_t)got;
	} while (got > 0 || (got < 0 && errno == EINTR));
	said[n] = 0;
}

/* Its status, -errno; what it says is kept in `said` (of one line the first 200 bytes). */
static int run(const char *const *command, char said[200])
{
	int pipes[2], status = 0;
	pid_t pid;

	said[0] = 0;
	if (pipe2(pipes, O_CLOEXEC))
		return -errno;
	pid = fork();
	if (!pid) {
		int null = open("/dev/null", O_RDWR | O_CLOEXEC);

		if (null >= 0 && dup2(null, 0) >= 0 && dup2(null, 1) >= 0 && dup2(pipes[1], 2) >= 0)
			execvp(command[0], (char *const *)command);
		_exit(127);
	}
	close(pipes[1]);
	if (pid > 0)
		listen_to(pipes[0], said);
	said[strcspn(said, "\n")] = 0;
	close(pipes[0]);
	if (pid < 0)
		return -errno;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -EIO;
}

static void setting(char text[64], const char *name, bool none, unsigned long long v, const char *unit)
{
	if (none)
		snprintf(text, 64, "%s=", name);
	else
		snprintf(text, 64, "%s=%llu%s", name, v, unit);
}

int limits_ask_systemd(const struct cgroups *c, const char *unit, bool user, const struct limits *l, struct err *e)
{
	char weight[64], quota[64], max[64], said[200];
	const char *command[10] = { c->systemctl, user ? "--user" : "--system", "set-property", "--runtime", unit };
	unsigned n = 5;
	int r;

	setting(weight, "CPUWeight", l->cpu_weight == LIMIT_NONE, l->cpu_weight, "");
	setting(quota, "CPUQuota", l->cpu_quota == LIMIT_NONE, l->cpu_quota, "%");
	setting(max, "MemoryMax", false, l->memory_max, "");
	if (l->memory_max == UINT64_MAX)
		snprintf(max, sizeof(max), "MemoryMax=infinity");
	if (l->cpu_weight)
		command[n++] = weight;
	if (l->cpu_quota)
		command[n++] = quota;
	if (l->memory_max)
		command[n++] = max;
	r = run(command, said);
	return r ? err_set(e, EIO, "systemd does not limit %s: %s", unit, said[0] ? said : "systemctl is not there, or fails") : 0;
}

int limits_make_scope(const struct cgroups *c, pid_t pid, struct err *e)
{
	char unit[64], number[32], said[200];
	const char *const command[] = { c->busctl, "--user", "--quiet", "--timeout=20", "call", "org.freedesktop.systemd1",
		"/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", "StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "fail",
		"3", "PIDs", "au", "1", number, "Description", "s", "A virtual machine's process", "CollectMode", "s", "inactive-or-failed",
		"0", NULL };
	int r;

	snprintf(unit, sizeof(unit), LIMITS_SCOPE, (int)pid);
	snprintf(number, sizeof(number), "%d", (int)pid);
	r = run(command, said);
	return r ? err_set(e, EIO, "%s", said[0] ? said : "busctl is not there, or fails") : 0;
}
