/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small ports: the ways to reset (0xcf9, 0x92; the keyboard controller has one more), the exit port, POST code and debug
 * console. One lock each, though there is little to guard.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include "backend/chr.h"
#include "base/err.h"
#include "dev/pc-devices.h"

struct reset_hw {
	uint8_t cf9, port92;
};

struct reset_port {
	struct device device;
	struct reset_hw hw;
	const struct power_ops *power;
	pthread_mutex_t lock;
};

static void machine_reset(struct reset_port *p)
{
	if (p->power && p->power->reset)
		p->power->reset(p->power->opaque);
}

/* ---- 0xcf9, 0x92 */

/*
 * All of 0xcf8..0xcfb, so that a double word for PCI's address register is not cut into bytes, one of which would be
 * the reset register's. Only a byte access names that.
 */
static uint64_t cf9_read(void *opaque, uint64_t offset, unsigned size)
{
	return offset == 1 && size == 1 ? ((struct reset_port *)opaque)->hw.cf9 : ~0ull;
}

static void cf9_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct reset_port *p = opaque;

	if (offset != 1 || size != 1)
		return;
	p->hw.cf9 = value & 0x0a; /* kind of reset; bit 2 starts it */
	if (value & 4)
		machine_reset(p);
}

static uint64_t port92_read(void *opaque, uint64_t offset, unsigned size)
{
	return ((struct reset_port *)opaque)->hw.port92;
}

/* The A20 gate is open whatever is written: nobody needs it closed. */
static void port92_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct reset_port *p = opaque;

	p->hw.port92 = (value & 0xfe) | 2;
	if (value & 1)
		machine_reset(p);
}

static const struct io_ops cf9_io = { cf9_read, cf9_write, 1, 4 };
static const struct io_ops port92_io = { port92_read, port92_write, 1, 1 };

void reset_port_cf9(struct device *d, const struct io_ops **ops, void **opaque)
{
	*ops = &cf9_io;
	*opaque = container_of(d, struct reset_port, device);
}

static int reset_check(const void *opaque, struct err *e)
{
	const struct reset_hw *hw = opaque;

	if (hw->cf9 & ~0x0a || (hw->port92 & 3) != 2)
		return err_set(e, EINVAL, "reset-port: reserved bits set");
	return 0;
}

static const struct state_field reset_fields[] = {
	STATE_INT(struct reset_hw, cf9), STATE_INT(struct reset_hw, port92),
};

static const struct state_desc reset_state = {
	.name = "reset-port", .version = 1, .size = sizeof(struct reset_hw),
	.fields = reset_fields, .nfields = ARRAY_LEN(reset_fields), .check = reset_check,
};

static void reset_reset(struct device *d, enum reset_kind kind)
{
	struct reset_port *p = container_of(d, struct reset_port, device);

	p->hw = (struct reset_hw){ .port92 = 2 };
}

static void reset_destroy(struct device *d)
{
	struct reset_port *p = container_of(d, struct reset_port, device);

	pthread_mutex_destroy(&p->lock);
	free(p);
}

static const struct device_ops reset_ops = { .state = &reset_state, .reset = reset_reset, .destroy = reset_destroy };

struct device *reset_port_create(struct device_env *env, const struct power_ops *power, struct err *e)
{
	struct reset_port *p = calloc(1, sizeof(*p));

	if (!p) {
		err_set(e, ENOMEM, "no memory for the reset ports");
		return NULL;
	}
	p->device = (struct device){ .ops = &reset_ops, .hw = &p->hw };
	p->power = power;
	pthread_mutex_init(&p->lock, NULL);
	reset_reset(&p->device, RESET_COLD);
	if (ports_map(env->ports, 0xcf8, 4, &cf9_io, p, "reset", e) ||
	    ports_map(env->ports, 0x92, 1, &port92_io, p, "port92", e)) {
		reset_destroy(&p->device);
		return NULL;
	}
	return &p->device;
}

/* ---- the exit port */

struct exit_port {
	struct device device;
	const struct power_ops *power;
};

static uint64_t exit_read(void *opaque, uint64_t offset, unsigned size)
{
	return 0;
}

static void exit_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct exit_port *p = opaque;

	if (p->power && p->power->exit)
		p->power->exit(p->power->opaque, (int)(value << 1 | 1));
}

static const struct io_ops exit_io = { exit_read, exit_write, 1, 4 };

static void exit_destroy(struct device *d)
{
	free(container_of(d, struct exit_port, device));
}

static const struct device_ops exit_ops = { .destroy = exit_destroy };

struct device *exit_port_create(struct device_env *env, uint16_t port, const struct power_ops *power, struct err *e)
{
	struct exit_port *p = calloc(1, sizeof(*p));

	if (!p) {
		err_set(e, ENOMEM, "no memory for the exit port");
		return NULL;
	}
	p->device = (struct device){ .ops = &exit_ops };
	p->power = power;
	if (ports_map(env->ports, port, MIN(4u, 0x10000u - port), &exit_io, p, "exit", e)) {
		free(p);
		return NULL;
	}
	return &p->device;
}

/* ---- POST code, debug console */

struct debug_hw {
	uint8_t post;
};

struct debug_port {
	struct device device;
	struct debug_hw hw;
	struct chr *chr;
};

static uint64_t post_read(void *opaque, uint64_t offset, unsigned size)
{
	return ((struct debug_port *)opaque)->hw.post;
}

static void post_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	((struct debug_port *)opaque)->hw.post = (uint8_t)value;
}

/* Reading 0xe9 gives 0xe9: how programs find out whether it is there. */
static uint64_t console_read(void *opaque, uint64_t offset, unsigned size)
{
	return ((struct debug_port *)opaque)->chr ? 0xe9 : 0xff;
}

static void console_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct debug_port *p = opaque;
	uint8_t byte = (uint8_t)value;

	if (p->chr)
		chr_write(p->chr, &byte, 1);
}

static const struct io_ops post_io = { post_read, post_write, 1, 1 };
static const struct io_ops console_io = { console_read, console_write, 1, 1 };

static const struct state_field debug_fields[] = { STATE_INT(struct debug_hw, post) };

static const struct state_desc debug_state = {
	.name = "debug-port", .version = 1, .size = sizeof(struct debug_hw),
	.fields = debug_fields, .nfields = ARRAY_LEN(debug_fields),
};

static void debug_reset(struct device *d, enum reset_kind kind)
{
	container_of(d, struct debug_port, device)->hw = (struct debug_hw){ 0 };
}

static void debug_destroy(struct device *d)
{
	free(container_of(d, struct debug_port, device));
}

static const struct device_ops debug_ops = { .state = &debug_state, .reset = debug_reset, .destroy = debug_destroy };

struct device *debug_port_create(struct device_env *env, struct chr *chr, struct err *e)
{
	struct debug_port *p = calloc(1, sizeof(*p));

	if (!p) {
		err_set(e, ENOMEM, "no memory for the debug ports");
		return NULL;
	}
	p->device = (struct device){ .ops = &debug_ops, .hw = &p->hw };
	p->chr = chr;
	if (ports_map(env->ports, 0x80, 1, &post_io, p, "post", e) ||
	    ports_map(env->ports, 0xe9, 1, &console_io, p, "debug-console", e) ||
	    ports_map(env->ports, 0x402, 1, &console_io, p, "firmware-console", e)) {
		free(p);
		return NULL;
	}
	return &p->device;
}
