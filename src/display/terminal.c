/* SPDX-License-Identifier: Apache-2.0 */
/* Everything here runs on the event loop, but for opening and closing. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include "backend/chr.h"
#include "base/base.h"
#include "base/err.h"
#include "display/terminal.h"

#define FRAME_NS 40000000
#define MAX_COLUMNS 256u
#define MAX_ROWS 128u
#define OUT_SIZE 32768u /* a frame that needs more goes on in the next one */
#define OUT_SPOT 64u	/* what one character takes at most, with room for the cursor's */
#define INPUT 256u
#define ESCAPE_FRAMES 2 /* a lone escape is a key when nothing follows for so long */

/* One character of the terminal as it was last drawn: a glyph and two colours of the 256. */
struct spot {
	uint16_t glyph;
	uint8_t ink, paper;
};

struct terminal {
	struct terminal_config config;
	struct chr *chr;
	int timer;
	struct evsource *source;
	struct surface picture;
	struct screen_text text;
	unsigned columns, rows; /* of the terminal */
	struct spot shown[MAX_ROWS][MAX_COLUMNS];
	struct spot next[MAX_ROWS][MAX_COLUMNS];
	int cursor_column, cursor_row, shown_column, shown_row;
	uint8_t input[INPUT];
	size_t ninput;
	unsigned waiting; /* frames an unfinished escape sequence has waited */
	unsigned help;	  /* frames the help is still to be seen */
	char *out;	  /* one frame's bytes, or what a slow terminal has not taken of it yet */
	size_t used;
};

/* ---- output */

static void emit(struct terminal *t, const char *bytes, size_t n)
{
	if (n > OUT_SIZE - t->used) /* draw_changes stops long before */
		return;
	memcpy(t->out + t->used, bytes, n);
	t->used += n;
}

static void emit_glyph(struct terminal *t, uint32_t c)
{
	char b[3] = { (char)(0xe0 | c >> 12), (char)(0x80 | (c >> 6 & 63)), (char)(0x80 | (c & 63)) };

	if (c < 0x80) {
		b[0] = (char)c;
		emit(t, b, 1);
	} else if (c < 0x800) {
		b[0] = (char)(0xc0 | c >> 6);
		b[1] = b[2];
		emit(t, b, 2);
	} else {
		emit(t, b, 3);
	}
}

static void emit_number(struct terminal *t, const char *before, unsigned a, const char *between, int b, const char *after)
{
	char text[40];
	int n = b < 0 ? snprintf(text, sizeof(text), "%s%u%s", before, a, after) :
			snprintf(text, sizeof(text), "%s%u%s%d%s", before, a, between, b, after);

	emit(t, text, (size_t)n);
}

/* The nearest of xterm's colours: the cube's six steps, or a grey. */
static uint8_t colour_256(uint32_t rgb)
{
	static const uint8_t step[6] = { 0, 95, 135, 175, 215, 255 };
	unsigned part[3] = { rgb >> 16 & 255, rgb >> 8 & 255, rgb & 255 }, at[3], grey;
	int cube = 0, flat = 0;

	for (unsigned i = 0; i < 3; i++) {
		at[i] = part[i] < 48 ? 0 : part[i] < 115 ? 1 : (part[i] - 35) / 40;
		cube += abs((int)part[i] - step[at[i]]);
	}
	grey = (part[0] + part[1] + part[2]) / 3;
	grey = grey < 8 ? 0 : MIN((grey - 8 + 5) / 10, 23u);
	for (unsigned i = 0; i < 3; i++)
		flat += abs((int)part[i] - (int)(8 + grey * 10));
	return (uint8_t)(flat < cube ? 232 + grey : 16 + 36 * at[0] + 6 * at[1] + at[2]);
}

static void flush(struct terminal *t)
{
	size_t n = t->used ? chr_write(t->chr, (const uint8_t *)t->out, t->used) : 0;

	t->used -= n;
	memmove(t->out, t->out + n, t->used);
}

