/* SPDX-License-Identifier: Apache-2.0 */
/* One row for each key: what QMP calls it, what it types with and without shift. */
#include <linux/input-event-codes.h>
#include <string.h>
#include "base/base.h"
#include "display/keys.h"

static const struct key {
	uint16_t code;
	char name[14];
	char plain, shifted; /* 0: none, or another row's already */
} keys[] = {
	{ KEY_ESC, "esc", 27, 0 }, { KEY_1, "1", '1', '!' }, { KEY_2, "2", '2', '@' }, { KEY_3, "3", '3', '#' },
	{ KEY_4, "4", '4', '$' }, { KEY_5, "5", '5', '%' }, { KEY_6, "6", '6', '^' }, { KEY_7, "7", '7', '&' },
	{ KEY_8, "8", '8', '*' }, { KEY_9, "9", '9', '(' }, { KEY_0, "0", '0', ')' }, { KEY_MINUS, "minus", '-', '_' },
	{ KEY_EQUAL, "equal", '=', '+' }, { KEY_BACKSPACE, "backspace", 127, 0 }, { KEY_TAB, "tab", '\t', 0 },
	{ KEY_Q, "q", 'q', 'Q' }, { KEY_W, "w", 'w', 'W' }, { KEY_E, "e", 'e', 'E' }, { KEY_R, "r", 'r', 'R' },
	{ KEY_T, "t", 't', 'T' }, { KEY_Y, "y", 'y', 'Y' }, { KEY_U, "u", 'u', 'U' }, { KEY_I, "i", 'i', 'I' },
	{ KEY_O, "o", 'o', 'O' }, { KEY_P, "p", 'p', 'P' }, { KEY_LEFTBRACE, "bracket_left", '[', '{' },
	{ KEY_RIGHTBRACE, "bracket_right", ']', '}' }, { KEY_ENTER, "ret", '\r', 0 }, { KEY_LEFTCTRL, "ctrl", 0, 0 },
	{ KEY_A, "a", 'a', 'A' }, { KEY_S, "s", 's', 'S' }, { KEY_D, "d", 'd', 'D' }, { KEY_F, "f", 'f', 'F' },
	{ KEY_G, "g", 'g', 'G' }, { KEY_H, "h", 'h', 'H' }, { KEY_J, "j", 'j', 'J' }, { KEY_K, "k", 'k', 'K' },
	{ KEY_L, "l", 'l', 'L' }, { KEY_SEMICOLON, "semicolon", ';', ':' }, { KEY_APOSTROPHE, "apostrophe", '\'', '"' },
	{ KEY_GRAVE, "grave_accent", '`', '~' }, { KEY_LEFTSHIFT, "shift", 0, 0 }, { KEY_BACKSLASH, "backslash", '\\', '|' },
	{ KEY_Z, "z", 'z', 'Z' }, { KEY_X, "x", 'x', 'X' }, { KEY_C, "c", 'c', 'C' }, { KEY_V, "v", 'v', 'V' },
	{ KEY_B, "b", 'b', 'B' }, { KEY_N, "n", 'n', 'N' }, { KEY_M, "m", 'm', 'M' }, { KEY_COMMA, "comma", ',', '<' },
	{ KEY_DOT, "dot", '.', '>' }, { KEY_SLASH, "slash", '/', '?' }, { KEY_RIGHTSHIFT, "shift_r", 0, 0 },
	{ KEY_LEFTALT, "alt", 0, 0 }, { KEY_SPACE, "spc", ' ', 0 }, { KEY_CAPSLOCK, "caps_lock", 0, 0 },
	{ KEY_F1, "f1", 0, 0 }, { KEY_F2, "f2", 0, 0 }, { KEY_F3, "f3", 0, 0 }, { KEY_F4, "f4", 0, 0 }, { KEY_F5, "f5", 0, 0 },
	{ KEY_F6, "f6", 0, 0 }, { KEY_F7, "f7", 0, 0 }, { KEY_F8, "f8", 0, 0 }, { KEY_F9, "f9", 0, 0 },
	{ KEY_F10, "f10", 0, 0 }, { KEY_F11, "f11", 0, 0 }, { KEY_F12, "f12", 0, 0 }, { KEY_NUMLOCK, "num_lock", 0, 0 },
	{ KEY_SCROLLLOCK, "scroll_lock", 0, 0 }, { KEY_KP7, "kp_7", 0, 0 }, { KEY_KP8, "kp_8", 0, 0 },
	{ KEY_KP9, "kp_9", 0, 0 }, { KEY_KPMINUS, "kp_subtract", 0, 0 }, { KEY_KP4, "kp_4", 0, 0 }, { KEY_KP5, "kp_5", 0, 0 },
	{ KEY_KP6, "kp_6", 0, 0 }, { KEY_KPPLUS, "kp_add", 0, 0 }, { KEY_KP1, "kp_1", 0, 0 }, { KEY_KP2, "kp_2", 0, 0 },
	{ KEY_KP3, "kp_3", 0, 0 }, { KEY_KP0, "kp_0", 0, 0 }, { KEY_KPDOT, "kp_decimal", 0, 0 },
	{ KEY_KPASTERISK, "kp_multiply", 0, 0 }, { KEY_KPSLASH, "kp_divide", 0, 0 }, { KEY_KPENTER, "kp_enter", 0, 0 },
	{ KEY_102ND, "less", 0, 0 }, { KEY_RIGHTCTRL, "ctrl_r", 0, 0 }, { KEY_RIGHTALT, "alt_r", 0, 0 },
	{ KEY_SYSRQ, "print", 0, 0 }, { KEY_SYSRQ, "sysrq", 0, 0 }, { KEY_PAUSE, "pause", 0, 0 }, { KEY_HOME, "home", 0, 0 },
	{ KEY_UP, "up", 0, 0 }, { KEY_PAGEUP, "pgup", 0, 0 }, { KEY_LEFT, "left", 0, 0 }, { KEY_RIGHT, "right", 0, 0 },
	{ KEY_END, "end", 0, 0 }, { KEY_DOWN, "down", 0, 0 }, { KEY_PAGEDOWN, "pgdn", 0, 0 }, { KEY_INSERT, "insert", 0, 0 },
	{ KEY_DELETE, "delete", 0, 0 }, { KEY_LEFTMETA, "meta_l", 0, 0 }, { KEY_RIGHTMETA, "meta_r", 0, 0 },
	{ KEY_COMPOSE, "menu", 0, 0 }, { KEY_COMPOSE, "compose", 0, 0 },
};

