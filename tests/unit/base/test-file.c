/* SPDX-License-Identifier: Apache-2.0 */
/* Files that are opened, or made first: also when others make and remove them meanwhile. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/file.h"

static void test_open(void **state)
{
	char path[] = "/tmp/file-XXXXXX";
	int folder, fd;
	struct stat st;

	assert_non_null(mkdtemp(path));
	folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	fd = file_open_or_make(folder, "a", O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);
	assert_true(fd >= 0 && !fstat(fd, &st) && (st.st_mode & 0777) == 0600);
	assert_int_equal(write(fd, "text", 4), 4);
	close(fd);
	fd = file_open_or_make(folder, "a", O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);
	assert_true(fd >= 0 && !fstat(fd, &st) && st.st_size == 4); /* as it was */
	close(fd);
	assert_int_equal(symlinkat("nowhere", folder, "link"), 0);
	assert_int_equal(file_open_or_make(folder, "link", O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600), -1);
	assert_int_equal(errno, ELOOP);
	assert_int_equal(file_open_or_make(folder, "no/a", O_RDWR | O_CLOEXEC, 0600), -1);
	assert_int_equal(errno, ENOENT);
	assert_int_equal(unlinkat(folder, "a", 0) | unlinkat(folder, "link", 0) | rmdir(path), 0);
	close(folder);
}

struct race {
	int folder;
	_Atomic bool stop;
};

static void *remover(void *opaque)
{
	struct race *r = opaque;

	while (!atomic_load(&r->stop))
		unlinkat(r->folder, "a", 0);
	return NULL;
}

static void test_race(void **state)
{
	char path[] = "/tmp/file-XXXXXX";
	struct race r = { 0 };
	pthread_t t;

	assert_non_null(mkdtemp(path));
	r.folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(pthread_create(&t, NULL, remover, &r), 0);
	for (unsigned i = 0; i < 2000; i++) {
		int fd = file_open_or_make(r.folder, "a", O_RDWR | O_CLOEXEC, 0600);

		assert_true(fd >= 0);
		close(fd);
	}
	atomic_store(&r.stop, true);
	pthread_join(t, NULL);
	unlinkat(r.folder, "a", 0);
	assert_int_equal(rmdir(path), 0);
	close(r.folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_open), cmocka_unit_test(test_race) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
