/* SPDX-License-Identifier: Apache-2.0 */
/* The KVM engine: the host's CPU executes the guest; here it is set up, attached and torn down. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/kick.h"
#include "engine/kvm/engine.h"
#include "engine/kvm/kvm.h"
#include "x86/pv.h"

static int kvm_open(struct err *e)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int version;

	if (fd < 0 && errno == ENOENT)
		return err_set(e, ENOENT, "/dev/kvm is not there: no hardware virtualization on this host, or its "
					  "kernel module (kvm_intel, kvm_amd) is not loaded");
	if (fd < 0 && errno == EACCES)
		return err_set(e, EACCES, "no permission for /dev/kvm: join its group (usually: "
					  "usermod -aG kvm USER) and log in again");
	if (fd < 0)
		return err_errno(e, "/dev/kvm");
	version = ioctl(fd, KVM_GET_API_VERSION, 0);
	if (version != KVM_API_VERSION) {
		close(fd);
		return err_set(e, ENOTSUP, "/dev/kvm speaks version %d, not %d", version, KVM_API_VERSION);
	}
	return fd;
}

static const struct {
	int cap;
	const char *what;
} needed[] = {
	{ KVM_CAP_USER_MEMORY, "user memory" },
	{ KVM_CAP_IMMEDIATE_EXIT, "immediate exit" },
	{ KVM_CAP_XSAVE, "XSAVE state" },
	{ KVM_CAP_XCRS, "extended control registers" },
	{ KVM_CAP_VCPU_EVENTS, "vCPU events" },
	{ KVM_CAP_DEBUGREGS, "debug registers" },
	{ KVM_CAP_X86_USER_SPACE_MSR, "MSR exits" },
	{ KVM_CAP_READONLY_MEM, "read-only memory" },
};

static int kvm_probe(struct err *e)
{
	int fd _close_ = kvm_open(e);

	if (fd < 0)
		return fd;
	for (unsigned i = 0; i < ARRAY_LEN(needed); i++)
		if (ioctl(fd, KVM_CHECK_EXTENSION, needed[i].cap) <= 0)
			return err_set(e, ENOTSUP, "this host's KVM lacks %s", needed[i].what);
	return 0;
}

static void kvm_vm_detach(struct machine *m)
{
	struct kvm_vm *vm = m->engine_data;

	if (!vm)
		return;
	kvm_slots_detach(vm);
	kvm_irqfds_close(vm);
	free(vm->irqfds);
	if (vm->fd >= 0)
		close(vm->fd);
	if (vm->dev_fd >= 0)
		close(vm->dev_fd);
	pthread_mutex_destroy(&vm->ring_lock);
	pthread_mutex_destroy(&vm->lapic_lock);
	pthread_mutex_destroy(&vm->irqfd_lock);
	pthread_mutex_destroy(&vm->dirty_lock);
	free(vm->msrs);
	free(vm);
	m->engine_data = NULL;
}

static int kvm_vm_setup(struct kvm_vm *vm, struct err *e)
{
	struct kvm_enable_cap msr_exits = { .cap = KVM_CAP_X86_USER_SPACE_MSR,
					    .args = { KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_INVAL |
						      KVM_MSR_EXIT_REASON_FILTER } };
	/*
	 * The APIC base and the TSC deadline are our local APIC's; KVM would swallow them. The TSC's offset, and the pages that
	 * tell the time, are kept by x86/ as under every engine, so that the guest's time survives pauses and exchanges.
	 */
	static uint8_t deny[1];
	const uint32_t r = KVM_MSR_FILTER_READ, w = KVM_MSR_FILTER_WRITE;
	/* the first two are the kernel's when it has the local APICs */
	struct kvm_msr_filter filter = {
		.flags = KVM_MSR_FILTER_DEFAULT_ALLOW,
		.ranges = {
			{ .flags = r | w, .base = 0x1b, .nmsrs = 1, .bitmap = deny },
			{ .flags = r | w, .base = 0x6e0, .nmsrs = 1, .bitmap = deny },
			{ .flags = w, .base = MSR_TSC, .nmsrs = 1, .bitmap = deny },
			{ .flags = r | w, .base = MSR_KVM_WALL_CLOCK_OLD, .nmsrs = 2, .bitmap = deny },
			{ .flags = r | w, .base = MSR_TSC_ADJUST, .nmsrs = 1, .bitmap = deny },
			{ .flags = r | w, .base = MSR_KVM_WALL_CLOCK, .nmsrs = 8, .bitmap = deny },
		},
	};

	int rc;

	vm->run_size = ioctl(vm->dev_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (vm->run_size < (int)sizeof(struct kvm_run))
		return err_errno(e, "KVM_GET_VCPU_MMAP_SIZE");
	rc = ioctl(vm->dev_fd, KVM_CHECK_EXTENSION, KVM_CAP_COALESCED_MMIO);
	if (rc > 0 && (rc + 1) * sysconf(_SC_PAGESIZE) <= vm->run_size)
		vm->ring_page = (unsigned)rc;
	kvm_doorbells_probe(vm);
	do /* a signal that is there just then lets it fail */
		vm->fd = ioctl(vm->dev_fd, KVM_CREATE_VM, 0);
	while (vm->fd < 0 && errno == EINTR);
	if (vm->fd < 0)
		return err_errno(e, "KVM_CREATE_VM");
	if (ioctl(vm->fd, KVM_SET_TSS_ADDR, 0xfffbd000ul) < 0)
		return err_errno(e, "KVM_SET_TSS_ADDR");
	if (ioctl(vm->fd, KVM_ENABLE_CAP, &msr_exits) < 0)
		return err_errno(e, "KVM_CAP_X86_USER_SPACE_MSR");
	rc = kvm_lapic_attach(vm, e);
	if (!rc)
		rc = kvm_irqfds_attach(vm, e);
	if (!rc)
		rc = kvm_dirty_ring_attach(vm, e);
	if (rc)
		return rc;
	if (vm->split) {
		memmove(filter.ranges, filter.ranges + 2, sizeof(filter.ranges) - 2 * sizeof(filter.ranges[0]));
		memset(filter.ranges + KVM_MSR_FILTER_MAX_RANGES - 2, 0, 2 * sizeof(filter.ranges[0]));
	}
	if (ioctl(vm->fd, KVM_X86_SET_MSR_FILTER, &filter) < 0)
		return err_errno(e, "KVM_X86_SET_MSR_FILTER");
	rc = kvm_cpuid_attach(vm, e);
	return rc ? rc : kvm_state_probe(vm, e);
}

