/* SPDX-License-Identifier: Apache-2.0 */
/* The saved format: what comes back, and what is refused. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <zlib.h>
#include <cmocka.h>
#include "roundtrip.h"

struct toy_hw {
	uint8_t small;
	uint16_t pair[2];
	uint64_t big;
	bool on, flags[3];
	uint8_t fifo[16];
	uint32_t derived; /* not saved */
	struct {
		uint32_t count;
	} chan[2];
};

static const struct state_field toy_fields[] = {
	STATE_INT(struct toy_hw, small),
	STATE_INTS(struct toy_hw, pair),
	STATE_INT(struct toy_hw, big),
	STATE_INT(struct toy_hw, on),
	STATE_INTS(struct toy_hw, flags),
	STATE_RAW(struct toy_hw, fifo),
	STATE_INT(struct toy_hw, chan[0].count),
	STATE_INT(struct toy_hw, chan[1].count),
};

static int toy_check(const void *hw, struct err *e)
{
	const struct toy_hw *t = hw;

	return t->small < 100 ? 0 : err_set(e, EINVAL, "small is too big");
}

static const struct state_desc toy = { "toy", 2, sizeof(struct toy_hw), toy_fields, ARRAY_LEN(toy_fields),
				       toy_check };

static struct toy_hw sample(void)
{
	struct toy_hw t = { .small = 7, .pair = { 0x1234, 0xffff }, .big = 0x1122334455667788, .on = true,
			    .flags = { true, false, true }, .chan = { { 5 }, { 6 } } };

	memcpy(t.fifo, "0123456789abcdef", 16);
	return t;
}

static void test_roundtrip(void **state)
{
	struct toy_hw hw = sample();
	const struct device_ops ops = { .state = &toy };
	struct device d = { .ops = &ops, .instance = 3, .hw = &hw };

	device_roundtrip(&d);
	assert_int_equal(hw.big, 0x1122334455667788);
	assert_int_equal(hw.pair[1], 0xffff);
	assert_int_equal(hw.chan[1].count, 6);
}

static void stream(struct state_buf *b)
{
	struct toy_hw hw = sample();
	unsigned i;

	for (i = 0; i < 3; i++) {
		hw.small = (uint8_t)i;
		assert_int_equal(state_save(b, &toy, i, &hw, NULL), 0);
	}
	assert_int_equal(state_end(b, NULL), 0);
}

static void test_damage(void **state)
{
	struct state_buf b = { 0 };
	struct toy_hw hw, same;
	struct err e;
	size_t len, i;
	unsigned bit;

	stream(&b);
	assert_int_equal(state_verify(&b, &e), 0);
	memset(&hw, 0x5a, sizeof(hw));
	same = hw;
	for (len = b.len, b.len = 0; b.len < len; b.len++)
		assert_int_equal(state_verify(&b, &e), -EINVAL);
	for (i = 0; i < len; i++) {
		for (bit = 0; bit < 8; bit++) {
			b.data[i] ^= (uint8_t)(1 << bit);
			assert_int_equal(state_verify(&b, &e), -EINVAL);
			if (state_load(&b, &toy, 1, &hw, &e))
				assert_memory_equal(&hw, &same, sizeof(hw));
			else
				fail_msg("bit %u of byte %zu is not noticed", bit, i);
			b.data[i] ^= (uint8_t)(1 << bit);
		}
	}
	assert_int_equal(state_load(&b, &toy, 1, &hw, &e), 0);
	assert_int_equal(hw.small, 1);
	assert_int_equal(hw.derived, 0);
	state_buf_dispose(&b);
}

/* A record put together by hand, checksum right, so that what is behind it is reached. */
static void forge(struct state_buf *b, const void *body, uint64_t len)
{
	uint8_t head[32] = "ospstate\1\0\0\0\0\0\0\0REC1";
	uint32_t crc = (uint32_t)crc32(crc32(0, NULL, 0), body, (unsigned)len);

	memcpy(head + 20, &crc, 4);
	memcpy(head + 24, &len, 8);
	*b = (struct state_buf){ malloc(32 + len), 32 + len, 32 + len, 0 };
	memcpy(b->data, head, 32);
	memcpy(b->data + 32, body, len);
}

struct tiny_hw {
	uint16_t a;
	bool b;
};
static const struct state_field tiny_fields[] = { STATE_INT(struct tiny_hw, a), STATE_INT(struct tiny_hw, b) };
static const struct state_desc tiny = { "tiny", 2, sizeof(struct tiny_hw), tiny_fields, 2, NULL };

#define HEAD(version, n) "\4tiny\0\0\0\0" version "\0" n "\0"
#define FIELD_A "\1a\0\2\0\1\0\0\0\x34\x12"
#define FIELD_B "\1b\2\1\0\1\0\0\0\1"

