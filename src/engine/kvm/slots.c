/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory slots kept in step with the address map. The map changes only while vCPUs are stopped, so slots are
 * simply compared: those that went are deleted first, then the new ones are set.
 */
#include <string.h>
#include <sys/ioctl.h>
#include "base/log.h"
#include "engine/kvm/kvm.h"

static bool same(const struct kvm_userspace_memory_region *a, const struct kvm_userspace_memory_region *b)
{
	return a->guest_phys_addr == b->guest_phys_addr && a->memory_size == b->memory_size &&
	       a->userspace_addr == b->userspace_addr && a->flags == b->flags;
}

static int slot_set(struct kvm_vm *vm, unsigned i, const struct kvm_userspace_memory_region *to, struct err *e)
{
	struct kvm_userspace_memory_region r = *to;

	r.slot = i;
	if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &r) < 0)
		return err_errno(e, "KVM memory slot %u at 0x%llx, size 0x%llx", i, r.guest_phys_addr, r.memory_size);
	vm->slot[i] = r;
	return 0;
}

/* What the map wants: one slot for each RAM or ROM range, whole pages only. */
static unsigned slots_wanted(struct kvm_vm *vm, struct kvm_userspace_memory_region *want)
{
	unsigned count, n = 0;
	const struct mem_range *r = mem_ranges(vm->machine->mem, &count);

	for (unsigned i = 0; i < count && n < KVM_SLOTS; i++) {
		if (r[i].kind == MEM_IO || (r[i].start | r[i].size) & (GUEST_PAGE - 1))
			continue;
		want[n++] = (struct kvm_userspace_memory_region){
			.guest_phys_addr = r[i].start,
			.memory_size = r[i].size,
			.userspace_addr = (uintptr_t)r[i].host,
			.flags = r[i].kind == MEM_ROM ? KVM_MEM_READONLY : 0,
		};
	}
	return n;
}

static int slots_update(struct kvm_vm *vm, struct err *e)
{
	struct kvm_userspace_memory_region want[KVM_SLOTS], gone = { 0 };
	unsigned n = slots_wanted(vm, want);
	int r;

	for (unsigned i = 0; i < KVM_SLOTS; i++) {
		bool kept = false;

		for (unsigned j = 0; j < n && !kept; j++)
			kept = same(&vm->slot[i], &want[j]);
		if (vm->slot[i].memory_size && !kept && (r = slot_set(vm, i, &gone, e)))
			return r;
	}
	for (unsigned j = 0; j < n; j++) {
		unsigned free = KVM_SLOTS;
		bool there = false;

		for (unsigned i = 0; i < KVM_SLOTS && !there; i++) {
			there = same(&vm->slot[i], &want[j]);
			if (!vm->slot[i].memory_size && free == KVM_SLOTS)
				free = i;
		}
		if (!there && (r = slot_set(vm, free, &want[j], e)))
			return r;
	}
	return 0;
}

static void map_changed(void *opaque)
{
	struct err e;

	if (slots_update(opaque, &e))
		log_msg(LOG_ERROR, "kvm", "%s", e.text);
}

int kvm_slots_attach(struct kvm_vm *vm, struct err *e)
{
	vm->listener = (struct mem_listener){ .map_changed = map_changed, .opaque = vm };
	mem_listen(vm->machine->mem, &vm->listener);
	return slots_update(vm, e);
}

void kvm_slots_detach(struct kvm_vm *vm)
{
	if (vm->listener.opaque)
		mem_unlisten(vm->machine->mem, &vm->listener);
	vm->listener.opaque = NULL;
}
