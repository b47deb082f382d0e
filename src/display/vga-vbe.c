/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Bochs VBE extension: a mode is a width, a height and a depth, with a linear frame buffer. Values the memory cannot
 * hold are cut down when they are written, so that drawing never looks outside of it.
 */
#include <string.h>
#include "display/vga-private.h"

#define VBE_VERSION 0xb0c5

static unsigned depth_bits(const struct vga *v)
{
	return v->hw.vbe[VBE_DEPTH] == 15 ? 16 : v->hw.vbe[VBE_DEPTH];
}

unsigned vga_vbe_pitch(const struct vga *v)
{
	return (unsigned)v->hw.vbe[VBE_VIRTUAL_WIDTH] * depth_bits(v) / 8;
}

static bool depth_known(uint16_t depth)
{
	return depth == 4 || depth == 8 || depth == 15 || depth == 16 || depth == 24 || depth == 32;
}

/* The registers that say what is shown, made to fit one another and the memory. */
static void fit(struct vga *v)
{
	uint16_t *r = v->hw.vbe;
	unsigned per_line, lines;

	if (!depth_known(r[VBE_DEPTH]))
		r[VBE_DEPTH] = 8;
	r[VBE_WIDTH] = (uint16_t)(MIN(r[VBE_WIDTH], SCREEN_MAX_WIDTH) & ~7u);
	r[VBE_WIDTH] = MAX(r[VBE_WIDTH], (uint16_t)8);
	r[VBE_VIRTUAL_WIDTH] = (uint16_t)(MIN(r[VBE_VIRTUAL_WIDTH], 8192u) & ~7u);
	r[VBE_VIRTUAL_WIDTH] = MAX(r[VBE_VIRTUAL_WIDTH], r[VBE_WIDTH]);
	per_line = vga_vbe_pitch(v);
	lines = VGA_MEMORY / per_line;
	r[VBE_HEIGHT] = (uint16_t)MIN(r[VBE_HEIGHT], MIN(lines, SCREEN_MAX_HEIGHT));
	r[VBE_HEIGHT] = MAX(r[VBE_HEIGHT], (uint16_t)1);
	r[VBE_VIRTUAL_HEIGHT] = (uint16_t)MIN(lines, 65535u);
	r[VBE_X] = (uint16_t)MIN(r[VBE_X], (unsigned)(r[VBE_VIRTUAL_WIDTH] - r[VBE_WIDTH]));
	r[VBE_Y] = (uint16_t)MIN(r[VBE_Y], (unsigned)(r[VBE_VIRTUAL_HEIGHT] - r[VBE_HEIGHT]));
}

uint16_t vga_vbe_read(const struct vga *v, unsigned index)
{
	if (v->hw.vbe[VBE_ENABLE] & VBE_GET_LIMITS) {
		switch (index) {
		case VBE_WIDTH:
			return SCREEN_MAX_WIDTH;
		case VBE_HEIGHT:
			return SCREEN_MAX_HEIGHT;
		case VBE_DEPTH:
			return 32;
		default:
			break;
		}
	}
	if (index == VBE_MEMORY)
		return VGA_MEMORY >> 16;
	return index < VBE_COUNT ? v->hw.vbe[index] : 0;
}

static void enable(struct vga *v, uint16_t value)
{
	uint16_t was = v->hw.vbe[VBE_ENABLE];

	v->hw.vbe[VBE_ENABLE] = value & (VBE_ENABLED | VBE_GET_LIMITS | VBE_DAC_8 | VBE_LINEAR | VBE_KEEP_MEMORY);
	if (!(value & VBE_ENABLED)) {
		v->hw.vbe[VBE_BANK] = 0;
		return;
	}
	if (was & VBE_ENABLED)
		return;
	v->hw.vbe[VBE_VIRTUAL_WIDTH] = v->hw.vbe[VBE_WIDTH];
	v->hw.vbe[VBE_X] = v->hw.vbe[VBE_Y] = 0;
	fit(v);
	if (!(value & VBE_KEEP_MEMORY))
		memset(v->memory, 0, (size_t)vga_vbe_pitch(v) * v->hw.vbe[VBE_HEIGHT]);
}

void vga_vbe_write(struct vga *v, unsigned index, uint16_t value)
{
	switch (index) {
	case VBE_ID:
		if (value >= 0xb0c0 && value <= VBE_VERSION)
			v->hw.vbe[VBE_ID] = value;
		break;
	case VBE_ENABLE:
		enable(v, value);
		break;
	case VBE_BANK:
		v->hw.vbe[VBE_BANK] = (uint16_t)MIN(value, VGA_MEMORY / VBE_BANK_SIZE - 1);
		break;
	case VBE_WIDTH:
	case VBE_HEIGHT:
	case VBE_DEPTH:
	case VBE_VIRTUAL_WIDTH:
	case VBE_X:
	case VBE_Y:
		v->hw.vbe[index] = value;
		if (vga_vbe_on(v))
			fit(v);
		break;
	default:
		break;
	}
}
