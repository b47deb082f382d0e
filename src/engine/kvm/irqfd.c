/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages of devices through eventfds that KVM listens to (irqfds=on, with irqchip=split only). A pair of address and data that
 * threads other than the vCPUs' have sent often enough gets a route: a GSI beyond the IOAPIC's pins in KVM's table, an eventfd
 * bound to it, and a slot here where senders look the pair up. From then on a message is write(eventfd), and takes none of our locks.
 * Guests change data as they please (interrupts moved between CPUs): a changed pair is another route, and the least used one makes room.
 *
 * It is no faster: a write took 355 ns where KVM_SIGNAL_MSI took 300, so it is for who asks.
 *
 * A route only says what its message is; where that goes is looked up by KVM when it comes. So a route is never wrong, only useless.
 *
 * KVM may put a message in later than the write returns. Before local APICs are read or replaced, those written since are settled: to
 * unbind an eventfd waits for what is underway. What was counted while it was unbound is put in when it is bound again, or sent as a message.
 *
 * Locking: irqfd_lock for whoever changes routes or KVM's table (apic_route is copied under it: the IOAPIC's lock is not ours to
 * take); it may be held as long as KVM needs to change a table, 0.7 s where KVM has no hardware and the host is busy, so senders only try it. A
 * sender is in `users` while it holds a slot; who gives the slot another pair takes the key away, then waits for users to be zero.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "base/kick.h"
#include "base/log.h"
#include "engine/kvm/kvm.h"

#define FIRST_GSI APIC_ROUTES
#define PROBES 8 /* slots where a pair may be */
#define OFTEN 16 /* messages until a pair gets a route, which costs as much as some hundred messages */
#define TABLE_ENTRIES (APIC_ROUTES + KVM_IRQFD_ROUTES)

/* Edge interrupts, fixed or lowest priority; 0 for what else there is: that is sent as ever. */
static uint64_t key_of(uint64_t address, uint32_t data)
{
	if ((address & 0xfffff00ff3ull) != 0xfee00000u || (data & ~0x1ffu) || (data & 0xff) < 16)
		return 0;
	return 1ull << 63 | (address >> 40) << 29 | (address & 0xff00cu) << 9 | data;
}

static uint64_t key_address(uint64_t key)
{
	return 0xfee00000u | (key >> 9 & 0xff00cu) | (key >> 29 & 0xffffffu) << 40;
}

static uint32_t key_data(uint64_t key)
{
	return key & 0x1ff;
}

static unsigned hash(uint64_t key)
{
	return (unsigned)(key * 0x9e3779b97f4a7c15ull >> 48);
}

static struct kvm_irqfd_route *slot_of(struct kvm_irqfds *q, uint64_t key, unsigned probe)
{
	return &q->route[(hash(key) + probe) % KVM_IRQFD_ROUTES];
}

int kvm_signal_msi(const struct kvm_vm *vm, uint64_t address, uint32_t data)
{
	struct kvm_msi msi = { .address_lo = (uint32_t)address, .address_hi = (uint32_t)(address >> 32), .data = data };

	return ioctl(vm->fd, KVM_SIGNAL_MSI, &msi) > 0;
}

/* ---- KVM's side; under irqfd_lock */

static struct kvm_irq_routing_entry entry(unsigned gsi, uint64_t address, uint32_t data)
{
	return (struct kvm_irq_routing_entry){
		.gsi = gsi,
		.type = KVM_IRQ_ROUTING_MSI,
		.u.msi = { .address_lo = (uint32_t)address, .address_hi = (uint32_t)(address >> 32), .data = data },
	};
}

/* KVM's table is as large as its last entry. */
static int table_set(struct kvm_vm *vm)
{
	struct { /* struct kvm_irq_routing with its entries */
		uint32_t nr, flags;
		struct kvm_irq_routing_entry entry[TABLE_ENTRIES];
	} table = { 0 };

	for (unsigned i = 0; i < APIC_ROUTES; i++)
		if (vm->pin[i].level)
			table.entry[table.nr++] = entry(i, vm->pin[i].address, vm->pin[i].data);
	for (unsigned i = 0; vm->irqfds && i < KVM_IRQFD_ROUTES; i++) {
		uint64_t key = vm->irqfds->route[i].bound;

		if (key)
			table.entry[table.nr++] = entry(FIRST_GSI + i, key_address(key), key_data(key));
	}
	return ioctl(vm->fd, KVM_SET_GSI_ROUTING, &table) < 0 ? -errno : 0;
}

