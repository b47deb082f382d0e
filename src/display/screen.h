/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a display adapter shows, for those who look at it: a grid of characters in text modes, always a picture. Taken on demand,
 * from any thread; an adapter nobody looks at does no work.
 */
#ifndef DISPLAY_SCREEN_H
#define DISPLAY_SCREEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

#define SCREEN_MAX_WIDTH 2560u
#define SCREEN_MAX_HEIGHT 1600u
#define SCREEN_MAX_COLUMNS 256u
#define SCREEN_MAX_ROWS 128u

/* 0x00rrggbb pixels, without padding between lines; grows as needed. */
struct surface {
	unsigned width, height;
	uint32_t *pixel;
	size_t room; /* pixels there is memory for */
};

/* One character: its code in the guest's code page (437 after reset) and its colours, 0x00rrggbb. */
struct screen_cell {
	uint8_t code;
	bool blink;
	uint32_t ink, paper;
};
struct screen_text {
	unsigned columns, rows;
	int cursor_column, cursor_row; /* -1: hidden */
	struct screen_cell *cell;      /* columns * rows of them */
	size_t room;
};

struct screen {
	/* 0, or -ENOMEM. A blanked screen is black. */
	int (*picture)(void *opaque, struct surface *out);
	/* 1: a graphics mode, nothing to read; 0; -ENOMEM. */
	int (*text)(void *opaque, struct screen_text *out);
	void *opaque;
};

/* Room for so many pixels or characters: 0 or -ENOMEM. What was there is lost. */
int surface_resize(struct surface *s, unsigned width, unsigned height);
void surface_dispose(struct surface *s);
int screen_text_resize(struct screen_text *t, unsigned columns, unsigned rows);
void screen_text_dispose(struct screen_text *t);

/* Code page 437 as Unicode; control codes are the pictures the hardware shows. */
uint32_t screen_unicode(uint8_t code);
/* The text as UTF-8 lines without blanks at their ends; allocated, NULL when there is no memory. */
char *screen_text_utf8(const struct screen_text *t);

/* Write a picture as PNG, beside its final name and then renamed. */
int surface_write_png(const struct surface *s, const char *path, struct err *e);
/* The same into an open file, which is closed. */
int surface_write_png_to(const struct surface *s, int fd, const char *name, struct err *e);

#endif
