/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The run loop of a vCPU under KVM. Ports, memory-mapped devices and device MSRs are served here on the vCPU's own
 * thread; halts, shutdowns and requests go back to the caller. The local APIC is ours (dev/lapic.c), so interrupts are
 * injected one at a time, when the guest can take them.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include "base/log.h"
#include "engine/kvm/kvm.h"
#include "x86/event.h"
#include "x86/msr.h"

static enum cpu_stop stop(struct cpu *c, enum cpu_stop why)
{
	c->stop = why;
	return why;
}

/* The engine cannot go on: say where the guest was. */
static enum cpu_stop fail(struct cpu *c, const char *what)
{
	struct kvm_cpu *k = c->engine_data;

	if (!k->in_struct && kvm_state_store(c, NULL) == 0)
		k->in_struct = true;
	log_msg(LOG_ERROR, "kvm",
		"vCPU %u: %s; rip=%" PRIx64 " cs=%x rflags=%" PRIx64 " cr0=%" PRIx64 " cr3=%" PRIx64 " cr4=%" PRIx64
		" efer=%" PRIx64 " rsp=%" PRIx64,
		c->id, what, c->s.rip, c->s.seg[SEG_CS].selector, c->s.rflags, c->s.cr0, c->s.cr3, c->s.cr4, c->s.efer,
		c->s.gpr[RSP]);
	c->error = what;
	return stop(c, STOP_ERROR);
}

static void serve_port(struct cpu *c, struct kvm_run *run)
{
	uint8_t *data = (uint8_t *)run + run->io.data_offset;

	for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
		uint32_t v = 0;

		if (run->io.direction == KVM_EXIT_IO_OUT) {
			memcpy(&v, data, run->io.size);
			ports_out(c->machine->ports, run->io.port, v, run->io.size);
		} else {
			v = ports_in(c->machine->ports, run->io.port, run->io.size);
			memcpy(data, &v, run->io.size);
		}
	}
}

static void serve_mmio(struct cpu *c, struct kvm_run *run)
{
	uint64_t v = 0;

	if (run->mmio.is_write) {
		memcpy(&v, run->mmio.data, run->mmio.len);
		mem_write(c->mem, run->mmio.phys_addr, v, run->mmio.len);
	} else {
		v = mem_read(c->mem, run->mmio.phys_addr, run->mmio.len);
		memcpy(run->mmio.data, &v, run->mmio.len);
	}
}

static void serve_msr(struct cpu *c, struct kvm_run *run)
{
	uint64_t v = run->msr.data;
	int r = run->exit_reason == KVM_EXIT_X86_RDMSR ? c->bus->msr_read(c->ctx, run->msr.index, &v) :
							 c->bus->msr_write(c->ctx, run->msr.index, v);

	run->msr.data = v;
	run->msr.error = r != 0; /* #GP */
}

/* INIT, SIPI and waking from a halt work on the struct, through the same code as in the software engines. */
static enum cpu_stop attend_idle(struct cpu *c)
{
	struct kvm_cpu *k = c->engine_data;
	struct err e;
	int r;

	if (!k->in_struct) {
		if (kvm_state_store(c, &e))
			return fail(c, "its state cannot be read");
		k->in_struct = true;
		tlb_flush_all(c);
		tlb_select(c);
	}
	r = event_attend(c);
	if (r == CPU_STOP)
		return c->stop;
	return c->s.activity == ACTIVITY_RUN ? STOP_NONE : stop(c, STOP_HLT);
}

/* Hand over what is pending. Interrupts wait for IF and the shadow; then KVM tells us by an exit. */
static int inject(struct cpu *c)
{
	struct kvm_cpu *k = c->engine_data;
	uint32_t att = atomic_fetch_and(&c->attention, ~(uint32_t)(ATT_IRQ | ATT_NMI));

	if ((att & ATT_NMI) && ioctl(k->fd, KVM_NMI) < 0)
		return -errno;
	k->run->request_interrupt_window = 0;
	k->run->cr8 = c->bus->cr8_read(c->ctx);
	if (c->bus->irq_pending(c->ctx) < 0)
		return 0;
	if (k->run->ready_for_interrupt_injection && k->run->if_flag) {
		struct kvm_interrupt irq;
		int vector = c->bus->irq_take(c->ctx);

		if (vector < 0)
			return 0;
		irq.irq = (uint32_t)vector;
		if (ioctl(k->fd, KVM_INTERRUPT, &irq) < 0)
			return -errno;
		if (c->bus->irq_pending(c->ctx) < 0)
			return 0;
	}
	k->run->request_interrupt_window = 1;
	return 0;
}

