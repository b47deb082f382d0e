/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests of devices (include after cmocka.h): what a device saves, loaded into a scribbled copy and saved again,
 * is byte-identical; loaded into the device itself it changes nothing; cut off, it is refused without a trace. Call it
 * after reset and again after a script has brought the device into some interesting state.
 */
#ifndef TEST_STATE_ROUNDTRIP_H
#define TEST_STATE_ROUNDTRIP_H

#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "dev/device.h"
#include "state/stream.h"

static inline void roundtrip_save(struct device *d, void *hw, struct state_buf *b)
{
	struct err e;

	assert_int_equal(state_save(b, d->ops->state, d->instance, hw, &e), 0);
	assert_int_equal(state_end(b, &e), 0);
	assert_int_equal(state_verify(b, &e), 0);
}

static inline void device_roundtrip(struct device *d)
{
	const struct state_desc *desc = d->ops->state;
	struct state_buf a = { 0 }, b = { 0 }, c = { 0 };
	size_t alloc = (desc->size + 127u) & ~(size_t)63;
	uint8_t *copy = aligned_alloc(64, alloc), *before = aligned_alloc(64, alloc);
	struct err e = { 0 };
	size_t len, step;

	if (d->ops->saving)
		d->ops->saving(d);
	roundtrip_save(d, d->hw, &a);
	memset(copy, 0xa5, alloc);
	memcpy(before, copy, alloc);
	/* every length that ends in the middle; of big records a sample */
	len = a.len;
	step = len > 4096 ? len / 1024 : 1;
	for (a.len = 0; a.len + 29 < len; a.len += step) {
		assert_true(state_load(&a, desc, d->instance, copy, &e) < 0);
		assert_memory_equal(copy, before, alloc);
	}
	a.len = len;
	assert_int_equal(state_load(&a, desc, d->instance + 1, copy, &e), -ENOENT);
	e.text[0] = 0;
	if (state_load(&a, desc, d->instance, copy, &e))
		fail_msg("%s", e.text);
	roundtrip_save(d, copy, &b);
	assert_int_equal(a.len, b.len);
	assert_memory_equal(a.data, b.data, a.len);
	/* into the device itself */
	assert_int_equal(state_load(&a, desc, d->instance, d->hw, &e), 0);
	if (d->ops->loaded)
		d->ops->loaded(d);
	if (d->ops->saving)
		d->ops->saving(d);
	roundtrip_save(d, d->hw, &c);
	assert_int_equal(a.len, c.len);
	assert_memory_equal(a.data, c.data, a.len);
	state_buf_dispose(&a);
	state_buf_dispose(&b);
	state_buf_dispose(&c);
	free(copy);
	free(before);
}

#endif