struct key_stroke key_of_char(uint8_t c)
{
	struct key_stroke none = { 0 };

	if (c == '\n')
		c = '\r';
	if (c == 8)
		c = 127;
	for (unsigned i = 0; i < ARRAY_LEN(keys); i++) {
		if (c && (uint8_t)keys[i].plain == c)
			return (struct key_stroke){ keys[i].code, 0 };
		if (c && (uint8_t)keys[i].shifted == c)
			return (struct key_stroke){ keys[i].code, KEYS_SHIFT };
	}
	if (c >= 32)
		return none;
	none = key_of_char(c ? c < 27 ? (uint8_t)(c + 'a' - 1) : (uint8_t)(c + '@') : ' '); /* typed with Ctrl */
	none.modifiers |= KEYS_CTRL;
	return none;
}

unsigned key_of_name(const char *name)
{
	if (name[0] && !name[1])
		return key_of_char((uint8_t)name[0]).code;
	for (unsigned i = 0; i < ARRAY_LEN(keys); i++)
		if (!strcmp(keys[i].name, name))
			return keys[i].code;
	return 0;
}

unsigned key_of_keysym(uint32_t symbol)
{
	static const struct {
		uint16_t symbol, code;
	} special[] = {
		{ 0xff08, KEY_BACKSPACE }, { 0xff09, KEY_TAB }, { 0xff0d, KEY_ENTER }, { 0xff13, KEY_PAUSE }, { 0xff14, KEY_SCROLLLOCK },
		{ 0xff1b, KEY_ESC }, { 0xff50, KEY_HOME }, { 0xff51, KEY_LEFT }, { 0xff52, KEY_UP }, { 0xff53, KEY_RIGHT },
		{ 0xff54, KEY_DOWN }, { 0xff55, KEY_PAGEUP }, { 0xff56, KEY_PAGEDOWN }, { 0xff57, KEY_END }, { 0xff61, KEY_SYSRQ },
		{ 0xff63, KEY_INSERT }, { 0xff67, KEY_COMPOSE }, { 0xff7f, KEY_NUMLOCK }, { 0xff8d, KEY_KPENTER },
		{ 0xffaa, KEY_KPASTERISK }, { 0xffab, KEY_KPPLUS }, { 0xffad, KEY_KPMINUS }, { 0xffae, KEY_KPDOT },
		{ 0xffaf, KEY_KPSLASH }, { 0xffb0, KEY_KP0 }, { 0xffb1, KEY_KP1 }, { 0xffb2, KEY_KP2 }, { 0xffb3, KEY_KP3 },
		{ 0xffb4, KEY_KP4 }, { 0xffb5, KEY_KP5 }, { 0xffb6, KEY_KP6 }, { 0xffb7, KEY_KP7 }, { 0xffb8, KEY_KP8 },
		{ 0xffb9, KEY_KP9 }, { 0xffc8, KEY_F11 }, { 0xffc9, KEY_F12 }, { 0xffe1, KEY_LEFTSHIFT }, { 0xffe2, KEY_RIGHTSHIFT },
		{ 0xffe3, KEY_LEFTCTRL }, { 0xffe4, KEY_RIGHTCTRL }, { 0xffe5, KEY_CAPSLOCK }, { 0xffe7, KEY_LEFTMETA },
		{ 0xffe8, KEY_RIGHTMETA }, { 0xffe9, KEY_LEFTALT }, { 0xffea, KEY_RIGHTALT }, { 0xffeb, KEY_LEFTMETA },
		{ 0xffec, KEY_RIGHTMETA }, { 0xfe03, KEY_RIGHTALT }, { 0xfe20, KEY_TAB }, { 0xffff, KEY_DELETE },
	};

	if (symbol >= 0x20 && symbol < 0x7f)
		return key_of_char((uint8_t)symbol).code;
	if (symbol >= 0xffbe && symbol <= 0xffc7)
		return KEY_F1 + (symbol - 0xffbe);
	for (unsigned i = 0; i < ARRAY_LEN(special); i++)
		if (special[i].symbol == symbol)
			return special[i].code;
	return 0;
}

