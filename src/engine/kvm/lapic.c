/* SPDX-License-Identifier: Apache-2.0 */
/*
 * irqchip=split: local APICs in KVM, IOAPIC, 8259s and timers ours. Interrupts between CPUs, APIC timers and halts then cost no exit.
 *
 * While CPUs run, KVM's registers are the truth, and stay so over a pause: cpu_bus->apic_import gives a copy to whoever looks at
 * the stopped machine. Only what changed in the copy (a reset, a restored machine, another engine before) goes to KVM, and that for all
 * CPUs before the first of them runs (kvm_lapics_load), since to load one while another sends to it would lose the interrupt.
 *
 * Interrupts of devices are one system call: KVM_SIGNAL_MSI, done when it returns, or a write to an eventfd (irqfd.c), which may be done
 * later: kvm_irqfds_settle waits for those, before registers are read or replaced.
 * Level interrupts: KVM tells us the end of those whose messages it knows from its routing table (KVM_EXIT_IOAPIC_EOI).
 *
 * The 8259s' interrupts are put in by us (kvm_pic_inject) as events already injected, rather than by KVM_INTERRUPT: what that queues
 * is in no state that can be read back, so a pause at the wrong moment would lose it.
 */
#include <errno.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include "base/log.h"
#include "engine/kvm/kvm.h"

#define MSR_TSC_DEADLINE 0x6e0

struct one_msr { /* struct kvm_msrs with its entry */
	uint32_t nmsrs, pad;
	struct kvm_msr_entry entry;
};
_Static_assert(offsetof(struct one_msr, entry) == sizeof(struct kvm_msrs), "as the kernel has it");

static int host_msi(void *opaque, uint64_t address, uint32_t data)
{
	return kvm_irqfds_send(opaque, address, data);
}

static uint64_t cpu_address(const struct cpu *c)
{
	return 0xfee00000u | (c->id & 0xff) << 12 | (uint64_t)(c->id & ~0xffu) << 32;
}

static void host_changed(void *opaque, struct cpu *c)
{
	struct kvm_vm *vm = opaque;
	struct kvm_cpu *k = c->engine_data;

	if (!k)
		return;
	k->lapic_dirty = true;
	atomic_store(&vm->lapics_dirty, true);
}

/* What is no level interrupt is not in KVM's table: its end interests nobody. */
static void host_routes(void *opaque)
{
	kvm_routes_changed(opaque);
}

int kvm_lapic_attach(struct kvm_vm *vm, struct err *e)
{
	struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { APIC_ROUTES } };
	struct kvm_enable_cap ids = { .cap = KVM_CAP_X2APIC_API, .args = { KVM_X2APIC_API_USE_32BIT_IDS } };
	static const int caps[] = { KVM_CAP_SPLIT_IRQCHIP, KVM_CAP_X2APIC_API, KVM_CAP_SIGNAL_MSI, KVM_CAP_IRQ_ROUTING,
				    KVM_CAP_TSC_DEADLINE_TIMER, KVM_CAP_MP_STATE };
	enum engine_choice choice = vm->machine->engine_options.lapic;

	if (!engine_wants(choice, vm->machine->accelerated))
		return 0;
	for (unsigned i = 0; i < ARRAY_LEN(caps); i++) {
		if (ioctl(vm->fd, KVM_CHECK_EXTENSION, caps[i]) > 0)
			continue;
		return choice == ENGINE_ON ? err_set(e, ENOTSUP, "this host's KVM cannot have local APICs alone; leave irqchip=split out") : 0;
	}
	if (ioctl(vm->fd, KVM_ENABLE_CAP, &split) < 0)
		return err_errno(e, "KVM_CAP_SPLIT_IRQCHIP");
	if (ioctl(vm->fd, KVM_ENABLE_CAP, &ids) < 0)
		return err_errno(e, "KVM_CAP_X2APIC_API");
	vm->split = true;
	vm->apic_host = (struct apic_host){ vm, host_msi, host_changed, host_routes };
	return 0;
}

