/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The debugger stub's commands, separated by newlines, on a machine that was never started: nothing runs, all else is
 * as in a session. Replies go nowhere.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "vm/gdb-private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static int none(struct err *e)
{
	return 0;
}
static int attach(struct machine *m, struct err *e)
{
	return 0;
}
static void detach(struct machine *m)
{
}

static const struct engine_ops idle = { .name = "idle", .probe = none, .vm_attach = attach, .vm_detach = detach };
static const struct vm_config config = { .name = "f", .cpus = 3, .memory = 1 << 20, .cpu_model = "v2",
					 .engine_ops = &idle };
static struct vm *vm;
static struct gdb *gdb;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	if (vm_create(&vm, &config, NULL) || mem_map_ram(vm->machine.mem, 0, 0, 1 << 20, "ram", NULL))
		abort();
	gdb = calloc(1, sizeof(*gdb));
	gdb->vm = vm;
	gdb->fd = gdb->listen_fd = -1;
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned i;

	while (size) {
		const uint8_t *end = memchr(data, '\n', size);
		size_t len = end ? (size_t)(end - data) : size;
		char *text;

		if (len >= sizeof(gdb->in))
			return 0;
		text = malloc(len + 1); /* of its own, so that a read beyond it is noticed */
		memcpy(text, data, len);
		text[len] = 0;
		gdb_command(gdb, text, (unsigned)len);
		free(text);
		gdb->running = gdb->closing = false;
		size -= len + (end != NULL);
		data += len + (end != NULL);
	}
	for (i = 0; i < vm->machine.ncpus; i++)
		if (vm->vcpus[i].cpu.debug.nbreaks > DEBUG_POINTS || vm->vcpus[i].cpu.debug.nwatches > DEBUG_POINTS)
			abort();
	return 0;
}