static bool eventfd_bind(struct kvm_vm *vm, const struct kvm_irqfd_route *r, bool on)
{
	struct kvm_irqfd arg = { .fd = (uint32_t)r->fd, .gsi = FIRST_GSI + (uint32_t)(r - vm->irqfds->route) };

	if (!on)
		arg.flags = KVM_IRQFD_FLAG_DEASSIGN;
	return !ioctl(vm->fd, KVM_IRQFD, &arg);
}

/* Whatever was written until now is in. */
static void route_unbind(struct kvm_vm *vm, struct kvm_irqfd_route *r)
{
	uint64_t left;

	eventfd_bind(vm, r, false);
	if (read(r->fd, &left, sizeof(left)) == sizeof(left)) /* does not wait */
		kvm_signal_msi(vm, key_address(r->bound), key_data(r->bound));
}

/* No sender has it any more, and it is out of KVM's reach. */
static void route_clear(struct kvm_vm *vm, struct kvm_irqfd_route *r)
{
	atomic_store(&r->key, 0);
	while (atomic_load(&r->users))
		sched_yield();
	if (r->bound)
		route_unbind(vm, r);
	r->bound = 0;
	atomic_store(&r->written, false);
}

static void irqfds_broken(struct kvm_vm *vm, struct kvm_irqfd_route *r, const char *what)
{
	log_msg(LOG_WARN, "kvm", "messages go without eventfds from now on, %s: %s", what, strerror(errno));
	atomic_store(&vm->irqfds->broken, true);
	route_clear(vm, r);
}

static void route_fill(struct kvm_vm *vm, struct kvm_irqfd_route *r, uint64_t key)
{
	int rc;

	if (r->fd < 0)
		r->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (r->fd < 0) {
		irqfds_broken(vm, r, "eventfd");
		return;
	}
	r->bound = key;
	rc = table_set(vm);
	if (rc || !eventfd_bind(vm, r, true)) {
		r->bound = 0; /* a GSI without an eventfd does nothing */
		irqfds_broken(vm, r, rc ? "KVM_SET_GSI_ROUTING" : "KVM_IRQFD");
		return;
	}
	atomic_fetch_add(&vm->irqfd_routes, 1);
	atomic_store(&r->key, key);
}

/* A free slot, or one that nobody used since the last look. NULL: all are busy, and nothing is gained by taking turns. */
static struct kvm_irqfd_route *room_for(struct kvm_irqfds *q, uint64_t key)
{
	struct kvm_irqfd_route *idle = NULL;

	for (unsigned i = 0; i < PROBES; i++) {
		struct kvm_irqfd_route *r = slot_of(q, key, i);

		if (!r->bound)
			return r;
		if (!atomic_exchange(&r->recent, false) && !idle)
			idle = r;
	}
	return idle;
}

static bool is_vcpu_thread(const struct machine *m)
{
	int self = gettid();

	for (unsigned i = 0; i < m->ncpus; i++)
		if (m->cpus[i] && m->cpus[i]->thread && atomic_load(&m->cpus[i]->thread->tid) == self)
			return true;
	return false;
}

/* A vCPU's thread does not wait for KVM's table to change. Who does is a device's thread, once per route. */
static void consider(struct kvm_vm *vm, uint64_t key)
{
	struct kvm_irqfds *q = vm->irqfds;
	_Atomic uint8_t *count = &q->count[hash(key) % ARRAY_LEN(q->count)];
	struct kvm_irqfd_route *r;

	if (atomic_load(count) < OFTEN && atomic_fetch_add(count, 1) + 1 < OFTEN)
		return;
	if (atomic_load(&q->broken) || is_vcpu_thread(vm->machine) || pthread_mutex_trylock(&vm->irqfd_lock))
		return;
	atomic_store(count, 0);
	for (unsigned p = 0; p < PROBES; p++)
		if (slot_of(q, key, p)->bound == key)
			goto out; /* another one was faster */
	r = room_for(q, key);
	if (r && vm->irqfds_open) {
		route_clear(vm, r);
		route_fill(vm, r, key);
	}
out:
	pthread_mutex_unlock(&vm->irqfd_lock);
}

/* ---- senders: any thread */

