/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VGA as a guest programs it: window and planes, text and its font, packed and planar graphics, the Bochs
 * extension; then saved and loaded, random accesses, and registers that no guest could have written.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/err.h"
#include "display/vga-private.h"
#include "pci/pci.h"
#include "state/stream.h"
#include "../state/roundtrip.h"

struct rig {
	struct device_env env;
	struct pci_bus *bus;
	struct device *devices, *vga;
	struct vga *v;
};

static void no_msi(void *opaque, uint64_t address, uint32_t data)
{
}

static void device_added(void *opaque, struct device *d)
{
	struct rig *r = opaque;

	d->next = r->devices;
	r->devices = d;
}

static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));
	struct pci_bus_config bus = { .msi = no_msi, .add = device_added, .opaque = r, .low_start = 1 << 20, .low_end = 0xfec00000,
				      .assign_start = 0xc0000000, .high_start = 1ull << 32, .high_end = 1ull << 33 };
	struct err e = { 0 };

	r->env = (struct device_env){ .mem = mem_create(1 << 20, &e), .ports = ports_create(), .clock = clock_create_manual() };
	assert_non_null(r->env.mem);
	bus.env = r->env;
	r->bus = pci_bus_create(&bus, &e);
	assert_non_null(r->bus);
	r->vga = vga_create(&(struct vga_config){ .env = &r->env, .bus = r->bus }, &e);
	if (!r->vga)
		fail_msg("%s", e.text);
	r->v = container_of(r->vga, struct vga, device);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	r->vga->ops->destroy(r->vga);
	while (r->devices) {
		struct device *d = r->devices;

		r->devices = d->next;
		d->ops->destroy(d);
	}
	pci_bus_device(r->bus)->ops->destroy(pci_bus_device(r->bus));
	clock_destroy(r->env.clock);
	ports_destroy(r->env.ports);
	mem_destroy(r->env.mem);
	free(r);
	return 0;
}

static void out(struct rig *r, uint16_t port, uint8_t value)
{
	ports_out(r->env.ports, port, value, 1);
}

static uint8_t in(struct rig *r, uint16_t port)
{
	return (uint8_t)ports_in(r->env.ports, port, 1);
}

static void indexed(struct rig *r, uint16_t port, uint8_t index, uint8_t value)
{
	ports_out(r->env.ports, port, (uint32_t)(value << 8 | index), 2); /* both at once, as drivers do */
}

static void attr(struct rig *r, uint8_t index, uint8_t value)
{
	in(r, 0x3da);
	out(r, 0x3c0, index);
	out(r, 0x3c0, value);
}

static void vbe(struct rig *r, uint16_t index, uint16_t value)
{
	ports_out(r->env.ports, 0x1ce, index, 2);
	ports_out(r->env.ports, 0x1cf, value, 2);
}

static void poke(struct rig *r, uint32_t at, uint8_t value)
{
	mem_write(r->env.mem, at, value, 1);
}

static uint8_t peek(struct rig *r, uint32_t at)
{
	return (uint8_t)mem_read(r->env.mem, at, 1);
}

/* What all modes share: colours 0..63 are their own numbers in red, green and blue; the screen is on. */
static void common(struct rig *r)
{
	out(r, 0x3c2, 0x67);
	out(r, 0x3c8, 0);
	for (unsigned i = 0; i < 256 * 3; i++)
		out(r, 0x3c9, (uint8_t)(i / 3 & 63));
	for (uint8_t i = 0; i < 16; i++)
		attr(r, i, i);
	attr(r, ATTR_PLANES, 15);
	in(r, 0x3da);
	out(r, 0x3c0, ATTR_VIDEO_ON);
	indexed(r, 0x3c4, SEQ_RESET, 3);
	indexed(r, 0x3c4, SEQ_MAP_MASK, 15);
	indexed(r, 0x3ce, GFX_BIT_MASK, 0xff);
	indexed(r, 0x3ce, GFX_DONT_CARE, 15);
}