/* One exit. STOP_NONE goes on. */
static enum cpu_stop serve(struct cpu *c)
{
	struct kvm_cpu *k = c->engine_data;
	struct kvm_run *run = k->run;
	char text[120];

	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		k->exits_io++;
		serve_port(c, run);
		return STOP_NONE;
	case KVM_EXIT_MMIO:
		k->exits_mmio++;
		serve_mmio(c, run);
		return STOP_NONE;
	case KVM_EXIT_X86_RDMSR:
	case KVM_EXIT_X86_WRMSR:
		k->exits_msr++;
		serve_msr(c, run);
		return STOP_NONE;
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		k->exits_window++;
		return STOP_NONE;
	case KVM_EXIT_INTR:
		k->exits_signal++;
		return STOP_NONE;
	case KVM_EXIT_SET_TPR:
		return STOP_NONE;
	case KVM_EXIT_HLT:
		k->exits_hlt++;
		if (kvm_state_store(c, NULL))
			return fail(c, "its state cannot be read");
		k->in_struct = true;
		c->s.activity = ACTIVITY_HLT;
		return STOP_NONE; /* the loop sees the activity */
	case KVM_EXIT_SHUTDOWN:
		return stop(c, STOP_SHUTDOWN);
	case KVM_EXIT_DEBUG:
		return stop(c, STOP_DEBUG);
	case KVM_EXIT_SYSTEM_EVENT:
		return stop(c, STOP_SHUTDOWN);
	case KVM_EXIT_FAIL_ENTRY:
		log_msg(LOG_ERROR, "kvm", "entry failed: hardware reason 0x%" PRIx64,
			(uint64_t)run->fail_entry.hardware_entry_failure_reason);
		return fail(c, "the processor refused to enter the guest");
	case KVM_EXIT_INTERNAL_ERROR:
		snprintf(text, sizeof(text), "internal error, suberror %u", run->internal.suberror);
		log_msg(LOG_ERROR, "kvm", "%s", text);
		return fail(c, run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION ?
				       "KVM could not emulate an instruction" :
				       "KVM reports an internal error");
	default:
		log_msg(LOG_ERROR, "kvm", "exit reason %u is not known", run->exit_reason);
		return fail(c, "an exit of unknown kind");
	}
}

/*
 * Finish an access that came out as an exit, so that the state is at an instruction boundary: enter with
 * immediate_exit set, which completes it and returns.
 */
static void complete_io(struct kvm_cpu *k)
{
	k->run->immediate_exit = 1;
	ioctl(k->fd, KVM_RUN, 0);
	__atomic_store_n(&k->run->immediate_exit, 0, __ATOMIC_RELEASE);
}

static bool needs_completion(const struct kvm_run *run)
{
	return run->exit_reason == KVM_EXIT_IO || run->exit_reason == KVM_EXIT_MMIO ||
	       run->exit_reason == KVM_EXIT_X86_RDMSR || run->exit_reason == KVM_EXIT_X86_WRMSR;
}

enum cpu_stop kvm_cpu_run(struct cpu *c)
{
	struct kvm_cpu *k = c->engine_data;
	enum cpu_stop why;

	for (;;) {
		uint32_t att = atomic_load(&c->attention);
		int r;

		if (att & ATT_CALLER) {
			if (!k->in_struct && needs_completion(k->run))
				complete_io(k);
			atomic_fetch_and(&c->attention, ~(uint32_t)ATT_CALLER);
			return stop(c, STOP_KICK);
		}
		if (c->s.activity != ACTIVITY_RUN || (att & (ATT_INIT | ATT_SIPI))) {
			if (!k->in_struct && needs_completion(k->run))
				complete_io(k);
			why = attend_idle(c);
			if (why != STOP_NONE)
				return why;
		}
		if (k->in_struct) {
			struct err e;

			if (kvm_state_load(c, &e)) {
				log_msg(LOG_ERROR, "kvm", "%s", e.text);
				return fail(c, "its state cannot be loaded");
			}
			k->in_struct = false;
			/* run's copies of IF and readiness are of an earlier exit */
			k->run->if_flag = !!(c->s.rflags & FLAG_IF);
			k->run->ready_for_interrupt_injection = (c->s.rflags & FLAG_IF) && !c->s.shadow;
		}
		if (inject(c))
			return fail(c, "an interrupt cannot be injected");
		k->entries++;
		r = ioctl(k->fd, KVM_RUN, 0);
		__atomic_store_n(&k->run->immediate_exit, 0, __ATOMIC_RELEASE);
		if (r < 0) {
			if (errno == EINTR || errno == EAGAIN) {
				k->exits_signal++;
				k->run->exit_reason = KVM_EXIT_INTR;
				c->bus->cr8_write(c->ctx, k->run->cr8);
				continue;
			}
			return fail(c, strerror(errno));
		}
		c->bus->cr8_write(c->ctx, k->run->cr8);
		why = serve(c);
		if (why != STOP_NONE)
			return why;
	}
}

int kvm_debug_set(struct cpu *c, struct err *e)
{
	struct kvm_cpu *k = c->engine_data;
	struct kvm_guest_debug d = { 0 };

	if (c->debug.active)
		d.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP | (c->debug.step ? KVM_GUESTDBG_SINGLESTEP : 0);
	if (c->debug.nbreaks || c->debug.nwatches) {
		/* Up to four of them fit the hardware registers. */
		unsigned n = 0;

		d.control |= KVM_GUESTDBG_USE_HW_BP;
		for (unsigned i = 0; i < c->debug.nbreaks && n < 4; i++, n++) {
			d.arch.debugreg[n] = c->debug.breaks[i];
			d.arch.debugreg[7] |= 2ull << (2 * n);
		}
		for (unsigned i = 0; i < c->debug.nwatches && n < 4; i++, n++) {
			uint32_t len = c->debug.watches[i].len;
			uint64_t kind = c->debug.watches[i].on_read ? 3 : 1, size = len == 8 ? 2 : len == 4 ? 3 : len == 2 ? 1 : 0;

			d.arch.debugreg[n] = c->debug.watches[i].at;
			d.arch.debugreg[7] |= 2ull << (2 * n) | (kind | size << 2) << (16 + 4 * n);
		}
	}
	if (ioctl(k->fd, KVM_SET_GUEST_DEBUG, &d) < 0)
		return err_errno(e, "KVM_SET_GUEST_DEBUG");
	return 0;
}