/* What differs between `next` and what is there. */
static void draw_changes(struct terminal *t)
{
	int ink = -1, paper = -1;

	for (unsigned y = 0; y < t->rows; y++) {
		bool there = false; /* the terminal's cursor is where we write next */

		for (unsigned x = 0; x < t->columns; x++) {
			struct spot s = t->next[y][x];

			if (!memcmp(&s, &t->shown[y][x], sizeof(s))) {
				there = false;
				continue;
			}
			if (t->used > OUT_SIZE - 2 * OUT_SPOT)
				return;
			if (!there)
				emit_number(t, "\033[", y + 1, ";", (int)x + 1, "H");
			if (s.ink != ink)
				emit_number(t, "\033[38;5;", s.ink, "", -1, "m");
			if (s.paper != paper)
				emit_number(t, "\033[48;5;", s.paper, "", -1, "m");
			ink = s.ink;
			paper = s.paper;
			emit_glyph(t, s.glyph);
			t->shown[y][x] = s;
			there = true;
		}
	}
	if (t->used || t->cursor_column != t->shown_column || t->cursor_row != t->shown_row) {
		if (t->cursor_column < 0)
			emit(t, "\033[?25l", 6);
		else
			emit_number(t, "\033[?25h\033[", (unsigned)t->cursor_row + 1, ";", t->cursor_column + 1, "H");
		t->shown_column = t->cursor_column;
		t->shown_row = t->cursor_row;
	}
}

/* ---- what is to be seen */

static void compose_text(struct terminal *t)
{
	for (unsigned y = 0; y < MIN(t->rows, t->text.rows); y++) {
		const struct screen_cell *c = t->text.cell + (size_t)y * t->text.columns;

		for (unsigned x = 0; x < MIN(t->columns, t->text.columns); x++, c++)
			t->next[y][x] = (struct spot){ (uint16_t)screen_unicode(c->code), colour_256(c->ink),
						       colour_256(c->paper) };
	}
	if (t->text.cursor_column >= 0 && t->text.cursor_column < (int)t->columns && t->text.cursor_row < (int)t->rows) {
		t->cursor_column = t->text.cursor_column;
		t->cursor_row = t->text.cursor_row;
	}
}

static uint32_t sample(const struct surface *s, unsigned x, unsigned y, unsigned wide, unsigned high)
{
	return s->pixel[(size_t)(y * s->height / high) * s->width + (size_t)x * s->width / wide];
}

/* Upper half blocks: ink above, paper below. */
static void compose_picture(struct terminal *t)
{
	const struct surface *s = &t->picture;
	unsigned wide = t->columns, high = t->rows * 2;

	if (!s->width || !s->height)
		return;
	if (wide * s->height > high * s->width)
		wide = MAX(high * s->width / s->height, 1u);
	else
		high = MAX(wide * s->height / s->width, 2u) & ~1u;
	for (unsigned y = 0; y < high / 2; y++)
		for (unsigned x = 0; x < wide; x++)
			t->next[y][x] = (struct spot){ 0x2580, colour_256(sample(s, x, y * 2, wide, high)),
						       colour_256(sample(s, x, y * 2 + 1, wide, high)) };
}

static void compose_line(struct terminal *t, unsigned row, const char *text)
{
	size_t n = strlen(text);

	if (row >= t->rows)
		return;
	for (unsigned x = 0; x < t->columns; x++)
		t->next[row][x] = (struct spot){ x < n ? (uint8_t)text[x] : ' ', 252, 238 };
}

static void compose(struct terminal *t)
{
	unsigned lines = 0;
	int r = t->config.screen->text(t->config.screen->opaque, &t->text);

	for (unsigned y = 0; y < t->rows; y++)
		for (unsigned x = 0; x < t->columns; x++)
			t->next[y][x] = (struct spot){ ' ', 252, 16 };
	t->cursor_column = t->cursor_row = -1;
	if (!r) {
		compose_text(t);
		lines = t->text.rows;
	} else if (r == 1 && !t->config.screen->picture(t->config.screen->opaque, &t->picture)) {
		compose_picture(t);
		lines = t->rows;
	}
	if (t->help) {
		t->help--;
		compose_line(t, t->rows - 1,
			     t->config.save ? " Ctrl-A X leave (ends the machine)   Ctrl-A S save and leave   Ctrl-A Ctrl-A send Ctrl-A" :
					      " Ctrl-A X leave (ends the machine)   Ctrl-A Ctrl-A send Ctrl-A");
	} else if (lines < t->rows) {
		compose_line(t, t->rows - 1, " Ctrl-A X leaves, Ctrl-A H helps");
	}
}

