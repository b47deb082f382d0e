/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VGA's window at 0xa0000: one byte of the guest's becomes up to four bytes of the planes, by write mode, map
 * mask, bit mask and latches. In the extension's modes the window is a bank of the frame buffer.
 */
#include "display/vga-private.h"

#define WINDOW_SIZE 0x20000u

/* Where in the planes' memory the window's byte lies; false: the window is elsewhere. */
static bool window(const struct vga *v, uint64_t at, uint32_t *offset)
{
	switch (v->hw.gfx[GFX_MISC] >> 2 & 3) {
	case 0:
		*offset = (uint32_t)at;
		return true;
	case 1:
		*offset = (uint32_t)at;
		return at < 0x10000;
	case 2:
		*offset = (uint32_t)at - 0x10000;
		return at >= 0x10000 && at < 0x18000;
	default:
		*offset = (uint32_t)at - 0x18000;
		return at >= 0x18000;
	}
}

/* Of the extension's modes the one with 4 bits uses the planes. */
static bool vga_packed(const struct vga *v)
{
	return vga_vbe_on(v) && v->hw.vbe[VBE_DEPTH] != 4;
}

static bool banked(const struct vga *v, uint64_t at, uint32_t *offset)
{
	*offset = (uint32_t)v->hw.vbe[VBE_BANK] * VBE_BANK_SIZE + (uint32_t)at;
	return at < VBE_BANK_SIZE && *offset < VGA_MEMORY;
}

static uint32_t spread(unsigned planes) /* 0xff in the byte of each plane */
{
	return (planes & 1 ? 0xffu : 0) | (planes & 2 ? 0xff00u : 0) | (planes & 4 ? 0xff0000u : 0) |
	       (planes & 8 ? 0xff000000u : 0);
}

static uint32_t load4(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint8_t read_byte(struct vga *v, uint64_t at)
{
	struct vga_hw *hw = &v->hw;
	uint32_t offset, data;
	const uint8_t *p;

	if (vga_packed(v))
		return banked(v, at, &offset) ? v->memory[offset] : 0xff;
	if (!window(v, at, &offset))
		return 0xff;
	if (hw->seq[SEQ_MEMORY_MODE] & SEQ_CHAIN4)
		return v->memory[offset];
	if (hw->gfx[GFX_MODE] & GFX_ODD_EVEN)
		return v->memory[(offset & ~1u) << 1 | (hw->gfx[GFX_READ_MAP] & 2) | (offset & 1)];
	p = v->memory + offset * 4;
	for (unsigned i = 0; i < 4; i++)
		hw->latch[i] = p[i];
	if (!(hw->gfx[GFX_MODE] & GFX_READ_COMPARE))
		return hw->latch[hw->gfx[GFX_READ_MAP] & 3];
	data = (load4(p) ^ spread(hw->gfx[GFX_COMPARE])) & spread(hw->gfx[GFX_DONT_CARE]);
	data |= data >> 16;
	return (uint8_t)~(data | data >> 8);
}

static uint32_t alu(const struct vga_hw *hw, uint32_t data, uint32_t latch)
{
	switch (hw->gfx[GFX_ROTATE] >> 3 & 3) {
	case 1:
		return data & latch;
	case 2:
		return data | latch;
	case 3:
		return data ^ latch;
	default:
		return data;
	}
}

/* What the write mode makes of a byte, for all four planes. */
static uint32_t write_data(const struct vga_hw *hw, uint8_t value)
{
	unsigned rotate = hw->gfx[GFX_ROTATE] & 7;
	uint8_t turned = (uint8_t)(value >> rotate | value << (8 - rotate)), bits = hw->gfx[GFX_BIT_MASK];
	uint32_t latch = load4(hw->latch), enable, data, mask;

	switch (hw->gfx[GFX_MODE] & 3) {
	case 0:
		enable = spread(hw->gfx[GFX_ENABLE_SET]);
		data = turned * 0x01010101u;
		data = (data & ~enable) | (spread(hw->gfx[GFX_SET_RESET]) & enable);
		break;
	case 1:
		return latch;
	case 2:
		data = spread(value);
		break;
	default:
		data = spread(hw->gfx[GFX_SET_RESET]);
		bits &= turned;
		break;
	}
	mask = bits * 0x01010101u;
	return (alu(hw, data, latch) & mask) | (latch & ~mask);
}

static void write_byte(struct vga *v, uint64_t at, uint8_t value)
{
	struct vga_hw *hw = &v->hw;
	uint32_t offset, data;
	unsigned planes = hw->seq[SEQ_MAP_MASK] & 15;

	if (vga_packed(v)) {
		if (banked(v, at, &offset))
			v->memory[offset] = value;
		return;
	}
	if (!window(v, at, &offset))
		return;
	if (hw->seq[SEQ_MEMORY_MODE] & SEQ_CHAIN4) {
		if (planes >> (offset & 3) & 1)
			v->memory[offset] = value;
		return;
	}
	if (!(hw->seq[SEQ_MEMORY_MODE] & SEQ_ODD_EVEN_OFF)) {
		/* even addresses are planes 0 and 2, odd ones 1 and 3 */
		uint8_t *p = v->memory + (offset >> 1) * 4 + (offset & 1);

		if (planes >> (offset & 1) & 1)
			p[0] = value;
		if (planes >> (offset & 1) & 4)
			p[2] = value;
		return;
	}
	data = write_data(hw, value);
	for (unsigned i = 0; i < 4; i++) {
		if (planes >> i & 1)
			v->memory[offset * 4 + i] = (uint8_t)(data >> 8 * i);
	}
}

static uint64_t window_read(void *opaque, uint64_t offset, unsigned size)
{
	struct vga *v = opaque;
	uint64_t value = 0;

	pthread_mutex_lock(&v->lock);
	for (unsigned i = 0; i < size && offset + i < WINDOW_SIZE; i++)
		value |= (uint64_t)read_byte(v, offset + i) << 8 * i;
	pthread_mutex_unlock(&v->lock);
	return value;
}

static void window_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct vga *v = opaque;

	pthread_mutex_lock(&v->lock);
	for (unsigned i = 0; i < size && offset + i < WINDOW_SIZE; i++)
		write_byte(v, offset + i, (uint8_t)(value >> 8 * i));
	pthread_mutex_unlock(&v->lock);
}

const struct io_ops vga_window_ops = { .read = window_read, .write = window_write, .min = 1, .max = 8,
					.late_writes = true };
