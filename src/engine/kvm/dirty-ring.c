/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dirty=ring: written pages come from a ring of each vCPU (KVM_CAP_DIRTY_LOG_RING) in place of a bitmap of each slot. What is to be read
 * is then as much as was written, and not as much as there is memory: 16 bytes a page against 32 KiB of bitmap a GiB, which pays with
 * hundreds of GiB. The price: a vCPU whose ring is full stops until it is emptied, after 3500 pages or so.
 *
 * KVM says which slot and page; slots keep their memory for as long as an entry of theirs can be in a ring, because the rings are
 * emptied before one goes. Where software executes the guest, KVM looks at the ring's fill too late, writes past its end and does not come
 * back (seen with one that emulates every instruction), so it is refused there. dirty_lock covers the rings' positions; an entry belongs to us from its DIRTY flag to our RESET flag.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/log.h"
#include "engine/kvm/kvm.h"

#define ENTRIES 4096u
#define RING_BYTES (ENTRIES * sizeof(struct kvm_dirty_gfn))

int kvm_dirty_ring_attach(struct kvm_vm *vm, struct err *e)
{
	static const int caps[] = { KVM_CAP_DIRTY_LOG_RING_ACQ_REL, KVM_CAP_DIRTY_LOG_RING };

	if (!engine_wants(vm->machine->engine_options.dirty_ring, false))
		return 0;
	if (!vm->machine->accelerated)
		return err_set(e, ENOTSUP, "dirty=ring needs hardware behind KVM, and here software executes the guest; leave it out");
	for (unsigned i = 0; i < ARRAY_LEN(caps); i++) {
		struct kvm_enable_cap ring = { .cap = (uint32_t)caps[i], .args = { RING_BYTES } };

		if (ioctl(vm->fd, KVM_CHECK_EXTENSION, caps[i]) < (int)RING_BYTES)
			continue;
		if (ioctl(vm->fd, KVM_ENABLE_CAP, &ring) < 0)
			return err_errno(e, "the ring of written pages");
		vm->dirty_ring = true;
		return 0;
	}
	return err_set(e, ENOTSUP, "this host's KVM has no ring of written pages; leave dirty=ring out");
}

int kvm_dirty_ring_cpu_created(struct kvm_cpu *k, struct err *e)
{
	void *at;

	if (!k->vm->dirty_ring)
		return 0;
	at = mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, k->fd, KVM_DIRTY_LOG_PAGE_OFFSET * sysconf(_SC_PAGESIZE));
	if (at == MAP_FAILED)
		return err_errno(e, "mapping a ring of written pages");
	pthread_mutex_lock(&k->vm->dirty_lock);
	k->dirty = at;
	pthread_mutex_unlock(&k->vm->dirty_lock);
	return 0;
}

/* dirty_lock held. How many pages there were. */
static unsigned harvest(struct kvm_cpu *k)
{
	struct kvm_vm *vm = k->vm;
	struct mem *m = vm->machine->mem;
	unsigned n = 0;

	for (; k->dirty && n < ENTRIES; n++, k->dirty_next++) {
		struct kvm_dirty_gfn *g = &k->dirty[k->dirty_next % ENTRIES];
		const struct kvm_userspace_memory_region *r;

		if (!(__atomic_load_n(&g->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_DIRTY))
			break;
		if (g->slot < KVM_SLOTS && g->offset < vm->slot[g->slot].memory_size / GUEST_PAGE) {
			r = &vm->slot[g->slot];
			mem_mark_dirty(m, (r->userspace_addr - (uintptr_t)mem_ram_base(m)) / GUEST_PAGE + g->offset);
		}
		__atomic_store_n(&g->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
	}
	return n;
}

static void reset(struct kvm_vm *vm)
{
	if (ioctl(vm->fd, KVM_RESET_DIRTY_RINGS, 0) < 0)
		log_msg(LOG_ERROR, "kvm", "KVM_RESET_DIRTY_RINGS: %s", strerror(errno));
}

void kvm_dirty_ring_collect(struct kvm_vm *vm)
{
	unsigned n = 0;

	if (!vm->dirty_ring)
		return;
	pthread_mutex_lock(&vm->dirty_lock);
	for (unsigned i = 0; i < vm->machine->ncpus; i++) {
		struct kvm_cpu *k = vm->machine->cpus[i] ? vm->machine->cpus[i]->engine_data : NULL;

		if (k && k->vm == vm)
			n += harvest(k);
	}
	if (n)
		reset(vm);
	pthread_mutex_unlock(&vm->dirty_lock);
}

void kvm_dirty_ring_cpu_leaves(struct kvm_cpu *k)
{
	if (!k->dirty)
		return;
	pthread_mutex_lock(&k->vm->dirty_lock);
	if (harvest(k))
		reset(k->vm);
	munmap(k->dirty, RING_BYTES);
	k->dirty = NULL;
	pthread_mutex_unlock(&k->vm->dirty_lock);
}