/* The terminal's size, and everything anew when it has changed. */
static void measure(struct terminal *t)
{
	struct winsize w = { .ws_row = 25, .ws_col = 80 };

	ioctl(STDOUT_FILENO, TIOCGWINSZ, &w);
	w.ws_col = w.ws_col ? MIN(w.ws_col, MAX_COLUMNS) : 80;
	w.ws_row = w.ws_row ? MIN(w.ws_row, MAX_ROWS) : 25;
	if (w.ws_col == t->columns && w.ws_row == t->rows)
		return;
	t->columns = w.ws_col;
	t->rows = w.ws_row;
	memset(t->shown, 0, sizeof(t->shown));
	emit(t, "\033[0m\033[2J", 8);
}

/* ---- input */

static void type(struct terminal *t, bool more)
{
	struct key_stroke k;
	size_t n;

	while ((n = key_of_terminal(t->input, t->ninput, more, &k))) {
		key_strike(&t->config.keyboard, k);
		t->ninput -= n;
		memmove(t->input, t->input + n, t->ninput);
	}
	t->waiting = 0;
}

static size_t input_room(void *opaque)
{
	return INPUT - ((struct terminal *)opaque)->ninput;
}

static void input(void *opaque, const uint8_t *data, size_t n)
{
	struct terminal *t = opaque;

	memcpy(t->input + t->ninput, data, n);
	t->ninput += n;
	type(t, true);
}

static void frame(void *opaque, uint32_t events)
{
	struct terminal *t = opaque;
	uint64_t expired;

	if (read(t->timer, &expired, sizeof(expired)) != sizeof(expired))
		return;
	if (t->ninput && ++t->waiting > ESCAPE_FRAMES)
		type(t, false);
	flush(t);
	if (t->used)
		return;
	measure(t);
	compose(t);
	draw_changes(t);
	flush(t);
}

static void show_help(void *opaque)
{
	((struct terminal *)opaque)->help = 5 * 25;
}

/* ---- life */

static int start(struct terminal *t, struct err *e)
{
	const struct chr_config chr = { .spec = "stdio", .leave = t->config.leave, .opaque = t->config.opaque,
					.save = t->config.save, .save_opaque = t->config.opaque, .full_screen = true,
					.help = show_help, .help_opaque = t };
	const struct chr_front front = { .room = input_room, .input = input, .opaque = t };
	const struct itimerspec every = { { 0, FRAME_NS }, { 0, FRAME_NS } };

	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
		return err_set(e, EINVAL, "needs a terminal: use --display vnc, or --display none with --serial");
	t->out = malloc(OUT_SIZE);
	if (!t->out)
		return err_set(e, ENOMEM, "no memory for the screen");
	t->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (t->timer < 0 || timerfd_settime(t->timer, 0, &every, NULL))
		return err_errno(e, "cannot make a timer");
	t->chr = chr_open(t->config.loop, &chr, e);
	if (!t->chr)
		return -1;
	chr_attach(t->chr, &front);
	t->source = evloop_add(t->config.loop, t->timer, EPOLLIN, frame, t, e);
	return t->source ? 0 : -1;
}

struct terminal *terminal_open(const struct terminal_config *config, struct err *e)
{
	struct terminal *t = calloc(1, sizeof(*t));

	if (!t) {
		err_set(e, ENOMEM, "no memory for the screen");
		return NULL;
	}
	t->config = *config;
	t->timer = -1;
	if (start(t, e)) {
		terminal_close(t);
		return NULL;
	}
	return t;
}

void terminal_close(struct terminal *t)
{
	if (!t)
		return;
	if (t->source)
		evloop_remove(t->source);
	if (t->chr)
		chr_close(t->chr);
	if (t->timer >= 0)
		close(t->timer);
	surface_dispose(&t->picture);
	screen_text_dispose(&t->text);
	free(t->out);
	free(t);
}
