/* SPDX-License-Identifier: Apache-2.0 */
/* Machines' folders and vm.yaml. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/base.h"
#include "store/config.h"
#include "store/store.h"

/* ---- vm.yaml */

static const struct config_key keys[] = {
	{ "memory", CONFIG_STRING }, { "disk", CONFIG_LIST_OF_STRINGS }, { "quiet", CONFIG_FLAG }, { "mem", CONFIG_STRING },
};

struct got {
	char text[400];
	int refuse; /* key whose value is refused; -1: none */
};

static int take(void *opaque, unsigned key, const char *value, struct err *e)
{
	struct got *g = opaque;

	if ((int)key == g->refuse)
		return err_set(e, EINVAL, "no");
	snprintf(g->text + strlen(g->text), sizeof(g->text) - strlen(g->text), "%s=%s;", keys[key].name, value ? value : "");
	return 0;
}

static void reads(const char *text, const char *want)
{
	struct got g = { .refuse = -1 };
	struct err e = { 0 };

	assert_int_equal(config_read(text, "vm.yaml", keys, ARRAY_LEN(keys), take, &g, &e), 0);
	assert_string_equal(g.text, want);
}

static void refused(const char *text, const char *why)
{
	struct got g = { .refuse = 3 };
	struct err e = { 0 };

	assert_int_not_equal(config_read(text, "vm.yaml", keys, ARRAY_LEN(keys), take, &g, &e), 0);
	if (!strstr(e.text, why))
		fail_msg("expected '%s' in '%s'", why, e.text);
}

static void test_read(void **state)
{
	reads("", "");
	reads("# nothing\n\n", "");
	reads("memory: 512M\n", "memory=512M;");
	reads("quiet: true\ndisk:\n  - a\n  - \"b: c\"\nmemory: 5\n", "memory=5;disk=a;disk=b: c;quiet=;");
	reads("quiet: false\n", "");
	reads("disk: [a, b]", "disk=a;disk=b;");
	reads("%YAML 1.2\n  # a\n---\nmemory: 512M\n...\n# b\n", "memory=512M;");
	reads("memory: --- # a\n", "memory=---;");
	refused("memory: [1]\n", "line: 1");
	refused("memory: 1\n---\nmemory: 2\n", "vm.yaml, line 2: a second document");
	refused("---\nmemory: 1\n...\n\nquiet: true\n", "vm.yaml, line 3: a second document");
	refused("# x\nmemory: 1\ncolour: red\n", "vm.yaml, line 3: there is no key 'colour'");
	refused("quiet: perhaps\n", "line: 1");
	refused("memory: 1\nmemory: 2\nmemory", "vm.yaml");
	refused("disk: a\n", "line: 1");
	refused("memory: \"\n", "vm.yaml");
	refused("- memory\n", "vm.yaml");
	refused("a: &x [*x]\n", "vm.yaml");
	refused("# x\nmemory: 1\n\nmem: 4\n", "vm.yaml, line 4: mem: no");
	refused("# x\nmemory: 1\n\nmemory: 4\n", "vm.yaml, line 4: 'memory' is given twice");
	refused("\n\ncolour: red\n", "vm.yaml, line 3: there is no key 'colour'");
}

static void edits(const char *text, unsigned key, const char *value, const char *want)
{
	const char *values[] = { value, "second" };
	unsigned n = !value ? 0 : keys[key].kind == CONFIG_LIST_OF_STRINGS ? 2 : 1;
	struct err e = { 0 };
	char *out;

	assert_int_equal(config_edit(text, &keys[key], values, n, &out, &e), 0);
	assert_string_equal(out, want);
	free(out);
}

