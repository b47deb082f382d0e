/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PS/2 keyboard controller, as in the IBM PS/2 Hardware Interface Technical Reference: a keyboard with scan code sets 1 and 2
 * and a mouse, plain or with a wheel. Each of the two has a queue; one byte at a time waits in the output buffer, with
 * its interrupt, the controller's own answers first.
 *
 * The keyboard speaks set 2 after reset and the controller translates it to set 1, unless told otherwise.
 */
#include <errno.h>
#include <linux/input-event-codes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "dev/i8042.h"
#include "dev/pc-devices.h"

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

#define ACK 0xfa
#define RESEND 0xfe
#define QUEUE 64u
#define MOTION_MAX 4095 /* what is added up while the guest does not listen */

enum source { FROM_NOBODY, FROM_CONTROLLER, FROM_KEYBOARD, FROM_MOUSE };

struct keyboard_hw {
	uint8_t queue[QUEUE];
	uint8_t first, count;
	uint8_t command; /* waits for its byte */
	uint8_t set, lights, rate, last;
	bool scanning, broken; /* broken: the translator has seen 0xf0 */
};

struct mouse_hw {
	uint8_t queue[QUEUE];
	uint8_t first, count;
	uint8_t command;
	uint8_t rate, resolution, id, last;
	uint8_t knock[3]; /* the last three sample rates: 200, 100, 80 asks for the wheel */
	bool reporting, remote, wrap, scaled;
	uint8_t buttons, told; /* now, and in the last packet */
	int32_t dx, dy, wheel; /* moved and not told */
};

struct kbc_hw {
	uint8_t output, source, config, command;
	bool last_was_command;
	struct keyboard_hw keyboard;
	struct mouse_hw mouse;
};

struct kbc {
	struct device device;
	struct kbc_hw hw;
	struct irq_line keyboard_irq, mouse_irq;
	const struct power_ops *power;
	pthread_mutex_t lock;
};

/* From set 2 to set 1, as the controller translates. */
static const uint8_t translation[0x80] = {
	0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59, /* 00 */
	0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b, /* 10 */
	0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d, /* 20 */
	0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f, /* 30 */
	0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61, /* 40 */
	0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76, /* 50 */
	0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f, /* 60 */
	0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54, /* 70 */
};

static uint8_t translate(uint8_t v)
{
	if (v < 0x80)
		return translation[v];
	return v == 0x83 ? 0x41 : v == 0x84 ? 0x54 : v;
}

static uint8_t set2_of(uint8_t set1)
{
	if (set1 == 0x41)
		return 0x83;
	for (unsigned i = 0; i < ARRAY_LEN(translation); i++)
		if (translation[i] == set1)
			return (uint8_t)i;
	return 0;
}

/* ---- queues */

static bool put(uint8_t *queue, uint8_t first, uint8_t *count, const uint8_t *data, unsigned n)
{
	if (n > QUEUE - *count)
		return false;
	for (unsigned i = 0; i < n; i++)
		queue[(first + *count + i) % QUEUE] = data[i];
	*count = (uint8_t)(*count + n);
	return true;
}

static uint8_t take(const uint8_t *queue, uint8_t *first, uint8_t *count)
{
	uint8_t v = queue[*first];

	*first = (uint8_t)((*first + 1) % QUEUE);
	(*count)--;
	return v;
}

static bool keyboard_put(struct kbc *k, const uint8_t *data, unsigned n)
{
	return put(k->hw.keyboard.queue, k->hw.keyboard.first, &k->hw.keyboard.count, data, n);
}

static bool mouse_put(struct kbc *k, const uint8_t *data, unsigned n)
{
	return put(k->hw.mouse.queue, k->hw.mouse.first, &k->hw.mouse.count, data, n);
}

static void keyboard_say(struct kbc *k, uint8_t v)
{
	keyboard_put(k, &v, 1);
}

static void mouse_say(struct kbc *k, uint8_t v)
{
	mouse_put(k, &v, 1);
}

