/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Saved state: the input is either a stream as it is, or bodies of records (a length byte before each) that get headers
 * with the right checksum, so that what is behind it is reached. What is accepted must survive a round trip.
 */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include "base/err.h"
#include "state/stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct hw {
	uint8_t byte;
	uint16_t words[3];
	uint64_t big;
	bool on, flags[2];
	uint8_t fifo[8];
};

static const struct state_field fields[] = {
	STATE_INT(struct hw, byte), STATE_INTS(struct hw, words), STATE_INT(struct hw, big), STATE_INT(struct hw, on),
	STATE_INTS(struct hw, flags), STATE_RAW(struct hw, fifo),
};

static int check(const void *hw, struct err *e)
{
	const struct hw *h = hw;

	return h->byte < 200 ? 0 : err_set(e, EINVAL, "too big");
}

static const struct state_desc desc = { "d", 2, sizeof(struct hw), fields, ARRAY_LEN(fields), check };

static void line(void *opaque, const char *text)
{
	*(size_t *)opaque += strlen(text);
}

static void put(struct state_buf *b, const void *data, size_t len)
{
	memcpy(b->data + b->len, data, len);
	b->len += len;
}

/* Bodies to a stream. */
static struct state_buf frame(const uint8_t *data, size_t size)
{
	struct state_buf b = { .data = malloc(16 + size * 17), .cap = 16 + size * 17 };
	uint32_t crc;
	uint64_t len;

	put(&b, "ospstate\1\0\0\0\0\0\0\0", 16);
	while (size > 1) {
		len = MIN((size_t)data[0] + 1, size - 1);
		crc = (uint32_t)crc32(crc32(0, NULL, 0), data + 1, (unsigned)len);
		put(&b, "REC1", 4);
		put(&b, &crc, 4);
		put(&b, &len, 8);
		put(&b, data + 1, len);
		data += 1 + len;
		size -= 1 + len;
	}
	return b;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct state_buf b = { 0 }, again = { 0 };
	struct hw hw = { 0 }, second = { 0 };
	size_t chars = 0;
	struct err e;

	if (!size || size > 4096)
		return 0;
	if (data[0] & 1) {
		b.data = malloc(size);
		memcpy(b.data, data + 1, size - 1);
		b.len = b.cap = size - 1;
	} else {
		b = frame(data + 1, size - 1);
		if (data[0] & 2)
			state_end(&b, &e);
	}
	state_verify(&b, &e);
	state_dump(&b, line, &chars, &e);
	if (!state_load(&b, &desc, 0, &hw, &e)) {
		if (hw.byte >= 200 || state_save(&again, &desc, 0, &hw, &e) ||
		    state_load(&again, &desc, 0, &second, &e) || memcmp(&hw, &second, sizeof(hw)))
			abort();
	}
	state_buf_dispose(&b);
	state_buf_dispose(&again);
	return 0;
}
