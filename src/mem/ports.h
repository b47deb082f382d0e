/* SPDX-License-Identifier: Apache-2.0 */
/* The 64 Ki I/O ports of a machine. Same rules as mem.h: changed only while vCPUs are stopped. */
#ifndef MEM_PORTS_H
#define MEM_PORTS_H

#include "mem/mem.h"

struct ports;

struct ports *ports_create(void);
void ports_destroy(struct ports *p);
int ports_map(struct ports *p, uint16_t first, unsigned count, const struct io_ops *ops, void *opaque,
	      const char *name, struct err *e);
void ports_unmap(struct ports *p, uint16_t first, const char *name);
/* size 1, 2 or 4; no device: all ones */
uint32_t ports_in(struct ports *p, uint16_t port, unsigned size);
void ports_out(struct ports *p, uint16_t port, uint32_t value, unsigned size);
/* `count` of them at one port: how many have been done, which may be none: then one by one (struct io_ops). */
unsigned ports_in_many(struct ports *p, uint16_t port, unsigned size, void *buf, unsigned count);
unsigned ports_out_many(struct ports *p, uint16_t port, unsigned size, const void *buf, unsigned count);
void ports_set_trace(struct ports *p, struct trace *t); /* before the machine runs */

#endif