static void crtc_size(struct rig *r, unsigned columns, unsigned lines, unsigned pitch)
{
	lines--;
	indexed(r, 0x3d4, CRTC_H_END, (uint8_t)(columns - 1));
	indexed(r, 0x3d4, CRTC_V_END, (uint8_t)lines);
	indexed(r, 0x3d4, CRTC_OVERFLOW, (uint8_t)((lines >> 7 & 2) | (lines >> 3 & 0x40) | 0x10));
	indexed(r, 0x3d4, CRTC_PITCH, (uint8_t)pitch);
	indexed(r, 0x3d4, CRTC_COMPARE, 0xff);
	indexed(r, 0x3d4, CRTC_MODE, 0xe3);
}

static void text_mode(struct rig *r)
{
	common(r);
	crtc_size(r, 80, 400, 40);
	indexed(r, 0x3d4, CRTC_MAX_SCAN, 0x4f);
	indexed(r, 0x3d4, CRTC_CURSOR_START, 14);
	indexed(r, 0x3d4, CRTC_CURSOR_END, 15);
	indexed(r, 0x3c4, SEQ_CLOCKING, 0);
	indexed(r, 0x3c4, SEQ_MEMORY_MODE, 2);
	indexed(r, 0x3c4, SEQ_MAP_MASK, 3);
	indexed(r, 0x3ce, GFX_MODE, GFX_ODD_EVEN);
	indexed(r, 0x3ce, GFX_MISC, 0x0e);
	attr(r, ATTR_MODE, 4 | 8);
	in(r, 0x3da);
	out(r, 0x3c0, ATTR_VIDEO_ON);
}

/* The font is written to plane 2 through the planar window, then the text's set-up comes back. */
static void load_glyph(struct rig *r, uint8_t code, const uint8_t *lines)
{
	indexed(r, 0x3c4, SEQ_MAP_MASK, 4);
	indexed(r, 0x3c4, SEQ_MEMORY_MODE, 6);
	indexed(r, 0x3ce, GFX_MODE, 0);
	indexed(r, 0x3ce, GFX_MISC, 4);
	for (unsigned i = 0; i < 16; i++)
		poke(r, 0xa0000 + code * 32u + i, lines[i]);
	text_mode(r);
}

