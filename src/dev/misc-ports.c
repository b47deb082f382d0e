/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ports of one register each: reset by 0xcf9, 0x92 and the keyboard controller's 0x64 (which otherwise answers as a
 * controller with nothing connected), the exit port, POST codes and the debug console.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "backend/chr.h"
#include "base/err.h"
#include "dev/pc-devices.h"

struct misc_hw { /* saved */
	uint8_t reset_control, a20, command, command_byte, output, output_full, post;
};

struct misc {
	struct device device;
	struct misc_hw hw;
	struct power_ops power;
	struct chr *chr;
	struct ports *ports;
	uint16_t port[4];
	unsigned nports;
	const char *name;
};

static const struct state_field fields[] = {
	STATE_INT(struct misc_hw, reset_control), STATE_INT(struct misc_hw, a20), STATE_INT(struct misc_hw, command),
	STATE_INT(struct misc_hw, command_byte), STATE_INT(struct misc_hw, output),
	STATE_INT(struct misc_hw, output_full), STATE_INT(struct misc_hw, post),
};

static void reset(struct device *d, enum reset_kind kind)
{
	struct misc *m = container_of(d, struct misc, device);

	memset(&m->hw, 0, sizeof(m->hw));
	m->hw.a20 = 2;
}

static void destroy(struct device *d)
{
	struct misc *m = container_of(d, struct misc, device);

	for (unsigned i = 0; i < m->nports; i++)
		ports_unmap(m->ports, m->port[i], m->name);
	free(m);
}

static struct misc *create(struct device_env *env, const struct device_ops *ops, const struct power_ops *power,
			   const char *name, struct err *e)
{
	struct misc *m = calloc(1, sizeof(*m));

	if (!m) {
		err_set(e, ENOMEM, "no memory for %s", name);
		return NULL;
	}
	m->device = (struct device){ .ops = ops, .hw = &m->hw };
	if (power)
		m->power = *power;
	m->ports = env->ports;
	m->name = name;
	reset(&m->device, RESET_COLD);
	return m;
}

/* On failure everything mapped so far is undone. */
static bool map_range(struct misc *m, uint16_t port, unsigned count, const struct io_ops *io, struct err *e)
{
	if (ports_map(m->ports, port, count, io, m, m->name, e)) {
		destroy(&m->device);
		return false;
	}
	m->port[m->nports++] = port;
	return true;
}

static bool map(struct misc *m, uint16_t port, const struct io_ops *io, struct err *e)
{
	return map_range(m, port, 1, io, e);
}

/* ---- reset ---- */

/*
 * All of 0xcf8..0xcfb, so that a double word for PCI's address register is not cut into bytes, one of which would be
 * the reset register's. Only a byte access names that.
 */
static uint64_t cf9_read(void *opaque, uint64_t offset, unsigned size)
{
	return offset == 1 && size == 1 ? ((struct misc *)opaque)->hw.reset_control : ~0ull;
}

static void cf9_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct misc *m = opaque;
	bool rises = (value & 4) && !(m->hw.reset_control & 4);

	if (offset != 1 || size != 1)
		return;
	m->hw.reset_control = value & 0xa;
	if (rises)
		m->power.reset(m->power.opaque);
}

static uint64_t p92_read(void *opaque, uint64_t offset, unsigned size)
{
	return ((struct misc *)opaque)->hw.a20;
}

static void p92_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct misc *m = opaque;

	m->hw.a20 = value & 2;
	if (value & 1)
		m->power.reset(m->power.opaque);
}

static uint64_t kbd_status(void *opaque, uint64_t offset, unsigned size)
{
	return 0x18u | ((struct misc *)opaque)->hw.output_full;
}

static void answer(struct misc *m, uint8_t v)
{
	m->hw.output = v;
	m->hw.output_full = 1;
}

static void kbd_command(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct misc *m = opaque;

	m->hw.command = 0;
	switch (value & 0xff) {
	case 0x20: answer(m, m->hw.command_byte); break;
	case 0xaa: answer(m, 0x55); break; /* self-test passed */
	case 0xab:
	case 0xa9: answer(m, 1); break; /* interface test: clock line stuck low, nothing is there */
	case 0xd0: answer(m, 0x03); break;
	case 0x60: case 0xd1: case 0xd2: case 0xd3: case 0xd4: m->hw.command = (uint8_t)value; break;
	default:
		if ((value & 0xf1) == 0xf0) /* pulse line 0: reset */
			m->power.reset(m->power.opaque);
		break;
	}
}

