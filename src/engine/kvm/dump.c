/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is said when KVM cannot go on: its reason in words, its data, and where the guest was, as a person reads it: registers,
 * segments, control registers and the bytes of the instruction. On the vCPU's thread.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include "base/log.h"
#include "engine/kvm/kvm.h"

/* The bytes at rip as text, as far as they are RAM. KVM walks the guest's tables. */
static void code_bytes(struct cpu *c, char *text, size_t size)
{
	struct kvm_cpu *k = c->engine_data;
	uint64_t at = c->s.rip + c->s.seg[SEG_CS].base;
	size_t used = 0;

	text[0] = 0;
	for (unsigned i = 0; i < 15 && used + 4 < size; i++) {
		struct kvm_translation t = { .linear_address = at + i };
		const uint8_t *p;

		if (ioctl(k->fd, KVM_TRANSLATE, &t) < 0 || !t.valid)
			return;
		p = mem_ram_ptr(c->mem, t.physical_address);
		if (!p)
			return;
		used += (size_t)snprintf(text + used, size - used, " %02x", *p);
	}
}

static void dump_registers(const struct cpu *c)
{
	static const char *const name[] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					    "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15" };
	const uint64_t *r = c->s.gpr;

	for (unsigned i = 0; i < 16; i += 4)
		log_msg(LOG_ERROR, "kvm", "  %3s %016" PRIx64 "  %3s %016" PRIx64 "  %3s %016" PRIx64 "  %3s %016" PRIx64, name[i],
			r[i], name[i + 1], r[i + 1], name[i + 2], r[i + 2], name[i + 3], r[i + 3]);
}

static void dump_segments(const struct cpu *c)
{
	static const char *const name[] = { "es", "cs", "ss", "ds", "fs", "gs", "ldt", "tr" };
	char line[400];
	size_t used = 0;

	for (unsigned i = 0; i < SEG_COUNT; i++) {
		const struct x86_segment *s = &c->s.seg[i];

		used += (size_t)snprintf(line + used, sizeof(line) - used, "  %s %04x base %" PRIx64 " limit %x attr %x", name[i],
					 s->selector, s->base, s->limit, s->attr);
		if (i % 2) {
			log_msg(LOG_ERROR, "kvm", "%s", line);
			used = 0;
		}
	}
}

void kvm_dump(struct cpu *c, const char *what)
{
	struct kvm_cpu *k = c->engine_data;
	const struct x86_state *s = &c->s;
	bool known = k->in_struct || !kvm_state_store(c, NULL);
	char code[64];

	if (!known) {
		log_msg(LOG_ERROR, "kvm", "vCPU %u: %s; its registers cannot be read", c->id, what);
		return;
	}
	k->in_struct = true;
	code_bytes(c, code, sizeof(code));
	log_msg(LOG_ERROR, "kvm", "vCPU %u: %s at %04x:%" PRIx64 ", code%s", c->id, what, s->seg[SEG_CS].selector, s->rip,
		code[0] ? code : " unreadable");
	dump_registers(c);
	dump_segments(c);
	log_msg(LOG_ERROR, "kvm", "  rflags %" PRIx64 "  cr0 %" PRIx64 " cr2 %" PRIx64 " cr3 %" PRIx64 " cr4 %" PRIx64 " efer %" PRIx64
		"  gdt %" PRIx64 "+%x idt %" PRIx64 "+%x", s->rflags, s->cr0, s->cr2, s->cr3, s->cr4, s->efer, s->gdtr.base,
		s->gdtr.limit, s->idtr.base, s->idtr.limit);
}

const char *kvm_internal_error(const struct kvm_run *run)
{
	char data[16 * 17 + 1] = "";
	size_t used = 0;
	const char *what;

	switch (run->internal.suberror) {
	case KVM_INTERNAL_ERROR_EMULATION: what = "KVM could not emulate an instruction"; break;
	case KVM_INTERNAL_ERROR_SIMUL_EX: what = "KVM met an exception while it delivered another"; break;
	case KVM_INTERNAL_ERROR_DELIVERY_EV: what = "KVM met an exit that it cannot serve while it delivered an event"; break;
	case KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON: what = "the processor left the guest for a reason that KVM does not know"; break;
	default: what = "KVM reports an internal error"; break;
	}
	for (unsigned i = 0; i < MIN(run->internal.ndata, ARRAY_LEN(run->internal.data)); i++)
		used += (size_t)snprintf(data + used, sizeof(data) - used, " %llx", run->internal.data[i]);
	log_msg(LOG_ERROR, "kvm", "internal error %u, data%s", run->internal.suberror, used ? data : " none");
	return what;
}

const char *kvm_system_event(const struct kvm_run *run)
{
	switch (run->system_event.type) {
	case KVM_SYSTEM_EVENT_SHUTDOWN:
		return "the guest asked the hypervisor for an end by an interface that is not offered";
	case KVM_SYSTEM_EVENT_RESET:
		return "the guest asked the hypervisor for a reset";
	case KVM_SYSTEM_EVENT_CRASH:
		return "the guest told the hypervisor of its crash";
	case KVM_SYSTEM_EVENT_WAKEUP:
	case KVM_SYSTEM_EVENT_SUSPEND:
		return "the guest asked the hypervisor for sleep by an interface that is not offered";
	case KVM_SYSTEM_EVENT_SEV_TERM:
		return "an encrypted guest ended itself";
	default:
		return "a system event of unknown kind";
	}
}
