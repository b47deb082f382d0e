/* SPDX-License-Identifier: Apache-2.0 */
/*
 * I/O ports: a table from port to mapping, written only while no CPU runs. A mapping hides those made before it
 * where they overlap. An access that reaches over the end of a mapping is done byte by byte.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "base/trace.h"
#include "mem/io.h"
#include "mem/ports.h"

#define PORTS 65536u

struct port_map {
	uint16_t first;
	unsigned count;
	const struct io_ops *ops;
	void *opaque;
	const char *name;
};

struct ports {
	struct port_map *map; /* in the order they were made */
	unsigned nmaps, cap;
	struct trace *trace;
	uint16_t index[PORTS]; /* into map, plus one; 0: nothing there */
};

struct ports *ports_create(void)
{
	return calloc(1, sizeof(struct ports));
}

void ports_destroy(struct ports *p)
{
	if (!p)
		return;
	free(p->map);
	free(p);
}

void ports_set_trace(struct ports *p, struct trace *t)
{
	p->trace = t;
}

static void ports_index(struct ports *p, unsigned i)
{
	unsigned k;

	for (k = 0; k < p->map[i].count; k++)
		p->index[p->map[i].first + k] = (uint16_t)(i + 1);
}

int ports_map(struct ports *p, uint16_t first, unsigned count, const struct io_ops *ops, void *opaque,
	      const char *name, struct err *e)
{
	if (!count || count > PORTS - first)
		return err_set(e, EINVAL, "%s: %u ports from %#x on do not exist", name, count, first);
	if (p->nmaps == UINT16_MAX)
		return err_set(e, ENOSPC, "%s: too many port ranges", name);
	if (p->nmaps == p->cap) {
		unsigned cap = p->cap ? p->cap * 2 : 32;
		struct port_map *map = reallocarray(p->map, cap, sizeof(*map));

		if (!map)
			return err_set(e, ENOMEM, "no memory for ports");
		p->map = map;
		p->cap = cap;
	}
	p->map[p->nmaps++] = (struct port_map){ first, count, ops, opaque, name };
	ports_index(p, p->nmaps - 1);
	return 0;
}

void ports_unmap(struct ports *p, uint16_t first, const char *name)
{
	unsigned i;

	for (i = p->nmaps; i-- > 0;)
		if (p->map[i].first == first && !strcmp(p->map[i].name, name))
			break;
	if (i >= p->nmaps)
		return;
	p->nmaps--;
	memmove(&p->map[i], &p->map[i + 1], (p->nmaps - i) * sizeof(p->map[0]));
	memset(p->index, 0, sizeof(p->index));
	for (i = 0; i < p->nmaps; i++)
		ports_index(p, i);
}

/* The mapping all of the access lies in; *split when there is more than one answer. */
static const struct port_map *ports_find(const struct ports *p, uint16_t port, unsigned size, bool *split)
{
	unsigned i = p->index[port], k;

	*split = false;
	for (k = 1; k < size; k++)
		if (port + k >= PORTS || p->index[port + k] != i)
			*split = true;
	return i ? &p->map[i - 1] : NULL;
}

uint32_t ports_in(struct ports *p, uint16_t port, unsigned size)
{
	uint32_t value = (uint32_t)io_mask(size);
	const struct port_map *m;
	unsigned k;
	bool split;

	m = ports_find(p, port, size, &split);
	if (split) {
		for (value = 0, k = 0; k < size; k++)
			value |= (port + k < PORTS ? ports_in(p, (uint16_t)(port + k), 1) : 0xff) << (8 * k);
		return value;
	}
	if (m)
		value = (uint32_t)io_read(m->ops, m->opaque, port - m->first, size);
	if (unlikely(p->trace))
		trace_port(p->trace, m ? m->name : NULL, false, port, size, value);
	return value;
}

void ports_out(struct ports *p, uint16_t port, uint32_t value, unsigned size)
{
	const struct port_map *m;
	unsigned k;
	bool split;

	m = ports_find(p, port, size, &split);
	if (split) {
		for (k = 0; k < size; k++)
			if (port + k < PORTS)
				ports_out(p, (uint16_t)(port + k), value >> (8 * k) & 0xff, 1);
		return;
	}
	value &= (uint32_t)io_mask(size);
	if (unlikely(p->trace))
		trace_port(p->trace, m ? m->name : NULL, true, port, size, value);
	if (m)
		io_write(m->ops, m->opaque, port - m->first, value, size);
}

static const struct port_map *ports_find_many(const struct ports *p, uint16_t port, unsigned size)
{
	const struct port_map *m;
	bool split;

	if (p->trace)
		return NULL;
	m = ports_find(p, port, size, &split);
	return split || !m || size < m->ops->min || size > m->ops->max ? NULL : m;
}

unsigned ports_in_many(struct ports *p, uint16_t port, unsigned size, void *buf, unsigned count)
{
	const struct port_map *m = ports_find_many(p, port, size);

	return m && m->ops->read_many ? m->ops->read_many(m->opaque, port - m->first, size, buf, count) : 0;
}

unsigned ports_out_many(struct ports *p, uint16_t port, unsigned size, const void *buf, unsigned count)
{
	const struct port_map *m = ports_find_many(p, port, size);

	return m && m->ops->write_many ? m->ops->write_many(m->opaque, port - m->first, size, buf, count) : 0;
}