static bool route_send(struct kvm_irqfds *q, struct kvm_irqfd_route *r, uint64_t key)
{
	const uint64_t one = 1;
	bool sent;

	if (atomic_load(&r->key) != key)
		return false;
	atomic_fetch_add(&r->users, 1);
	sent = atomic_load(&r->key) == key && write(r->fd, &one, sizeof(one)) == sizeof(one);
	if (sent) { /* after the write: who settles before it has nothing to wait for, who settles later finds it */
		atomic_store(&r->recent, true);
		atomic_store(&r->written, true);
		atomic_store(&q->written, true);
	}
	atomic_fetch_sub(&r->users, 1);
	return sent;
}

int kvm_irqfds_send(struct kvm_vm *vm, uint64_t address, uint32_t data)
{
	uint64_t key = vm->irqfds ? key_of(address, data) : 0;

	if (!key)
		return kvm_signal_msi(vm, address, data);
	for (unsigned i = 0; i < PROBES; i++) {
		if (route_send(vm->irqfds, slot_of(vm->irqfds, key, i), key)) {
			atomic_fetch_add_explicit(&vm->irqfd_messages, 1, memory_order_relaxed);
			return 1;
		}
	}
	consider(vm, key);
	return kvm_signal_msi(vm, address, data);
}

/* Whatever was sent before this call is in the local APICs after it. */
void kvm_irqfds_settle(struct kvm_vm *vm)
{
	struct kvm_irqfds *q = vm->irqfds;

	if (!q || (!atomic_load(&q->written) && !atomic_load(&q->settling)))
		return;
	pthread_mutex_lock(&vm->irqfd_lock);
	atomic_store(&q->settling, true);
	atomic_store(&q->written, false);
	for (unsigned i = 0; i < KVM_IRQFD_ROUTES; i++) {
		struct kvm_irqfd_route *r = &q->route[i];

		if (!atomic_exchange(&r->written, false) || !r->bound)
			continue;
		route_unbind(vm, r);
		if (!eventfd_bind(vm, r, true))
			irqfds_broken(vm, r, "KVM_IRQFD");
	}
	atomic_store(&q->settling, false);
	pthread_mutex_unlock(&vm->irqfd_lock);
}

/* The IOAPIC's pins have changed; the caller has its lock. */
void kvm_routes_changed(struct kvm_vm *vm)
{
	int r;

	pthread_mutex_lock(&vm->irqfd_lock);
	memcpy(vm->pin, vm->machine->apic_route, sizeof(vm->pin));
	r = table_set(vm);
	pthread_mutex_unlock(&vm->irqfd_lock);
	if (r)
		log_msg(LOG_ERROR, "kvm", "KVM_SET_GSI_ROUTING: %s", strerror(-r));
}

int kvm_irqfds_attach(struct kvm_vm *vm, struct err *e)
{
	enum engine_choice choice = vm->machine->engine_options.irqfds;

	if (!engine_wants(choice, false)) /* never best for senders in this process: 355 ns against 300 */
		return 0;
	if (!vm->split)
		return err_set(e, EINVAL, "irqfds=on needs KVM's local APICs; add irqchip=split, or leave irqfds out");
	if (ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_IRQFD) <= 0)
		return choice == ENGINE_ON ? err_set(e, ENOTSUP, "this host's KVM has no irqfd; leave irqfds=on out") : 0;
	vm->irqfds = calloc(1, sizeof(*vm->irqfds));
	if (!vm->irqfds)
		return err_set(e, ENOMEM, "no memory for routes of messages");
	for (unsigned i = 0; i < KVM_IRQFD_ROUTES; i++)
		vm->irqfds->route[i].fd = -1;
	vm->irqfds_open = true;
	return 0;
}

/* No sender is left, nor comes: what was sent is in the local APICs after it. */
void kvm_irqfds_close(struct kvm_vm *vm)
{
	if (!vm->irqfds)
		return;
	pthread_mutex_lock(&vm->irqfd_lock);
	vm->irqfds_open = false;
	for (unsigned i = 0; i < KVM_IRQFD_ROUTES; i++) {
		struct kvm_irqfd_route *r = &vm->irqfds->route[i];

		route_clear(vm, r);
		if (r->fd >= 0)
			close(r->fd);
		r->fd = -1;
	}
	pthread_mutex_unlock(&vm->irqfd_lock);
}