/* All CPUs are there: from now on messages go to KVM. Each CPU's registers follow when the first of them runs. */
int kvm_lapic_cpu_created(struct cpu *c, struct err *e)
{
	struct kvm_cpu *k = c->engine_data;
	struct kvm_vm *vm = k->vm;

	if (!vm->split)
		return 0;
	if (!c->bus || !c->bus->apic_export)
		return err_set(e, EINVAL, "irqchip=split: CPU %u has no local APIC", c->id);
	k->lapic_dirty = true;
	pthread_mutex_lock(&vm->lapic_lock);
	if (++vm->created == vm->machine->ncpus) {
		atomic_store(&vm->lapics_dirty, true);
		host_routes(vm);
		atomic_store(&vm->machine->apic_host, &vm->apic_host);
	}
	pthread_mutex_unlock(&vm->lapic_lock);
	return 0;
}

static void fetch(struct cpu *c)
{
	struct kvm_cpu *k = c->engine_data;
	struct apic_regs r = { 0 };
	struct kvm_lapic_state page;
	struct kvm_sregs sregs;
	struct one_msr deadline = { .nmsrs = 1, .entry.index = MSR_TSC_DEADLINE };

	if (ioctl(k->fd, KVM_GET_LAPIC, &page) < 0 || ioctl(k->fd, KVM_GET_SREGS, &sregs) < 0) {
		log_msg(LOG_ERROR, "kvm", "the local APIC of vCPU %u cannot be read: %s", c->id, strerror(errno));
		return;
	}
	for (unsigned i = 0; i < ARRAY_LEN(r.word); i++)
		memcpy(&r.word[i], &page.regs[16 * i], 4);
	r.base = sregs.apic_base;
	r.timer_frozen = k->in_struct;
	if (ioctl(k->fd, KVM_GET_MSRS, &deadline) == 1)
		r.deadline = deadline.entry.data;
	c->bus->apic_import(c->ctx, &r);
}

/* Its CPU is stopped. An INIT or SIPI that came since by another one, still running then, has changed everything. */
void kvm_lapic_fetch(struct cpu *c)
{
	struct kvm_cpu *k = c->engine_data;
	struct kvm_mp_state mp;

	if (!k->vm->split || k->lapic_dirty)
		return;
	kvm_irqfds_settle(k->vm);
	if (k->in_struct && !ioctl(k->fd, KVM_GET_MP_STATE, &mp) && mp.mp_state != k->mp_state) {
		k->in_struct = false;
		kvm_state_store(c, NULL); /* comes back here */
		k->in_struct = true;
		return;
	}
	fetch(c);
}

/* Before a CPU goes, all of them parked: ours are the real ones again. Messages on their way are in when its registers are read. */
void kvm_lapic_cpu_leaves(struct cpu *c)
{
	struct kvm_cpu *k = c->engine_data;
	struct kvm_vm *vm = k->vm;
	const struct apic_host *mine = &vm->apic_host;

	if (!vm->split)
		return;
	atomic_compare_exchange_strong(&vm->machine->apic_host, &mine, NULL);
	while (atomic_load(&vm->machine->apic_senders))
		sched_yield();
	kvm_irqfds_close(vm);
	if (k->lapic_dirty)
		return;
	if (k->in_struct)
		kvm_lapic_fetch(c);
	else /* load_requests gave it to KVM, and its thread did not wake before the machine was stopped again */
		kvm_state_store(c, NULL);
	k->in_struct = true;
	c->bus->apic_released(c->ctx);
}