static void text(void **state)
{
	struct rig *r = *state;
	const uint8_t glyph[16] = { 0x80, 0x01 };
	const char *words = "Hello";
	struct screen_text t = { 0 };
	struct surface s = { 0 };
	char *utf8;

	text_mode(r);
	load_glyph(r, 0xc4, glyph);
	for (unsigned i = 0; i < 80 * 25; i++)
		mem_write(r->env.mem, 0xb8000 + i * 2, 0x0720, 2);
	for (unsigned i = 0; words[i]; i++)
		mem_write(r->env.mem, 0xb8000 + (80 + i) * 2, (uint64_t)(0x1e00 | words[i]), 2);
	mem_write(r->env.mem, 0xb8000, 0x8fc4, 2);
	assert_int_equal(peek(r, 0xb8000), 0xc4);
	assert_int_equal(peek(r, 0xb8001), 0x8f);
	assert_int_equal(peek(r, 0xb0000), 0xff); /* the window is elsewhere */
	indexed(r, 0x3d4, CRTC_CURSOR_HIGH, 0);
	indexed(r, 0x3d4, CRTC_CURSOR_LOW, 85);

	assert_int_equal(r->v->screen.text(r->v, &t), 0);
	assert_int_equal(t.columns, 80);
	assert_int_equal(t.rows, 25);
	assert_int_equal(t.cursor_column, 5);
	assert_int_equal(t.cursor_row, 1);
	assert_int_equal(t.cell[80].code, 'H');
	assert_int_equal(t.cell[80].ink, 0x383838);   /* colour 14 of 63 */
	assert_int_equal(t.cell[80].paper, 0x040404); /* colour 1 */
	assert_true(t.cell[0].blink);
	assert_false(t.cell[80].blink);
	utf8 = screen_text_utf8(&t);
	assert_non_null(utf8);
	assert_true(!strncmp(utf8, "\u2500\nHello\n\n", 11));
	free(utf8);

	assert_int_equal(r->v->screen.picture(r->v, &s), 0);
	assert_int_equal(s.width, 720);
	assert_int_equal(s.height, 400);
	assert_int_equal(s.pixel[0], 0x3c3c3c);	      /* the glyph's first dot, colour 15 */
	assert_int_equal(s.pixel[1], 0);
	assert_int_equal(s.pixel[720 + 7], 0x3c3c3c);
	assert_int_equal(s.pixel[720 + 8], 0x3c3c3c); /* the ninth repeats the eighth of a line character */
	assert_int_equal(s.pixel[(16 + 14) * 720 + 45], 0x1c1c1c); /* the cursor, colour 7 */
	assert_int_equal(s.pixel[(16 + 13) * 720 + 45], 0);

	indexed(r, 0x3d4, CRTC_CURSOR_START, 0x20); /* hidden; the screen one line further on */
	indexed(r, 0x3d4, CRTC_START_LOW, 80);
	assert_int_equal(r->v->screen.text(r->v, &t), 0);
	assert_int_equal(t.cursor_column, -1);
	assert_int_equal(t.cell[0].code, 'H');

	indexed(r, 0x3c4, SEQ_CLOCKING, SEQ_SCREEN_OFF);
	assert_int_equal(r->v->screen.text(r->v, &t), 0);
	assert_int_equal(t.cell[0].code, ' ');
	screen_text_dispose(&t);
	surface_dispose(&s);
}

/* What kernels find that are started directly: a blank text screen that shows what is written to it. */
static void mode_without_bios(void **state)
{
	struct rig *r = *state;
	struct screen_text t = { 0 };
	struct surface s = { 0 };
	uint8_t rom[3 * VGA_FONT_SIZE] = { 0 }, *font = rom + 77;

	assert_null(vga_find_font(rom, sizeof(rom)));
	memset(font + 0xdb * 16, 0xff, 16);
	memset(font + 0xdf * 16, 0xff, 8);
	memset(font + 'A' * 16 + 2, 0x81, 1);
	assert_ptr_equal(vga_find_font(rom, sizeof(rom)), font);
	assert_ptr_equal(vga_find_font(rom, 77 + VGA_FONT_SIZE), font);
	assert_null(vga_find_font(rom, 76 + VGA_FONT_SIZE));
	assert_null(vga_find_font(rom, 16));
	vbe(r, VBE_WIDTH, 640);
	vbe(r, VBE_ENABLE, VBE_ENABLED);
	vga_text_mode(r->vga, font);
	assert_int_equal(r->v->screen.text(r->v, &t), 0);
	assert_int_equal(t.columns, 80);
	assert_int_equal(t.rows, 25);
	assert_int_equal(t.cursor_column, 0);
	assert_int_equal(t.cursor_row, 0);
	for (unsigned i = 0; i < 80 * 25; i++)
		assert_int_equal(t.cell[i].code, ' ');
	mem_write(r->env.mem, 0xb8000 + 160, 0x1e41, 2);
	assert_int_equal(r->v->screen.text(r->v, &t), 0);
	assert_int_equal(t.cell[80].code, 'A');
	assert_int_equal(t.cell[80].ink, 0xffff55);
	assert_int_equal(t.cell[80].paper, 0x0000aa);
	assert_int_equal(r->v->screen.picture(r->v, &s), 0);
	assert_int_equal(s.width, 720);
	assert_int_equal(s.height, 400);
	assert_int_equal(s.pixel[18 * 720], 0xffff55);
	assert_int_equal(s.pixel[18 * 720 + 1], 0x0000aa);
	assert_int_equal(s.pixel[18 * 720 + 7], 0xffff55);
	vga_text_mode(r->vga, NULL);
	assert_int_equal(r->v->screen.text(r->v, &t), 0);
	assert_int_equal(t.cell[80].code, ' ');
	screen_text_dispose(&t);
	surface_dispose(&s);
}