static void test_forged(void **state)
{
	static const struct {
		const char *body;
		size_t len;
		int result;
		const char *text;
	} cases[] = {
#define CASE(body, result, text) { body, sizeof(body) - 1, result, text }
		CASE(HEAD("\2", "\2") FIELD_A FIELD_B, 0, NULL),
		CASE(HEAD("\2", "\2") FIELD_B FIELD_A, 0, NULL),
		CASE(HEAD("\1", "\1") FIELD_A, 0, NULL), /* older: b did not exist yet */
		CASE(HEAD("\2", "\1") FIELD_A, -EINVAL, "b is missing"),
		CASE(HEAD("\3", "\2") FIELD_A FIELD_B, -EINVAL, "newer"),
		CASE(HEAD("\2", "\2") FIELD_A FIELD_A, -EINVAL, "twice"),
		CASE(HEAD("\2", "\2") FIELD_A "\1c\0\1\0\1\0\0\0\1", -EINVAL, "c is not known"),
		CASE(HEAD("\2", "\2") FIELD_A FIELD_B "x", -EINVAL, "more than its fields"),
		CASE(HEAD("\2", "\2") FIELD_A "\1b\2\1\0\1\0\0\0\2", -EINVAL, "neither true nor false"),
		CASE(HEAD("\2", "\2") FIELD_A "\1b\0\1\0\1\0\0\0\1", -EINVAL, "elements of"),
		CASE(HEAD("\2", "\2") FIELD_B "\1a\0\2\0\2\0\0\0\1\2\3\4", -EINVAL, "2 elements of 2 bytes"),
		CASE(HEAD("\2", "\2") FIELD_B "\1a\0\3\0\1\0\0\0\1\2\3", -EINVAL, "impossible type"),
		CASE(HEAD("\2", "\2") FIELD_B "\1a\7\2\0\1\0\0\0\1\2", -EINVAL, "impossible type"),
		CASE(HEAD("\2", "\2") FIELD_B "\1a\0\2\0\xff\xff\xff\xff\1\2", -EINVAL, "ends in field a"),
		CASE(HEAD("\2", "\2") FIELD_B "\0\0\2\0\1\0\0\0\1\2", -EINVAL, "ends in a field"),
		CASE(HEAD("\2", "\2") FIELD_B "\1\n\0\2\0\1\0\0\0\1\2", -EINVAL, "ends in a field"),
		CASE("\4tiny\1\0\0\0\2\0\0\0", -ENOENT, "no tiny.0"),
		CASE("\4tiny\0\0\0", -EINVAL, "without name"),
		CASE("\xff", -EINVAL, "without name"),
		CASE("\3end\0\0\0\0x", -EINVAL, "follows its end"),
	};
	unsigned i;

	for (i = 0; i < ARRAY_LEN(cases); i++) {
		struct tiny_hw hw = { 0 };
		struct state_buf b;
		struct err e = { 0 };
		int r;

		forge(&b, cases[i].body, cases[i].len);
		r = state_load(&b, &tiny, 0, &hw, &e);
		if (r != cases[i].result || (r && !strstr(e.text, cases[i].text)))
			fail_msg("case %u gives %d, \"%s\"", i, r, e.text);
		assert_int_equal(hw.a, r ? 0 : 0x1234);
		state_buf_dispose(&b);
	}
}

static void count_lines(void *opaque, const char *text)
{
	unsigned *n = opaque;

	*n += 1;
	if (!strcmp(text, "toy.1 pair[0] = 0x1234"))
		*n += 1000;
}

static void test_stream(void **state)
{
	struct state_buf b = { 0 }, twice = { 0 };
	struct toy_hw hw = sample();
	unsigned lines = 0;
	struct err e;

	stream(&b);
	assert_int_equal(state_dump(&b, count_lines, &lines, &e), 0);
	assert_int_equal(lines, 1000 + 3 * 11);
	assert_int_equal(state_load(&b, &tiny, 0, &hw, &e), -ENOENT);
	state_buf_dispose(&b);

	hw.small = 100;
	assert_int_equal(state_save(&twice, &toy, 0, &hw, &e), 0);
	assert_int_equal(state_load(&twice, &toy, 0, &hw, &e), -EINVAL);
	assert_string_equal(e.text, "toy.0 cannot be loaded: small is too big");
	assert_int_equal(state_save(&twice, &toy, 0, &hw, &e), 0);
	assert_int_equal(state_load(&twice, &toy, 0, &hw, &e), -EINVAL);
	assert_non_null(strstr(e.text, "twice"));
	state_buf_dispose(&twice);
	assert_int_equal(state_load(&twice, &toy, 0, &hw, &e), -EINVAL); /* empty */
	assert_int_equal(state_end(&b, &e), 0);
	assert_int_equal(state_verify(&b, &e), 0);
	state_buf_dispose(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_roundtrip),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_forged),
		cmocka_unit_test(test_stream),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