static int load_one(struct cpu *c, struct err *e)
{
	struct kvm_cpu *k = c->engine_data;
	int64_t offset = c->s.tsc_offset;
	struct kvm_mp_state mp = { .mp_state = kvm_mp_state(c) };
	struct kvm_lapic_state page = { 0 };
	struct kvm_sregs sregs;
	struct apic_regs r;
	struct one_msr deadline = { .nmsrs = 1, .entry.index = MSR_TSC_DEADLINE };
	int rc = kvm_tsc_load(c, e); /* the deadline is in the guest's time */

	if (rc)
		return rc;
	c->bus->apic_export(c->ctx, &r);
	for (unsigned i = 0; i < ARRAY_LEN(r.word); i++)
		memcpy(&page.regs[16 * i], &r.word[i], 4);
	if (r.deadline && k->vm->tsc_fixed)
		r.deadline += (uint64_t)(c->s.tsc_offset - offset);
	deadline.entry.data = r.deadline;
	if (ioctl(k->fd, KVM_GET_SREGS, &sregs) < 0)
		return err_errno(e, "KVM_GET_SREGS");
	sregs.apic_base = r.base;
	if (ioctl(k->fd, KVM_SET_SREGS, &sregs) < 0)
		return err_errno(e, "KVM_SET_SREGS with APIC base 0x%llx", (unsigned long long)r.base);
	if (ioctl(k->fd, KVM_SET_LAPIC, &page) < 0)
		return err_errno(e, "KVM_SET_LAPIC");
	if (ioctl(k->fd, KVM_SET_MP_STATE, &mp) < 0)
		return err_errno(e, "KVM_SET_MP_STATE");
	k->mp_state = mp.mp_state; /* ours: kvm_lapic_fetch is not to take it for an INIT or SIPI */
	if (ioctl(k->fd, KVM_SET_MSRS, &deadline) != 1 && r.deadline)
		return err_errno(e, "the TSC deadline of vCPU %u", c->id);
	k->lapic_dirty = false;
	return 0;
}

/* INIT and SIPI that were posted to us go where those that follow are sent to. */
void kvm_lapic_startup(struct cpu *c, uint32_t attention)
{
	struct kvm_cpu *k = c->engine_data;

	if (attention & ATT_INIT)
		kvm_signal_msi(k->vm, cpu_address(c), 0x4500);
	if (attention & ATT_SIPI)
		kvm_signal_msi(k->vm, cpu_address(c), 0x4600u | c->sipi_vector);
}

/*
 * What another engine left posted: before any CPU runs, since KVM drops a SIPI when an INIT comes after it. From here on the CPU's state
 * is KVM's, which knows what became of it.
 */
static int load_requests(struct cpu *c, struct err *e)
{
	struct kvm_cpu *k = c->engine_data;
	uint32_t att = atomic_fetch_and(&c->attention, ~(uint32_t)(ATT_INIT | ATT_SIPI)) & (ATT_INIT | ATT_SIPI);
	int r;

	if (!att || !k->in_struct)
		return 0;
	r = kvm_state_load(c, e);
	if (r)
		return r;
	kvm_lapic_startup(c, att);
	k->run->exit_reason = KVM_EXIT_INTR;
	k->run->if_flag = k->run->ready_for_interrupt_injection = 0;
	k->in_struct = false;
	return 0;
}

/* The first CPU that runs does it for all: the others are parked, or wait here. */
int kvm_lapics_load(struct kvm_vm *vm, struct err *e)
{
	struct machine *m = vm->machine;
	int r = 0;

	if (!atomic_load(&vm->lapics_dirty))
		return 0;
	pthread_mutex_lock(&vm->lapic_lock);
	kvm_irqfds_settle(vm);
	for (unsigned i = 0; i < m->ncpus && !r && atomic_load(&vm->lapics_dirty); i++) {
		struct kvm_cpu *k = m->cpus[i]->engine_data;

		if (k && k->lapic_dirty)
			r = load_one(m->cpus[i], e);
	}
	for (unsigned i = 0; i < m->ncpus && !r && atomic_load(&vm->lapics_dirty); i++)
		if (m->cpus[i]->engine_data)
			r = load_requests(m->cpus[i], e);
	if (!r)
		atomic_store(&vm->lapics_dirty, false);
	pthread_mutex_unlock(&vm->lapic_lock);
	return r;
}

