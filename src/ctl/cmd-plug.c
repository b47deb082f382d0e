/* SPDX-License-Identifier: Apache-2.0 */
/* Disks and network cards that come and go. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include "backend/block.h"
#include "board/pc.h"
#include "ctl/private.h"

static int come(struct ctl_call *call, const char *argument,
		int (*add)(struct pc *pc, const char *spec, struct pc_plugged *out, struct err *e), struct err *e)
{
	const char *spec = json_string_value(json_object_get(call->arguments, argument));
	struct block_files files = ctl_brought_files(call->session);
	struct pc_plugged p = { .slot = 0 };
	int r;

	if (!call->ctl->config.pc)
		return err_set(e, ENODEV, "the machine has no place for it");
	pc_bring(call->ctl->config.pc, &files);
	r = add(call->ctl->config.pc, spec, &p, e);
	pc_bring(call->ctl->config.pc, NULL);
	if (r)
		return err_prefix(e, "%.200s", spec);
	call->result = json_pack("{s:s,s:i,s:s}", "id", p.id, "slot", (int)p.slot, argument, p.text);
	free(p.text);
	return 0;
}

int ctl_ospite_disk_add(struct ctl_call *call, struct err *e)
{
	return come(call, "disk", pc_plug_disk, e);
}

int ctl_ospite_net_add(struct ctl_call *call, struct err *e)
{
	return come(call, "net", pc_plug_net, e);
}

int ctl_device_del(struct ctl_call *call, struct err *e)
{
	if (!call->ctl->config.pc)
		return err_set(e, ENODEV, "the machine has nothing to remove");
	return pc_unplug(call->ctl->config.pc, json_string_value(json_object_get(call->arguments, "id")), e);
}

/* On the control's thread, where files may take their time to close. */
static void reap(void *opaque)
{
	struct ctl *c = opaque;
	char id[PC_ID], path[PC_ID + 24];

	while (pc_reap(c->config.pc, id)) {
		snprintf(path, sizeof(path), "/machine/peripheral/%s", id);
		ctl_event(c, "DEVICE_DELETED", json_pack("{s:s,s:s}", "device", id, "path", path));
	}
}

/* All CPUs are stopped. What cannot be posted now is reaped with the next, or at the end. */
void ctl_device_gone(void *opaque)
{
	struct ctl *c = opaque;

	evloop_post(c->loop, reap, c);
}
