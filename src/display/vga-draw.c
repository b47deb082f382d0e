/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the VGA shows, from its registers and memory. The memory may change underneath; every address is masked to it. Panning by
 * single pixels and split screens are shown; double scanning is not, so that 320x200 is a picture of 320x200.
 */
#include <errno.h>
#include "display/vga-private.h"

#define PLANES_MASK (256u * 1024 - 1) /* bytes of the four planes */

struct palette {
	uint32_t rgb[256];
};

static uint32_t colour(const struct vga *v, unsigned index)
{
	const uint8_t *c = &v->hw.dac[(index & v->hw.dac_mask) * 3];

	if (v->hw.vbe[VBE_ENABLE] & VBE_DAC_8)
		return (uint32_t)c[0] << 16 | (uint32_t)c[1] << 8 | c[2];
	return (uint32_t)(c[0] << 2 | c[0] >> 4) << 16 | (uint32_t)(c[1] << 2 | c[1] >> 4) << 8 |
	       (uint32_t)(c[2] << 2 | c[2] >> 4);
}

/* A four-bit value through the attribute controller. */
static uint32_t attr_colour(const struct vga *v, unsigned value)
{
	const uint8_t *attr = v->hw.attr;
	unsigned index = attr[value & attr[ATTR_PLANES] & 15];

	if (attr[ATTR_MODE] & ATTR_P54)
		index = (index & 15) | (attr[ATTR_COLOUR] & 15u) << 4;
	else
		index = (index & 63) | (attr[ATTR_COLOUR] & 12u) << 4;
	return colour(v, index);
}

static void palette_fill(const struct vga *v, struct palette *p, bool packed)
{
	for (unsigned i = 0; i < (packed ? 256u : 16u); i++)
		p->rgb[i] = packed ? colour(v, i) : attr_colour(v, i);
}

static bool blanked(const struct vga *v)
{
	return v->hw.seq[SEQ_CLOCKING] & SEQ_SCREEN_OFF || !(v->hw.attr_index & ATTR_VIDEO_ON);
}

static unsigned lines_shown(const struct vga_hw *hw)
{
	unsigned end = hw->crtc[CRTC_V_END] | (hw->crtc[CRTC_OVERFLOW] & 2u) << 7 | (hw->crtc[CRTC_OVERFLOW] & 0x40u) << 3;

	return end + 1;
}

static unsigned line_compare(const struct vga_hw *hw)
{
	return hw->crtc[CRTC_COMPARE] | (hw->crtc[CRTC_OVERFLOW] & 0x10u) << 4 | (hw->crtc[CRTC_MAX_SCAN] & 0x40u) << 3;
}

static unsigned start_address(const struct vga_hw *hw)
{
	return hw->crtc[CRTC_START_HIGH] << 8 | hw->crtc[CRTC_START_LOW];
}

static int blank_picture(struct surface *out)
{
	if (surface_resize(out, 640, 400))
		return -ENOMEM;
	for (unsigned i = 0; i < 640 * 400; i++)
		out->pixel[i] = 0;
	return 0;
}

/* ---- text */

struct text_mode {
	unsigned columns, rows, height, dots, pitch, start;
};

static struct text_mode text_mode(const struct vga_hw *hw)
{
	struct text_mode t = {
		.columns = MIN(hw->crtc[CRTC_H_END] + 1u, SCREEN_MAX_COLUMNS),
		.height = (hw->crtc[CRTC_MAX_SCAN] & 31u) + 1,
		.dots = hw->seq[SEQ_CLOCKING] & SEQ_DOTS_8 ? 8 : 9,
		.pitch = hw->crtc[CRTC_PITCH] * 2u,
		.start = start_address(hw),
	};
	unsigned lines = lines_shown(hw) >> (hw->crtc[CRTC_MAX_SCAN] >> 7);

	t.rows = MIN(lines / t.height, SCREEN_MAX_ROWS);
	return t;
}

/* The character at (column, row): its byte in plane 0, its attribute in plane 1. */
static const uint8_t *text_cell(const struct vga *v, const struct text_mode *t, unsigned column, unsigned row)
{
	return v->memory + ((t->start + row * t->pitch + column) * 4 & PLANES_MASK);
}

static void text_colours(const struct vga *v, const struct palette *p, uint8_t attribute, struct screen_cell *out)
{
	bool blinks = v->hw.attr[ATTR_MODE] & ATTR_BLINK;

	out->ink = p->rgb[attribute & 15];
	out->paper = p->rgb[attribute >> 4 & (blinks ? 7 : 15)];
	out->blink = blinks && attribute & 0x80;
}

