/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control groups of both versions, in trees of plain files: which group, what is written where. What the kernel makes of it is
 * tried by tests/boot/life.sh, in the version the host has.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/base.h"
#include "vm/limits.h"

#define PID 4711

struct tree {
	char at[64], top[80], proc[80];
	struct cgroups groups;
};

static void write_file(const struct tree *t, const char *name, const char *text)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", t->at, name);
	for (char *slash = path + strlen(t->at) + 1; (slash = strchr(slash, '/')); slash++) {
		*slash = 0;
		mkdir(path, 0755);
		*slash = '/';
	}
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void check_file(const struct tree *t, const char *name, const char *text)
{
	char path[256], found[256] = "";
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", t->at, name);
	f = fopen(path, "r");
	assert_non_null(f);
	assert_true(fread(found, 1, sizeof(found) - 1, f) > 0 || !*text);
	fclose(f);
	assert_memory_equal(found, text, strlen(text)); /* what was longer before stays behind it: the kernel's files are not so */
}

static void tree_make(struct tree *t, bool unified, const char *own)
{
	char name[64];

	*t = (struct tree){ .at = "/tmp/limits-XXXXXX" };
	assert_non_null(mkdtemp(t->at));
	snprintf(t->top, sizeof(t->top), "%s/cg", t->at);
	snprintf(t->proc, sizeof(t->proc), "%s/proc", t->at);
	t->groups = (struct cgroups){ .top = t->top, .proc = t->proc, .unified = unified };
	snprintf(name, sizeof(name), "proc/%d/cgroup", PID);
	write_file(t, name, own);
}

static void tree_drop(struct tree *t)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -r %s", t->at);
	assert_int_equal(system(command), 0);
}

static void group_files(const struct tree *t, const char *group, const char *const *files)
{
	char name[200];

	for (; *files; files++) {
		snprintf(name, sizeof(name), "%s/%s", group, *files);
		write_file(t, name, "");
	}
}

static void mkdir_in(const struct tree *t, const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "mkdir -p %s/%s", t->at, name);
	assert_int_equal(system(path), 0);
}

static bool there(const struct tree *t, const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", t->at, name);
	return !access(path, F_OK);
}

static const char *const v2_files[] = { "cpu.weight", "cpu.max", "memory.max", "cgroup.procs", NULL };

static void test_v2(void **state)
{
	const struct limits l = { .cpu_weight = 50, .cpu_quota = 150, .memory_max = 300 << 20 };
	const struct limits none = { .cpu_weight = LIMIT_NONE, .cpu_quota = LIMIT_NONE, .memory_max = UINT64_MAX };
	struct err e = { 0 };
	struct tree t;

	tree_make(&t, true, "0::/user.slice/session-1.scope\n");
	write_file(&t, "cg/cgroup.subtree_control", "");
	write_file(&t, "cg/ospite/cgroup.subtree_control", "");
	write_file(&t, "cg/ospite/vm-1/x", "");
	group_files(&t, "cg/ospite/vm-4711", v2_files);
	assert_int_equal(limits_apply(&t.groups, PID, &l, &e), 0);
	check_file(&t, "cg/cgroup.subtree_control", "+cpu +memory");
	check_file(&t, "cg/ospite/cgroup.subtree_control", "+cpu +memory");
	check_file(&t, "cg/ospite/vm-4711/cpu.weight", "50");
	check_file(&t, "cg/ospite/vm-4711/cpu.max", "150000 100000");
	check_file(&t, "cg/ospite/vm-4711/memory.max", "314572800");
	check_file(&t, "cg/ospite/vm-4711/cgroup.procs", "4711");
	/* live, in the group it is in by now, even if that is not where a new one would be; unchanged ones are left alone */
	write_file(&t, "proc/4711/cgroup", "0::/a.slice/ospite/vm-4711\n");
	group_files(&t, "cg/a.slice/ospite/vm-4711", v2_files);
	write_file(&t, "cg/a.slice/ospite/vm-4711/memory.current", "1000000\n");
	assert_int_equal(limits_apply(&t.groups, PID, &(struct limits){ .cpu_quota = 20 }, &e), 0);
	check_file(&t, "cg/a.slice/ospite/vm-4711/cpu.max", "20000 100000");
	check_file(&t, "cg/a.slice/ospite/vm-4711/memory.max", "");
	/* the kernel would kill it */
	assert_int_equal(limits_apply(&t.groups, PID, &(struct limits){ .memory_max = 999999 }, &e), -EBUSY);
	check_file(&t, "cg/a.slice/ospite/vm-4711/memory.max", "");
	assert_int_equal(limits_apply(&t.groups, PID, &none, &e), 0);
	check_file(&t, "cg/a.slice/ospite/vm-4711/memory.max", "max");
	check_file(&t, "cg/a.slice/ospite/vm-4711/cpu.max", "max 100000");
	check_file(&t, "cg/a.slice/ospite/vm-4711/cpu.weight", "100");
	/* groups that no process is or comes into */
	write_file(&t, "cg/ospite/vm-4711/x", "");
	mkdir_in(&t, "cg/ospite/vm-4712");
	mkdir_in(&t, "cg/ospite/vm-4713");
	mkdir_in(&t, "proc/4713");
	limits_tidy(&t.groups);
	assert_false(there(&t, "cg/ospite/vm-4712"));
	assert_true(there(&t, "cg/ospite/vm-4713"));
	tree_drop(&t);
}

