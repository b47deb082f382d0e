/* SPDX-License-Identifier: Apache-2.0 */
/* What VNC clients may say: good messages in pieces of any size, bad ones, noise. */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "display/vnc-filter.h"

#define HELLO "RFB 003.008\n\1\1"

static void size_now(void *opaque, unsigned *width, unsigned *height)
{
	*width = 640;
	*height = 400;
}

static struct vnc_filter filter(void)
{
	return (struct vnc_filter){ .size = size_now };
}

/* In pieces of `step`; what came out. -1: hung up. */
static ssize_t say(struct vnc_filter *f, const void *data, size_t n, size_t step, uint8_t *out)
{
	const uint8_t *in = data;
	size_t total = 0;

	while (n) {
		size_t part = step < n ? step : n, got;

		if (!vnc_filter(f, in, part, out + total, &got))
			return -1;
		total += got;
		in += part;
		n -= part;
	}
	return (ssize_t)total;
}

static void good(void **state)
{
	static const uint8_t format[20] = { 0, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0 },
			     encodings[16] = { 2, 0, 0, 3, 0, 0, 0, 0, 0xff, 0xff, 0xfe, 0xfe, 0, 0, 0, 16 },
			     request[10] = { 3, 0, 0, 10, 0, 20, 0xff, 0xff, 0xff, 0xff }, key[8] = { 4, 1, 0, 0, 0, 0, 0, 'a' },
			     pointer[6] = { 5, 1, 0, 1, 0, 2 }, cut[13] = { 6, 0, 0, 0, 0, 0, 0, 5, 'h', 'e', 'l', 'l', 'o' };
	uint8_t in[200], out[200 + 2 * VNC_FILTER_MORE];
	size_t n = 0;

	memcpy(in, HELLO, 14);
	n = 14;
#define ADD(m) memcpy(in + n, m, sizeof(m)), n += sizeof(m)
	ADD(format), ADD(encodings), ADD(cut), ADD(request), ADD(key), ADD(pointer);
	for (size_t step = 1; step <= n; step++) {
		struct vnc_filter f = filter();

		assert_int_equal(say(&f, in, n, step, out), 14 + 20 + 12 + 10 + 8 + 6);
		assert_memory_equal(out, in, 34);
		assert_memory_equal(out + 34, "\2\0\0\2\0\0\0\0\0\0\0\20", 12); /* -258 is not passed on, nor is the text */
		assert_memory_equal(out + 46, "\3\0\0\12\0\24\2\166\1\174", 10); /* cut to the screen: 630 by 380 */
		assert_memory_equal(out + 56, key, 8);
		assert_memory_equal(out + 64, pointer, 6);
	}
}

static void bad(void **state)
{
	static const struct {
		const char *bytes;
		unsigned n;
	} message[] = {
		{ "\7", 1 }, { "\372\0\0\0", 4 }, { "\2\0\1\1", 4 }, { "\6\0\0\0\377\377\377\377", 8 },
		{ "\0\0\0\0\40\30\0\1\0\377\0\377\0\377\37\10\0\0\0\0", 20 },  /* a colour outside of the pixel */
		{ "\0\0\0\0\41\30\0\1\0\377\0\377\0\377\20\10\0\0\0\0", 20 },  /* 33 bits */
		{ "\0\0\0\0\40\30\0\0\0\377\0\377\0\377\20\10\0\0\0\0", 20 },  /* a palette */
		{ "\0\0\0\0\40\30\0\1\0\0\0\377\0\377\20\10\0\0\0\0", 20 },    /* no red */
		{ "\0\0\0\0\40\30\0\1\377\377\0\377\0\377\0\10\0\0\0\0", 20 }, /* 16 bits of it */
	};
	uint8_t out[64 + VNC_FILTER_MORE];

	for (unsigned i = 0; i < sizeof(message) / sizeof(message[0]); i++) {
		struct vnc_filter f = filter();

		assert_int_equal(say(&f, HELLO, 14, 14, out), 14);
		assert_int_equal(say(&f, message[i].bytes, message[i].n, 3, out), -1);
	}
	for (unsigned i = 0; i < 13; i++) { /* any other version, or security */
		struct vnc_filter f = filter();
		uint8_t hello[14];

		memcpy(hello, HELLO, 14);
		hello[i] ^= 2;
		assert_int_equal(say(&f, hello, 14, 5, out), -1);
	}
}

/* Whatever is said, not more comes out than there is room for, and rectangles lie on the screen. */
static void noise(void **state)
{
	uint32_t seed = 1;

	for (unsigned round = 0; round < 3000; round++) {
		struct vnc_filter f = filter();
		uint8_t in[300], *out;
		size_t n, got;

		assert_true(vnc_filter(&f, (const uint8_t *)HELLO, 14, in, &got));
		for (unsigned k = 0; k < 8; k++) {
			seed = seed * 1664525 + 1013904223;
			n = 1 + (seed >> 8) % sizeof(in);
			for (size_t i = 0; i < n; i++) {
				seed = seed * 1664525 + 1013904223;
				in[i] = (uint8_t)(seed >> 24) & (seed & 0x10000 ? 7 : 255);
			}
			out = malloc(n + VNC_FILTER_MORE);
			bool on = vnc_filter(&f, in, n, out, &got);

			assert_true(got <= n + VNC_FILTER_MORE);
			free(out);
			if (!on)
				break;
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(good), cmocka_unit_test(bad), cmocka_unit_test(noise) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
