/* SPDX-License-Identifier: Apache-2.0 */
/* Media of CD-ROM drives, taken out and put in while the machine runs. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "backend/block.h"
#include "board/pc.h"
#include "ctl/private.h"

static void tray_moved(struct ctl_call *call, const char *name, bool open)
{
	ctl_event(call->ctl, "DEVICE_TRAY_MOVED", json_pack("{s:s,s:s,s:b}", "device", name, "id", name, "tray-open", open));
}

static int change(struct ctl_call *call, const char *spec, struct err *e)
{
	bool force = json_is_true(json_object_get(call->arguments, "force"));
	struct block_files files = ctl_brought_files(call->session);
	struct pc_disk_view d;
	unsigned n;
	int r = ctl_disk_named(call, &d, &n, e);

	if (!r) {
		pc_bring(call->ctl->config.pc, &files);
		r = pc_change_medium(call->ctl->config.pc, n, spec, force, e);
		pc_bring(call->ctl->config.pc, NULL);
	}
	if (r)
		return r;
	if (d.block)
		tray_moved(call, d.name, true);
	if (spec)
		tray_moved(call, d.name, false);
	return 0;
}

int ctl_eject(struct ctl_call *call, struct err *e)
{
	return change(call, NULL, e);
}

/* "format=FORMAT,file=FILE"; commas of the name are doubled there. */
static char *spec_of(const char *format, const char *file)
{
	size_t at = strlen(format) + 20;
	char *spec = malloc(at + 2 * strlen(file));

	if (!spec)
		return NULL;
	at = (size_t)sprintf(spec, "format=%s,file=", format);
	for (; *file; file++) {
		spec[at++] = *file;
		if (*file == ',')
			spec[at++] = ',';
	}
	spec[at] = 0;
	return spec;
}

int ctl_blockdev_change_medium(struct ctl_call *call, struct err *e)
{
	const char *file = json_string_value(json_object_get(call->arguments, "filename"));
	const char *format = json_string_value(json_object_get(call->arguments, "format"));
	const char *mode = json_string_value(json_object_get(call->arguments, "read-only-mode"));
	char *spec;
	int r;

	if (mode && strcmp(mode, "retain") && strcmp(mode, "read-only"))
		return err_set(e, EINVAL, "read-only-mode is retain or read-only: a CD is not written to");
	if (format && strspn(format, "abcdefghijklmnopqrstuvwxyz0123456789") != strlen(format))
		return err_set(e, EINVAL, "there is no format '%.20s'; raw and qcow2 are usual", format);
	if (!*file)
		return err_set(e, EINVAL, "'filename' is empty; 'eject' takes a medium out");
	spec = spec_of(format ? format : "raw", file);
	if (!spec)
		return err_set(e, ENOMEM, "out of memory");
	r = change(call, spec, e);
	free(spec);
	return r;
}
