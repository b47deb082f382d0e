/* SPDX-License-Identifier: Apache-2.0 */
/* CD images: read back by the rules of ECMA-119, through both of their folders. With a file's name: writes one there for other programs. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/base.h"
#include "store/iso.h"

static uint32_t both32(const uint8_t *p)
{
	uint32_t little = p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24;
	uint32_t big = p[7] | p[6] << 8 | p[5] << 16 | (uint32_t)p[4] << 24;

	assert_int_equal(little, big);
	return little;
}

/* A file by its name as the descriptor has names; its size, or -1. */
static long find(const uint8_t *image, size_t size, bool joliet, const char *name, const uint8_t **data)
{
	const uint8_t *d = image + (16 + joliet) * 2048, *at, *end;
	uint32_t root = both32(d + 156 + 2), length = both32(d + 156 + 10);

	assert_true((root + length / 2048) * 2048ul <= size);
	at = image + root * 2048ul;
	for (end = at + length; at < end && at[0]; at += at[0]) {
		char text[64] = "";
		size_t n = at[32];

		assert_true(at[0] >= 33 + n && !(at[0] & 1));
		for (size_t i = 0; i < (joliet ? n / 2 : n); i++)
			text[i] = (char)at[33 + (joliet ? 2 * i + 1 : i)];
		if (n > 1 && !strcmp(text, name)) {
			*data = image + both32(at + 2) * 2048ul;
			assert_true(both32(at + 2) * 2048ul + both32(at + 10) <= size);
			return both32(at + 10);
		}
	}
	return -1;
}

static void test_files(void **state)
{
	static char big[5000];
	const struct iso_file files[] = { { "user-data", big, sizeof(big) }, { "meta-data", "a: b\n", 5 }, { "empty.txt", NULL, 0 } };
	const uint8_t *data;
	struct err e = { 0 };
	uint8_t *image, *again;
	size_t size, size_again;

	memset(big, 'x', sizeof(big));
	assert_int_equal(iso_make("cidata", files, 3, &image, &size, &e), 0);
	assert_int_equal(size % 2048, 0);
	for (unsigned j = 0; j < 2; j++) {
		const uint8_t *d = image + (16 + j) * 2048;

		assert_memory_equal(d + 1, "CD001", 5);
		assert_int_equal(d[0], 1 + j);
		assert_int_equal(both32(d + 80) * 2048ul, size);
		assert_int_equal(find(image, size, j, j ? "meta-data;1" : "META-DATA.;1", &data), 5);
		assert_memory_equal(data, "a: b\n", 5);
		assert_int_equal(find(image, size, j, j ? "user-data;1" : "USER-DATA.;1", &data), 5000);
		assert_memory_equal(data, big, 5000);
		assert_int_equal(find(image, size, j, j ? "empty.txt;1" : "EMPTY.TXT;1", &data), 0);
		assert_int_equal(find(image, size, j, "other", &data), -1);
	}
	assert_memory_equal(image + 16 * 2048 + 40, "cidata   ", 9);
	assert_memory_equal(image + 17 * 2048 + 40, "\0c\0i\0d\0a\0t\0a\0 ", 14);
	assert_memory_equal(image + 18 * 2048, "\xff" "CD001\1", 7);
	assert_int_equal(iso_make("cidata", files, 3, &again, &size_again, &e), 0);
	assert_int_equal(size, size_again);
	assert_memory_equal(image, again, size);
	free(image);
	free(again);
}

static void test_refused(void **state)
{
	static const char *const names[] = { "", "a/b", "a.b.c", "0123456789012345678901234567890", "a b" };
	struct err e = { 0 };
	uint8_t *image;
	size_t size;

	for (unsigned i = 0; i < ARRAY_LEN(names); i++)
		assert_true(iso_make("x", &(struct iso_file){ names[i], "", 0 }, 1, &image, &size, &e) < 0);
	assert_true(iso_make("12345678901234567", NULL, 0, &image, &size, &e) < 0);
	assert_true(iso_make("x", &(struct iso_file){ "a", "", (1u << 30) + 1 }, 1, &image, &size, &e) < 0);
	assert_int_equal(iso_make("x", NULL, 0, &image, &size, &e), 0);
	free(image);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_files), cmocka_unit_test(test_refused) };
	const struct iso_file files[] = { { "user-data", "#cloud-config\n", 14 }, { "meta-data", "a: b\n", 5 } };
	struct err e = { 0 };
	uint8_t *image;
	size_t size;
	FILE *f;

	if (argc < 2)
		return cmocka_run_group_tests(tests, NULL, NULL);
	f = fopen(argv[1], "w");
	if (!f || iso_make("cidata", files, 2, &image, &size, &e) || fwrite(image, size, 1, f) != 1 || fclose(f))
		return 1;
	free(image);
	return 0;
}
