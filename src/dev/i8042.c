/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PS/2 keyboard controller, as in the IBM PS/2 Hardware Interface Technical Reference, with a keyboard and a mouse (ps2.h).
 * Each of the two has a queue; one byte at a time waits in the output buffer, with its interrupt, the controller's own
 * answers first.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "dev/i8042.h"
#include "dev/pc-devices.h"
#include "dev/ps2.h"

#define STATUS_FULL 0x01
#define STATUS_SYSTEM 0x04
#define STATUS_COMMAND 0x08
#define STATUS_UNLOCKED 0x10
#define STATUS_MOUSE 0x20

#define CONFIG_KEYBOARD_IRQ 0x01
#define CONFIG_MOUSE_IRQ 0x02
#define CONFIG_SYSTEM 0x04
#define CONFIG_KEYBOARD_OFF 0x10
#define CONFIG_MOUSE_OFF 0x20
#define CONFIG_TRANSLATE 0x40


enum source { FROM_NOBODY, FROM_CONTROLLER, FROM_KEYBOARD, FROM_MOUSE };

struct kbc_hw {
	uint8_t output, source, config, command;
	bool last_was_command;
	struct ps2_keyboard keyboard;
	struct ps2_mouse mouse;
};

struct kbc {
	struct device device;
	struct kbc_hw hw;
	struct irq_line keyboard_irq, mouse_irq;
	const struct power_ops *power;
	pthread_mutex_t lock;
};

static void lines(struct kbc *k)
{
	uint8_t config = k->hw.config;

	irq_set(&k->keyboard_irq, (k->hw.source == FROM_KEYBOARD || k->hw.source == FROM_CONTROLLER) &&
					  config & CONFIG_KEYBOARD_IRQ);
	irq_set(&k->mouse_irq, k->hw.source == FROM_MOUSE && config & CONFIG_MOUSE_IRQ);
}

/* Fill the output buffer, if it is empty. */
static void refill(struct kbc *k)
{
	struct ps2_mouse *m = &k->hw.mouse;

	if (k->hw.source == FROM_NOBODY && !(k->hw.config & CONFIG_KEYBOARD_OFF) &&
	    ps2_keyboard_next(&k->hw.keyboard, k->hw.config & CONFIG_TRANSLATE, &k->hw.output))
		k->hw.source = FROM_KEYBOARD;
	if (k->hw.source == FROM_NOBODY && !(k->hw.config & CONFIG_MOUSE_OFF) && m->count) {
		k->hw.output = ps2_take(m->queue, &m->first, &m->count);
		k->hw.source = FROM_MOUSE;
	}
	lines(k);
}

/* The controller's own answer takes the buffer's place. */
static void answer(struct kbc *k, uint8_t v, enum source source)
{
	k->hw.output = v;
	k->hw.source = (uint8_t)source;
	lines(k);
}

/* The output port: not in reset, A20 open, and what interrupts are up. */
static uint8_t output_port(const struct kbc *k)
{
	return (uint8_t)(3 | (k->hw.source == FROM_KEYBOARD ? 0x10 : 0) | (k->hw.source == FROM_MOUSE ? 0x20 : 0));
}

static void controller_command(struct kbc *k, uint8_t v)
{
	k->hw.command = 0;
	switch (v) {
	case 0x20:
		answer(k, k->hw.config, FROM_CONTROLLER);
		break;
	case 0xa7:
	case 0xa8:
		k->hw.config = (uint8_t)((k->hw.config & ~CONFIG_MOUSE_OFF) | (v == 0xa7 ? CONFIG_MOUSE_OFF : 0));
		break;
	case 0xa9: /* the wires to mouse and keyboard are good */
	case 0xab:
		answer(k, 0, FROM_CONTROLLER);
		break;
	case 0xaa: /* self-test */
		k->hw.config |= CONFIG_SYSTEM;
		answer(k, 0x55, FROM_CONTROLLER);
		break;
	case 0xad:
	case 0xae:
		k->hw.config = (uint8_t)((k->hw.config & ~CONFIG_KEYBOARD_OFF) | (v == 0xad ? CONFIG_KEYBOARD_OFF : 0));
		break;
	case 0xc0: /* input port: not locked */
		answer(k, 0x80, FROM_CONTROLLER);
		break;
	case 0xd0:
		answer(k, output_port(k), FROM_CONTROLLER);
		break;
	case 0x60:
	case 0xd1:
	case 0xd2:
	case 0xd3:
	case 0xd4:
		k->hw.command = v; /* a byte follows */
		break;
	default:
		break;
	}
}

