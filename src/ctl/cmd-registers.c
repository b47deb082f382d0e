/* SPDX-License-Identifier: Apache-2.0 */
/* What the CPUs are at: their registers and the bytes at RIP, for whoever wonders why a guest does nothing. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "ctl/private.h"
#include "x86/pgwalk.h"

#define CODE_BYTES 16u

static void put_hex(json_t *into, const char *name, uint64_t v)
{
	char text[20];

	snprintf(text, sizeof(text), "%#" PRIx64, v);
	json_object_set_new(into, name, json_string(text));
}

/* As far as RAM goes that is mapped; never through a device. */
static json_t *code_bytes(struct cpu *c)
{
	gva_t rip = c->s.seg[SEG_CS].base + c->s.rip;
	char text[2 * CODE_BYTES + 1] = "";

	for (unsigned i = 0; i < CODE_BYTES; i++) {
		const struct mem_range *r;
		gpa_t at;

		if (!pgwalk_debug(c, rip + i, &at))
			break;
		r = mem_find(c->mem, at);
		if (!r || r->kind == MEM_IO)
			break;
		snprintf(text + 2 * i, 3, "%02x", r->host[at - r->start]);
	}
	return json_string(text);
}

static json_t *registers_of(struct cpu *c, unsigned n)
{
	static const char *const names[16] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					       "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15" };
	static const char *const segments[] = { "es", "cs", "ss", "ds", "fs", "gs" };
	const struct x86_state *s = &c->s;
	json_t *o = json_pack("{s:i,s:i,s:b,s:o}", "cpu-index", (int)n, "cpl", (int)s->cpl, "halted",
			      s->activity != ACTIVITY_RUN, "code", code_bytes(c));

	if (!o)
		return NULL;
	put_hex(o, "rip", s->rip);
	put_hex(o, "rflags", s->rflags);
	for (unsigned i = 0; i < ARRAY_LEN(names); i++)
		put_hex(o, names[i], s->gpr[i]);
	for (unsigned i = 0; i < ARRAY_LEN(segments); i++)
		put_hex(o, segments[i], s->seg[i].selector);
	put_hex(o, "cs-base", s->seg[SEG_CS].base);
	put_hex(o, "cr0", s->cr0);
	put_hex(o, "cr2", s->cr2);
	put_hex(o, "cr3", s->cr3);
	put_hex(o, "cr4", s->cr4);
	put_hex(o, "efer", s->efer);
	return o;
}

/* A running machine stands still for it. */
int ctl_ospite_query_registers(struct ctl_call *call, struct err *e)
{
	struct vm *vm = call->ctl->config.vm;
	bool running = vm_state_now(vm) == VM_RUNNING;
	int r = vm_pause(vm, e);

	if (!r)
		r = vm_hold(vm, e);
	if (r)
		return r;
	call->result = json_array();
	for (unsigned i = 0; i < vm->machine.ncpus; i++)
		json_array_append_new(call->result, registers_of(&vm->vcpus[i].cpu, i));
	vm_release(vm);
	return running ? vm_resume(vm, e) : 0;
}
