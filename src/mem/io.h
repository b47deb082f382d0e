/* SPDX-License-Identifier: Apache-2.0 */
/* Splitting and widening of accesses to a device's registers, shared by memory and ports. */
#ifndef MEM_IO_H
#define MEM_IO_H

#include "mem/mem.h"

/* size 1..8, any alignment; little-endian */
uint64_t io_read(const struct io_ops *ops, void *opaque, uint64_t offset, unsigned size);
void io_write(const struct io_ops *ops, void *opaque, uint64_t offset, uint64_t value, unsigned size);

/* The low `size` bytes of a value; size 1..8. */
static inline uint64_t io_mask(unsigned size)
{
	return ~0ull >> (64 - 8 * size);
}

#endif
