/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest whose machine changes its engine again and again while it runs. Exit status: what the guest writes to its exit port,
 * 0 after its power off, 99 when the harness or an engine failed.
 *
 * usage: exchange [--cpus N] [--memory MIB] [--period MS] [--count N] [--min N] [--through F] [--refuse ENGINE] [--dirty F] [--initrd F] [--append T]
 *                 --kernel F ENGINE...
 * Engines take turns, beginning with the first, --count changes at most (0: until the guest ends), --min at least or it is a failure.
 * --through FILE: instead, save the machine there, destroy it, and make another one of the file under the next engine.
 * --dirty FILE: the pages written since the start, as dirty tracking sees them, are listed there at the end.
 * --refuse: an engine that must be refused each time, before each change.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "board/pc.h"
#include "vm/save.h"
#include "vm/vm.h"

#define HARNESS 99

struct options {
	struct vm_config vm;
	struct pc_config pc;
	unsigned long period, count, min;
	const char *refuse, *dirty, *through, *engine[8];
	unsigned nengines;
	struct save_meta meta;
};

static int usage(void)
{
	fprintf(stderr, "usage: exchange [OPTION...] --kernel FILE ENGINE...\n");
	return HARNESS;
}

static int parse(struct options *o, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;

		if (name[0] != '-') {
			if (o->nengines == ARRAY_LEN(o->engine))
				return usage();
			o->engine[o->nengines++] = name;
			continue;
		}
		if (!value)
			return usage();
		i++;
		if (!strcmp(name, "--cpus"))
			o->vm.cpus = (unsigned)strtoul(value, NULL, 0);
		else if (!strcmp(name, "--memory"))
			o->vm.memory = strtoull(value, NULL, 0) << 20;
		else if (!strcmp(name, "--period"))
			o->period = strtoul(value, NULL, 0);
		else if (!strcmp(name, "--count"))
			o->count = strtoul(value, NULL, 0);
		else if (!strcmp(name, "--min"))
			o->min = strtoul(value, NULL, 0);
		else if (!strcmp(name, "--refuse"))
			o->refuse = value;
		else if (!strcmp(name, "--through"))
			o->through = value;
		else if (!strcmp(name, "--dirty"))
			o->dirty = value;
		else if (!strcmp(name, "--kernel"))
			o->pc.kernel = value;
		else if (!strcmp(name, "--initrd"))
			o->pc.initrd = value;
		else if (!strcmp(name, "--append"))
			o->pc.append = value;
		else
			return usage();
	}
	o->vm.engine = o->engine[0];
	return o->nengines && o->pc.kernel ? 0 : usage();
}

/* A machine made of the file, going on. */
static int restore(struct vm **out, struct options *o, const char *engine, struct err *e)
{
	struct state_reader *reader = state_reader_open(o->through, e);
	struct vm *vm = NULL;
	struct pc *pc;
	int r = reader ? vm_save_read_meta(reader, &o->meta, e) : -1;

	o->vm.engine = engine;
	o->vm.memory = o->meta.memory;
	o->vm.cpus = o->meta.cpus;
	o->vm.cpu_model = o->meta.cpu_model;
	snprintf(o->meta.cpuid.name, sizeof(o->meta.cpuid.name), "%s", o->meta.cpu_model);
	o->meta.cpuid.tsc_khz = o->meta.tsc_khz;
	o->vm.cpuid = &o->meta.cpuid;
	o->pc.restoring = true;
	if (!r)
		r = vm_create(&vm, &o->vm, e);
	if (!r)
		r = pc_create(&pc, vm, &o->pc, e);
	if (!r)
		r = vm_load(vm, reader, &o->meta, e);
	if (!r)
		r = vm_start(vm, e);
	state_reader_close(reader);
	if (r && vm)
		vm_destroy(vm);
	else
		*out = vm;
	return r;
}

/* The machine dies and another one goes on with its life. *vm is NULL when that failed half-way. */
static int carry_over(struct vm **vm, struct options *o, const char *engine, struct err *e)
{
	int r = vm_pause(*vm, e);

	if (!r)
		r = vm_save(*vm, o->through, e);
	if (r)
		return r;
	vm_destroy(*vm);
	*vm = NULL;
	return restore(vm, o, engine, e);
}

