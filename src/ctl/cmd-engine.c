/* SPDX-License-Identifier: Apache-2.0 */
/* The engine that runs the guest. */
#include "ctl/private.h"

int ctl_ospite_change_engine(struct ctl_call *call, struct err *e)
{
	struct vm *vm = call->ctl->config.vm;
	int r = vm_change_engine(vm, json_string_value(json_object_get(call->arguments, "engine")), e);

	if (!r)
		call->result = json_pack("{s:s,s:s}", "engine", vm->machine.engine->name, "why", vm->engine_why);
	return r;
}