/* A program that writes down what it is given. */
static void program(const struct tree *t, const char *name, const char *more)
{
	char path[128], text[512];

	snprintf(text, sizeof(text), "#!/bin/sh\necho \"$@\" >%s/%s.said\n%s\n", t->at, name, more);
	write_file(t, name, text);
	snprintf(path, sizeof(path), "%s/%s", t->at, name);
	chmod(path, 0755);
}

/* Groups that are systemd's are asked for. */
static void test_systemd(void **state)
{
	const struct limits l = { .cpu_weight = 50, .cpu_quota = 150, .memory_max = 300 << 20 };
	const struct limits none = { .cpu_weight = LIMIT_NONE, .cpu_quota = LIMIT_NONE, .memory_max = UINT64_MAX };
	char systemctl[128], busctl[128], text[256];
	struct err e = { 0 };
	struct tree t;

	tree_make(&t, true, "0::/system.slice/system-ospite.slice/ospite@web.service\n");
	snprintf(systemctl, sizeof(systemctl), "%s/systemctl", t.at);
	snprintf(busctl, sizeof(busctl), "%s/busctl", t.at);
	t.groups.systemctl = systemctl;
	t.groups.busctl = busctl;
	assert_true(limits_apply(&t.groups, PID, &l, &e) < 0);
	assert_non_null(strstr(e.text, "systemctl is not there"));
	program(&t, "systemctl", "");
	assert_int_equal(limits_apply(&t.groups, PID, &l, &e), 0);
	check_file(&t, "systemctl.said", "--system set-property --runtime ospite@web.service CPUWeight=50 CPUQuota=150% MemoryMax=314572800\n");
	assert_int_equal(limits_apply(&t.groups, PID, &none, &e), 0);
	check_file(&t, "systemctl.said", "--system set-property --runtime ospite@web.service CPUWeight= CPUQuota= MemoryMax=infinity\n");
	write_file(&t, "cg/system.slice/system-ospite.slice/ospite@web.service/memory.current", "400000000\n");
	assert_int_equal(limits_apply(&t.groups, PID, &l, &e), -EBUSY);
	program(&t, "systemctl", "echo Access denied >&2; exit 1");
	assert_true(limits_apply(&t.groups, PID, &(struct limits){ .cpu_quota = 20 }, &e) < 0);
	assert_non_null(strstr(e.text, "Access denied"));
	/* more than anybody wants to read */
	program(&t, "systemctl", "i=0; while [ $i -lt 10000 ]; do echo Warning: the unit has changed on disk >&2; i=$((i+1)); done; exit 0");
	assert_int_equal(limits_apply(&t.groups, PID, &(struct limits){ .cpu_quota = 20 }, &e), 0);
	/* a user's session: a scope, which systemd moves the process to */
	write_file(&t, "proc/4711/cgroup", "0::/user.slice/user-1000.slice/session-1.scope\n");
	if (geteuid()) { /* to root nothing is forbidden */
		mkdir_in(&t, "cg/user.slice/user-1000.slice");
		snprintf(text, sizeof(text), "%s/user.slice/user-1000.slice", t.top);
		chmod(text, 0555);
		chmod(t.top, 0555);
		program(&t, "busctl", "echo Failed to connect to bus >&2; exit 1");
		assert_int_equal(limits_apply(&t.groups, PID, &(struct limits){ .cpu_quota = 20 }, &e), -EACCES);
		assert_non_null(strstr(e.text, "Failed to connect to bus"));
		assert_non_null(strstr(e.text, "dbus-user-session"));
		program(&t, "systemctl", "");
		snprintf(text, sizeof(text), "echo 0::/user.slice/user-1000.slice/user@1000.service/app.slice/ospite-4711.scope >%s/4711/cgroup", t.proc);
		program(&t, "busctl", text);
		assert_int_equal(limits_apply(&t.groups, PID, &(struct limits){ .cpu_quota = 20 }, &e), 0);
		check_file(&t, "busctl.said", "--user --quiet --timeout=20 call org.freedesktop.systemd1");
		check_file(&t, "systemctl.said", "--user set-property --runtime ospite-4711.scope CPUQuota=20%\n");
		snprintf(text, sizeof(text), "%s/user.slice/user-1000.slice", t.top);
		chmod(text, 0755);
		chmod(t.top, 0755);
	}
	tree_drop(&t);
}

