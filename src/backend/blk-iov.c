/* SPDX-License-Identifier: Apache-2.0 */
/* Copying to and from scattered buffers, and parts of them. */
#include <errno.h>
#include <string.h>
#include "backend/blk.h"

/* The pieces of [skip, skip + length), one after another. */
struct walk {
	const struct iovec *iov;
	unsigned n;
	uint64_t skip, length;
};

static bool walk_next(struct walk *w, uint8_t **at, size_t *len)
{
	while (w->n && w->length) {
		size_t have = w->iov->iov_len;

		if (w->skip >= have) {
			w->skip -= have;
			w->iov++;
			w->n--;
			continue;
		}
		*at = (uint8_t *)w->iov->iov_base + w->skip;
		*len = MIN(have - w->skip, w->length);
		w->length -= *len;
		w->skip = 0;
		w->iov++;
		w->n--;
		return true;
	}
	return false;
}

void iov_fill(const struct iovec *iov, unsigned n, uint64_t skip, uint64_t length, int byte)
{
	struct walk w = { iov, n, skip, length };
	uint8_t *at;
	size_t len;

	while (walk_next(&w, &at, &len))
		memset(at, byte, len);
}

void iov_to_buf(const struct iovec *iov, unsigned n, uint64_t skip, void *buf, uint64_t length)
{
	struct walk w = { iov, n, skip, length };
	uint8_t *at, *to = buf;
	size_t len;

	for (; walk_next(&w, &at, &len); to += len)
		memcpy(to, at, len);
}

void iov_from_buf(const struct iovec *iov, unsigned n, uint64_t skip, const void *buf, uint64_t length)
{
	struct walk w = { iov, n, skip, length };
	const uint8_t *from = buf;
	uint8_t *at;
	size_t len;

	for (; walk_next(&w, &at, &len); from += len)
		memcpy(at, from, len);
}

uint64_t iov_length(const struct iovec *iov, unsigned n)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < n; i++)
		sum += iov[i].iov_len;
	return sum;
}

int iov_slice(const struct iovec *iov, unsigned n, uint64_t skip, uint64_t length, struct iovec *out, unsigned max)
{
	struct walk w = { iov, n, skip, length };
	unsigned count = 0;
	uint8_t *at;
	size_t len;

	while (walk_next(&w, &at, &len)) {
		if (count == max)
			return -E2BIG;
		out[count++] = (struct iovec){ at, len };
	}
	return (int)count;
}
