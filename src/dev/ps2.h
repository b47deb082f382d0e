/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What hangs on the wires of the PS/2 controller (i8042.c): a keyboard and a mouse, each with a queue of bytes for the host. The
 * controller holds its lock around every call.
 */
#ifndef DEV_PS2_H
#define DEV_PS2_H

#include <stdbool.h>
#include <stdint.h>

struct key_event;

#define PS2_ACK 0xfa
#define PS2_RESEND 0xfe
#define PS2_QUEUE 64u
#define MOTION_MAX 4095 /* what is added up while the guest does not listen */

struct ps2_keyboard {
	uint8_t queue[PS2_QUEUE];
	uint8_t first, count;
	uint8_t command; /* waits for its byte */
	uint8_t set, lights, rate, last;
	bool scanning, broken; /* broken: the translator has seen 0xf0 */
};

struct ps2_mouse {
	uint8_t queue[PS2_QUEUE];
	uint8_t first, count;
	uint8_t command;
	uint8_t rate, resolution, id, last;
	uint8_t knock[3]; /* the last three sample rates: 200, 100, 80 asks for the wheel */
	bool reporting, remote, wrap, scaled;
	uint8_t buttons, told; /* now, and in the last packet */
	int32_t dx, dy, wheel; /* moved and not told */
};

/* Bytes into a queue, all or none; one out of a queue that is not empty. */
static inline bool ps2_put(uint8_t *queue, uint8_t first, uint8_t *count, const uint8_t *data, unsigned n)
{
	if (n > PS2_QUEUE - *count)
		return false;
	for (unsigned i = 0; i < n; i++)
		queue[(first + *count + i) % PS2_QUEUE] = data[i];
	*count = (uint8_t)(*count + n);
	return true;
}

static inline uint8_t ps2_take(const uint8_t *queue, uint8_t *first, uint8_t *count)
{
	uint8_t v = queue[*first];

	*first = (uint8_t)((*first + 1) % PS2_QUEUE);
	(*count)--;
	return v;
}

/* As after power-on. */
void ps2_keyboard_start(struct ps2_keyboard *kb);
/* A byte from the host. */
void ps2_keyboard_write(struct ps2_keyboard *kb, uint8_t v);
/* The next byte on the wire, as it is or as the controller translates it; false: there is none, or only the prefix of one. */
bool ps2_keyboard_next(struct ps2_keyboard *kb, bool translated, uint8_t *v);
/* See i8042_keys(). */
int ps2_keyboard_keys(struct ps2_keyboard *kb, const struct key_event *stroke, unsigned n);

void ps2_mouse_start(struct ps2_mouse *m);
void ps2_mouse_write(struct ps2_mouse *m, uint8_t v);
/* A person moves it; see i8042_mouse(). */
void ps2_mouse_move(struct ps2_mouse *m, int dx, int dy, int wheel, unsigned buttons);
/* Queue packets of what has been moved, while there is room and the guest listens. */
void ps2_mouse_stream(struct ps2_mouse *m);
/* Whether a mouse can be in this state: of one that was saved. */
bool ps2_mouse_possible(const struct ps2_mouse *m);

#endif
