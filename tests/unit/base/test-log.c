/* SPDX-License-Identifier: Apache-2.0 */
/* Error texts and log lines: bounded, clean of control characters, limited for guests. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/base.h"
#include "base/err.h"
#include "base/log.h"

static void test_err(void **state)
{
	char big[2000];
	struct err e;

	assert_int_equal(err_set(&e, EINVAL, "bad %d", 7), -EINVAL);
	assert_string_equal(e.text, "bad 7");
	assert_int_equal(err_prefix(&e, "disk %s", "a"), -EINVAL);
	assert_string_equal(e.text, "disk a: bad 7");
	errno = ENOENT;
	assert_int_equal(err_errno(&e, "open %s", "x"), -ENOENT);
	assert_string_equal(e.text, "open x: No such file or directory");
	assert_int_equal(err_set(NULL, EIO, "nobody"), -EIO);
	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = 0;
	err_set(&e, EIO, "%s", big);
	assert_int_equal(strlen(e.text), ERR_TEXT - 1);
	err_prefix(&e, "%s", big);
	assert_int_equal(strlen(e.text), ERR_TEXT - 1);
}

static void test_log(void **state)
{
	char path[] = "/tmp/ospite-log-XXXXXX", line[2000], big[3000];
	unsigned guest = 0, other = 0, lines = 0, i;
	FILE *f;

	close(mkstemp(path));
	assert_int_equal(log_open("/nonexistent/x"), -ENOENT);
	assert_int_equal(log_open(path), 0);
	memset(big, 'y', sizeof(big) - 1);
	big[sizeof(big) - 1] = 0;
	log_msg(LOG_DEBUG, "m", "below the level");
	log_msg(LOG_ERROR, "m", "%s", big);
	log_msg(LOG_INFO, "m", "escape \033[2J and\nnewline");
	for (i = 0; i < 1000; i++)
		log_guest("uart", "flood %u", i);
	log_guest("pit", "another module");
	f = fopen(path, "r");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		assert_true(strlen(line) <= 1024 && line[strlen(line) - 1] == '\n');
		assert_null(strchr(line, '\033'));
		guest += !!strstr(line, "flood");
		other += !!strstr(line, "another module");
		lines++;
	}
	fclose(f);
	unlink(path);
	assert_int_equal(other, 1);
	assert_true(guest >= 5 && guest < 30);
	assert_int_equal(lines, 2 + guest + other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_err),
		cmocka_unit_test(test_log),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