/* After the guest's TSC has moved: KVM's timer runs by the old one. */
void kvm_lapic_deadline_again(struct kvm_cpu *k)
{
	struct one_msr deadline = { .nmsrs = 1, .entry.index = MSR_TSC_DEADLINE };

	if (ioctl(k->fd, KVM_GET_MSRS, &deadline) == 1 && deadline.entry.data)
		ioctl(k->fd, KVM_SET_MSRS, &deadline);
}

uint32_t kvm_mp_state(const struct cpu *c)
{
	switch (c->s.activity) {
	case ACTIVITY_HLT: return KVM_MP_STATE_HALTED;
	case ACTIVITY_WAIT_SIPI: return KVM_MP_STATE_INIT_RECEIVED;
	default: return KVM_MP_STATE_RUNNABLE;
	}
}

/* Pending INIT and SIPI take effect by being asked for: before the registers are read. */
int kvm_mp_state_store(struct cpu *c, struct err *e)
{
	struct kvm_cpu *k = c->engine_data;
	struct kvm_mp_state mp;

	if (ioctl(k->fd, KVM_GET_MP_STATE, &mp) < 0)
		return err_errno(e, "KVM_GET_MP_STATE");
	k->mp_state = mp.mp_state;
	switch (mp.mp_state) {
	case KVM_MP_STATE_HALTED: c->s.activity = ACTIVITY_HLT; break;
	case KVM_MP_STATE_UNINITIALIZED:
	case KVM_MP_STATE_INIT_RECEIVED: c->s.activity = ACTIVITY_WAIT_SIPI; break;
	default: c->s.activity = ACTIVITY_RUN; break;
	}
	return 0;
}

/* ---- interrupts that come by way of us */

/* Vectors that were posted to our local APIC when it was the real one, or by who was just late. */
static void pass_on(struct cpu *c)
{
	struct kvm_cpu *k = c->engine_data;
	uint64_t vectors[4], level[4];
	uint64_t address = cpu_address(c);

	if (!c->bus->apic_take_posted(c->ctx, vectors, level))
		return;
	for (unsigned i = 0; i < 256; i++)
		if (vectors[i / 64] & BIT(i % 64))
			kvm_signal_msi(k->vm, address, i | (level[i / 64] & BIT(i % 64) ? 0xc000u : 0));
}

static int pic_inject(struct cpu *c)
{
	struct kvm_cpu *k = c->engine_data;
	struct kvm_vcpu_events ev;
	struct kvm_mp_state mp;
	int vector;

	if (ioctl(k->fd, KVM_GET_VCPU_EVENTS, &ev) < 0 || ioctl(k->fd, KVM_GET_MP_STATE, &mp) < 0)
		return -errno;
	if (ev.interrupt.injected || ev.exception.injected || ev.nmi.injected)
		return 0;
	vector = c->bus->pic_take(c->ctx);
	if (vector < 0)
		return 0;
	ev.flags = 0;
	ev.interrupt.injected = 1;
	ev.interrupt.nr = (uint8_t)vector;
	ev.interrupt.soft = 0;
	k->run->ready_for_interrupt_injection = 0; /* until KVM says so again */
	if (ioctl(k->fd, KVM_SET_VCPU_EVENTS, &ev) < 0)
		return -errno;
	if (mp.mp_state == KVM_MP_STATE_HALTED) {
		mp.mp_state = KVM_MP_STATE_RUNNABLE;
		if (ioctl(k->fd, KVM_SET_MP_STATE, &mp) < 0)
			return -errno;
	}
	return 0;
}

int kvm_lapic_inject(struct cpu *c, uint32_t attention)
{
	struct kvm_cpu *k = c->engine_data;
	int r = 0;

	if (attention & ATT_IRQ)
		pass_on(c);
	kvm_lapic_startup(c, attention);
	k->run->request_interrupt_window = 0;
	if (c->bus->pic_pending(c->ctx) && k->run->ready_for_interrupt_injection)
		r = pic_inject(c);
	k->run->request_interrupt_window = c->bus->pic_pending(c->ctx);
	return r;
}
