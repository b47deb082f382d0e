/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PS/2 keyboard: scan code sets 1 and 2 and the commands of the IBM PS/2 Hardware Interface Technical Reference. It speaks
 * set 2 after reset and the controller translates that to set 1, unless told otherwise.
 */
#include <errno.h>
#include <linux/input-event-codes.h>
#include <string.h>
#include "base/base.h"
#include "dev/device.h"
#include "dev/ps2.h"

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

static bool keyboard_put(struct ps2_keyboard *kb, const uint8_t *data, unsigned n)
{
	return ps2_put(kb->queue, kb->first, &kb->count, data, n);
}

static void keyboard_say(struct ps2_keyboard *kb, uint8_t v)
{
	keyboard_put(kb, &v, 1);
}

bool ps2_keyboard_next(struct ps2_keyboard *kb, bool translated, uint8_t *v)
{
	while (kb->count) {
		*v = ps2_take(kb->queue, &kb->first, &kb->count);
		if (!translated)
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

static void keyboard_defaults(struct ps2_keyboard *kb)
{
	kb->set = 2;
	kb->rate = 0x2b;
	kb->command = 0;
	kb->broken = false;
}

static void keyboard_argument(struct ps2_keyboard *kb, uint8_t command, uint8_t v)
{
	kb->command = 0;
	if (command == 0xf0 && v > 2) { /* set 3 is not there */
		keyboard_say(kb, PS2_RESEND);
		return;
	}
	keyboard_say(kb, PS2_ACK);
	if (command == 0xed)
		kb->lights = v & 7;
	else if (command == 0xf3)
		kb->rate = v & 0x7f;
	else if (v)
		kb->set = v;
	else
		keyboard_say(kb, kb->set);
}

static void keyboard_reset(struct ps2_keyboard *kb)
{
	keyboard_defaults(kb);
	kb->lights = 0;
	kb->scanning = true;
	kb->count = 0;
	keyboard_say(kb, PS2_ACK);
	keyboard_say(kb, 0xaa);
}

void ps2_keyboard_write(struct ps2_keyboard *kb, uint8_t v)
{
	static const uint8_t id[] = { PS2_ACK, 0xab, 0x83 };
	if (kb->command && v < 0xed) {
		keyboard_argument(kb, kb->command, v);
		return;
	}
	kb->command = 0;
	switch (v) {
	case 0xed: /* lights, scan code set, repeat rate: a byte follows */
	case 0xf0:
	case 0xf3:
		kb->command = v;
		keyboard_say(kb, PS2_ACK);
		break;
	case 0xee:
		keyboard_say(kb, 0xee);
		break;
	case 0xf2:
		keyboard_put(kb, id, sizeof(id));
		break;
	case 0xf4:
	case 0xf5:
	case 0xf6:
		if (v != 0xf4)
			keyboard_defaults(kb);
		kb->scanning = v != 0xf5;
		kb->count = 0;
		keyboard_say(kb, PS2_ACK);
		break;
	case 0xfe:
		keyboard_say(kb, kb->last);
		break;
	case 0xff:
		keyboard_reset(kb);
		break;
	default:
		keyboard_say(kb, v >= 0xf7 && v <= 0xfd ? PS2_ACK : PS2_RESEND);
		break;
	}
}

void ps2_keyboard_start(struct ps2_keyboard *kb)
{
	keyboard_defaults(kb);
	kb->scanning = true;
}

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

static unsigned key_bytes(const struct ps2_keyboard *kb, unsigned keycode, bool down, uint8_t out[8])
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

#define KEYS_ROOM (PS2_QUEUE - 8) /* room is kept for the answers to commands */

static int keys_fit(const struct ps2_keyboard *kb, const struct key_event *stroke, unsigned n)
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

int ps2_keyboard_keys(struct ps2_keyboard *kb, const struct key_event *stroke, unsigned n)
{
	int r = keys_fit(kb, stroke, n);
	uint8_t bytes[8];

	for (unsigned i = 0; !r && i < n; i++)
		keyboard_put(kb, bytes, key_bytes(kb, stroke[i].code, stroke[i].down, bytes));
	return r;
}
