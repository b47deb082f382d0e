/* SPDX-License-Identifier: Apache-2.0 */
/* Option parsing: forms, values, suggestions. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>
#include "cli/cli.h"

struct seen {
	const char *text;
	int flags;
};

static int set_text(void *into, const char *value, struct err *e)
{
	((struct seen *)into)->text = value;
	return 0;
}

static int set_flag(void *into, const char *value, struct err *e)
{
	assert_null(value);
	((struct seen *)into)->flags++;
	return 0;
}

static int set_bad(void *into, const char *value, struct err *e)
{
	return err_set(e, 22, "is bad");
}

static const struct option_def defs[] = {
	{ "text", "TEXT", "", set_text },
	{ "flag", NULL, "", set_flag },
	{ "bad", "X", "", set_bad },
	{ NULL, NULL, NULL, NULL },
};

static int parse(struct seen *s, struct err *e, const char *a, const char *b, const char *c)
{
	char *argv[] = { "run", (char *)a, (char *)b, (char *)c, NULL };
	int argc = 1;

	while (argv[argc])
		argc++;
	*s = (struct seen){ 0 };
	*e = (struct err){ 0 };
	return options_parse(defs, s, argc, argv, e);
}

static void test_forms(void **state)
{
	struct seen s;
	struct err e;

	assert_int_equal(parse(&s, &e, "--text", "a=b", "--flag"), 0);
	assert_string_equal(s.text, "a=b");
	assert_int_equal(s.flags, 1);
	assert_int_equal(parse(&s, &e, "--text=a=b", NULL, NULL), 0);
	assert_string_equal(s.text, "a=b");
	assert_int_equal(parse(&s, &e, "--text=", NULL, NULL), 0);
	assert_string_equal(s.text, "");
	assert_int_equal(parse(&s, &e, "--text", "--flag", NULL), 0); /* a value may look like an option */
	assert_string_equal(s.text, "--flag");
}

static void test_refused(void **state)
{
	static const struct {
		const char *arg, *next, *text;
	} cases[] = {
		{ "--txt", NULL, "unknown option '--txt'; did you mean --text?" },
		{ "--txt=1", NULL, "did you mean --text?" },
		{ "--t", NULL, "did you mean --text?" },
		{ "--completely-other", NULL, "--help lists" },
		{ "-text", NULL, "did you mean --text?" },
		{ "-", NULL, "unknown option" },
		{ "--", NULL, "unknown option" },
		{ "--=", NULL, "unknown option" },
		{ "word", NULL, "unexpected 'word'" },
		{ "--text", NULL, "--text needs a value: --text TEXT" },
		{ "--flag=1", NULL, "--flag takes no value" },
		{ "--bad", "x", "--bad x: is bad" },
	};
	struct seen s;
	struct err e;

	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		assert_true(parse(&s, &e, cases[i].arg, cases[i].next, NULL) < 0);
		if (!strstr(e.text, cases[i].text))
			fail_msg("'%s' is not in '%s'", cases[i].text, e.text);
	}
}

static void test_sizes(void **state)
{
	static const struct {
		const char *text;
		uint64_t value; /* 0: refused */
	} cases[] = {
		{ "512", 512ull << 20 }, { "512M", 512ull << 20 }, { "512m", 512ull << 20 },
		{ "2G", 2ull << 30 }, { "2GiB", 2ull << 30 }, { "2GB", 2ull << 30 },
		{ "64k", 64ull << 10 }, { "1T", 1ull << 40 }, { "0x10M", 16ull << 20 },
		{ "", 0 }, { "M", 0 }, { "-1M", 0 }, { "+1M", 0 }, { " 1M", 0 }, { "1.5G", 0 },
		{ "1Gx", 0 }, { "1X", 0 }, { "0x", 0 }, { "99999999999999999999", 0 },
		{ "18446744073709551615G", 0 }, { "1M ", 0 },
	};

	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		uint64_t v = 0;
		struct err e = { 0 };
		int r = parse_size(cases[i].text, &v, &e);

		assert_int_equal(r == 0, cases[i].value != 0);
		if (!r)
			assert_int_equal(v, cases[i].value);
	}
}

static void test_numbers(void **state)
{
	struct err e;
	uint64_t v;

	assert_int_equal(parse_number("0xf4", 0, 0xffff, &v, &e), 0);
	assert_int_equal(v, 0xf4);
	assert_int_equal(parse_number("010", 0, 100, &v, &e), 0); /* decimal, whatever leads it */
	assert_int_equal(v, 10);
	assert_true(parse_number("65536", 0, 0xffff, &v, &e) < 0);
	assert_true(parse_number("0", 1, 4, &v, &e) < 0);
	assert_true(parse_number("", 0, 4, &v, &e) < 0);
	assert_true(parse_number("4x", 0, 4, &v, &e) < 0);
	assert_true(parse_number("-1", 0, 4, &v, &e) < 0);
	assert_true(parse_number("99999999999999999999", 0, ~0ull, &v, &e) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forms),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_numbers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