static uint64_t kbd_data(void *opaque, uint64_t offset, unsigned size)
{
	struct misc *m = opaque;

	m->hw.output_full = 0;
	return m->hw.output;
}

static void kbd_data_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct misc *m = opaque;

	if (m->hw.command == 0x60)
		m->hw.command_byte = (uint8_t)value;
	else if (m->hw.command == 0xd1 && !(value & 1))
		m->power.reset(m->power.opaque);
	else if (m->hw.command == 0xd2 || m->hw.command == 0xd3)
		answer(m, (uint8_t)value);
	m->hw.command = 0;
}

static const struct io_ops cf9_io = { cf9_read, cf9_write, 1, 4 }, p92_io = { p92_read, p92_write, 1, 1 },
			   kbd_command_io = { kbd_status, kbd_command, 1, 1 },
			   kbd_data_io = { kbd_data, kbd_data_write, 1, 1 };

static const struct state_desc reset_desc = {
	.name = "reset-ports", .version = 1, .size = sizeof(struct misc_hw), .fields = fields, .nfields = ARRAY_LEN(fields),
};
static const struct device_ops reset_ops = { .state = &reset_desc, .reset = reset, .destroy = destroy };

struct device *reset_port_create(struct device_env *env, const struct power_ops *power, struct err *e)
{
	struct misc *m = create(env, &reset_ops, power, "reset-ports", e);

	if (!m || !map_range(m, 0xcf8, 4, &cf9_io, e) || !map(m, 0x92, &p92_io, e) || !map(m, 0x64, &kbd_command_io, e) ||
	    !map(m, 0x60, &kbd_data_io, e))
		return NULL;
	return &m->device;
}

/* ---- exit port ---- */

static uint64_t exit_read(void *opaque, uint64_t offset, unsigned size)
{
	return 0;
}

static void exit_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct misc *m = opaque;

	m->power.exit(m->power.opaque, (int)(((value & 0x7f) << 1 | 1) & 0xff));
}

static const struct io_ops exit_io = { exit_read, exit_write, 1, 4 };
static const struct state_desc exit_desc = {
	.name = "exit-port", .version = 1, .size = sizeof(struct misc_hw), .fields = fields, .nfields = ARRAY_LEN(fields),
};
static const struct device_ops exit_ops = { .state = &exit_desc, .reset = reset, .destroy = destroy };

struct device *exit_port_create(struct device_env *env, uint16_t port, const struct power_ops *power, struct err *e)
{
	struct misc *m = create(env, &exit_ops, power, "exit-port", e);

	/* four ports, so that a guest may write a byte, a word or a double word */
	if (m && ports_map(m->ports, port, 4, &exit_io, m, m->name, e)) {
		destroy(&m->device);
		return NULL;
	}
	if (!m)
		return NULL;
	m->port[m->nports++] = port;
	return &m->device;
}

/* ---- POST codes, debug console ---- */

static uint64_t post_read(void *opaque, uint64_t offset, unsigned size)
{
	return ((struct misc *)opaque)->hw.post;
}

static void post_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	((struct misc *)opaque)->hw.post = (uint8_t)value;
}

static uint64_t console_read(void *opaque, uint64_t offset, unsigned size)
{
	return 0xe9; /* how a guest finds it */
}

static void console_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct misc *m = opaque;
	uint8_t v = (uint8_t)value;

	if (m->chr)
		chr_write(m->chr, &v, 1);
}

static const struct io_ops post_io = { post_read, post_write, 1, 1 }, console_io = { console_read, console_write, 1, 1 };
static const struct state_desc debug_desc = {
	.name = "debug-port", .version = 1, .size = sizeof(struct misc_hw), .fields = fields, .nfields = ARRAY_LEN(fields),
};
static const struct device_ops debug_ops = { .state = &debug_desc, .reset = reset, .destroy = destroy };

struct device *debug_port_create(struct device_env *env, struct chr *chr, struct err *e)
{
	struct misc *m = create(env, &debug_ops, NULL, "debug-port", e);

	if (!m || !map(m, 0x80, &post_io, e))
		return NULL;
	if (chr) {
		m->chr = chr;
		if (!map(m, 0xe9, &console_io, e))
			return NULL;
	}
	return &m->device;
}
