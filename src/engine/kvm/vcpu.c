/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The run loop of a vCPU under KVM. Ports, memory-mapped devices and device MSRs are served here on the vCPU's own
 * thread; halts, shutdowns and requests go back to the caller. The local APIC is ours (dev/lapic.c), so interrupts are
 * injected one at a time, when the guest can take them; or it is KVM's (lapic.c), and then halts are KVM's too.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/log.h"
#include "engine/kvm/kvm.h"
#include "x86/event.h"
#include "x86/msr.h"
#include "x86/pv.h"

#define SETTLE_SIGNAL SIGURG /* kick_attach has it blocked */
#define SETTLE_EXITS 10000u

static enum cpu_stop stop(struct cpu *c, enum cpu_stop why)
{
	c->stop = why;
	return why;
}

/* The engine cannot go on: say where the guest was. */
static enum cpu_stop fail(struct cpu *c, const char *what)
{
	kvm_dump(c, what);
	c->error = what;
	return stop(c, STOP_ERROR);
}

static void serve_port(struct cpu *c, struct kvm_run *run)
{
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	struct ports *ports = c->machine->ports;
	uint32_t done = 0;

	for (uint32_t i = 0; i < run->io.count; i += done, data += done * run->io.size) {
		uint32_t v = 0, left = run->io.count - i;

		if (left > 1) {
			done = run->io.direction == KVM_EXIT_IO_OUT ? ports_out_many(ports, run->io.port, run->io.size, data, left) :
								      ports_in_many(ports, run->io.port, run->io.size, data, left);
			if (done)
				continue;
		}
		done = 1;
		if (run->io.direction == KVM_EXIT_IO_OUT) {
			memcpy(&v, data, run->io.size);
			ports_out(ports, run->io.port, v, run->io.size);
		} else {
			v = ports_in(ports, run->io.port, run->io.size);
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

/*
 * What KVM does not know or was told to leave to us. A value that it knows and refuses is not for us to accept, the x2APIC's
 * registers excepted: it knows them, and refuses because it has no local APIC.
 */
static void serve_msr(struct cpu *c, struct kvm_run *run)
{
	struct kvm_cpu *k = c->engine_data;
	uint64_t v = run->msr.data;
	int r;

	if (run->msr.reason == KVM_MSR_EXIT_REASON_INVAL && (k->vm->split || run->msr.index >> 8 != 0x8))
		r = CPU_FAULT;
	else if (run->exit_reason == KVM_EXIT_X86_RDMSR)
		r = msr_read(c, run->msr.index, &v);
	else
		r = msr_write(c, run->msr.index, v);
	if (run->exit_reason == KVM_EXIT_X86_WRMSR && (run->msr.index == MSR_TSC || run->msr.index == MSR_TSC_ADJUST))
		k->tsc_stale = true;
	run->msr.data = v;
	run->msr.error = r == CPU_FAULT; /* #GP */
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
	uint32_t mine = ATT_IRQ | ATT_NMI | (k->vm->split ? ATT_INIT | ATT_SIPI : 0);
	uint32_t att = atomic_fetch_and(&c->attention, ~mine) & mine;

	if ((att & ATT_NMI) && ioctl(k->fd, KVM_NMI) < 0)
		return -errno;
	if (k->vm->split)
		return kvm_lapic_inject(c, att);
	k->run->request_interrupt_window = 0;
	k->run->cr8 = k->cr8 = c->bus->cr8_read(c->ctx);
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

/*
 * The state stays with KVM: most halts end by an interrupt that is injected into it. What ends the halt depends on IF and on
 * NMIs being masked, so these two are brought up to date.
 */
static enum cpu_stop halt(struct cpu *c)
{
	struct kvm_cpu *k = c->engine_data;
	struct kvm_vcpu_events ev;

	if (ioctl(k->fd, KVM_GET_VCPU_EVENTS, &ev) < 0)
		return fail(c, "its events cannot be read");
	c->s.nmi_mask = ev.nmi.masked;
	c->s.rflags = (c->s.rflags & ~(uint64_t)FLAG_IF) | (k->run->if_flag ? FLAG_IF : 0);
	c->s.activity = ACTIVITY_HLT;
	return STOP_NONE; /* the loop sees the activity */
}

/* True if an interrupt or NMI has ended the halt, and can be injected. */
static bool halt_ends(struct cpu *c, uint32_t att)
{
	if (c->s.activity != ACTIVITY_HLT)
		return false;
	if (!((att & ATT_NMI) && !c->s.nmi_mask) && !((c->s.rflags & FLAG_IF) && c->bus->irq_pending(c->ctx) >= 0))
		return false;
	c->s.activity = ACTIVITY_RUN;
	return true;
}

/* The debugger is told which watchpoint it was; kvm_debug_set has put them behind the breakpoints. */
static void debug_hit(struct cpu *c, uint64_t dr6)
{
	for (unsigned i = 0; i < c->debug.nwatches && c->debug.nbreaks + i < KVM_DEBUG_POINTS; i++)
		if (dr6 & BIT(c->debug.nbreaks + i))
			c->debug.hit = c->debug.watches[i].at;
}

/* One exit. STOP_NONE goes on. */
static enum cpu_stop serve(struct cpu *c)
{
	struct kvm_cpu *k = c->engine_data;
	struct kvm_run *run = k->run;

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
	case KVM_EXIT_DIRTY_RING_FULL:
		k->exits_ring++;
		kvm_dirty_ring_collect(k->vm);
		return STOP_NONE;
	case KVM_EXIT_IOAPIC_EOI:
		k->exits_eoi++;
		c->bus->apic_eoi(c->ctx, run->eoi.vector);
		return STOP_NONE;
	case KVM_EXIT_HLT:
		k->exits_hlt++;
		return halt(c);
	case KVM_EXIT_SHUTDOWN:
		return stop(c, STOP_SHUTDOWN);
	case KVM_EXIT_DEBUG:
		debug_hit(c, run->debug.arch.dr6);
		return stop(c, STOP_DEBUG);
	case KVM_EXIT_SYSTEM_EVENT: /* by hypervisors' interfaces that we do not offer */
		if (run->system_event.type == KVM_SYSTEM_EVENT_RESET) /* as a triple fault does */
			return stop(c, STOP_SHUTDOWN);
		return fail(c, kvm_system_event(run));
	case KVM_EXIT_FAIL_ENTRY:
		log_msg(LOG_ERROR, "kvm", "entry failed: hardware reason 0x%" PRIx64,
			(uint64_t)run->fail_entry.hardware_entry_failure_reason);
		return fail(c, "the processor refused to enter the guest");
	case KVM_EXIT_INTERNAL_ERROR:
		return fail(c, kvm_internal_error(run));
	default:
		log_msg(LOG_ERROR, "kvm", "exit reason %u is not known", run->exit_reason);
		return fail(c, "an exit of unknown kind");
	}
}

/*
 * Into KVM without the guest running an instruction: an access that came out as an exit is finished. With irqchip=split it also tells
 * the end of a level interrupt that it has noticed and not yet told, which no state that can be read shows. For that KVM has to
 * be on its way into the guest, so a signal waits there in place of immediate_exit: it is looked at after what is to be told.
 */
static int run_nothing(struct kvm_cpu *k)
{
	const struct timespec now = { 0 };
	struct { /* struct kvm_signal_mask with its bits */
		uint32_t len;
		uint8_t bits[8];
	} mask = { .len = 8 };
	sigset_t one;
	int r;

	if (!k->vm->split) {
		k->run->immediate_exit = 1;
		r = ioctl(k->fd, KVM_RUN, 0) < 0 ? -errno : 0;
		__atomic_store_n(&k->run->immediate_exit, 0, __ATOMIC_RELEASE);
		return r;
	}
	memset(mask.bits, 0xff, sizeof(mask.bits));
	mask.bits[(SETTLE_SIGNAL - 1) / 8] &= (uint8_t)~(1u << (SETTLE_SIGNAL - 1) % 8);
	if (ioctl(k->fd, KVM_SET_SIGNAL_MASK, &mask) < 0)
		return -errno;
	__atomic_store_n(&k->run->immediate_exit, 0, __ATOMIC_RELEASE);
	k->run->request_interrupt_window = 0;
	syscall(SYS_tgkill, getpid(), gettid(), SETTLE_SIGNAL); /* blocked everywhere but in there */
	r = ioctl(k->fd, KVM_RUN, 0) < 0 ? -errno : 0;
	sigemptyset(&one);
	sigaddset(&one, SETTLE_SIGNAL);
	sigtimedwait(&one, NULL, &now);
	return ioctl(k->fd, KVM_SET_SIGNAL_MASK, NULL) < 0 ? -errno : r;
}

static bool needs_completion(const struct kvm_cpu *k)
{
	const struct kvm_run *run = k->run;

	return k->vm->split || run->exit_reason == KVM_EXIT_IO || run->exit_reason == KVM_EXIT_MMIO ||
	       run->exit_reason == KVM_EXIT_X86_RDMSR || run->exit_reason == KVM_EXIT_X86_WRMSR;
}

/* To an instruction boundary, with nothing underway that only KVM knows. To finish one access can lead to the next (OR to a device). */
static enum cpu_stop settle(struct cpu *c)
{
	struct kvm_cpu *k = c->engine_data;

	for (unsigned i = 0; i < SETTLE_EXITS; i++) {
		int r = run_nothing(k);
		enum cpu_stop why;

		if (r == -EINTR || r == -EAGAIN) {
			k->run->exit_reason = KVM_EXIT_INTR;
			return STOP_NONE;
		}
		if (r)
			return fail(c, strerror(-r));
		kvm_coalesced_flush(k);
		why = serve(c);
		if (why != STOP_NONE)
			return why;
	}
	return fail(c, "an instruction that does not end");
}

/* Requests, INIT and halts, before an entry. STOP_NONE: enter. */
static enum cpu_stop attend(struct cpu *c)
{
	struct kvm_cpu *k = c->engine_data;
	uint32_t att = atomic_load(&c->attention);

	if ((att & (ATT_CALLER | ATT_INIT | ATT_SIPI | ATT_DEBUG)) && !k->in_struct && needs_completion(k)) {
		enum cpu_stop why = settle(c);

		if (why != STOP_NONE)
			return why;
	}
	if (att & ATT_CALLER) {
		atomic_fetch_and(&c->attention, ~(uint32_t)ATT_CALLER);
		return stop(c, STOP_KICK);
	}
	if (att & (k->vm->split ? ATT_DEBUG : ATT_INIT | ATT_SIPI | ATT_DEBUG)) /* else they are KVM's */
		return attend_idle(c);
	if (att & (ATT_FLUSH | ATT_SMI)) /* nothing of ours is to be flushed */
		atomic_fetch_and(&c->attention, ~(uint32_t)(ATT_FLUSH | ATT_SMI));
	if (c->s.activity == ACTIVITY_RUN || (k->vm->split && c->s.activity != ACTIVITY_SHUTDOWN))
		return STOP_NONE;
	if (c->s.activity == ACTIVITY_HLT && !k->in_struct) {
		if (halt_ends(c, att))
			return STOP_NONE;
		atomic_fetch_and(&c->attention, ~(uint32_t)ATT_IRQ); /* looked at */
		return c->bus->irq_pending(c->ctx) >= 0 && (c->s.rflags & FLAG_IF) ? STOP_NONE : stop(c, STOP_HLT);
	}
	return attend_idle(c);
}

/* Everything is with KVM and nothing is left to serve: into the guest. False: something came up, look again. */
static bool enter(struct cpu *c, int *result)
{
	struct kvm_cpu *k = c->engine_data;

	/* from here on who posts a request has to kick; what was posted before is seen */
	atomic_store(&c->run_state, CPU_RUNNING);
	if (atomic_load(&c->attention)) {
		atomic_store(&c->run_state, CPU_READY);
		return false;
	}
	k->entries++;
	*result = ioctl(k->fd, KVM_RUN, 0) < 0 ? -errno : 0;
	atomic_store(&c->run_state, CPU_READY);
	__atomic_store_n(&k->run->immediate_exit, 0, __ATOMIC_RELEASE);
	kvm_coalesced_flush(k);
	if (!k->vm->split && k->run->cr8 != k->cr8)
		c->bus->cr8_write(c->ctx, k->run->cr8);
	return true;
}

static int state_to_kvm(struct cpu *c, struct err *e)
{
	struct kvm_cpu *k = c->engine_data;
	int r = k->vm->split ? kvm_lapics_load(k->vm, e) : 0;

	if (!r)
		r = kvm_tsc_load(c, e);
	if (r || !k->in_struct)
		return r;
	r = kvm_state_load(c, e);
	if (r)
		return r;
	k->in_struct = false;
	/* run's copies of IF and readiness are of an earlier exit */
	k->run->if_flag = !!(c->s.rflags & FLAG_IF);
	k->run->ready_for_interrupt_injection = !k->vm->split && (c->s.rflags & FLAG_IF) && !c->s.shadow;
	k->run->exit_reason = KVM_EXIT_INTR;
	return 0;
}

enum cpu_stop kvm_cpu_run(struct cpu *c)
{
	struct kvm_cpu *k = c->engine_data;

	/* CPU_READY but in the guest: what is posted while we serve an exit is seen before the next entry, without a signal */
	atomic_store(&c->run_state, CPU_READY);
	for (;;) {
		enum cpu_stop why = attend(c);
		struct err e;
		int r;

		if (why != STOP_NONE)
			return why;
		if (c->s.activity != ACTIVITY_RUN && !k->vm->split)
			continue;
		if (state_to_kvm(c, &e)) {
			log_msg(LOG_ERROR, "kvm", "%s", e.text);
			return fail(c, "its state cannot be loaded");
		}
		pv_steal_tick(c);
		if (inject(c))
			return fail(c, "an interrupt cannot be injected");
		if (!enter(c, &r))
			continue;
		if (r == -EINTR || r == -EAGAIN) {
			k->exits_signal++;
			k->run->exit_reason = KVM_EXIT_INTR;
			continue;
		}
		if (r)
			return fail(c, strerror(-r));
		why = serve(c);
		if (why != STOP_NONE)
			return why;
	}
}

/*
 * Breakpoints first, then watchpoints, in the four debug registers (gdb_point refuses what does not fit). A breakpoint is
 * never planted as INT3 in guest memory: who saves the machine or changes its engine meanwhile would keep it.
 */
int kvm_debug_set(struct cpu *c, struct err *e)
{
	struct kvm_cpu *k = c->engine_data;
	struct kvm_guest_debug d = { 0 };
	unsigned n = 0;

	if (c->debug.active)
		d.control = KVM_GUESTDBG_ENABLE | (c->debug.step ? KVM_GUESTDBG_SINGLESTEP : 0);
	if (c->debug.nbreaks || c->debug.nwatches)
		d.control |= KVM_GUESTDBG_USE_HW_BP;
	for (unsigned i = 0; i < c->debug.nbreaks && n < KVM_DEBUG_POINTS; i++, n++) {
		d.arch.debugreg[n] = c->debug.breaks[i];
		d.arch.debugreg[7] |= 2ull << (2 * n);
	}
	for (unsigned i = 0; i < c->debug.nwatches && n < KVM_DEBUG_POINTS; i++, n++) {
		uint32_t len = c->debug.watches[i].len;
		uint64_t kind = c->debug.watches[i].on_read ? 3 : 1, size = len == 8 ? 2 : len == 4 ? 3 : len == 2 ? 1 : 0;

		d.arch.debugreg[n] = c->debug.watches[i].at;
		d.arch.debugreg[7] |= 2ull << (2 * n) | (kind | size << 2) << (16 + 4 * n);
	}
	if (ioctl(k->fd, KVM_SET_GUEST_DEBUG, &d) < 0)
		return err_errno(e, "KVM_SET_GUEST_DEBUG");
	return 0;
}
