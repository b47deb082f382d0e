/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where one JSON value ends and the next begins. Only brackets and strings are followed; whether it is JSON is for the
 * parser. Each byte is looked at once, so a slow or long request costs no more than its length.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "ctl/private.h"

int ctl_frame_add(struct ctl_frame *f, const char *bytes, size_t n)
{
	size_t size = f->size ? f->size : 1024;
	char *data;

	if (n > CTL_INPUT_MAX || f->used > CTL_INPUT_MAX - n)
		return -E2BIG;
	while (size < f->used + n)
		size *= 2;
	if (size > f->size) {
		data = realloc(f->data, size);
		if (!data)
			return -ENOMEM;
		f->data = data;
		f->size = size;
	}
	memcpy(f->data + f->used, bytes, n);
	f->used += n;
	return 0;
}

static void frame_drop(struct ctl_frame *f, size_t n)
{
	memmove(f->data, f->data + n, f->used - n);
	f->used -= n;
	f->scanned = 0;
}

/* Before a value: blanks and the rest of a nonsensical line. False: nonsense begins here. */
static bool frame_start(struct ctl_frame *f)
{
	size_t i;

	for (i = 0; i < f->used; i++) {
		char b = f->data[i];

		if (f->skipping ? b == '\n' : strchr(" \t\r\n", b) && b) {
			f->skipping = false;
			continue;
		}
		if (f->skipping)
			continue;
		if (b != '{' && b != '[') {
			f->skipping = true;
			frame_drop(f, i);
			return false;
		}
		break;
	}
	if (i)
		frame_drop(f, i);
	return true;
}

/* True when the byte ends the value. */
static bool frame_byte(struct ctl_frame *f, char b)
{
	if (f->escape) {
		f->escape = false;
	} else if (f->string) {
		f->escape = b == '\\';
		f->string = b != '"';
	} else if (b == '"') {
		f->string = true;
	} else if (b == '{' || b == '[') {
		f->depth++;
	} else if (b == '}' || b == ']') {
		return --f->depth == 0;
	}
	return false;
}

enum ctl_frame_result ctl_frame_next(struct ctl_frame *f, const char **text, size_t *len)
{
	/* the value handed out last time is kept in front until now */
	if (f->scanned && !f->depth)
		frame_drop(f, f->scanned);
	if (!f->depth && !frame_start(f))
		return FRAME_NONSENSE;
	while (f->scanned < f->used) {
		bool end = frame_byte(f, f->data[f->scanned++]);

		if (end) {
			*text = f->data;
			*len = f->scanned;
			return FRAME_VALUE;
		}
		if (f->depth > CTL_DEPTH_MAX)
			return FRAME_TOO_LONG;
	}
	return FRAME_MORE;
}

void ctl_frame_dispose(struct ctl_frame *f)
{
	free(f->data);
	memset(f, 0, sizeof(*f));
}