static int kvm_vm_attach(struct machine *m, struct err *e)
{
	struct kvm_vm *vm = calloc(1, sizeof(*vm));
	int r;

	if (!vm)
		return err_set(e, ENOMEM, "no memory for the KVM engine");
	vm->machine = m;
	vm->fd = -1;
	pthread_mutex_init(&vm->ring_lock, NULL);
	pthread_mutex_init(&vm->lapic_lock, NULL);
	pthread_mutex_init(&vm->irqfd_lock, NULL);
	pthread_mutex_init(&vm->dirty_lock, NULL);

	vm->dev_fd = kvm_open(e);
	m->engine_data = vm;
	r = vm->dev_fd < 0 ? vm->dev_fd : kvm_vm_setup(vm, e);
	if (!r)
		r = kvm_slots_attach(vm, e);
	if (r)
		kvm_vm_detach(m);
	return r;
}

static void kvm_cpu_destroy(struct cpu *c)
{
	struct kvm_cpu *k = c->engine_data;

	if (!k)
		return;
	if (k->fd >= 0)
		kvm_lapic_cpu_leaves(c);
	kvm_dirty_ring_cpu_leaves(k);
	if (k->run)
		munmap(k->run, (size_t)k->vm->run_size);
	if (k->fd >= 0)
		close(k->fd);
	free(k);
	c->engine_data = NULL;
}

static int kvm_cpu_create(struct cpu *c, struct err *e)
{
	struct kvm_vm *vm = c->machine->engine_data;
	struct kvm_cpu *k = calloc(1, sizeof(*k));
	int r;

	if (!k)
		return err_set(e, ENOMEM, "no memory for vCPU %u", c->id);
	k->vm = vm;
	k->in_struct = k->tsc_stale = true;
	c->engine_data = k;
	k->fd = ioctl(vm->fd, KVM_CREATE_VCPU, (unsigned long)c->id);
	if (k->fd < 0) {
		r = err_errno(e, "KVM_CREATE_VCPU %u", c->id);
		goto fail;
	}
	k->run = mmap(NULL, (size_t)vm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, k->fd, 0);
	if (k->run == MAP_FAILED) {
		k->run = NULL;
		r = err_errno(e, "mapping the run page of vCPU %u", c->id);
		goto fail;
	}
	if (vm->ring_page)
		k->ring = (void *)((uint8_t *)k->run + vm->ring_page * sysconf(_SC_PAGESIZE));
	kvm_tsc_probe(k);
	r = kvm_cpuid_set(c, e);
	if (!r)
		r = kvm_dirty_ring_cpu_created(k, e);
	if (!r)
		r = kvm_lapic_cpu_created(c, e);
	if (!r)
		return 0;
fail:
	kvm_cpu_destroy(c);
	return r;
}

