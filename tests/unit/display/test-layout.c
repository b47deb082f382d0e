/* SPDX-License-Identifier: Apache-2.0 */
/* Keyboard layouts: the key that types a symbol, in layouts that differ, and names that are none. */
#include <errno.h>
#include <linux/input-event-codes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include "base/base.h"
#include "base/err.h"
#include "display/layout.h"

static void test_keys(void **state)
{
	static const struct {
		const char *layout;
		uint32_t symbol;
		unsigned code;
	} want[] = {
		{ "us", 'z', KEY_Z }, { "us", '@', KEY_2 }, { "us", 0xf6, 0 }, { "us", 0xffe1, KEY_LEFTSHIFT }, { "us", 0xff0d, KEY_ENTER },
		{ "de", 'z', KEY_Y }, { "de", 'Y', KEY_Z }, { "de", 0xf6, KEY_SEMICOLON }, { "de", 0xdf, KEY_MINUS }, { "de", '@', KEY_Q },
		{ "de", '<', KEY_102ND }, { "de", 0x20ac, KEY_E }, { "de", 0xfe03, KEY_RIGHTALT }, { "de", 0xffbe, KEY_F1 },
		{ "fr", 'a', KEY_Q }, { "fr", '1', KEY_1 }, { "fr", 0xe9, KEY_2 }, { "it", 0xe8, KEY_LEFTBRACE },
		{ "ch:fr", 0xe9, KEY_SEMICOLON }, { "ru", 0x6c6, KEY_A }, { "ru", 0xff1b, KEY_ESC },
	};

	for (size_t i = 0; i < ARRAY_LEN(want); i++) {
		struct err e = { 0 };
		struct key_layout *l = key_layout_open(want[i].layout, &e);

		if (!l)
			fail_msg("%s: %s", want[i].layout, e.text);
		if (key_layout_find(l, want[i].symbol) != want[i].code)
			fail_msg("%s: symbol %#x is at %u, not %u", want[i].layout, want[i].symbol, key_layout_find(l, want[i].symbol),
				 want[i].code);
		key_layout_close(l);
	}
}

static void test_no_layouts(void **state)
{
	static const char *const bad[] = { "", "xx", "de:", ":de", "de:nowhere", "../de", "de,fr", "DE", "de(nodeadkeys)",
					   "deeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee" };

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct err e = { 0 };

		assert_null(key_layout_open(bad[i], &e));
		assert_int_equal(e.code, EINVAL);
		assert_non_null(strstr(e.text, "is no keyboard layout"));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_no_layouts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