bool key_exists(unsigned code)
{
	for (unsigned i = 0; i < ARRAY_LEN(keys); i++)
		if (keys[i].code == code)
			return true;
	return false;
}

unsigned key_of_xt(uint32_t code)
{
	static const uint16_t extended[0x80] = {
		[0x1c] = KEY_KPENTER, [0x1d] = KEY_RIGHTCTRL, [0x35] = KEY_KPSLASH, [0x37] = KEY_SYSRQ, [0x38] = KEY_RIGHTALT,
		[0x46] = KEY_PAUSE, [0x47] = KEY_HOME, [0x48] = KEY_UP, [0x49] = KEY_PAGEUP, [0x4b] = KEY_LEFT, [0x4d] = KEY_RIGHT,
		[0x4f] = KEY_END, [0x50] = KEY_DOWN, [0x51] = KEY_PAGEDOWN, [0x52] = KEY_INSERT, [0x53] = KEY_DELETE,
		[0x5b] = KEY_LEFTMETA, [0x5c] = KEY_RIGHTMETA, [0x5d] = KEY_COMPOSE,
	};

	if (code >= 0x80 && code < 0x100)
		return extended[code - 0x80];
	return code && code <= KEY_F12 ? code : 0; /* Linux counts the first 88 as the XT did */
}

/* ---- escape sequences */

