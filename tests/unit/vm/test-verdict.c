/* SPDX-License-Identifier: Apache-2.0 */
/* What is remembered of KVM's speed: when it is believed, when not, and what is chosen by it. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/base.h"
#include "vm/measure.h"
#include "vm/vm.h"

#define BOOT "11111111-2222-3333-4444-555555555555"
#define NEXT "11111111-2222-3333-4444-666666666666"

struct fixture {
	char folder[64], file[96], boot[96], device[96];
	struct verdict_host host;
};

static void write_file(const char *path, const void *data, size_t size)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, size), size);
	close(fd);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	snprintf(f->folder, sizeof(f->folder), "/tmp/verdict-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	snprintf(f->file, sizeof(f->file), "%s/kvm-speed", f->folder);
	snprintf(f->boot, sizeof(f->boot), "%s/boot-id", f->folder);
	snprintf(f->device, sizeof(f->device), "%s/device", f->folder);
	write_file(f->boot, BOOT "\n", sizeof(BOOT));
	write_file(f->device, "", 0);
	f->host = (struct verdict_host){ .boot_id = f->boot, .device = f->device };
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	chmod(f->folder, 0700);
	unlink(f->file);
	unlink(f->boot);
	unlink(f->device);
	rmdir(f->folder);
	free(f);
	return 0;
}

static double remembered(const struct fixture *f)
{
	struct verdict v;

	verdict_open(&v, f->folder, &f->host);
	verdict_close(&v);
	return v.mips;
}

static void keep(const struct fixture *f, double mips)
{
	struct verdict v;

	verdict_open(&v, f->folder, &f->host);
	verdict_keep(&v, mips);
	verdict_close(&v);
}

static bool is_about(double a, double b)
{
	return a > b * 0.999 && a < b * 1.001;
}

static void test_remembered(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	assert_true(remembered(f) == 0);
	keep(f, 0.512345678);
	assert_true(is_about(remembered(f), 0.512345678));
	keep(f, 4321);
	assert_true(is_about(remembered(f), 4321));
	keep(f, 200); /* busy hardware, or very good software? */
	assert_true(is_about(remembered(f), 4321));
	assert_int_equal(stat(f->file, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
}

static void test_another_host(void **state)
{
	struct fixture *f = *state;
	char other[128];

	keep(f, 0.5);
	write_file(f->boot, NEXT "\n", sizeof(NEXT));
	assert_true(remembered(f) == 0);
	write_file(f->boot, BOOT "\n", sizeof(BOOT));
	assert_true(is_about(remembered(f), 0.5));
	snprintf(other, sizeof(other), "%s2", f->device);
	write_file(other, "", 0);
	assert_int_equal(rename(other, f->device), 0); /* the module was loaded anew */
	assert_true(remembered(f) == 0);
	keep(f, 0.5);
	assert_true(is_about(remembered(f), 0.5));
	assert_int_equal(chmod(f->device, 0644), 0); /* its time of change is another, unless the clock stands still */
	for (unsigned i = 0; i < 200 && remembered(f) != 0; i++) {
		usleep(5000);
		assert_int_equal(chmod(f->device, 0640), 0);
	}
	assert_true(remembered(f) == 0);
	assert_int_equal(unlink(f->boot), 0);
	keep(f, 0.5);
	assert_true(remembered(f) == 0);
}

/* Every byte of it wrong in turn, every length but its own, and more behind it. */
static void test_damaged(void **state)
{
	struct fixture *f = *state;
	char good[512], bad[600];
	ssize_t size;
	int fd;

	keep(f, 0.75);
	fd = open(f->file, O_RDONLY | O_CLOEXEC);
	size = read(fd, good, sizeof(good));
	close(fd);
	assert_true(size > 100 && size < (ssize_t)sizeof(good));
	for (ssize_t i = 0; i < size; i++) {
		memcpy(bad, good, (size_t)size);
		bad[i] ^= (char)(i % 3 ? 1 : 0xff);
		write_file(f->file, bad, (size_t)size);
		assert_true(remembered(f) == 0);
		write_file(f->file, good, (size_t)i);
		assert_true(remembered(f) == 0);
	}
	memset(bad, 'x', sizeof(bad));
	memcpy(bad, good, (size_t)size);
	write_file(f->file, bad, sizeof(bad));
	assert_true(remembered(f) == 0);
	keep(f, 0.75); /* what is longer than ours is cut */
	assert_true(is_about(remembered(f), 0.75));
}

static void test_not_ours(void **state)
{
	struct fixture *f = *state;
	struct verdict v;
	char second[128];

	keep(f, 0.5);
	assert_int_equal(chmod(f->file, 0666), 0);
	assert_true(remembered(f) == 0);
	assert_int_equal(chmod(f->file, 0600), 0);
	assert_int_equal(chmod(f->folder, 0777), 0);
	assert_true(remembered(f) == 0);
	assert_int_equal(chmod(f->folder, 0700), 0);
	snprintf(second, sizeof(second), "%s2", f->device);
	assert_int_equal(link(f->file, second), 0);
	assert_true(remembered(f) == 0);
	verdict_open(&v, f->folder, &f->host);
	assert_int_equal(v.fd, -1); /* closed: its number is another file's, which must not be written to */
	unlink(f->file);
	assert_int_equal(symlink(second, f->file), 0);
	assert_true(remembered(f) == 0);
	unlink(f->file);
	assert_int_equal(mkfifo(f->file, 0600), 0); /* nobody waits for who writes to it */
	assert_true(remembered(f) == 0);
	unlink(f->file);
	assert_int_equal(rename(second, f->file), 0);
	assert_true(is_about(remembered(f), 0.5));
}

/* No folder, one that is not to be written to, and no room. */
static void test_nowhere(void **state)
{
	struct fixture *f = *state, missing = *f;
	struct rlimit none, before;
	struct verdict v;

	snprintf(missing.folder, sizeof(missing.folder), "%.40s/none", f->folder);
	keep(&missing, 0.5);
	assert_true(remembered(&missing) == 0);
	if (geteuid()) {
		assert_int_equal(chmod(f->folder, 0500), 0);
		keep(f, 0.5);
		assert_true(remembered(f) == 0);
		assert_int_equal(chmod(f->folder, 0700), 0);
	}
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	none = before;
	none.rlim_cur = 40; /* as a disk with room for 40 bytes */
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
	keep(f, 0.5);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_true(remembered(f) == 0);
	keep(f, 0.5);
	assert_true(is_about(remembered(f), 0.5));
	if (geteuid()) { /* to be read, but not to be written */
		assert_int_equal(chmod(f->file, 0400), 0);
		keep(f, 4000);
		assert_true(is_about(remembered(f), 0.5));
	}
	verdict_open(&v, "/dev/full", &f->host);
	assert_int_equal(v.fd, -1);
}

static void test_choice(void **state)
{
	struct fixture *f = *state;
	const struct engine_ops *found;
	struct measured *left;
	struct verdict v;
	char why[300];

	verdict_open(&v, f->folder, &f->host);
	verdict_keep(&v, 0.5);
	found = measure_choose(why, sizeof(why), &left, &v); /* KVM is not even looked at, be it there or not */
	assert_non_null(found);
	assert_string_equal(found->name, "dbt");
	assert_null(left);
	assert_non_null(strstr(why, "0.5 million instructions a second when last measured"));
	assert_false(measure_accelerated(engine_find("dbt"), &v));
	assert_false(measure_accelerated(engine_find("kvm"), &v));
	verdict_keep(&v, 4000);
	assert_true(measure_accelerated(engine_find("kvm"), &v));
	found = measure_choose(why, sizeof(why), &left, &v);
	assert_null(left); /* nothing was measured */
	assert_string_equal(found->name, engine_find("kvm")->probe(NULL) ? "dbt" : "kvm");
	verdict_close(&v);
}

/* Remembered as hardware, and not to be had: first for want of descriptors, which other engines need fewer of. */
static void test_taken(void **state)
{
	struct fixture *f = *state;
	struct vm_config config = { .name = "taken", .cpus = 1, .memory = 2 << 20, .engine = "auto", .cpu_model = "v2" };
	unsigned fell_back = 0, made = 0;
	struct rlimit before, few;
	struct verdict v;

	verdict_open(&v, f->folder, &f->host);
	verdict_keep(&v, 4000);
	config.verdict = &v;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	few = before;
	for (few.rlim_cur = (rlim_t)v.fd; made < 4 && few.rlim_cur < (rlim_t)v.fd + 100; few.rlim_cur++) {
		struct vm *vm = NULL;
		struct err e = { 0 };
		int r;

		assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
		r = vm_create(&vm, &config, &e);
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
		if (r)
			continue;
		made++;
		fell_back += !strcmp(vm->machine.engine->name, "dbt");
		assert_non_null(vm->machine.engine_data);
		vm_destroy(vm);
	}
	assert_true(fell_back);
	verdict_close(&v);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_remembered, setup, teardown),
		cmocka_unit_test_setup_teardown(test_another_host, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_ours, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nowhere, setup, teardown),
		cmocka_unit_test_setup_teardown(test_choice, setup, teardown),
		cmocka_unit_test_setup_teardown(test_taken, setup, teardown),
	};

	return cmocka_run_group_tests_name("verdict", tests, NULL, NULL);
}
