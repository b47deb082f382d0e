/* SPDX-License-Identifier: Apache-2.0 */
/* Commands that look at the screen. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "board/pc.h"
#include "ctl/private.h"
#include "display/screen.h"

static const struct screen *screen_of(struct ctl_call *call, struct err *e)
{
	const struct screen *s = call->ctl->config.pc ? pc_screen(call->ctl->config.pc) : NULL;

	if (!s)
		err_set(e, ENOTSUP, "this machine has no display: it was started with a kernel, not from firmware");
	return s;
}

int ctl_screendump(struct ctl_call *call, struct err *e)
{
	const char *path = json_string_value(json_object_get(call->arguments, "filename"));
	const char *format = json_string_value(json_object_get(call->arguments, "format"));
	const struct screen *s = screen_of(call, e);
	struct surface picture = { 0 };
	int fd, r;

	if (!s)
		return -ENOTSUP;
	if (format && strcmp(format, "png"))
		return err_set(e, EINVAL, "format %s is not known; there is png", format);
	r = s->picture(s->opaque, &picture) ? err_set(e, ENOMEM, "no memory for a picture") : 0;
	if (!r) {
		fd = ctl_brought_open(call->session, path, true);
		r = fd < 0 ? surface_write_png(&picture, path, e) : surface_write_png_to(&picture, fd, path, e);
	}
	surface_dispose(&picture);
	return r;
}

int ctl_ospite_screen_text(struct ctl_call *call, struct err *e)
{
	const struct screen *s = screen_of(call, e);
	struct screen_text t = { 0 };
	char *text = NULL;
	int r = s ? s->text(s->opaque, &t) : -ENOTSUP;

	if (!s)
		return r;
	if (r == 1) {
		r = err_set(e, EINVAL, "the screen is in a graphics mode: use screendump");
	} else {
		text = r ? NULL : screen_text_utf8(&t);
		r = text ? 0 : err_set(e, ENOMEM, "no memory for the screen's text");
	}
	if (!r)
		call->result = json_pack("{s:s,s:i,s:i,s:i,s:i}", "text", text, "columns", (int)t.columns, "rows", (int)t.rows,
					 "cursor-column", t.cursor_column, "cursor-row", t.cursor_row);
	free(text);
	screen_text_dispose(&t);
	return r;
}