static void text_cursor(const struct vga_hw *hw, const struct text_mode *t, int *column, int *row)
{
	unsigned at = (unsigned)hw->crtc[CRTC_CURSOR_HIGH] << 8 | hw->crtc[CRTC_CURSOR_LOW];

	*column = *row = -1;
	if (hw->crtc[CRTC_CURSOR_START] & 0x20 || at < t->start || !t->pitch)
		return;
	at -= t->start;
	if (at / t->pitch < t->rows && at % t->pitch < t->columns) {
		*row = (int)(at / t->pitch);
		*column = (int)(at % t->pitch);
	}
}

static bool is_text(const struct vga *v)
{
	return !vga_vbe_on(v) && !(v->hw.gfx[GFX_MISC] & GFX_GRAPHICS);
}

int vga_text(void *opaque, struct screen_text *out)
{
	struct vga *v = opaque;
	struct text_mode t;
	struct palette p;
	int r = 1;

	pthread_mutex_lock(&v->lock);
	t = text_mode(&v->hw);
	if (is_text(v))
		r = screen_text_resize(out, t.columns, t.rows);
	if (!r) {
		palette_fill(v, &p, false);
		text_cursor(&v->hw, &t, &out->cursor_column, &out->cursor_row);
		for (unsigned i = 0; i < t.columns * t.rows; i++) {
			const uint8_t *at = text_cell(v, &t, i % t.columns, i / t.columns);

			out->cell[i].code = blanked(v) ? ' ' : at[0];
			text_colours(v, &p, at[1], &out->cell[i]);
		}
	}
	pthread_mutex_unlock(&v->lock);
	return r;
}

/* Where a character's eight-by-32 bitmap begins in plane 2: the attribute's bit 3 chooses between two sets. */
static unsigned font_base(const struct vga_hw *hw, uint8_t attribute)
{
	unsigned map = hw->seq[SEQ_CHAR_MAP], b = (map & 3) | (map >> 2 & 4), a = (map >> 2 & 3) | (map >> 3 & 4);
	unsigned set = attribute & 8 ? a : b;

	return ((set & 3) * 2 + (set >> 2)) * 0x2000;
}

static void draw_cell(const struct vga *v, const struct text_mode *t, const struct palette *p, const uint8_t *at, bool cursor,
		      uint32_t *out, unsigned pitch)
{
	const struct vga_hw *hw = &v->hw;
	unsigned base = font_base(hw, at[1]) + at[0] * 32u, first = hw->crtc[CRTC_CURSOR_START] & 31u,
		 last = hw->crtc[CRTC_CURSOR_END] & 31u;
	bool widen = hw->attr[ATTR_MODE] & ATTR_LINE_GRAPHICS && at[0] >= 0xc0 && at[0] <= 0xdf;
	struct screen_cell c;

	text_colours(v, p, at[1], &c);
	for (unsigned y = 0; y < t->height; y++, out += pitch) {
		unsigned bits = v->memory[((base + y) * 4 & PLANES_MASK) + 2] << 1;

		if (widen)
			bits |= bits >> 1 & 1;
		if (cursor && y >= first && y <= last)
			bits = 0x1ff;
		for (unsigned x = 0; x < t->dots; x++)
			out[x] = bits >> (8 - x) & 1 ? c.ink : c.paper;
	}
}

static int draw_text(const struct vga *v, struct surface *out)
{
	struct text_mode t = text_mode(&v->hw);
	struct palette p;
	int column, row;

	if (surface_resize(out, t.columns * t.dots, t.rows * t.height))
		return -ENOMEM;
	palette_fill(v, &p, false);
	text_cursor(&v->hw, &t, &column, &row);
	for (unsigned i = 0; i < t.columns * t.rows; i++) {
		unsigned x = i % t.columns, y = i / t.columns;

		draw_cell(v, &t, &p, text_cell(v, &t, x, y), (int)x == column && (int)y == row,
			  out->pixel + (size_t)y * t.height * out->width + x * t.dots, out->width);
	}
	return 0;
}

/* ---- graphics */

/* One line from the planes at `at` (in bytes of a plane): 16 colours, or 4 as the CGA packs them. */
static void draw_planar(const struct vga *v, const struct palette *p, unsigned at, unsigned skip, uint32_t *out, unsigned width)
{
	/* the extension's planes are longer */
	unsigned mask = vga_vbe_on(v) ? 2 * PLANES_MASK + 1 : PLANES_MASK;
	bool cga = v->hw.gfx[GFX_MODE] & 0x20;

	for (unsigned x = 0; x < width; x++) {
		unsigned dot = x + skip;
		const uint8_t *b = v->memory + ((at + dot / 8) * 4 & mask);
		unsigned bit = 7 - dot % 8, value;

		if (cga) /* two bits a dot: even pairs in plane 0, odd ones in plane 1, as if doubled */
			value = b[dot / 4 & 1] >> (6 - dot % 4 * 2) & 3;
		else
			value = (b[0] >> bit & 1) | (b[1] >> bit & 1) << 1 | (b[2] >> bit & 1) << 2 | (b[3] >> bit & 1u) << 3;
		out[x] = p->rgb[value];
	}
}

