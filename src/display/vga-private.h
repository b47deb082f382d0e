/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the VGA: registers and memory, shared by its four parts. */
#ifndef DISPLAY_VGA_PRIVATE_H
#define DISPLAY_VGA_PRIVATE_H

#include <pthread.h>
#include "display/vga.h"

#define VGA_MEMORY (16u << 20)

/* Registers of the sequencer, graphics controller, CRT controller and attribute controller, by their index. */
enum { SEQ_RESET, SEQ_CLOCKING, SEQ_MAP_MASK, SEQ_CHAR_MAP, SEQ_MEMORY_MODE, SEQ_COUNT = 8 };
enum {
	GFX_SET_RESET, GFX_ENABLE_SET, GFX_COMPARE, GFX_ROTATE, GFX_READ_MAP, GFX_MODE, GFX_MISC, GFX_DONT_CARE, GFX_BIT_MASK,
	GFX_COUNT = 16,
};
enum {
	CRTC_H_END = 1, CRTC_OVERFLOW = 7, CRTC_MAX_SCAN = 9, CRTC_CURSOR_START, CRTC_CURSOR_END, CRTC_START_HIGH, CRTC_START_LOW,
	CRTC_CURSOR_HIGH, CRTC_CURSOR_LOW, CRTC_V_SYNC_END = 0x11, CRTC_V_END, CRTC_PITCH, CRTC_MODE = 0x17, CRTC_COMPARE,
	CRTC_COUNT = 32,
};
enum { ATTR_MODE = 0x10, ATTR_OVERSCAN, ATTR_PLANES, ATTR_PANNING, ATTR_COLOUR, ATTR_COUNT };
#define SEQ_DOTS_8 1u
#define SEQ_SCREEN_OFF 0x20u
#define SEQ_ODD_EVEN_OFF 4u
#define SEQ_CHAIN4 8u
#define GFX_GRAPHICS 1u
#define GFX_READ_COMPARE 8u
#define GFX_ODD_EVEN 0x10u
#define ATTR_LINE_GRAPHICS 4u
#define ATTR_BLINK 8u
#define ATTR_P54 0x80u
#define ATTR_VIDEO_ON 0x20u /* in the index register */

/* The Bochs extension's registers */
enum {
	VBE_ID, VBE_WIDTH, VBE_HEIGHT, VBE_DEPTH, VBE_ENABLE, VBE_BANK, VBE_VIRTUAL_WIDTH, VBE_VIRTUAL_HEIGHT, VBE_X, VBE_Y,
	VBE_MEMORY, VBE_COUNT = 16,
};
#define VBE_ENABLED 1u
#define VBE_GET_LIMITS 2u
#define VBE_DAC_8 0x20u
#define VBE_LINEAR 0x40u
#define VBE_KEEP_MEMORY 0x80u
#define VBE_BANK_SIZE (64u << 10)

struct vga_hw {
	uint8_t misc, feature;
	uint8_t seq_index, seq[SEQ_COUNT];
	uint8_t gfx_index, gfx[GFX_COUNT];
	uint8_t crtc_index, crtc[CRTC_COUNT];
	uint8_t attr_index, attr_data, attr[ATTR_COUNT]; /* attr_data: the next write is data */
	uint8_t dac_mask, dac_reading, dac_index, dac_part, dac[768], dac_latch[3];
	uint8_t latch[4];
	uint16_t vbe_index, vbe[VBE_COUNT];
};

struct vga {
	struct device device;
	struct pci_function pci;
	struct vga_hw hw;
	struct device_env env;
	struct screen screen;
	pthread_mutex_t lock; /* hw; the memory is written without it through the frame buffer */
	/*
	 * Planes interleaved: byte 4n + p is byte n of plane p. Packed modes and the frame buffer see it as it
	 * lies.
	 */
	uint8_t *memory;
};

/* vga-memory.c: the window at 0xa0000 */
extern const struct io_ops vga_window_ops;

/* vga-vbe.c; lock held */
uint16_t vga_vbe_read(const struct vga *v, unsigned index);
void vga_vbe_write(struct vga *v, unsigned index, uint16_t value);
static inline bool vga_vbe_on(const struct vga *v)
{
	return v->hw.vbe[VBE_ENABLE] & VBE_ENABLED;
}
unsigned vga_vbe_pitch(const struct vga *v); /* bytes of a line */

/* vga-draw.c */
int vga_picture(void *opaque, struct surface *out);
int vga_text(void *opaque, struct screen_text *out);

#endif
