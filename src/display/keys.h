/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys by other names: what a terminal sends, what QMP calls them. Codes are KEY_* of <linux/input-event-codes.h>;
 * characters are those of a US keyboard.
 */
#ifndef DISPLAY_KEYS_H
#define DISPLAY_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KEYS_SHIFT 1u
#define KEYS_CTRL 2u
#define KEYS_ALT 4u

/* Where strokes go: a keyboard. */
struct keyboard {
	void (*key)(void *opaque, unsigned code, bool down);
	void *opaque;
};

struct key_stroke {
	uint16_t code; /* 0: none */
	uint8_t modifiers;
};

/* QMP's name ("ret", "ctrl", "kp_5") or a single character ("a", "/"); 0: there is no such key. */
unsigned key_of_name(const char *name);
/* X11's name for a key or character, as VNC clients send it; the number an XT's keyboard sent, with 0x80 for 0xe0 before. 0: none */
unsigned key_of_keysym(uint32_t symbol);
unsigned key_of_xt(uint32_t code);
bool key_exists(unsigned code); /* on this keyboard */
/* The stroke that types a byte, control characters included. */
struct key_stroke key_of_char(uint8_t c);
/*
 * One stroke from the bytes a terminal sends, escape sequences included. Gives how many bytes it took; 0: not all of it is
 * there yet (with `more`: bytes may follow).
 */
size_t key_of_terminal(const uint8_t *bytes, size_t n, bool more, struct key_stroke *out);
/* Modifiers down, key down and up, modifiers up. */
void key_strike(const struct keyboard *to, struct key_stroke k);

#endif
