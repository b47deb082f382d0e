/* SPDX-License-Identifier: Apache-2.0 */
/* The saved machine's file: sections come back, and a file cut or changed anywhere is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/err.h"
#include "state/file.h"

struct fixture {
	char folder[64], path[96], other[96];
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->folder, "/tmp/ospite-test-XXXXXX");
	if (!f || !mkdtemp(f->folder))
		return -1;
	snprintf(f->path, sizeof(f->path), "%s/machine", f->folder);
	snprintf(f->other, sizeof(f->other), "%s/other", f->folder);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	unlink(f->path);
	unlink(f->other);
	rmdir(f->folder); /* fails, and the next check with it, if a temporary file was left */
	assert_int_equal(access(f->folder, F_OK), -1);
	free(f);
	return 0;
}

static void write_sample(const char *path)
{
	struct err e;
	struct state_writer *w = state_writer_open(path, &e);
	static char big[100000];

	memset(big, 'x', sizeof(big));
	assert_non_null(w);
	assert_int_equal(state_writer_begin(w, "META", &e), 0);
	assert_int_equal(state_writer_add(w, "hello ", 6, &e), 0);
	assert_int_equal(state_writer_add(w, "world", 5, &e), 0);
	assert_int_equal(state_writer_end(w, &e), 0);
	assert_int_equal(state_writer_begin(w, "BIGGER", &e), 0);
	assert_int_equal(state_writer_add(w, big, sizeof(big), &e), 0);
	assert_int_equal(state_writer_end(w, &e), 0);
	assert_int_equal(access(path, F_OK), -1); /* not before it is whole */
	assert_int_equal(state_writer_commit(w, &e), 0);
	state_writer_close(w);
}

static void sections_come_back(void **state)
{
	struct fixture *f = *state;
	struct state_reader *r;
	uint64_t length;
	char text[12] = "";
	struct err e;

	write_sample(f->path);
	r = state_reader_open(f->path, &e);
	assert_non_null(r);
	assert_int_equal(state_reader_find(r, "BIGGER", &length, &e), 0);
	assert_int_equal(length, 100000);
	assert_int_equal(state_reader_find(r, "META", &length, &e), 0);
	assert_int_equal(length, 11);
	assert_int_equal(state_reader_get(r, 0, text, 11, &e), 0);
	assert_string_equal(text, "hello world");
	assert_int_equal(state_reader_get(r, 6, text, 6, &e), -22);
	assert_int_equal(state_reader_get(r, ~0ull, text, 6, &e), -22);
	assert_int_equal(state_reader_find(r, "NONE", &length, &e), -2);
	state_reader_close(r);
}

static void abandoned_leaves_nothing(void **state)
{
	struct fixture *f = *state;
	struct err e;
	struct state_writer *w = state_writer_open(f->path, &e);

	assert_non_null(w);
	assert_int_equal(state_writer_begin(w, "META", &e), 0);
	assert_int_equal(state_writer_add(w, "half", 4, &e), 0);
	state_writer_close(w);
	assert_int_equal(access(f->path, F_OK), -1);
}

static void put(const char *path, const char *data, size_t n)
{
	FILE *out = fopen(path, "w");

	assert_non_null(out);
	assert_int_equal(fwrite(data, 1, n, out), n);
	assert_int_equal(fclose(out), 0);
}

static void damage_is_refused(void **state)
{
	struct fixture *f = *state;
	static char data[110000];
	FILE *in;
	size_t n;
	struct err e;

	write_sample(f->path);
	in = fopen(f->path, "r");
	assert_non_null(in);
	n = fread(data, 1, sizeof(data), in);
	fclose(in);
	for (size_t cut = 0; cut < n; cut += cut < 200 || cut > n - 100 ? 1 : 9973) {
		put(f->other, data, cut);
		assert_null(state_reader_open(f->other, &e));
		assert_non_null(strstr(e.text, f->other));
	}
	for (size_t at = 0; at < n; at += at < 120 || at > n - 40 ? 1 : 9973) {
		data[at] ^= 0x10;
		put(f->other, data, n);
		/* the reserved word of the file's header is the only thing that may be anything */
		if (at < 12 || at >= 16)
			assert_null(state_reader_open(f->other, &e));
		data[at] ^= 0x10;
	}
	data[n] = 0;
	put(f->other, data, n + 1);
	assert_null(state_reader_open(f->other, &e));
	assert_null(state_reader_open(f->folder, &e));
	assert_null(state_reader_open("/nonexistent/file", &e));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(sections_come_back, setup, teardown),
		cmocka_unit_test_setup_teardown(abandoned_leaves_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(damage_is_refused, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
