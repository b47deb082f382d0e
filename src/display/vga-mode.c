/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text mode without a BIOS, for kernels that are started directly: what a VGA's BIOS leaves behind when it has set mode 3, registers
 * as in IBM's tables for it (80 x 25 characters of 9 x 16 dots). The font is taken out of the adapter's BIOS, which brings
 * one as a table of 256 characters of 16 bytes.
 */
#include <string.h>
#include "display/vga-private.h"

#define GLYPH 16u
_Static_assert(VGA_FONT_SIZE == 256 * GLYPH, "all characters");
#define FULL_BLOCK 0xdbu
#define UPPER_HALF 0xdfu
#define CELLS 0x4000u /* what the window at 0xb8000 shows of planes 0 and 1 */

static bool all(const uint8_t *p, unsigned n, uint8_t value)
{
	for (unsigned i = 0; i < n; i++)
		if (p[i] != value)
			return false;
	return true;
}

/* Four characters of code page 437 look the same in every font: two blanks, a block, half a block. */
static bool is_font(const uint8_t *p)
{
	const uint8_t *half = p + UPPER_HALF * GLYPH;

	return all(p + FULL_BLOCK * GLYPH, GLYPH, 0xff) && all(p, GLYPH, 0) && all(p + ' ' * GLYPH, GLYPH, 0) && half[0] == 0xff &&
	       half[GLYPH - 1] == 0 && !all(p + 'A' * GLYPH, GLYPH, 0);
}

const uint8_t *vga_find_font(const uint8_t *rom, uint64_t size)
{
	for (uint64_t at = 0; size >= VGA_FONT_SIZE && at <= size - VGA_FONT_SIZE; at++)
		if (is_font(rom + at))
			return rom + at;
	return NULL;
}

static void set_registers(struct vga_hw *hw)
{
	static const uint8_t seq[] = { 3, 0, 3, 0, 2 };
	static const uint8_t crtc[] = { 0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0x00,
					0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff };
	static const uint8_t gfx[] = { 0, 0, 0, 0, 0, 0x10, 0x0e, 0x0f, 0xff };
	static const uint8_t attr[] = { 0,    1,    2,	  3,	4,    5,    0x14, 7,	0x38, 0x39, 0x3a,
					0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x0c, 0,	  0x0f, 8,    0 };

	hw->misc = 0x67;
	memcpy(hw->seq, seq, sizeof(seq));
	memcpy(hw->crtc, crtc, sizeof(crtc));
	memcpy(hw->gfx, gfx, sizeof(gfx));
	memcpy(hw->attr, attr, sizeof(attr));
	hw->attr_index = ATTR_VIDEO_ON;
	hw->attr_data = 0;
	hw->vbe[VBE_ENABLE] = 0;
}

/* The EGA's 64 colours: bits 0 to 2 are two thirds of blue, green and red, bits 3 to 5 one third. */
static void set_colours(struct vga_hw *hw)
{
	hw->dac_mask = 0xff;
	for (unsigned i = 0; i < 64; i++)
		for (unsigned c = 0; c < 3; c++)
			hw->dac[i * 3 + c] = (uint8_t)((i >> (2 - c) & 1) * 42 + (i >> (5 - c) & 1) * 21);
}

void vga_text_mode(struct device *d, const uint8_t *font)
{
	struct vga *v = container_of(d, struct vga, device);

	pthread_mutex_lock(&v->lock);
	set_registers(&v->hw);
	set_colours(&v->hw);
	for (unsigned i = 0; i < CELLS; i++) {
		v->memory[i * 4] = ' ';
		v->memory[i * 4 + 1] = 7;
	}
	/* 32 bytes a character in plane 2, of which 16 show */
	for (unsigned i = 0; font && i < VGA_FONT_SIZE; i++)
		v->memory[(i / GLYPH * 32 + i % GLYPH) * 4 + 2] = font[i];
	pthread_mutex_unlock(&v->lock);
}