static void draw_packed(const struct vga *v, const struct palette *p, unsigned at, unsigned skip, uint32_t *out, unsigned width)
{
	for (unsigned x = 0; x < width; x++)
		out[x] = p->rgb[v->memory[(at * 4 + x + skip) & PLANES_MASK]];
}

/* Scan line `line` of the memory, after CGA's and Hercules' interleaving by the mode register. */
static unsigned line_address(const struct vga_hw *hw, unsigned start, unsigned row, unsigned sub)
{
	unsigned at = start + row * hw->crtc[CRTC_PITCH] * 2u;

	if (!(hw->crtc[CRTC_MODE] & 1) && sub & 1)
		at |= 0x2000;
	if (!(hw->crtc[CRTC_MODE] & 2) && sub & 2)
		at |= 0x4000;
	return at;
}

static int draw_graphics(const struct vga *v, struct surface *out)
{
	const struct vga_hw *hw = &v->hw;
	bool packed = hw->gfx[GFX_MODE] & 0x40, cga = hw->gfx[GFX_MODE] & 0x20, twice = hw->crtc[CRTC_MAX_SCAN] & 0x80;
	unsigned repeat = (hw->crtc[CRTC_MAX_SCAN] & 31u) + 1, lines = MIN(lines_shown(hw), SCREEN_MAX_HEIGHT);
	unsigned step = packed || cga ? 2 : 1, width = (hw->crtc[CRTC_H_END] + 1u) * 8 / step;
	unsigned each = twice ? 2 : 1, compare = line_compare(hw), skip = hw->attr[ATTR_PANNING] & 7u;
	unsigned height, start = start_address(hw), first = 0;
	struct palette p;

	/* lines shown several times over count once, unless each of them is another line of the memory */
	if (hw->crtc[CRTC_MODE] & 1)
		each *= repeat;
	height = MAX(lines / each, 1u);
	if (surface_resize(out, width, height))
		return -ENOMEM;
	palette_fill(v, &p, packed);
	for (unsigned y = 0; y < height; y++) {
		unsigned row, sub, at;

		if (y * each > compare && !first && compare + 1 < lines) { /* below the split: from the memory's start */
			first = y;
			start = 0;
		}
		row = y - first;
		sub = hw->crtc[CRTC_MODE] & 1 ? 0 : row % repeat;
		row = hw->crtc[CRTC_MODE] & 1 ? row : row / repeat;
		at = line_address(hw, start, row, sub);
		if (packed)
			draw_packed(v, &p, at, skip / 2, out->pixel + (size_t)y * width, width);
		else
			draw_planar(v, &p, at, skip, out->pixel + (size_t)y * width, width);
	}
	return 0;
}

/* ---- the extension's modes */

static uint32_t vbe_pixel(const uint8_t *p, unsigned depth, const struct palette *colours)
{
	unsigned w;

	switch (depth) {
	case 8:
		return colours->rgb[p[0]];
	case 15:
		w = p[0] | p[1] << 8;
		return (w & 0x7c00) << 9 | (w & 0x3e0) << 6 | (w & 0x1f) << 3;
	case 16:
		w = p[0] | p[1] << 8;
		return (w & 0xf800u) << 8 | (w & 0x7e0) << 5 | (w & 0x1f) << 3;
	default:
		return (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
	}
}

static int draw_vbe(const struct vga *v, struct surface *out)
{
	const uint16_t *r = v->hw.vbe;
	unsigned depth = r[VBE_DEPTH], bytes = (depth + 7) / 8, pitch = vga_vbe_pitch(v);
	struct palette p;

	if (surface_resize(out, r[VBE_WIDTH], r[VBE_HEIGHT]))
		return -ENOMEM;
	palette_fill(v, &p, depth == 8);
	for (unsigned y = 0; y < out->height; y++) {
		const uint8_t *line = v->memory + (size_t)(y + r[VBE_Y]) * pitch;
		uint32_t *to = out->pixel + (size_t)y * out->width;

		if (depth == 4) {
			draw_planar(v, &p, (unsigned)(line - v->memory) / 4, r[VBE_X], to, out->width);
			continue;
		}
		for (unsigned x = 0; x < out->width; x++)
			to[x] = vbe_pixel(line + (size_t)(x + r[VBE_X]) * bytes, depth, &p);
	}
	return 0;
}

int vga_picture(void *opaque, struct surface *out)
{
	struct vga *v = opaque;
	int r;

	pthread_mutex_lock(&v->lock);
	if (vga_vbe_on(v))
		r = draw_vbe(v, out);
	else if (blanked(v))
		r = blank_picture(out);
	else if (is_text(v))
		r = draw_text(v, out);
	else
		r = draw_graphics(v, out);
	pthread_mutex_unlock(&v->lock);
	return r;
}
