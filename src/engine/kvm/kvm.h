/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the KVM engine share. Nothing outside this folder includes it. */
#ifndef ENGINE_KVM_KVM_H
#define ENGINE_KVM_KVM_H

#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include "base/err.h"
#include "engine/engine.h"

#define KVM_SLOTS 64
#define KVM_ZONES 16 /* of gathered writes */
#define KVM_BELLS 400 /* KVM itself has room for 1000 devices and doorbells */
#define KVM_BELLS_OF_ONE 64 /* device */
#define KVM_DEBUG_POINTS 4 /* debug registers */
#define MSR_TSC 0x10
#define MSR_TSC_ADJUST 0x3b

/* irqfd.c: a message that has an eventfd */
#define KVM_IRQFD_ROUTES 128 /* eventfds: a process may have 1024 files as a rule */
struct kvm_irqfd_route {
	_Atomic uint64_t key; /* as senders see it; 0: nothing to send to */
	_Atomic unsigned users;
	_Atomic bool written; /* since it was settled */
	_Atomic bool recent;  /* since somebody looked for room */
	uint64_t bound;       /* the key in KVM's table; 0: neither there nor bound */
	int fd;               /* -1: none yet. Stays until the end */
};
struct kvm_irqfds {
	struct kvm_irqfd_route route[KVM_IRQFD_ROUTES];
	_Atomic bool written; /* some route is */
	_Atomic bool settling;
	_Atomic bool broken;  /* KVM did not take one: no more of them */
	_Atomic uint8_t count[1024]; /* of messages without a route; pairs that share a counter get theirs a little early */
};

/* Of a machine, in machine->engine_data. */
struct kvm_vm {
	struct machine *machine;
	int dev_fd, fd;
	int run_size; /* of the shared page of a vCPU */
	unsigned nslots;
	struct kvm_userspace_memory_region slot[KVM_SLOTS];
	struct mem_listener listener;
	unsigned ring_page; /* of a vCPU's shared pages, where the ring of gathered writes is; 0: there is none */
	pthread_mutex_t ring_lock; /* whoever takes from the ring */
	unsigned nzones;
	struct kvm_coalesced_mmio_zone zone[KVM_ZONES];
	bool split; /* local APICs are KVM's: lapic.c */
	struct apic_host apic_host;
	pthread_mutex_t lapic_lock; /* also who takes a CPU's state: another one may be giving it to KVM */
	unsigned created; /* vCPUs */
	_Atomic bool lapics_dirty; /* some CPU's lapic_dirty is set */
	pthread_mutex_t irqfd_lock; /* irqfd.c; after lapic_lock */
	struct apic_route pin[APIC_ROUTES]; /* as KVM has them */
	struct kvm_irqfds *irqfds; /* NULL: messages are system calls */
	bool irqfds_open; /* routes may be added */
	_Atomic uint64_t irqfd_routes, irqfd_messages; /* ever */
	bool dirty_ring; /* written pages come from rings: dirty-ring.c */
	pthread_mutex_t dirty_lock;
	bool has_bells, bells_any_size;
	unsigned nbells;
	struct kvm_ioeventfd bell[KVM_BELLS];
	uint32_t xsave_offset[10]; /* of each state component in the standard format, 0 if the host has none */
	uint32_t *msrs; /* those of x86_state that this KVM knows */
	unsigned nmsrs;
	bool tsc_by_offset; /* KVM takes the offset itself, so that all CPUs agree to the tick */
	bool tsc_fixed;     /* a KVM without hardware behind it: the guest sees the host's counter, whatever is set */
};

/* Of a vCPU, in cpu->engine_data. The guest's state is either in KVM or in cpu->s, never half and half. */
struct kvm_cpu {
	struct kvm_vm *vm;
	int fd;
	struct kvm_run *run;
	struct kvm_coalesced_mmio_ring *ring; /* NULL: there is none */
	bool in_struct; /* cpu->s is the truth and has to be loaded before the next entry */
	struct kvm_dirty_gfn *dirty; /* its ring of written pages; NULL: none */
	uint32_t dirty_next;
	uint32_t mp_state; /* KVM's, when the state was stored, or as it was set since */
	_Atomic bool lapic_dirty; /* ours is to be taken over; changed with all CPUs stopped, or under lapic_lock */
	bool tsc_stale;  /* the guest's counter has been set since KVM was told */
	int64_t tsc_offset; /* to the host's, as KVM was told last */
	uint64_t cr8; /* at the last entry */
	uint64_t exits_io, exits_mmio, exits_msr, exits_hlt, exits_window, exits_signal, exits_eoi, exits_ring, entries, coalesced;
};