/* True: reset. */
static bool data_write(struct kbc *k, uint8_t v)
{
	uint8_t command = k->hw.command;

	k->hw.command = 0;
	switch (command) {
	case 0x60:
		k->hw.config = v & 0x7f;
		break;
	case 0xd1:
		return !(v & 1);
	case 0xd2:
		answer(k, v, FROM_KEYBOARD);
		break;
	case 0xd3:
		answer(k, v, FROM_MOUSE);
		break;
	case 0xd4:
		k->hw.config &= (uint8_t)~CONFIG_MOUSE_OFF;
		ps2_mouse_write(&k->hw.mouse, v);
		break;
	default:
		k->hw.config &= (uint8_t)~CONFIG_KEYBOARD_OFF;
		ps2_keyboard_write(&k->hw.keyboard, v);
		break;
	}
	return false;
}

static void machine_reset(struct kbc *k)
{
	if (k->power && k->power->reset)
		k->power->reset(k->power->opaque);
}

static uint64_t port_data_read(void *opaque, uint64_t offset, unsigned size)
{
	struct kbc *k = opaque;
	uint8_t v;

	pthread_mutex_lock(&k->lock);
	v = k->hw.output;
	if (k->hw.source == FROM_KEYBOARD)
		k->hw.keyboard.last = v;
	k->hw.source = FROM_NOBODY;
	lines(k); /* down first: the next byte is an edge of its own */
	ps2_mouse_stream(&k->hw.mouse);
	refill(k);
	pthread_mutex_unlock(&k->lock);
	return v;
}

static void port_data_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct kbc *k = opaque;
	bool reset;

	pthread_mutex_lock(&k->lock);
	k->hw.last_was_command = false;
	reset = data_write(k, (uint8_t)value);
	refill(k);
	pthread_mutex_unlock(&k->lock);
	if (reset)
		machine_reset(k);
}

static uint64_t port_status_read(void *opaque, uint64_t offset, unsigned size)
{
	struct kbc *k = opaque;
	uint8_t v;

	pthread_mutex_lock(&k->lock);
	v = (uint8_t)(STATUS_UNLOCKED | (k->hw.config & CONFIG_SYSTEM) | (k->hw.last_was_command ? STATUS_COMMAND : 0) |
		      (k->hw.source != FROM_NOBODY ? STATUS_FULL : 0) | (k->hw.source == FROM_MOUSE ? STATUS_MOUSE : 0));
	pthread_mutex_unlock(&k->lock);
	return v;
}

static void port_command_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct kbc *k = opaque;

	pthread_mutex_lock(&k->lock);
	k->hw.last_was_command = true;
	controller_command(k, (uint8_t)value);
	refill(k);
	pthread_mutex_unlock(&k->lock);
	if ((value & 0xf1) == 0xf0) /* pulse the output port's bit 0 */
		machine_reset(k);
}

static const struct io_ops data_io = { port_data_read, port_data_write, 1, 1 };
static const struct io_ops status_io = { port_status_read, port_command_write, 1, 1 };

/* ---- input */

int i8042_keys(struct device *d, const struct key_event *stroke, unsigned n)
{
	struct kbc *k = container_of(d, struct kbc, device);
	int r;

	pthread_mutex_lock(&k->lock);
	r = ps2_keyboard_keys(&k->hw.keyboard, stroke, n);
	refill(k);
	pthread_mutex_unlock(&k->lock);
	return r;
}

bool i8042_key(struct device *d, unsigned keycode, bool down)
{
	return !i8042_keys(d, &(struct key_event){ keycode, down }, 1);
}

void i8042_mouse(struct device *d, int dx, int dy, int wheel, unsigned buttons)
{
	struct kbc *k = container_of(d, struct kbc, device);

	pthread_mutex_lock(&k->lock);
	ps2_mouse_move(&k->hw.mouse, dx, dy, wheel, buttons);
	refill(k);
	pthread_mutex_unlock(&k->lock);
}

unsigned i8042_lights(struct device *d)
{
	return container_of(d, struct kbc, device)->hw.keyboard.lights;
}

/* ---- the device */

static int kbc_check(const void *opaque, struct err *e)
{
	const struct kbc_hw *hw = opaque;
	const struct ps2_keyboard *kb = &hw->keyboard;
	bool bad = hw->source > FROM_MOUSE || hw->config & 0x80 || kb->first >= PS2_QUEUE || kb->count > PS2_QUEUE ||
		   kb->set < 1 || kb->set > 2 || !ps2_mouse_possible(&hw->mouse);

	return bad ? err_set(e, EINVAL, "i8042: an impossible state") : 0;
}