/*
 * Setting immediate_exit first makes the signal's moment harmless: it ends a KVM_RUN underway, and one that has not
 * started returns at once.
 */
static void kvm_kick(struct cpu *c)
{
	struct kvm_cpu *k = c->engine_data;

	if (k && k->run)
		__atomic_store_n(&k->run->immediate_exit, 1, __ATOMIC_RELEASE);
	if (c->thread)
		kick_send(c->thread);
}

static void kvm_state_get(struct cpu *c)
{
	struct kvm_cpu *k = c->engine_data;
	struct err e;

	if (!k)
		return;
	pthread_mutex_lock(&k->vm->lapic_lock);
	if (k->in_struct)
		kvm_lapic_fetch(c); /* interrupts come to it also while the CPU is stopped */
	else if (kvm_state_store(c, &e) == 0)
		k->in_struct = true;
	pthread_mutex_unlock(&k->vm->lapic_lock);
}

static void kvm_state_set(struct cpu *c)
{
	struct kvm_cpu *k = c->engine_data;

	if (k)
		k->in_struct = true;
}

static int kvm_state_check(struct cpu *c, struct err *e)
{
	struct kvm_cpu *k = c->engine_data;

	return k->in_struct ? kvm_state_load(c, e) : 0;
}

static void kvm_debug_changed(struct cpu *c)
{
	if (c->engine_data)
		kvm_debug_set(c, NULL);
}

static void kvm_stats(struct machine *m, void (*line)(void *opaque, const char *name, uint64_t value),
		      void *opaque)
{
	struct kvm_vm *vm = m->engine_data;
	struct kvm_cpu sum = { 0 };

	for (unsigned i = 0; i < m->ncpus; i++) {
		const struct kvm_cpu *k = m->cpus[i] ? m->cpus[i]->engine_data : NULL;

		if (!k)
			continue;
		sum.entries += k->entries;
		sum.exits_io += k->exits_io;
		sum.exits_mmio += k->exits_mmio;
		sum.exits_msr += k->exits_msr;
		sum.exits_hlt += k->exits_hlt;
		sum.exits_window += k->exits_window;
		sum.exits_signal += k->exits_signal;
		sum.exits_eoi += k->exits_eoi;
		sum.exits_ring += k->exits_ring;
		sum.coalesced += k->coalesced;
	}
	line(opaque, "entries", sum.entries);
	line(opaque, "exits: ports", sum.exits_io);
	line(opaque, "exits: MMIO", sum.exits_mmio);
	line(opaque, "exits: MSRs", sum.exits_msr);
	line(opaque, "exits: halt", sum.exits_hlt);
	line(opaque, "exits: interrupt window", sum.exits_window);
	line(opaque, "exits: kicked", sum.exits_signal);
	line(opaque, "exits: ends of level interrupts", sum.exits_eoi);
	line(opaque, "exits: ring of written pages full", sum.exits_ring);
	line(opaque, "writes gathered", sum.coalesced);
	line(opaque, "doorbells", vm->nbells);
	line(opaque, "messages by eventfd", atomic_load(&vm->irqfd_messages));
	line(opaque, "their routes", atomic_load(&vm->irqfd_routes));
}

const struct engine_ops engine_kvm = {
	.name = "kvm",
	.debug_points = KVM_DEBUG_POINTS,
	.probe = kvm_probe,
	.vm_attach = kvm_vm_attach,
	.vm_detach = kvm_vm_detach,
	.cpu_create = kvm_cpu_create,
	.cpu_destroy = kvm_cpu_destroy,
	.run = kvm_cpu_run,
	.kick = kvm_kick,
	.state_get = kvm_state_get,
	.state_set = kvm_state_set,
	.state_check = kvm_state_check,
	.debug_set = kvm_debug_changed,
	.stats = kvm_stats,
};
