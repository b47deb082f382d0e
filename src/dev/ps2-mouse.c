/* SPDX-License-Identifier: Apache-2.0 */
/* PS/2 mouse, plain or with a wheel (which a guest asks for by the sample rates 200, 100, 80). */
#include "dev/ps2.h"

static bool mouse_put(struct ps2_mouse *m, const uint8_t *data, unsigned n)
{
	return ps2_put(m->queue, m->first, &m->count, data, n);
}

static void mouse_say(struct ps2_mouse *m, uint8_t v)
{
	mouse_put(m, &v, 1);
}

static void mouse_defaults(struct ps2_mouse *m)
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
static bool mouse_packet(struct ps2_mouse *m)
{
	int32_t dx = clamp(m->dx, -255, 255), dy = clamp(m->dy, -255, 255), wheel = clamp(m->wheel, -8, 7);
	uint8_t p[4] = { (uint8_t)(8 | m->buttons | (dx < 0 ? 0x10 : 0) | (dy > 0 ? 0x20 : 0)), (uint8_t)dx, (uint8_t)-dy,
			 (uint8_t)wheel };

	if (!mouse_put(m, p, m->id == 3 ? 4 : 3))
		return false;
	m->dx -= dx;
	m->dy -= dy;
	m->wheel = m->id == 3 ? m->wheel - wheel : 0;
	m->told = m->buttons;
	return true;
}

void ps2_mouse_stream(struct ps2_mouse *m)
{
	/* a few packets at a time: the rest is added up */
	while (m->reporting && !m->remote && m->count <= PS2_QUEUE / 2 && (m->dx || m->dy || m->wheel || m->told != m->buttons))
		if (!mouse_packet(m))
			break;
}

static void mouse_status(struct ps2_mouse *m)
{
	uint8_t p[4] = { PS2_ACK, (uint8_t)((m->remote ? 0x40 : 0) | (m->reporting ? 0x20 : 0) | (m->scaled ? 0x10 : 0) | m->buttons),
			 m->resolution, m->rate };

	mouse_put(m, p, 4);
}

static void mouse_argument(struct ps2_mouse *m, uint8_t command, uint8_t v)
{
	m->command = 0;
	mouse_say(m, PS2_ACK);
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

void ps2_mouse_write(struct ps2_mouse *m, uint8_t v)
{
	uint8_t id[] = { PS2_ACK, m->id }, reset[] = { PS2_ACK, 0xaa, 0 };

	if (m->command) {
		mouse_argument(m, m->command, v);
		return;
	}
	if (m->wrap && v != 0xff && v != 0xec) {
		mouse_say(m, v);
		return;
	}
	switch (v) {
	case 0xe6:
	case 0xe7:
		m->scaled = v == 0xe7;
		mouse_say(m, PS2_ACK);
		break;
	case 0xe8: /* resolution, sample rate: a byte follows */
	case 0xf3:
		m->command = v;
		mouse_say(m, PS2_ACK);
		break;
	case 0xe9:
		mouse_status(m);
		break;
	case 0xea:
	case 0xf0:
		m->remote = v == 0xf0;
		mouse_say(m, PS2_ACK);
		break;
	case 0xeb:
		mouse_say(m, PS2_ACK);
		mouse_packet(m);
		break;
	case 0xec:
	case 0xee:
		m->wrap = v == 0xee;
		mouse_say(m, PS2_ACK);
		break;
	case 0xf2:
		mouse_put(m, id, 2);
		break;
	case 0xf4:
	case 0xf5:
		m->reporting = v == 0xf4;
		mouse_say(m, PS2_ACK);
		break;
	case 0xf6:
		mouse_defaults(m);
		mouse_say(m, PS2_ACK);
		break;
	case 0xff:
		mouse_defaults(m);
		m->id = 0;
		m->count = 0;
		mouse_put(m, reset, 3);
		break;
	default:
		mouse_say(m, PS2_RESEND);
		break;
	}
}

void ps2_mouse_start(struct ps2_mouse *m)
{
	mouse_defaults(m);
}

static int32_t add_up(int32_t moved, int by)
{
	return clamp(moved + clamp(by, -MOTION_MAX, MOTION_MAX), -MOTION_MAX, MOTION_MAX);
}

void ps2_mouse_move(struct ps2_mouse *m, int dx, int dy, int wheel, unsigned buttons)
{
	m->dx = add_up(m->dx, dx);
	m->dy = add_up(m->dy, dy);
	m->wheel = m->id == 3 ? add_up(m->wheel, wheel) : 0;
	m->buttons = buttons & 7;
	ps2_mouse_stream(m);
}

static bool possible_motion(int32_t v)
{
	return v >= -MOTION_MAX && v <= MOTION_MAX;
}

bool ps2_mouse_possible(const struct ps2_mouse *m)
{
	return m->first < PS2_QUEUE && m->count <= PS2_QUEUE && (!m->id || m->id == 3) && m->buttons <= 7 && m->told <= 7 &&
	       possible_motion(m->dx) && possible_motion(m->dy) && possible_motion(m->wheel);
}