static void test_v2_user(void **state)
{
	const struct limits l = { .cpu_weight = 200 };
	struct err e = { 0 };
	struct tree t;
	char path[128];

	if (!geteuid()) {
		skip(); /* to root nothing is forbidden */
		return;
	}
	tree_make(&t, true, "0::/user.slice/app.slice/shell.scope\n");
	write_file(&t, "cg/user.slice/app.slice/cgroup.subtree_control", "");
	write_file(&t, "cg/user.slice/app.slice/ospite/cgroup.subtree_control", "");
	group_files(&t, "cg/user.slice/app.slice/ospite/vm-4711", v2_files);
	snprintf(path, sizeof(path), "%s", t.top);
	chmod(path, 0555);
	t.groups.busctl = "/no/busctl"; /* no systemd to ask for a scope */
	assert_int_equal(limits_apply(&t.groups, PID, &l, &e), 0);
	chmod(path, 0755);
	check_file(&t, "cg/user.slice/app.slice/ospite/vm-4711/cpu.weight", "200");
	tree_drop(&t);
}

static void test_v1(void **state)
{
	static const char *const cpu[] = { "cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us", "cgroup.procs", NULL };
	static const char *const memory[] = { "memory.limit_in_bytes", "cgroup.procs", NULL };
	const struct limits l = { .cpu_weight = 50, .cpu_quota = 150, .memory_max = 300 << 20 };
	struct err e = { 0 };
	struct tree t;

	tree_make(&t, false, "9:name=systemd:/x\n4:memory:/m\n2:cpu,cpuacct:/c\n");
	group_files(&t, "cg/cpu/c/ospite/vm-4711", cpu);
	group_files(&t, "cg/memory/ospite/vm-4711", memory); /* /m is not in this view of the hierarchy */
	assert_int_equal(limits_apply(&t.groups, PID, &l, &e), 0);
	check_file(&t, "cg/cpu/c/ospite/vm-4711/cpu.shares", "512");
	check_file(&t, "cg/cpu/c/ospite/vm-4711/cpu.cfs_period_us", "100000");
	check_file(&t, "cg/cpu/c/ospite/vm-4711/cpu.cfs_quota_us", "150000");
	check_file(&t, "cg/memory/ospite/vm-4711/memory.limit_in_bytes", "314572800");
	check_file(&t, "cg/memory/ospite/vm-4711/cgroup.procs", "4711");
	tree_drop(&t);
}

static void test_refused(void **state)
{
	struct err e = { 0 };
	struct tree t;

	tree_make(&t, true, "0::/\n");
	assert_true(limits_apply(&t.groups, PID, &(struct limits){ .cpu_weight = 5 }, &e) < 0); /* no tree at all */
	assert_non_null(strstr(e.text, "systemd-run"));
	assert_int_equal(limits_apply(&t.groups, PID, &(struct limits){ 0 }, &e), 0); /* nothing asked for */
	tree_drop(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_v2),
		cmocka_unit_test(test_v2_user),
		cmocka_unit_test(test_systemd),
		cmocka_unit_test(test_v1),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