/* The next byte on the keyboard's wire, translated; false: there is none, or only the prefix of one. */
static bool keyboard_next(struct kbc *k, uint8_t *v)
{
	struct keyboard_hw *kb = &k->hw.keyboard;

	while (kb->count) {
		*v = take(kb->queue, &kb->first, &kb->count);
		if (!(k->hw.config & CONFIG_TRANSLATE))
			return true;
		if (*v == 0xf0) {
			kb->broken = true;
			continue;
		}
		*v = (uint8_t)(translate(*v) | (kb->broken ? 0x80 : 0));
		kb->broken = false;
		return true;
	}
	return false;
}

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
	struct mouse_hw *m = &k->hw.mouse;

	if (k->hw.source == FROM_NOBODY && !(k->hw.config & CONFIG_KEYBOARD_OFF) && keyboard_next(k, &k->hw.output))
		k->hw.source = FROM_KEYBOARD;
	if (k->hw.source == FROM_NOBODY && !(k->hw.config & CONFIG_MOUSE_OFF) && m->count) {
		k->hw.output = take(m->queue, &m->first, &m->count);
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

/* ---- keyboard */

static void keyboard_defaults(struct keyboard_hw *kb)
{
	kb->set = 2;
	kb->rate = 0x2b;
	kb->command = 0;
	kb->broken = false;
}

static void keyboard_argument(struct kbc *k, uint8_t command, uint8_t v)
{
	struct keyboard_hw *kb = &k->hw.keyboard;

	kb->command = 0;
	if (command == 0xf0 && v > 2) { /* set 3 is not there */
		keyboard_say(k, RESEND);
		return;
	}
	keyboard_say(k, ACK);
	if (command == 0xed)
		kb->lights = v & 7;
	else if (command == 0xf3)
		kb->rate = v & 0x7f;
	else if (v)
		kb->set = v;
	else
		keyboard_say(k, kb->set);
}

static void keyboard_reset(struct kbc *k)
{
	struct keyboard_hw *kb = &k->hw.keyboard;

	keyboard_defaults(kb);
	kb->lights = 0;
	kb->scanning = true;
	kb->count = 0;
	keyboard_say(k, ACK);
	keyboard_say(k, 0xaa);
}

static void keyboard_write(struct kbc *k, uint8_t v)
{
	static const uint8_t id[] = { ACK, 0xab, 0x83 };
	struct keyboard_hw *kb = &k->hw.keyboard;

	if (kb->command && v < 0xed) {
		keyboard_argument(k, kb->command, v);
		return;
	}
	kb->command = 0;
	switch (v) {
	case 0xed: /* lights, scan code set, repeat rate: a byte follows */
	case 0xf0:
	case 0xf3:
		kb->command = v;
		keyboard_say(k, ACK);
		break;
	case 0xee:
		keyboard_say(k, 0xee);
		break;
	case 0xf2:
		keyboard_put(k, id, sizeof(id));
		break;
	case 0xf4:
	case 0xf5:
	case 0xf6:
		if (v != 0xf4)
			keyboard_defaults(kb);
		kb->scanning = v != 0xf5;
		kb->count = 0;
		keyboard_say(k, ACK);
		break;
	case 0xfe:
		keyboard_say(k, kb->last);
		break;
	case 0xff:
		keyboard_reset(k);
		break;
	default:
		keyboard_say(k, v >= 0xf7 && v <= 0xfd ? ACK : RESEND);
		break;
	}
}

/* ---- mouse */

static void mouse_defaults(struct mouse_hw *m)
{
	m->rate = 100;
	m->resolution = 2;
	m->reporting = m->remote = m->wrap = m->scaled = false;
	m->dx = m->dy = m->wheel = 0;
	m->command = 0;
}

static int32_t clamp(int32_t v, int32_t least, int32_t most)
{
	return v < least ? least : v > most ? most : v;
}

/* One packet of what has been moved; false: no room. */
static bool mouse_packet(struct kbc *k)
{
	struct mouse_hw *m = &k->hw.mouse;
	int32_t dx = clamp(m->dx, -255, 255), dy = clamp(m->dy, -255, 255), wheel = clamp(m->wheel, -8, 7);
	uint8_t p[4] = { (uint8_t)(8 | m->buttons | (dx < 0 ? 0x10 : 0) | (dy > 0 ? 0x20 : 0)), (uint8_t)dx, (uint8_t)-dy,
			 (uint8_t)wheel };

	if (!mouse_put(k, p, m->id == 3 ? 4 : 3))
		return false;
	m->dx -= dx;
	m->dy -= dy;
	m->wheel = m->id == 3 ? m->wheel - wheel : 0;
	m->told = m->buttons;
	return true;
}

static void mouse_stream(struct kbc *k)
{
	struct mouse_hw *m = &k->hw.mouse;

	/* a few packets at a time: the rest is added up */
	while (m->reporting && !m->remote && m->count <= QUEUE / 2 && (m->dx || m->dy || m->wheel || m->told != m->buttons))
		if (!mouse_packet(k))
			break;
}

static void mouse_status(struct kbc *k)
{
	const struct mouse_hw *m = &k->hw.mouse;
	uint8_t p[4] = { ACK, (uint8_t)((m->remote ? 0x40 : 0) | (m->reporting ? 0x20 : 0) | (m->scaled ? 0x10 : 0) | m->buttons),
			 m->resolution, m->rate };

	mouse_put(k, p, 4);
}

static void mouse_argument(struct kbc *k, uint8_t command, uint8_t v)
{
	struct mouse_hw *m = &k->hw.mouse;

	m->command = 0;
	mouse_say(k, ACK);
	if (command == 0xe8) {
		m->resolution = v & 3;
		return;
	}
	m->rate = v;
	m->knock[0] = m->knock[1];
	m->knock[1] = m->knock[2];
	m->knock[2] = v;
	if (m->knock[0] == 200 && m->knock[1] == 100 && v == 80)
		m->id = 3;
}

static void mouse_write(struct kbc *k, uint8_t v)
{
	struct mouse_hw *m = &k->hw.mouse;
	uint8_t id[] = { ACK, m->id }, reset[] = { ACK, 0xaa, 0 };

	if (m->command) {
		mouse_argument(k, m->command, v);
		return;
	}
	if (m->wrap && v != 0xff && v != 0xec) {
		mouse_say(k, v);
		return;
	}
	switch (v) {
	case 0xe6:
	case 0xe7:
		m->scaled = v == 0xe7;
		mouse_say(k, ACK);
		break;
	case 0xe8: /* resolution, sample rate: a byte follows */
	case 0xf3:
		m->command = v;
		mouse_say(k, ACK);
		break;
	case 0xe9:
		mouse_status(k);
		break;
	case 0xea:
	case 0xf0:
		m->remote = v == 0xf0;
		mouse_say(k, ACK);
		break;
	case 0xeb:
		mouse_say(k, ACK);
		mouse_packet(k);
		break;
	case 0xec:
	case 0xee:
		m->wrap = v == 0xee;
		mouse_say(k, ACK);
		break;
	case 0xf2:
		mouse_put(k, id, 2);
		break;
	case 0xf4:
	case 0xf5:
		m->reporting = v == 0xf4;
		mouse_say(k, ACK);
		break;
	case 0xf6:
		mouse_defaults(m);
		mouse_say(k, ACK);
		break;
	case 0xff:
		mouse_defaults(m);
		m->id = 0;
		m->count = 0;
		mouse_put(k, reset, 3);
		break;
	default:
		mouse_say(k, RESEND);
		break;
	}
}

/* ---- controller */

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
		mouse_write(k, v);
		break;
	default:
		k->hw.config &= (uint8_t)~CONFIG_KEYBOARD_OFF;
		keyboard_write(k, v);
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
	mouse_stream(k);
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

/* Scan code of set 1, with 0xe000 for those with a prefix. 0: no such key. */
static unsigned scan_code(unsigned keycode)
{
	static const struct {
		uint8_t key;
		uint16_t code;
	} other[] = {
		{ KEY_KPENTER, 0xe01c }, { KEY_RIGHTCTRL, 0xe01d }, { KEY_KPSLASH, 0xe035 }, { KEY_SYSRQ, 0xe037 },
		{ KEY_RIGHTALT, 0xe038 }, { KEY_HOME, 0xe047 }, { KEY_UP, 0xe048 }, { KEY_PAGEUP, 0xe049 },
		{ KEY_LEFT, 0xe04b }, { KEY_RIGHT, 0xe04d }, { KEY_END, 0xe04f }, { KEY_DOWN, 0xe050 },
		{ KEY_PAGEDOWN, 0xe051 }, { KEY_INSERT, 0xe052 }, { KEY_DELETE, 0xe053 }, { KEY_LEFTMETA, 0xe05b },
		{ KEY_RIGHTMETA, 0xe05c }, { KEY_COMPOSE, 0xe05d }, { KEY_POWER, 0xe05e }, { KEY_SLEEP, 0xe05f },
		{ KEY_MUTE, 0xe020 }, { KEY_VOLUMEDOWN, 0xe02e }, { KEY_VOLUMEUP, 0xe030 }, { KEY_RO, 0x73 },
		{ KEY_KATAKANAHIRAGANA, 0x70 }, { KEY_HENKAN, 0x79 }, { KEY_MUHENKAN, 0x7b }, { KEY_YEN, 0x7d },
		{ KEY_KPCOMMA, 0x7e },
	};

	if (keycode >= KEY_ESC && keycode <= KEY_F12 && keycode != 84 && keycode != KEY_ZENKAKUHANKAKU)
		return keycode;
	for (unsigned i = 0; i < ARRAY_LEN(other); i++)
		if (other[i].key == keycode)
			return other[i].code;
	return 0;
}

static unsigned key_bytes(const struct keyboard_hw *kb, unsigned keycode, bool down, uint8_t out[8])
{
	static const uint8_t pause1[] = { 0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5 };
	static const uint8_t pause2[] = { 0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77 };
	unsigned code = scan_code(keycode), n = 0;

	if (keycode == KEY_PAUSE) {
		n = !down ? 0 : kb->set == 1 ? sizeof(pause1) : sizeof(pause2);
		memcpy(out, kb->set == 1 ? pause1 : pause2, n);
		return n;
	}
	if (!code)
		return 0;
	if (code >> 8)
		out[n++] = 0xe0;
	if (kb->set == 1) {
		out[n++] = (uint8_t)((code & 0x7f) | (down ? 0 : 0x80));
		return n;
	}
	if (!down)
		out[n++] = 0xf0;
	out[n++] = set2_of(code & 0x7f);
	return n;
}

#define KEYS_ROOM (QUEUE - 8) /* room is kept for the answers to commands */

/* Lock held. */
static int keys_fit(const struct keyboard_hw *kb, const struct key_event *stroke, unsigned n)
{
	unsigned total = 0;
	uint8_t bytes[8];

	for (unsigned i = 0; i < n; i++) {
		unsigned len = key_bytes(kb, stroke[i].code, stroke[i].down, bytes);

		if (!len && stroke[i].code != KEY_PAUSE) /* which says nothing when it goes up */
			return -EINVAL;
		total += len;
		if (total > KEYS_ROOM)
			return -E2BIG;
	}
	if (!kb->scanning)
		return -ENODEV;
	return kb->count + total > KEYS_ROOM ? -EAGAIN : 0;
}

int i8042_keys(struct device *d, const struct key_event *stroke, unsigned n)
{
	struct kbc *k = container_of(d, struct kbc, device);
	uint8_t bytes[8];
	int r;

	pthread_mutex_lock(&k->lock);
	r = keys_fit(&k->hw.keyboard, stroke, n);
	for (unsigned i = 0; !r && i < n; i++)
		keyboard_put(k, bytes, key_bytes(&k->hw.keyboard, stroke[i].code, stroke[i].down, bytes));
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
	struct mouse_hw *m = &k->hw.mouse;

	pthread_mutex_lock(&k->lock);
	m->dx = clamp(m->dx + clamp(dx, -MOTION_MAX, MOTION_MAX), -MOTION_MAX, MOTION_MAX);
	m->dy = clamp(m->dy + clamp(dy, -MOTION_MAX, MOTION_MAX), -MOTION_MAX, MOTION_MAX);
	m->wheel = m->id == 3 ? clamp(m->wheel + clamp(wheel, -MOTION_MAX, MOTION_MAX), -MOTION_MAX, MOTION_MAX) : 0;
	m->buttons = buttons & 7;
	mouse_stream(k);
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
	const struct mouse_hw *m = &hw->mouse;
	const struct keyboard_hw *kb = &hw->keyboard;
	bool bad = hw->source > FROM_MOUSE || hw->config & 0x80 || kb->first >= QUEUE || kb->count > QUEUE ||
		   m->first >= QUEUE || m->count > QUEUE || kb->set < 1 || kb->set > 2 || (m->id && m->id != 3) ||
		   m->buttons > 7 || m->told > 7 || abs(clamp(m->dx, -MOTION_MAX - 1, MOTION_MAX + 1)) > MOTION_MAX ||
		   abs(clamp(m->dy, -MOTION_MAX - 1, MOTION_MAX + 1)) > MOTION_MAX ||
		   abs(clamp(m->wheel, -MOTION_MAX - 1, MOTION_MAX + 1)) > MOTION_MAX;

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
	keyboard_defaults(&k->hw.keyboard);
	k->hw.keyboard.scanning = true;
	mouse_defaults(&k->hw.mouse);
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
