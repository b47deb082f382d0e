/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device declares the sizes it accepts, min..max, powers of two; it sees no others. Wider accesses are split from
 * the lowest address up. A device with min > 1 has registers of that unit: it sees multiples of min only;
 * a narrower read takes its bytes out of the whole register, a narrower write is the whole register with
 * the other bytes zero (reading them first would have side effects of its own).
 */
#include "mem/io.h"

struct io_step {
	uint64_t offset; /* to use at the device */
	unsigned size;
	unsigned skip;   /* bytes of it before the ones wanted */
	unsigned bytes;  /* wanted */
};

/* The next piece of an access of `left` bytes at `offset`. */
static struct io_step io_step(const struct io_ops *ops, uint64_t offset, unsigned left)
{
	unsigned min = ops->min ? ops->min : 1, max = ops->max ? ops->max : 8, size;

	if ((offset & (min - 1)) || left < min) {
		unsigned skip = (unsigned)(offset & (min - 1));

		return (struct io_step){ offset - skip, min, skip, MIN(left, min - skip) };
	}
	for (size = max; size > left; size /= 2)
		;
	return (struct io_step){ offset, size, 0, size };
}

uint64_t io_read(const struct io_ops *ops, void *opaque, uint64_t offset, unsigned size)
{
	uint64_t value = 0, part;
	unsigned at = 0;

	while (at < size) {
		struct io_step s = io_step(ops, offset + at, size - at);

		part = ops->read(opaque, s.offset, s.size) >> (8 * s.skip);
		value |= (part & io_mask(s.bytes)) << (8 * at);
		at += s.bytes;
	}
	return value;
}

void io_write(const struct io_ops *ops, void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	unsigned at = 0;

	while (at < size) {
		struct io_step s = io_step(ops, offset + at, size - at);
		uint64_t part = (value >> (8 * at)) & io_mask(s.bytes);

		ops->write(opaque, s.offset, part << (8 * s.skip), s.size);
		at += s.bytes;
	}
}
