/* SPDX-License-Identifier: Apache-2.0 */
/* Commands that change what the machine is doing. */
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include "board/pc.h"
#include "ctl/private.h"
#include "vm/save.h"

static int check_alive(struct ctl_call *call, struct err *e)
{
	switch (vm_state_now(call->ctl->config.vm)) {
	case VM_INACTIVE:
		return err_set(e, EINVAL, "the machine has not been started");
	case VM_STOPPED:
		return err_set(e, EINVAL, "the machine has ended");
	default:
		return 0;
	}
}

int ctl_stop(struct ctl_call *call, struct err *e)
{
	return vm_pause(call->ctl->config.vm, e);
}

int ctl_cont(struct ctl_call *call, struct err *e)
{
	return vm_resume(call->ctl->config.vm, e);
}

int ctl_quit(struct ctl_call *call, struct err *e)
{
	vm_request_end(call->ctl->config.vm, VM_END_USER, 0, "quit");
	return 0;
}

int ctl_system_powerdown(struct ctl_call *call, struct err *e)
{
	int r = check_alive(call, e);

	if (r)
		return r;
	if (!call->ctl->config.pc)
		return err_set(e, ENOTSUP, "this machine has no power button");
	pc_power_button(call->ctl->config.pc);
	ctl_event(call->ctl, "POWERDOWN", NULL);
	return 0;
}

int ctl_system_reset(struct ctl_call *call, struct err *e)
{
	struct ctl *c = call->ctl;
	int r = check_alive(call, e);

	if (r)
		return r;
	pthread_mutex_lock(&c->lock);
	c->host_reset = true;
	pthread_mutex_unlock(&c->lock);
	vm_request_reset(c->config.vm);
	return 0;
}

int ctl_inject_nmi(struct ctl_call *call, struct err *e)
{
	const struct vm *vm = call->ctl->config.vm;
	int r = check_alive(call, e);

	for (unsigned i = 0; i < vm->machine.ncpus && !r; i++)
		cpu_notify(&vm->vcpus[i].cpu, ATT_NMI);
	return r;
}

#define TELL_US 200000

struct telling {
	struct ctl *ctl;
	int64_t last;
};

/* Clients are told while the command is underway: this is the control's own thread. */
static void tell(void *opaque, uint64_t done, uint64_t total)
{
	struct telling *t = opaque;
	struct timespec now;
	int64_t us;

	clock_gettime(CLOCK_MONOTONIC, &now);
	us = (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
	if (!t->last)
		t->last = us;
	if (us - t->last < TELL_US)
		return;
	t->last = us;
	ctl_event(t->ctl, "OSPITE_SAVING", json_pack("{s:I,s:I}", "done", (json_int_t)done, "total", (json_int_t)total));
	ctl_events_now(t->ctl);
}

/* Paused, and saved; on failure it goes on if it was running. */
static int save_to(struct ctl_call *call, const char *path, struct err *e)
{
	struct telling telling = { .ctl = call->ctl };
	const struct save_progress progress = { tell, &telling };
	struct vm *vm = call->ctl->config.vm;
	const char *memory = json_string_value(json_object_get(call->arguments, "memory"));
	bool running = vm_state_now(vm) == VM_RUNNING, mapped = memory ? !strcmp(memory, "mapped") : vm->config->save_mapped;
	int r;

	if (memory && !mapped && strcmp(memory, "packed"))
		return err_set(e, EINVAL, "memory '%s' is neither packed nor mapped", memory);
	r = vm_pause(vm, e);
	if (r)
		return r;
	r = vm_save_as(vm, path, mapped, &progress, e);
	if (r && running)
		vm_resume(vm, NULL);
	return r;
}

int ctl_ospite_save(struct ctl_call *call, struct err *e)
{
	const char *path = json_string_value(json_object_get(call->arguments, "path"));

	if (!access(path, F_OK))
		return err_set(e, EEXIST, "%s exists already: choose another file", path);
	return save_to(call, path, e);
}

int ctl_ospite_suspend(struct ctl_call *call, struct err *e)
{
	const char *path = call->ctl->config.save_path;
	int r;

	if (!path)
		return err_set(e, ENOTSUP, "this machine has no place to be saved to: give --save-to, or use ospite-save");
	r = save_to(call, path, e);
	if (!r)
		vm_request_end(call->ctl->config.vm, VM_END_USER, 0, "suspended");
	return r;
}