static void planar_mode(struct rig *r)
{
	common(r);
	crtc_size(r, 80, 480, 40);
	indexed(r, 0x3d4, CRTC_MAX_SCAN, 0x40);
	indexed(r, 0x3c4, SEQ_CLOCKING, 1);
	indexed(r, 0x3c4, SEQ_MEMORY_MODE, 6);
	indexed(r, 0x3ce, GFX_MODE, 0);
	indexed(r, 0x3ce, GFX_MISC, 5);
}

static unsigned dot(struct rig *r, struct surface *s, unsigned x, unsigned y)
{
	assert_int_equal(r->v->screen.picture(r->v, s), 0);
	return s->pixel[y * s->width + x] >> 18;
}

/* The four write modes and both read modes, on one byte of the screen. */
static void planes(void **state)
{
	struct rig *r = *state;
	struct surface s = { 0 };
	struct screen_text t = { 0 };
	const uint32_t at = 0xa0000 + 80;

	planar_mode(r);
	assert_int_equal(r->v->screen.text(r->v, &t), 1);
	indexed(r, 0x3c4, SEQ_MAP_MASK, 5);
	poke(r, at, 0xf0); /* mode 0: into planes 0 and 2 */
	assert_int_equal(dot(r, &s, 0, 1), 5);
	assert_int_equal(s.width, 640);
	assert_int_equal(s.height, 480);
	assert_int_equal(dot(r, &s, 4, 1), 0);
	indexed(r, 0x3c4, SEQ_MAP_MASK, 15);
	indexed(r, 0x3ce, GFX_SET_RESET, 10); /* set/reset of all planes, through a bit mask */
	indexed(r, 0x3ce, GFX_ENABLE_SET, 15);
	indexed(r, 0x3ce, GFX_BIT_MASK, 0x0f);
	peek(r, at);
	poke(r, at, 0);
	assert_int_equal(dot(r, &s, 0, 1), 5);
	assert_int_equal(dot(r, &s, 7, 1), 10);
	indexed(r, 0x3ce, GFX_ENABLE_SET, 0);
	indexed(r, 0x3ce, GFX_BIT_MASK, 0xff);
	indexed(r, 0x3ce, GFX_ROTATE, 3 << 3 | 4); /* rotated by four, exclusive or */
	peek(r, at);
	poke(r, at, 0x0f);
	assert_int_equal(dot(r, &s, 0, 1), 5 ^ 15);
	assert_int_equal(dot(r, &s, 7, 1), 10);
	indexed(r, 0x3ce, GFX_ROTATE, 0);
	indexed(r, 0x3ce, GFX_MODE, 1); /* the latches, elsewhere */
	peek(r, at);
	poke(r, at + 1, 0x77);
	assert_int_equal(dot(r, &s, 8, 1), 10);
	indexed(r, 0x3ce, GFX_MODE, 2); /* a colour, through the bit mask */
	indexed(r, 0x3ce, GFX_BIT_MASK, 0x80);
	peek(r, at + 1);
	poke(r, at + 1, 3);
	assert_int_equal(dot(r, &s, 8, 1), 3);
	assert_int_equal(dot(r, &s, 9, 1), 10);
	indexed(r, 0x3ce, GFX_MODE, 3); /* set/reset, through data and bit mask */
	indexed(r, 0x3ce, GFX_BIT_MASK, 0xc0);
	indexed(r, 0x3ce, GFX_SET_RESET, 6);
	peek(r, at + 1);
	poke(r, at + 1, 0x7f);
	assert_int_equal(dot(r, &s, 8, 1), 3);
	assert_int_equal(dot(r, &s, 9, 1), 6);
	indexed(r, 0x3ce, GFX_MODE, GFX_READ_COMPARE);
	indexed(r, 0x3ce, GFX_COMPARE, 3);
	assert_int_equal(peek(r, at + 1), 0x80);
	indexed(r, 0x3ce, GFX_DONT_CARE, 2);
	assert_int_equal(peek(r, at + 1), 0xff); /* all four colours have plane 1 set */
	indexed(r, 0x3ce, GFX_MODE, 0);
	indexed(r, 0x3ce, GFX_READ_MAP, 2);
	assert_int_equal(peek(r, at + 1), 0x40);
	/* below the split the memory begins again */
	indexed(r, 0x3d4, CRTC_START_LOW, 80);
	assert_int_equal(dot(r, &s, 9, 0), 6);
	indexed(r, 0x3d4, CRTC_COMPARE, 99);
	indexed(r, 0x3d4, CRTC_OVERFLOW, 2);
	indexed(r, 0x3d4, CRTC_MAX_SCAN, 0);
	indexed(r, 0x3d4, CRTC_V_END, 0xdf);
	assert_int_equal(dot(r, &s, 9, 101), 6);
	surface_dispose(&s);
}