static void test_edit(void **state)
{
	edits("", 0, "5M", "memory: 5M\n");
	edits("mem: 1", 0, "5M", "mem: 1\nmemory: 5M\n");
	edits("# a\nmemory: 1 # why\n# b\nmem: 2\n", 0, "5M", "# a\nmemory: 5M # why\n# b\nmem: 2\n");
	edits("memory: \"a # b\"  # why\n", 0, "x", "memory: x  # why\n");
	edits("memory: 1\nmem: 2\n", 0, NULL, "mem: 2\n");
	edits("disk:\n  - a\n  # old\n  - b\n\n# next\nmem: 2\n", 1, "first", "disk:\n  - first\n  - second\n\n# next\nmem: 2\n");
	edits("disk:\n- a\n- b\nmem: 2\n", 1, NULL, "mem: 2\n");
	/* what stays in a list stays as it stands there */
	edits("disk: # d\n    # one\n    - \"first\"  # why\n    # two\n    - b\nmem: 2\n", 1, "first",
	      "disk: # d\n    # one\n    - \"first\"  # why\n    - second\nmem: 2\n");
	edits("disk:\n- second # b\n# c\n- 'first'", 1, "first", "disk:\n# c\n- 'first'\n- second # b\n");
	edits("disk:\n  - first #b\n  - first\n    second\n", 1, "first", "disk:\n  - first #b\n  - second\n");
	edits("disk:\n  - first#b\n  - second x # y\n", 1, "first", "disk:\n  - first\n  - second\n");
	edits("disk: [first, second] # c\n", 1, "first", "disk: # c\n  - first\n  - second\n");
	edits("", 2, "true", "quiet: true\n");
	edits("", 0, "a b: \"c\" \\ # d", "memory: \"a b: \\\"c\\\" \\\\ # d\"\n");
	edits("", 0, "", "memory: \"\"\n");
}

/* Whatever is written is read as the same. */
static void test_quoting(void **state)
{
	for (unsigned b = 1; b < 128; b++) {
		const char text[][4] = { { (char)b, 0 }, { 'a', (char)b, 0 }, { (char)b, ' ', 'a', 0 } };

		for (unsigned i = 0; i < ARRAY_LEN(text); i++) {
			const char *value = text[i];
			struct got g = { .refuse = -1 };
			struct err e = { 0 };
			char want[40], *out;

			assert_int_equal(config_edit("", &keys[0], &value, 1, &out, &e), 0);
			if (config_read(out, "vm.yaml", keys, ARRAY_LEN(keys), take, &g, &e))
				fail_msg("%s: %s", out, e.text);
			snprintf(want, sizeof(want), "memory=%s;", value);
			assert_string_equal(g.text, want);
			free(out);
		}
	}
}

/* ---- folders */

struct lab {
	char root[40];
	struct store s;
};

static int lab_open(void **state)
{
	struct lab *l = calloc(1, sizeof(*l));
	struct err e = { 0 };

	strcpy(l->root, "/tmp/ospite-store-XXXXXX");
	assert_non_null(mkdtemp(l->root));
	assert_int_equal(store_open(&l->s, l->root, &e), 0);
	*state = l;
	return 0;
}

static int lab_close(void **state)
{
	struct lab *l = *state;
	char path[64];

	snprintf(path, sizeof(path), "%s/machines", l->root);
	store_close(&l->s);
	assert_int_equal(rmdir(path), 0); /* every test leaves it empty */
	assert_int_equal(rmdir(l->root), 0);
	free(l);
	return 0;
}

static void expect_names(struct lab *l, const char *want)
{
	char **names, got[200] = "";
	unsigned n;

	assert_int_equal(store_list(&l->s, &names, &n, NULL), 0);
	for (unsigned i = 0; i < n; i++) {
		strcat(strcat(got, names[i]), " ");
		free(names[i]);
	}
	free(names);
	assert_string_equal(got, want);
}

static void remove_all(struct lab *l)
{
	char **names;
	unsigned n;

	assert_int_equal(store_list(&l->s, &names, &n, NULL), 0);
	for (unsigned i = 0; i < n; i++) {
		struct store_vm m;

		assert_int_equal(store_vm_open(&l->s, names[i], &m, NULL), 0);
		assert_int_equal(store_vm_lock(&m, NULL), 0);
		assert_int_equal(store_vm_remove(&l->s, &m, NULL), 0);
		store_vm_close(&m);
		free(names[i]);
	}
	free(names);
}