static unsigned key_of_final(uint8_t c) /* ESC [ ... c, ESC O c */
{
	switch (c) {
	case 'A':
		return KEY_UP;
	case 'B':
		return KEY_DOWN;
	case 'C':
		return KEY_RIGHT;
	case 'D':
		return KEY_LEFT;
	case 'F':
		return KEY_END;
	case 'H':
		return KEY_HOME;
	case 'P':
	case 'Q':
	case 'R':
	case 'S':
		return KEY_F1 + (c - 'P');
	case 'Z':
		return KEY_TAB;
	default:
		return 0;
	}
}

static unsigned key_of_number(unsigned n) /* ESC [ n ~ */
{
	static const uint16_t code[] = {
		[1] = KEY_HOME, [2] = KEY_INSERT, [3] = KEY_DELETE, [4] = KEY_END, [5] = KEY_PAGEUP, [6] = KEY_PAGEDOWN,
		[7] = KEY_HOME, [8] = KEY_END, [11] = KEY_F1, [12] = KEY_F2, [13] = KEY_F3, [14] = KEY_F4, [15] = KEY_F5,
		[17] = KEY_F6, [18] = KEY_F7, [19] = KEY_F8, [20] = KEY_F9, [21] = KEY_F10, [23] = KEY_F11, [24] = KEY_F12,
	};

	return n < ARRAY_LEN(code) ? code[n] : 0;
}

/* xterm's: 1 + shift, 2 alt, 4 ctrl */
static uint8_t modifiers_of(unsigned n)
{
	n = n ? n - 1 : 0;
	return (uint8_t)((n & 1 ? KEYS_SHIFT : 0) | (n & 2 ? KEYS_ALT : 0) | (n & 4 ? KEYS_CTRL : 0));
}

/* After ESC [: numbers, then a letter. */
static size_t control_sequence(const uint8_t *bytes, size_t n, struct key_stroke *out)
{
	unsigned number[2] = { 0, 0 }, which = 0;

	for (size_t i = 2; i < n; i++) {
		uint8_t c = bytes[i];

		if (c >= '0' && c <= '9') {
			number[which] = MIN(number[which] * 10 + (c - '0'), 1000u);
		} else if (c == ';') {
			which = 1;
		} else if (c >= 0x40 && c < 0x7f) {
			out->code = (uint16_t)(c == '~' ? key_of_number(number[0]) : key_of_final(c));
			out->modifiers = c == 'Z' ? KEYS_SHIFT : modifiers_of(number[1]);
			return i + 1;
		}
	}
	return 0;
}

size_t key_of_terminal(const uint8_t *bytes, size_t n, bool more, struct key_stroke *out)
{
	size_t used = 0;

	*out = (struct key_stroke){ 0 };
	if (!n)
		return 0;
	if (bytes[0] == 27 && n == 1 && more)
		return 0;
	if (bytes[0] == 27 && n > 1) {
		if (bytes[1] == '[') {
			used = control_sequence(bytes, n, out);
		} else if (bytes[1] == 'O' && n > 2) {
			out->code = (uint16_t)key_of_final(bytes[2]);
			used = 3;
		} else if (bytes[1] != 'O' && bytes[1] != 27) { /* Alt with a key */
			*out = key_of_char(bytes[1]);
			out->modifiers |= KEYS_ALT;
			used = 2;
		}
		if (used || (more && n < 16 && bytes[1] != 27))
			return used;
	}
	*out = key_of_char(bytes[0]);
	return 1;
}

void key_strike(const struct keyboard *to, struct key_stroke k)
{
	static const uint16_t code[3] = { KEY_LEFTSHIFT, KEY_LEFTCTRL, KEY_LEFTALT };

	if (!k.code)
		return;
	for (unsigned i = 0; i < 3; i++)
		if (k.modifiers >> i & 1)
			to->key(to->opaque, code[i], true);
	to->key(to->opaque, k.code, true);
	to->key(to->opaque, k.code, false);
	for (unsigned i = 3; i-- > 0;)
		if (k.modifiers >> i & 1)
			to->key(to->opaque, code[i], false);
}
