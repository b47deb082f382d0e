/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory slots kept in step with the address map. The map changes only while vCPUs are stopped, so slots are
 * simply compared: those that went are deleted first, then the new ones are set.
 *
 * While dirty tracking is on, KVM logs the guest's writes by slot; mem_dirty_fetch has the log turned into page flags first, and so
 * does everything that would lose it. Only the flag of a slot changes under running vCPUs. The ring, KVM's other way of telling, is in
 * dirty-ring.c.
 */
#include <stdlib.h>
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
			.flags = r[i].kind == MEM_ROM	      ? KVM_MEM_READONLY :
				 mem_dirty_tracking(vm->machine->mem) ? KVM_MEM_LOG_DIRTY_PAGES :
									0,
		};
	}
	return n;
}

/* What KVM has logged of one slot becomes page flags. When it cannot be had, every page counts as written. */
static void slot_collect(struct kvm_vm *vm, unsigned i)
{
	const struct kvm_userspace_memory_region *r = &vm->slot[i];
	struct mem *m = vm->machine->mem;
	uint64_t pages = r->memory_size / GUEST_PAGE;
	uint64_t first = (r->userspace_addr - (uintptr_t)mem_ram_base(m)) / GUEST_PAGE;
	uint64_t *bitmap;
	struct kvm_dirty_log log = { .slot = i };

	if (!pages || !(r->flags & KVM_MEM_LOG_DIRTY_PAGES))
		return;
	bitmap = calloc((pages + 63) / 64, 8);
	log.dirty_bitmap = bitmap;
	if (!bitmap || ioctl(vm->fd, KVM_GET_DIRTY_LOG, &log) < 0) {
		log_msg(LOG_WARN, "kvm", "the dirty log of slot %u cannot be read: all of its pages count as written", i);
		for (uint64_t n = 0; n < pages; n++)
			mem_mark_dirty(m, first + n);
		free(bitmap);
		return;
	}
	for (uint64_t w = 0; w < (pages + 63) / 64; w++)
		for (uint64_t left = bitmap[w]; left; left &= left - 1)
			mem_mark_dirty(m, first + w * 64 + (unsigned)__builtin_ctzll(left));
	free(bitmap);
}

static void dirty_collect(void *opaque)
{
	struct kvm_vm *vm = opaque;

	kvm_dirty_ring_collect(vm);
	for (unsigned i = 0; i < KVM_SLOTS && !vm->dirty_ring; i++)
		slot_collect(vm, i);
}

static void dirty_log(void *opaque, bool on)
{
	struct kvm_vm *vm = opaque;
	struct err e;

	kvm_dirty_ring_collect(vm);
	for (unsigned i = 0; i < KVM_SLOTS; i++) {
		struct kvm_userspace_memory_region r = vm->slot[i];

		if (!r.memory_size || r.flags & KVM_MEM_READONLY)
			continue;
		r.flags = on ? KVM_MEM_LOG_DIRTY_PAGES : 0;
		if (r.flags != vm->slot[i].flags && slot_set(vm, i, &r, &e))
			log_msg(LOG_ERROR, "kvm", "%s", e.text);
	}
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
		if (!vm->slot[i].memory_size || kept)
			continue;
		if (!vm->dirty_ring)
			slot_collect(vm, i);
		kvm_dirty_ring_collect(vm);
		r = slot_set(vm, i, &gone, e);
		if (r)
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
	kvm_coalesced_update(vm);
	kvm_doorbells_update(vm);
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
	vm->listener = (struct mem_listener){ .map_changed = map_changed, .dirty_log = dirty_log,
					       .dirty_collect = dirty_collect, .opaque = vm };
	mem_listen(vm->machine->mem, &vm->listener);
	return slots_update(vm, e);
}

void kvm_slots_detach(struct kvm_vm *vm)
{
	dirty_collect(vm);
	if (vm->listener.opaque)
		mem_unlisten(vm->machine->mem, &vm->listener);
	vm->listener.opaque = NULL;
}