/* 320x200 with 256 colours: bytes as they lie. */
static void packed(void **state)
{
	struct rig *r = *state;
	struct surface s = { 0 };

	common(r);
	crtc_size(r, 80, 400, 40);
	indexed(r, 0x3d4, CRTC_MAX_SCAN, 0x41);
	indexed(r, 0x3c4, SEQ_CLOCKING, 1);
	indexed(r, 0x3c4, SEQ_MEMORY_MODE, 0xe);
	indexed(r, 0x3ce, GFX_MODE, 0x40);
	indexed(r, 0x3ce, GFX_MISC, 5);
	mem_write(r->env.mem, 0xa0000 + 320 * 199 + 316, 0x0403020104030201, 8);
	assert_int_equal(dot(r, &s, 317, 199), 2);
	assert_int_equal(s.width, 320);
	assert_int_equal(s.height, 200);
	out(r, 0x3c6, 1); /* the colour mask */
	assert_int_equal(dot(r, &s, 317, 199), 0);
	out(r, 0x3c7, 2);
	assert_int_equal(in(r, 0x3c9), 2);
	surface_dispose(&s);
}

static void extension(void **state)
{
	struct rig *r = *state;
	struct surface s = { 0 };

	assert_int_equal(ports_in(r->env.ports, 0x1cf, 2), 0xb0c5);
	common(r);
	vbe(r, VBE_ENABLE, 0);
	vbe(r, VBE_WIDTH, 800);
	vbe(r, VBE_HEIGHT, 600);
	vbe(r, VBE_DEPTH, 32);
	vbe(r, VBE_ENABLE, VBE_ENABLED | VBE_LINEAR);
	assert_int_equal(r->v->screen.picture(r->v, &s), 0);
	assert_int_equal(s.width, 800);
	assert_int_equal(s.height, 600);
	vbe(r, VBE_BANK, 1); /* byte 65536: line 20, pixel 384 */
	mem_write(r->env.mem, 0xa0000, 0x123456, 4);
	assert_int_equal(r->v->screen.picture(r->v, &s), 0);
	assert_int_equal(s.pixel[20 * 800 + 384], 0x123456);
	vbe(r, VBE_VIRTUAL_WIDTH, 1600);
	vbe(r, VBE_X, 384);
	vbe(r, VBE_Y, 10);
	assert_int_equal(r->v->screen.picture(r->v, &s), 0);
	assert_int_equal(s.pixel[0], 0x123456);
	vbe(r, VBE_ENABLE, VBE_GET_LIMITS);
	ports_out(r->env.ports, 0x1ce, VBE_WIDTH, 2);
	assert_int_equal(ports_in(r->env.ports, 0x1cf, 2), SCREEN_MAX_WIDTH);
	/* more than the memory holds is cut down, 16 bits are spread over the range */
	vbe(r, VBE_ENABLE, 0);
	vbe(r, VBE_WIDTH, 0xffff);
	vbe(r, VBE_HEIGHT, 0xffff);
	vbe(r, VBE_DEPTH, 16);
	vbe(r, VBE_ENABLE, VBE_ENABLED);
	vbe(r, VBE_VIRTUAL_WIDTH, 0xffff);
	vbe(r, VBE_X, 0xffff);
	vbe(r, VBE_Y, 0xffff);
	mem_write(r->env.mem, 0xa0000, 0xf81f, 2);
	assert_int_equal(r->v->screen.picture(r->v, &s), 0);
	assert_int_equal(s.width, SCREEN_MAX_WIDTH);
	assert_true((uint64_t)vga_vbe_pitch(r->v) * (r->v->hw.vbe[VBE_Y] + s.height) <= VGA_MEMORY);
	surface_dispose(&s);
}

