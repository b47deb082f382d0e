/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A paused machine to a file and back: CPUs, devices, memory, clock. What built the machine (sizes, CPU model) comes first,
 * so that a machine like it can be made before anything is loaded into it.
 */
#ifndef VM_SAVE_H
#define VM_SAVE_H

#include "state/file.h"
#include "vm/vm.h"

/* What a machine must be built with to take the saved state. */
struct save_meta {
	uint64_t memory;
	uint64_t clock_ns, tsc, tsc_khz;
	uint32_t cpus;
	char engine[16], cpu_model[16];
	struct cpuid_model cpuid; /* the table the guest was promised: held constant */
};

/* The machine must be paused. Memory as the configuration has it. */
int vm_save(struct vm *vm, const char *path, struct err *e);
/* The same, telling how far it is, on this thread; of guest memory, bytes. */
struct save_progress {
	void (*fn)(void *opaque, uint64_t done, uint64_t total);
	void *opaque;
};
int vm_save_telling(struct vm *vm, const char *path, const struct save_progress *progress, struct err *e);
/* `mapped`: memory as an image to be mapped, else packed. */
int vm_save_as(struct vm *vm, const char *path, bool mapped, const struct save_progress *progress, struct err *e);

int vm_save_read_meta(struct state_reader *r, struct save_meta *meta, struct err *e);
/* Into a machine built by `meta` with the same devices, not started yet. On failure it must be destroyed. */
int vm_load(struct vm *vm, struct state_reader *r, const struct save_meta *meta, struct err *e);

#endif
