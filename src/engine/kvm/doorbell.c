/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Doorbells (io_ops.doorbells): writes that KVM answers itself by counting up an eventfd, so that the vCPU never leaves the guest; the
 * device's thread does the work meanwhile. They follow the map, as the zones of gathered writes do: with the vCPUs stopped.
 *
 * A thread has to be woken for each, which costs 5 us on a host of its own and 40 to 60 us on a virtual one, where the exit would have
 * cost 2: worth it only where hardware runs the guest and a vCPU's time is dear. Hence: by default only when the engine is accelerated.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include "base/log.h"
#include "engine/kvm/kvm.h"

struct bells {
	struct kvm_ioeventfd bell[KVM_BELLS];
	unsigned count;
};

static bool same(const struct kvm_ioeventfd *a, const struct kvm_ioeventfd *b)
{
	return a->addr == b->addr && a->len == b->len && a->fd == b->fd && a->flags == b->flags && a->datamatch == b->datamatch;
}

static bool contains(const struct kvm_ioeventfd *list, unsigned count, const struct kvm_ioeventfd *b)
{
	for (unsigned i = 0; i < count; i++)
		if (same(&list[i], b))
			return true;
	return false;
}

static void range_bells(const struct kvm_vm *vm, const struct mem_range *r, struct bells *out)
{
	struct io_doorbell d[KVM_BELLS_OF_ONE];
	unsigned n = r->ops->doorbells(r->opaque, d, KVM_BELLS_OF_ONE);

	for (unsigned i = 0; i < n && out->count < KVM_BELLS; i++) {
		unsigned size = d[i].size ? d[i].size : vm->bells_any_size ? 0 : 2; /* drivers write the 16 bits of a queue's number */

		if (d[i].offset < r->io_offset || !range_fits(d[i].offset - r->io_offset, MAX(size, 2u), r->size))
			continue;
		out->bell[out->count++] = (struct kvm_ioeventfd){
			.addr = r->start + d[i].offset - r->io_offset,
			.len = size,
			.fd = d[i].fd,
			.flags = d[i].size ? KVM_IOEVENTFD_FLAG_DATAMATCH : 0,
			.datamatch = d[i].value,
		};
	}
}

static bool bell_set(struct kvm_vm *vm, const struct kvm_ioeventfd *b, bool on)
{
	struct kvm_ioeventfd arg = *b;

	if (!on)
		arg.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
	return !ioctl(vm->fd, KVM_IOEVENTFD, &arg);
}

void kvm_doorbells_probe(struct kvm_vm *vm)
{
	vm->has_bells = ioctl(vm->dev_fd, KVM_CHECK_EXTENSION, KVM_CAP_IOEVENTFD) > 0 &&
			engine_wants(vm->machine->engine_options.doorbells, vm->machine->accelerated);
	vm->bells_any_size = ioctl(vm->dev_fd, KVM_CHECK_EXTENSION, KVM_CAP_IOEVENTFD_ANY_LENGTH) > 0;
}

/* As the map has them now. One that KVM does not take costs speed alone: the write is an exit as ever. */
void kvm_doorbells_update(struct kvm_vm *vm)
{
	struct bells *want;
	unsigned count, kept = 0;
	const struct mem_range *r = mem_ranges(vm->machine->mem, &count);

	if (!vm->has_bells || !(want = calloc(1, sizeof(*want))))
		return;
	for (unsigned i = 0; i < count; i++)
		if (r[i].kind == MEM_IO && r[i].ops->doorbells)
			range_bells(vm, &r[i], want);
	for (unsigned i = 0; i < vm->nbells; i++)
		if (contains(want->bell, want->count, &vm->bell[i]))
			vm->bell[kept++] = vm->bell[i];
		else if (!bell_set(vm, &vm->bell[i], false))
			log_msg(LOG_WARN, "kvm", "a doorbell cannot be taken back: %s", strerror(errno));
	vm->nbells = kept;
	for (unsigned i = 0; i < want->count && vm->nbells < KVM_BELLS; i++)
		if (!contains(vm->bell, kept, &want->bell[i]) && bell_set(vm, &want->bell[i], true))
			vm->bell[vm->nbells++] = want->bell[i];
	free(want);
}