/* slots.c: memory slots kept in step with the address map */
int kvm_slots_attach(struct kvm_vm *vm, struct err *e);
void kvm_slots_detach(struct kvm_vm *vm);

/* state.c: the architectural state to KVM and back */
int kvm_state_probe(struct kvm_vm *vm, struct err *e);
int kvm_state_load(struct cpu *c, struct err *e);  /* cpu->s into KVM */
int kvm_state_store(struct cpu *c, struct err *e); /* KVM into cpu->s */
void kvm_tsc_probe(struct kvm_cpu *k);
int kvm_tsc_load(struct cpu *c, struct err *e);    /* only if KVM's differs from what cpu->s says */

/* cpuid.c: the machine's model, refused when this host cannot hold it; model host is cut to what it can */
int kvm_cpuid_attach(struct kvm_vm *vm, struct err *e);
int kvm_cpuid_set(struct cpu *c, struct err *e);

/* vcpu.c */
enum cpu_stop kvm_cpu_run(struct cpu *c);
int kvm_debug_set(struct cpu *c, struct err *e);

/* coalesce.c: writes that KVM gathers */
void kvm_coalesced_update(struct kvm_vm *vm);
void kvm_coalesced_flush(struct kvm_cpu *k);

/* lapic.c: local APICs in KVM */
int kvm_lapic_attach(struct kvm_vm *vm, struct err *e); /* before there are CPUs */
int kvm_lapic_cpu_created(struct cpu *c, struct err *e);
void kvm_lapic_cpu_leaves(struct cpu *c);
void kvm_lapic_fetch(struct cpu *c); /* a copy into ours */
int kvm_lapics_load(struct kvm_vm *vm, struct err *e);
void kvm_lapic_startup(struct cpu *c, uint32_t attention);
void kvm_lapic_deadline_again(struct kvm_cpu *k);
uint32_t kvm_mp_state(const struct cpu *c);
int kvm_mp_state_store(struct cpu *c, struct err *e);
int kvm_lapic_inject(struct cpu *c, uint32_t attention);

/* irqfd.c: messages to KVM's local APICs, and its table of routes */
int kvm_irqfds_attach(struct kvm_vm *vm, struct err *e); /* after kvm_lapic_attach */
void kvm_irqfds_close(struct kvm_vm *vm);
int kvm_irqfds_send(struct kvm_vm *vm, uint64_t address, uint32_t data); /* 1: accepted, 0: by nobody; eventfds accept all */
void kvm_irqfds_settle(struct kvm_vm *vm);
void kvm_routes_changed(struct kvm_vm *vm);
int kvm_signal_msi(const struct kvm_vm *vm, uint64_t address, uint32_t data); /* in when it returns */

/* dirty-ring.c */
int kvm_dirty_ring_attach(struct kvm_vm *vm, struct err *e); /* before there are CPUs */
int kvm_dirty_ring_cpu_created(struct kvm_cpu *k, struct err *e);
void kvm_dirty_ring_cpu_leaves(struct kvm_cpu *k);
void kvm_dirty_ring_collect(struct kvm_vm *vm); /* any thread */

/* doorbell.c: writes that KVM answers by an eventfd */
void kvm_doorbells_probe(struct kvm_vm *vm);
void kvm_doorbells_update(struct kvm_vm *vm);

/* dump.c */
void kvm_dump(struct cpu *c, const char *what); /* where the guest is, into the log */
const char *kvm_internal_error(const struct kvm_run *run); /* in words; its data go into the log */
const char *kvm_system_event(const struct kvm_run *run);   /* in words */

#endif
