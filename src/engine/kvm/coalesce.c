/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes that may come late (io_ops.late_writes: the VGA window, where clearing a screen is 2000 of them): KVM gathers them in a ring
 * of 170 instead of leaving the guest for each one, and leaves as ever when that is full. The ring is one for all vCPUs; it is
 * emptied after each return from the guest, before that return's own reason is served, so a device sees everything in the order in
 * which the vCPU did it. A vCPU that never leaves the guest shows its writes at its next kick, a timer's at the latest.
 *
 * Locking: ring_lock is held around the device's callback. `first` moves on only when a write is done, so who finds the ring empty
 * without the lock may rely on it. Zones change with the map, when no vCPU is in the guest and the ring is thus empty.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "base/log.h"
#include "engine/kvm/kvm.h"

void kvm_coalesced_flush(struct kvm_cpu *k)
{
	struct kvm_vm *vm = k->vm;
	struct kvm_coalesced_mmio_ring *ring = k->ring;
	uint32_t at, max;

	if (!ring || __atomic_load_n(&ring->first, __ATOMIC_ACQUIRE) == __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE))
		return;
	max = (uint32_t)(((uint32_t)sysconf(_SC_PAGESIZE) - sizeof(*ring)) / sizeof(ring->coalesced_mmio[0]));
	pthread_mutex_lock(&vm->ring_lock);
	while ((at = ring->first) != __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE)) {
		const struct kvm_coalesced_mmio *w = &ring->coalesced_mmio[at];
		uint64_t v = 0;

		memcpy(&v, w->data, MIN(w->len, 8u));
		mem_write(vm->machine->mem, w->phys_addr, v, MIN(w->len, 8u));
		__atomic_store_n(&ring->first, (at + 1) % max, __ATOMIC_RELEASE);
		k->coalesced++;
	}
	pthread_mutex_unlock(&vm->ring_lock);
}

static bool zone_wanted(struct kvm_vm *vm, const struct kvm_coalesced_mmio_zone *z)
{
	unsigned count;
	const struct mem_range *r = mem_ranges(vm->machine->mem, &count);

	for (unsigned i = 0; i < count; i++)
		if (r[i].kind == MEM_IO && r[i].ops->late_writes && r[i].start == z->addr && r[i].size == z->size)
			return true;
	return false;
}

static bool zone_there(const struct kvm_vm *vm, gpa_t at)
{
	for (unsigned i = 0; i < vm->nzones; i++)
		if (vm->zone[i].addr == at)
			return true;
	return false;
}

/* Zones as the map has them now. One that KVM does not take costs speed alone. */
void kvm_coalesced_update(struct kvm_vm *vm)
{
	unsigned count, kept = 0;
	const struct mem_range *r = mem_ranges(vm->machine->mem, &count);

	if (!vm->ring_page)
		return;
	for (unsigned i = 0; i < vm->nzones; i++)
		if (zone_wanted(vm, &vm->zone[i]))
			vm->zone[kept++] = vm->zone[i];
		else if (ioctl(vm->fd, KVM_UNREGISTER_COALESCED_MMIO, &vm->zone[i]) < 0)
			log_msg(LOG_WARN, "kvm", "a zone of gathered writes cannot be taken back: %s", strerror(errno));
	vm->nzones = kept;
	for (unsigned i = 0; i < count && vm->nzones < KVM_ZONES; i++) {
		struct kvm_coalesced_mmio_zone z = { .addr = r[i].start, .size = (uint32_t)r[i].size };

		if (r[i].kind != MEM_IO || !r[i].ops->late_writes || r[i].size > UINT32_MAX || zone_there(vm, z.addr))
			continue;
		if (!ioctl(vm->fd, KVM_REGISTER_COALESCED_MMIO, &z))
			vm->zone[vm->nzones++] = z;
	}
}
