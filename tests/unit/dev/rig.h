/* SPDX-License-Identifier: Apache-2.0 */
/* A board for one device: ports, memory, a manual clock, wires that are watched. Include after cmocka.h. */
#ifndef TEST_DEV_RIG_H
#define TEST_DEV_RIG_H

#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "dev/pc-devices.h"
#include "state/stream.h"

#define WIRES 32

struct rig {
	struct machine machine;
	struct device_env env;
	struct device *device;
	struct power_ops power;
	unsigned offs, resets, exits;
	int status;
	/* kept when the device is replaced */
	int level[WIRES];
	unsigned edges[WIRES];
};

static inline void rig_wire(void *opaque, unsigned pin, int level)
{
	struct rig *r = opaque;

	level = !!level;
	if (level && !r->level[pin])
		r->edges[pin]++;
	r->level[pin] = level;
}

static inline struct irq_line rig_line(struct rig *r, unsigned pin)
{
	return (struct irq_line){ rig_wire, r, pin };
}

static inline void rig_off(void *opaque)
{
	((struct rig *)opaque)->offs++;
}

static void rig_reset(void *opaque)
{
	((struct rig *)opaque)->resets++;
}

static void rig_exit(void *opaque, int status)
{
	((struct rig *)opaque)->exits++;
	((struct rig *)opaque)->status = status;
}

static void rig_open(struct rig *r, uint64_t ns)
{
	struct err e;

	r->machine.mem = mem_create(1 << 20, &e);
	r->machine.ports = ports_create();
	r->machine.clock = clock_create_manual();
	assert_non_null(r->machine.mem);
	assert_non_null(r->machine.ports);
	if (ns)
		clock_advance(r->machine.clock, ns);
	r->env = (struct device_env){ r->machine.mem, r->machine.ports, r->machine.clock, NULL };
	r->power = (struct power_ops){ rig_off, rig_reset, rig_exit, r };
}

static void rig_close(struct rig *r)
{
	if (r->device)
		r->device->ops->destroy(r->device);
	r->device = NULL;
	clock_destroy(r->machine.clock);
	ports_destroy(r->machine.ports);
	mem_destroy(r->machine.mem);
}

#endif
