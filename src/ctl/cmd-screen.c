/* SPDX-License-Identifier: Apache-2.0 */
/* Commands that look at the screen and strike keys. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "board/pc.h"
#include "ctl/private.h"
#include "display/keys.h"
#include "display/screen.h"

#define KEYS_AT_ONCE 16

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
	int r;

	if (!s)
		return -ENOTSUP;
	if (format && strcmp(format, "png"))
		return err_set(e, EINVAL, "format %s is not known; there is png", format);
	r = s->picture(s->opaque, &picture) ? err_set(e, ENOMEM, "no memory for a picture") :
					      surface_write_png(&picture, path, e);
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

/* All down in order, then all up in the opposite one; hold-time is accepted and of no use to a keyboard that queues. */
int ctl_send_key(struct ctl_call *call, struct err *e)
{
	json_t *keys = json_object_get(call->arguments, "keys"), *key;
	unsigned code[KEYS_AT_ONCE], n = 0;
	size_t i;

	if (!call->ctl->config.pc)
		return err_set(e, ENOTSUP, "this machine has no keyboard");
	if (!json_is_array(keys) || !json_array_size(keys) || json_array_size(keys) > KEYS_AT_ONCE)
		return err_set(e, EINVAL, "'keys' is a list of 1 to %d keys", KEYS_AT_ONCE);
	json_array_foreach(keys, i, key)
	{
		const char *type = json_string_value(json_object_get(key, "type"));
		const char *name = json_string_value(json_object_get(key, "data"));

		if (!type || strcmp(type, "qcode") || !name)
			return err_set(e, EINVAL, "a key is written {\"type\": \"qcode\", \"data\": NAME}");
		code[n] = key_of_name(name);
		if (!code[n++])
			return err_set(e, EINVAL, "there is no key '%.32s'", name);
	}
	for (unsigned k = 0; k < n; k++)
		pc_key(call->ctl->config.pc, code[k], true);
	for (unsigned k = n; k-- > 0;)
		pc_key(call->ctl->config.pc, code[k], false);
	return 0;
}