static const struct state_field fields[] = {
	STATE_INT(struct kbc_hw, output), STATE_INT(struct kbc_hw, source), STATE_INT(struct kbc_hw, config),
	STATE_INT(struct kbc_hw, command), STATE_INT(struct kbc_hw, last_was_command),
	STATE_RAW(struct kbc_hw, keyboard.queue), STATE_INT(struct kbc_hw, keyboard.first),
	STATE_INT(struct kbc_hw, keyboard.count), STATE_INT(struct kbc_hw, keyboard.command),
	STATE_INT(struct kbc_hw, keyboard.set), STATE_INT(struct kbc_hw, keyboard.lights),
	STATE_INT(struct kbc_hw, keyboard.rate), STATE_INT(struct kbc_hw, keyboard.last),
	STATE_INT(struct kbc_hw, keyboard.scanning), STATE_INT(struct kbc_hw, keyboard.broken),
	STATE_RAW(struct kbc_hw, mouse.queue), STATE_INT(struct kbc_hw, mouse.first),
	STATE_INT(struct kbc_hw, mouse.count), STATE_INT(struct kbc_hw, mouse.command),
	STATE_INT(struct kbc_hw, mouse.rate), STATE_INT(struct kbc_hw, mouse.resolution),
	STATE_INT(struct kbc_hw, mouse.id), STATE_RAW(struct kbc_hw, mouse.knock),
	STATE_INT(struct kbc_hw, mouse.reporting), STATE_INT(struct kbc_hw, mouse.remote),
	STATE_INT(struct kbc_hw, mouse.wrap), STATE_INT(struct kbc_hw, mouse.scaled),
	STATE_INT(struct kbc_hw, mouse.buttons), STATE_INT(struct kbc_hw, mouse.told),
	STATE_INT(struct kbc_hw, mouse.dx), STATE_INT(struct kbc_hw, mouse.dy), STATE_INT(struct kbc_hw, mouse.wheel),
};

static const struct state_desc kbc_state = {
	.name = "i8042", .version = 1, .size = sizeof(struct kbc_hw),
	.fields = fields, .nfields = ARRAY_LEN(fields), .check = kbc_check,
};

static void kbc_reset(struct device *d, enum reset_kind kind)
{
	struct kbc *k = container_of(d, struct kbc, device);

	pthread_mutex_lock(&k->lock);
	memset(&k->hw, 0, sizeof(k->hw));
	k->hw.config = CONFIG_KEYBOARD_IRQ | CONFIG_MOUSE_IRQ | CONFIG_SYSTEM | CONFIG_TRANSLATE;
	ps2_keyboard_start(&k->hw.keyboard);
	ps2_mouse_start(&k->hw.mouse);
	lines(k);
	pthread_mutex_unlock(&k->lock);
}

static void kbc_loaded(struct device *d)
{
	struct kbc *k = container_of(d, struct kbc, device);

	pthread_mutex_lock(&k->lock);
	refill(k);
	pthread_mutex_unlock(&k->lock);
}

static void kbc_destroy(struct device *d)
{
	struct kbc *k = container_of(d, struct kbc, device);

	pthread_mutex_destroy(&k->lock);
	free(k);
}

static const struct device_ops kbc_ops = {
	.state = &kbc_state,
	.reset = kbc_reset,
	.loaded = kbc_loaded,
	.destroy = kbc_destroy,
};

struct device *i8042_create(struct device_env *env, struct irq_line keyboard, struct irq_line mouse,
			    const struct power_ops *power, struct err *e)
{
	struct kbc *k = calloc(1, sizeof(*k));

	if (!k) {
		err_set(e, ENOMEM, "no memory for the keyboard controller");
		return NULL;
	}
	k->device = (struct device){ .ops = &kbc_ops, .hw = &k->hw };
	k->keyboard_irq = keyboard;
	k->mouse_irq = mouse;
	k->power = power;
	pthread_mutex_init(&k->lock, NULL);
	kbc_reset(&k->device, RESET_COLD);
	if (ports_map(env->ports, 0x60, 1, &data_io, k, "keyboard", e) ||
	    ports_map(env->ports, 0x64, 1, &status_io, k, "keyboard", e)) {
		kbc_destroy(&k->device);
		return NULL;
	}
	return &k->device;
}
