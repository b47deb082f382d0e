/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures and text grids, whatever adapter they come from. */
#include <errno.h>
#include <stdlib.h>
#include "base/base.h"
#include "display/screen.h"

static int grow(void **buf, size_t *room, size_t count, size_t each)
{
	void *p;

	if (count <= *room)
		return 0;
	p = realloc(*buf, count * each);
	if (!p)
		return -ENOMEM;
	*buf = p;
	*room = count;
	return 0;
}

int surface_resize(struct surface *s, unsigned width, unsigned height)
{
	void *p = s->pixel;
	int r = grow(&p, &s->room, (size_t)width * height, sizeof(*s->pixel));

	s->pixel = p;
	if (r)
		return r;
	s->width = width;
	s->height = height;
	return 0;
}

void surface_dispose(struct surface *s)
{
	free(s->pixel);
	*s = (struct surface){ 0 };
}

int screen_text_resize(struct screen_text *t, unsigned columns, unsigned rows)
{
	void *p = t->cell;
	int r = grow(&p, &t->room, (size_t)columns * rows, sizeof(*t->cell));

	t->cell = p;
	if (r)
		return r;
	t->columns = columns;
	t->rows = rows;
	return 0;
}

void screen_text_dispose(struct screen_text *t)
{
	free(t->cell);
	*t = (struct screen_text){ 0 };
}

/* 0x00-0x1f and 0x7f-0xff of code page 437; what lies between is ASCII. */
static const uint16_t low[32] = {
	0x0020, 0x263a, 0x263b, 0x2665, 0x2666, 0x2663, 0x2660, 0x2022, 0x25d8, 0x25cb, 0x25d9, 0x2642, 0x2640, 0x266a, 0x266b, 0x263c,
	0x25ba, 0x25c4, 0x2195, 0x203c, 0x00b6, 0x00a7, 0x25ac, 0x21a8, 0x2191, 0x2193, 0x2192, 0x2190, 0x221f, 0x2194, 0x25b2, 0x25bc,
};
static const uint16_t high[129] = {
	0x2302, 0x00c7, 0x00fc, 0x00e9, 0x00e2, 0x00e4, 0x00e0, 0x00e5, 0x00e7, 0x00ea, 0x00eb, 0x00e8, 0x00ef, 0x00ee, 0x00ec, 0x00c4,
	0x00c5, 0x00c9, 0x00e6, 0x00c6, 0x00f4, 0x00f6, 0x00f2, 0x00fb, 0x00f9, 0x00ff, 0x00d6, 0x00dc, 0x00a2, 0x00a3, 0x00a5, 0x20a7,
	0x0192, 0x00e1, 0x00ed, 0x00f3, 0x00fa, 0x00f1, 0x00d1, 0x00aa, 0x00ba, 0x00bf, 0x2310, 0x00ac, 0x00bd, 0x00bc, 0x00a1, 0x00ab,
	0x00bb, 0x2591, 0x2592, 0x2593, 0x2502, 0x2524, 0x2561, 0x2562, 0x2556, 0x2555, 0x2563, 0x2551, 0x2557, 0x255d, 0x255c, 0x255b,
	0x2510, 0x2514, 0x2534, 0x252c, 0x251c, 0x2500, 0x253c, 0x255e, 0x255f, 0x255a, 0x2554, 0x2569, 0x2566, 0x2560, 0x2550, 0x256c,
	0x2567, 0x2568, 0x2564, 0x2565, 0x2559, 0x2558, 0x2552, 0x2553, 0x256b, 0x256a, 0x2518, 0x250c, 0x2588, 0x2584, 0x258c, 0x2590,
	0x2580, 0x03b1, 0x00df, 0x0393, 0x03c0, 0x03a3, 0x03c3, 0x00b5, 0x03c4, 0x03a6, 0x0398, 0x03a9, 0x03b4, 0x221e, 0x03c6, 0x03b5,
	0x2229, 0x2261, 0x00b1, 0x2265, 0x2264, 0x2320, 0x2321, 0x00f7, 0x2248, 0x00b0, 0x2219, 0x00b7, 0x221a, 0x207f, 0x00b2, 0x25a0,
	0x0020,
};

uint32_t screen_unicode(uint8_t code)
{
	return code < 32 ? low[code] : code < 127 ? code : high[code - 127];
}

static char *put(char *p, uint32_t c) /* of the basic plane */
{
	if (c < 0x80) {
		*p++ = (char)c;
	} else if (c < 0x800) {
		*p++ = (char)(0xc0 | c >> 6);
		*p++ = (char)(0x80 | (c & 63));
	} else {
		*p++ = (char)(0xe0 | c >> 12);
		*p++ = (char)(0x80 | (c >> 6 & 63));
		*p++ = (char)(0x80 | (c & 63));
	}
	return p;
}

char *screen_text_utf8(const struct screen_text *t)
{
	char *text = malloc((size_t)t->rows * (t->columns * 3 + 1) + 1), *p = text;

	if (!text)
		return NULL;
	for (unsigned y = 0; y < t->rows; y++) {
		const struct screen_cell *line = t->cell + (size_t)y * t->columns;
		unsigned end = t->columns;

		while (end && screen_unicode(line[end - 1].code) == ' ')
			end--;
		for (unsigned x = 0; x < end; x++)
			p = put(p, screen_unicode(line[x].code));
		*p++ = '\n';
	}
	*p = 0;
	return text;
}
