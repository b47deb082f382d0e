/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A token bucket: `rate` tokens a second, `size` at most, and `extra` once more. What is to go goes when the level is above zero
 * and may take it below, so that something larger than the bucket goes too and pays afterwards. The time is the
 * caller's; no locks.
 */
#ifndef BASE_BUCKET_H
#define BASE_BUCKET_H

#include "base/base.h"

#define BUCKET_SECOND 1000000000ull

struct bucket {
	uint64_t rate; /* tokens a second; 0: no limit */
	double level, size, extra;
	uint64_t filled; /* when, ns */
};

/* burst 0: a tenth of a second's worth, at least one token. */
static inline void bucket_init(struct bucket *b, uint64_t rate, uint64_t burst, uint64_t once, uint64_t now)
{
	b->rate = rate;
	b->size = burst ? (double)burst : MAX((double)rate / 10, 1);
	b->level = b->size;
	b->extra = (double)once;
	b->filled = now;
}

/* 0: may go. Otherwise after how many ns. */
static inline uint64_t bucket_wait(struct bucket *b, uint64_t now)
{
	if (!b->rate)
		return 0;
	if (now > b->filled) {
		b->level += (double)(now - b->filled) * (double)b->rate / (double)BUCKET_SECOND;
		b->level = MIN(b->size, b->level);
		b->filled = now;
	}
	if (b->level > 0 || b->extra > 0)
		return 0;
	return (uint64_t)(-b->level * (double)BUCKET_SECOND / (double)b->rate) + 1;
}

static inline void bucket_take(struct bucket *b, double tokens)
{
	double extra = MIN(b->extra, tokens);

	if (!b->rate)
		return;
	b->extra -= extra;
	b->level -= tokens - extra;
}

#endif