static void retrace(void **state)
{
	struct rig *r = *state;
	unsigned vertical = 0, shown = 0;

	out(r, 0x3c2, 0x67);
	for (unsigned i = 0; i < 1000; i++) {
		uint8_t v = in(r, 0x3da);

		vertical += v >> 3 & 1;
		shown += !(v & 1);
		clock_advance(r->env.clock, 14268);
	}
	assert_in_range(vertical, 2, 8);
	assert_in_range(shown, 600, 850);
}

static uint32_t random32(uint32_t *seed)
{
	*seed = *seed * 1664525u + 1013904223u;
	return *seed >> 8 ^ *seed << 24;
}

static void look(struct rig *r, struct surface *s, struct screen_text *t)
{
	assert_int_equal(r->v->screen.picture(r->v, s), 0);
	assert_true(s->width <= SCREEN_MAX_WIDTH && s->height <= SCREEN_MAX_HEIGHT);
	assert_in_range(r->v->screen.text(r->v, t), 0, 1);
}

static void random_accesses(void **state)
{
	struct rig *r = *state;
	struct surface s = { 0 };
	struct screen_text t = { 0 };
	struct err e = { 0 };
	uint32_t seed = 7;

	for (unsigned n = 0; n < 60000; n++) {
		uint32_t a = random32(&seed), v = random32(&seed);
		unsigned size = 1u << a % 3;

		switch (a >> 8 & 7) {
		case 0:
		case 1:
		case 2:
			ports_out(r->env.ports, (uint16_t)(0x3b0 + (a >> 12) % 48), v, size);
			break;
		case 3:
			vbe(r, (a >> 12) % 12, (uint16_t)(v >> (v & 12)));
			break;
		case 4:
			ports_in(r->env.ports, (uint16_t)(0x3b0 + (a >> 12) % 48), size);
			break;
		case 5:
			mem_read(r->env.mem, 0xa0000 + (v & 0x1ffff), size);
			break;
		default:
			mem_write(r->env.mem, 0xa0000 + (v & 0x1ffff), v, size);
			break;
		}
		if (n % 400 == 0)
			look(r, &s, &t);
	}
	device_roundtrip(r->vga);
	/* what a stream says, whatever it is */
	for (unsigned n = 0; n < 200; n++) {
		uint8_t *hw = (uint8_t *)&r->v->hw;

		for (size_t i = 0; i < sizeof(r->v->hw); i++)
			hw[i] = (uint8_t)random32(&seed);
		if (r->vga->ops->state->check(&r->v->hw, &e))
			continue;
		r->vga->ops->loaded(r->vga);
		look(r, &s, &t);
	}
	surface_dispose(&s);
	screen_text_dispose(&t);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = { T(text), T(mode_without_bios), T(planes), T(packed), T(extension), T(retrace), T(random_accesses) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