static void test_folders(void **state)
{
	struct lab *l = *state;
	struct store_vm m;
	struct stat st;
	struct err e = { 0 };
	char name[STORE_NAME];

	assert_int_equal(store_create(&l->s, "b10", "memory: 1\n", false, &e), 0);
	assert_int_equal(store_create(&l->s, "b9", "", false, &e), 0);
	assert_int_equal(store_create(&l->s, "b9", "", false, &e), -EEXIST);
	assert_int_equal(store_create(&l->s, "../b", "", false, &e), -EINVAL);
	assert_int_equal(store_create(&l->s, ".b", "", false, &e), -EINVAL);
	assert_int_equal(store_create(&l->s, "", "", false, &e), -EINVAL);
	expect_names(l, "b9 b10 ");
	assert_int_equal(fstatat(l->s.fd, "b9", &st, 0), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_int_equal(store_name_free(&l->s, name, &e), 0);
	assert_string_equal(name, "vm1");
	/* what a killed create and a killed rm leave */
	assert_int_equal(mkdirat(l->s.fd, ".new-x", 0700), 0);
	assert_int_equal(mkdirat(l->s.fd, ".new-x/deep", 0700), 0);
	assert_int_equal(mkdirat(l->s.fd, ".old-y", 0700), 0);
	expect_names(l, "b9 b10 ");
	assert_int_equal(faccessat(l->s.fd, ".new-x", F_OK, 0), -1);
	assert_int_equal(faccessat(l->s.fd, ".old-y", F_OK, 0), -1);
	/* rename: not onto another */
	assert_int_equal(store_vm_open(&l->s, "b9", &m, &e), 0);
	assert_int_equal(store_vm_lock(&m, &e), 0);
	assert_int_equal(store_vm_rename(&l->s, &m, "b10", &e), -EEXIST);
	assert_int_equal(store_vm_rename(&l->s, &m, "c", &e), 0);
	store_vm_close(&m);
	expect_names(l, "b10 c ");
	assert_int_equal(store_vm_open(&l->s, "b9", &m, &e), -ENOENT);
	/* a link is no machine: nothing outside is removed through it */
	assert_int_equal(symlinkat("/tmp", l->s.fd, "link"), 0);
	assert_int_not_equal(store_vm_open(&l->s, "link", &m, &e), 0);
	assert_int_equal(unlinkat(l->s.fd, "link", 0), 0);
	remove_all(l);
}

static enum store_state state_of(struct lab *l, const char *name, struct store_status *st)
{
	struct store_vm m;

	assert_int_equal(store_vm_open(&l->s, name, &m, NULL), 0);
	assert_int_equal(store_vm_status(&m, st, NULL), 0);
	store_vm_close(&m);
	return st->state;
}

/* A process that takes the lock and says it runs; it waits for a byte on the pipe. */
static pid_t holder(struct lab *l, const char *name, int *go)
{
	int up[2], down[2];
	pid_t pid;
	char b;

	assert_int_equal(pipe(up) | pipe(down), 0);
	pid = fork();
	if (!pid) {
		struct store_vm m;

		if (store_vm_open(&l->s, name, &m, NULL) || store_vm_lock_run(&m, NULL) || fchdir(m.fd) || store_vm_say_running(&m, false, NULL))
			_exit(1);
		b = (char)write(up[1], "", 1);
		b = (char)read(down[0], &b, 1);
		store_vm_say_ended(&m, true, 126, "triple fault", NULL);
		_exit(0);
	}
	close(up[1]);
	assert_int_equal(read(up[0], &b, 1), 1);
	close(up[0]);
	close(down[0]);
	*go = down[1];
	return pid;
}

static void test_states(void **state)
{
	struct lab *l = *state;
	struct store_status st;
	struct store_vm m, second;
	struct err e = { 0 };
	pid_t pid;
	int go;

	assert_int_equal(store_create(&l->s, "m", "", false, &e), 0);
	assert_int_equal(state_of(l, "m", &st), STORE_INACTIVE);
	pid = holder(l, "m", &go);
	assert_int_equal(state_of(l, "m", &st), STORE_RUNNING);
	assert_int_equal(st.pid, pid);
	assert_int_equal(store_vm_open(&l->s, "m", &m, &e), 0);
	assert_int_equal(store_vm_lock(&m, &e), -EBUSY);
	assert_string_equal(e.text, "machine 'm' is running");
	assert_int_equal(store_vm_wait(&m, 5, &e), -ETIMEDOUT);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(go);
	assert_int_equal(store_vm_wait(&m, 1000, &e), 0);
	assert_int_equal(state_of(l, "m", &st), STORE_CRASHED);
	assert_non_null(strstr(st.reason, "without a word"));
	pid = holder(l, "m", &go);
	assert_int_equal(write(go, "", 1), 1);
	waitpid(pid, NULL, 0);
	close(go);
	assert_int_equal(state_of(l, "m", &st), STORE_CRASHED);
	assert_string_equal(st.reason, "triple fault");
	assert_int_equal(st.exit_status, 126);
	assert_int_equal(store_write(m.fd, "saved", "x", &e), 0);
	assert_int_equal(state_of(l, "m", &st), STORE_SUSPENDED);
	/* two at once in one process: the lock belongs to the open file */
	assert_int_equal(store_vm_lock(&m, &e), 0);
	assert_int_equal(store_vm_open(&l->s, "m", &second, &e), 0);
	assert_int_equal(store_vm_lock(&second, &e), -EAGAIN);
	assert_string_equal(e.text, "another command works on machine 'm': try again when that has ended");
	assert_int_equal(store_vm_lock_run(&second, &e), -EAGAIN);
	/* who works on its folder does not run it */
	assert_int_equal(state_of(l, "m", &st), STORE_SUSPENDED);
	assert_int_equal(store_vm_wait(&second, 0, &e), 0);
	store_vm_close(&m);
	/* several may read, nobody else works then */
	assert_int_equal(store_vm_open(&l->s, "m", &m, &e), 0);
	assert_int_equal(store_vm_lock_shared(&m, &e), 0);
	assert_int_equal(store_vm_lock_shared(&second, &e), 0);
	store_vm_close(&second);
	assert_int_equal(store_vm_open(&l->s, "m", &second, &e), 0);
	assert_int_equal(store_vm_lock(&second, &e), -EAGAIN);
	store_vm_close(&second);
	/* what tidying removes, and what it does not */
	assert_int_equal(store_write(m.fd, "disk.tmp.img", "x", &e), 0);
	assert_int_equal(store_write(m.fd, "saved.tmp.12", "x", &e), 0);
	store_vm_tidy(&m);
	assert_int_equal(faccessat(m.fd, "disk.tmp.img", F_OK, 0), 0);
	assert_int_equal(faccessat(m.fd, "saved.tmp.12", F_OK, 0), -1);
	/* nonsense in `status` is no reason to fail */
	assert_int_equal(unlinkat(m.fd, "saved", 0), 0);
	assert_int_equal(store_write(m.fd, "status", "{\"state\": [", &e), 0);
	store_vm_close(&m);
	assert_int_equal(state_of(l, "m", &st), STORE_INACTIVE);
	remove_all(l);
}

/* A temporary machine whose process was killed goes when somebody looks; one that never ran, or is suspended, stays. */
static void test_temporary(void **state)
{
	struct lab *l = *state;
	struct err e = { 0 };
	pid_t pid;
	int go;

	assert_int_equal(store_create(&l->s, "t", "", true, &e), 0);
	expect_names(l, "t ");
	pid = holder(l, "t", &go);
	expect_names(l, "t ");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(go);
	expect_names(l, "");
	/* who was to start it died before */
	assert_int_equal(store_create(&l->s, "t", "", true, &e), 0);
	assert_int_equal(utimensat(l->s.fd, "t/temporary", (const struct timespec[]){ { 0 }, { 0 } }, 0), 0);
	expect_names(l, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_read),
		cmocka_unit_test(test_edit),
		cmocka_unit_test(test_quoting),
		cmocka_unit_test_setup_teardown(test_folders, lab_open, lab_close),
		cmocka_unit_test_setup_teardown(test_states, lab_open, lab_close),
		cmocka_unit_test_setup_teardown(test_temporary, lab_open, lab_close),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