/* Changes until enough or the machine has ended. -1: something went wrong. */
static long alternate(struct vm **vm, struct options *o)
{
	const struct timespec period = { .tv_sec = (time_t)(o->period / 1000),
					 .tv_nsec = (long)(o->period % 1000) * 1000000 };
	unsigned long n = 0;

	while (o->nengines > 1 && (!o->count || n < o->count) && vm_state_now(*vm) != VM_STOPPED) {
		const char *next = o->engine[(n + 1) % o->nengines];
		struct err e = { 0 };

		nanosleep(&period, NULL);
		if (o->refuse && vm_change_engine(*vm, o->refuse, &e) == 0) {
			fprintf(stderr, "exchange: engine %s should have been refused\n", o->refuse);
			return -1;
		}
		if (o->refuse && !n)
			fprintf(stderr, "exchange: refused: %s\n", e.text);
		if (o->through ? carry_over(vm, o, next, &e) : vm_change_engine(*vm, next, &e)) {
			if (*vm && vm_state_now(*vm) == VM_STOPPED)
				break;
			fprintf(stderr, "exchange: change %lu, to %s: %s\n", n + 1, next, e.text);
			return -1;
		}
		if (strcmp((*vm)->machine.engine->name, next))
			return -1;
		n++;
	}
	return (long)n;
}

static int list_dirty(struct vm *vm, const char *path)
{
	uint64_t pages = mem_ram_size(vm->machine.mem) / GUEST_PAGE;
	uint64_t *bitmap = calloc((pages + 63) / 64, 8);
	FILE *f = fopen(path, "w");

	if (!f || !bitmap)
		return -1;
	mem_dirty_fetch(vm->machine.mem, bitmap);
	for (uint64_t i = 0; i < pages; i++)
		if (bitmap[i / 64] >> (i % 64) & 1)
			fprintf(f, "%llx\n", (unsigned long long)i);
	free(bitmap);
	return fclose(f);
}

static int start(struct vm *vm, const struct options *o, struct err *e)
{
	int r;

	if (!o->dirty)
		return vm_start(vm, e);
	vm->start_paused = true; /* what the boot writes does not count */
	r = vm_start(vm, e);
	if (r)
		return r;
	mem_dirty_start(vm->machine.mem);
	return vm_resume(vm, e);
}

static int run(struct options *o)
{
	struct vm *vm = NULL;
	struct pc *pc;
	struct err e = { 0 };
	int status = HARNESS;
	long n;

	if (vm_create(&vm, &o->vm, &e) || pc_create(&pc, vm, &o->pc, &e) || start(vm, o, &e)) {
		fprintf(stderr, "exchange: %s\n", e.text);
		vm_destroy(vm);
		return HARNESS;
	}
	n = alternate(&vm, o);
	if (!vm)
		return HARNESS;
	if (n < 0)
		vm_request_end(vm, VM_END_USER, 0, "failed");
	vm_wait(vm);
	if (n >= 0 && vm->end == VM_END_EXIT_PORT)
		status = vm->exit_status;
	else if (n >= 0 && (vm->end == VM_END_POWER_OFF || vm->end == VM_END_RESET))
		status = 0;
	if (o->dirty && list_dirty(vm, o->dirty))
		status = HARNESS;
	fprintf(stderr, "exchange: %ld changes, end %d %s\n", n, vm->end, vm->end_reason);
	if (n >= 0 && n < (long)o->min)
		status = HARNESS;
	vm_destroy(vm);
	return status;
}

int main(int argc, char **argv)
{
	struct options o = {
		.vm = { .name = "exchange", .cpus = 1, .memory = 128ull << 20, .cpu_model = "host", .no_reboot = true },
		.pc = { .serial = { "stdio" }, .nserial = 1, .exit_port = 0xf4 },
		.period = 10,
	};
	int r = parse(&o, argc, argv);

	setvbuf(stdout, NULL, _IOLBF, 0);
	return r ? r : run(&o);
}
