/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest whose machine changes its engine again and again while it runs. Exit status: what the guest writes to its exit port,
 * 0 after its power off, 99 when the harness or an engine failed.
 *
 * usage: exchange [--cpus N] [--memory MIB] [--period MS] [--every N] [--count N] [--min N] [--through F] [--memory-saved mapped] [--refuse ENGINE] [--dirty F]
 *                 [--then TEXT] [--initrd F] [--append T] --kernel F ENGINE...
 * Engines take turns, beginning with the first, --count changes at most (0: until the guest ends), --min at least or it is a failure.
 * --period MS: a change each time that long after the last one.
 * --every N: the guest is held at each Nth of its checkpoints (a write to port GATE, in the middle of which it is) until one change
 * more is underway, so that a fast guest does not end before it was changed; without --period no change happens anywhere else.
 * --then TEXT: this line goes to the guest's serial port once --count changes are done.
 * --through FILE: instead, save the machine there, destroy it, and make another one of the file under the next engine.
 * --dirty FILE: the pages written since the start, as dirty tracking sees them, are listed there at the end.
 * --refuse: an engine that must be refused each time, before each change.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "board/pc.h"
#include "vm/save.h"
#include "vm/vm.h"

#define HARNESS 99
#define GATE 0xf8

/* Where the guest waits for us, and we for it. */
struct gate {
	pthread_mutex_t lock;
	pthread_cond_t reached;
	struct vm *vm;
	unsigned long every, points; /* checkpoints that the guest has passed, or is held at */
	unsigned long changes;	     /* underway or done */
	bool open;		     /* for good */
};

struct options {
	struct vm_config vm;
	struct pc_config pc;
	struct gate gate;
	unsigned long period, count, min;
	bool by_time;
	int to_guest; /* with --then: the other end of its serial port's input */
	const char *refuse, *dirty, *through, *then, *engine[8];
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
			o->period = strtoul(value, NULL, 0), o->by_time = true;
		else if (!strcmp(name, "--every"))
			o->gate.every = strtoul(value, NULL, 0);
		else if (!strcmp(name, "--then"))
			o->then = value;
		else if (!strcmp(name, "--count"))
			o->count = strtoul(value, NULL, 0);
		else if (!strcmp(name, "--min"))
			o->min = strtoul(value, NULL, 0);
		else if (!strcmp(name, "--refuse"))
			o->refuse = value;
		else if (!strcmp(name, "--through"))
			o->through = value;
		else if (!strcmp(name, "--memory-saved"))
			o->vm.save_mapped = !strcmp(value, "mapped");
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
	if (!o->gate.every)
		o->by_time = true;
	return o->nengines && o->pc.kernel ? 0 : usage();
}

/* ---- the gate */

static uint64_t gate_read(void *opaque, uint64_t offset, unsigned size)
{
	return 0xff;
}

static bool gate_holds(struct gate *g)
{
	bool holds;

	pthread_mutex_lock(&g->vm->lock);
	holds = !g->open && g->changes < g->points / g->every && !g->vm->pausing && g->vm->state == VM_RUNNING;
	pthread_mutex_unlock(&g->vm->lock);
	return holds;
}

/* On a vCPU's thread. What ends the hold is the machine's, which tells nobody of it: hence a look each half millisecond. */
static void gate_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct gate *g = opaque;

	pthread_mutex_lock(&g->lock);
	g->points++;
	pthread_cond_broadcast(&g->reached);
	while (gate_holds(g)) {
		pthread_mutex_unlock(&g->lock);
		usleep(500);
		pthread_mutex_lock(&g->lock);
	}
	pthread_mutex_unlock(&g->lock);
}

static int gate_install(struct gate *g, struct vm *vm, struct err *e)
{
	static const struct io_ops ops = { gate_read, gate_write, 1, 4 };

	g->vm = vm;
	return g->every ? ports_map(vm->machine.ports, GATE, 1, &ops, g, "gate", e) : 0;
}

/* Until the guest is where the next change is due, or has ended. */
static void gate_wait(struct gate *g)
{
	pthread_mutex_lock(&g->lock);
	while (g->changes >= g->points / g->every && vm_state_now(g->vm) != VM_STOPPED) {
		struct timespec until;

		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += 5000000; /* the end is not signalled */
		if (until.tv_nsec >= 1000000000) {
			until.tv_nsec -= 1000000000;
			until.tv_sec++;
		}
		pthread_cond_timedwait(&g->reached, &g->lock, &until);
	}
	pthread_mutex_unlock(&g->lock);
}

static void gate_count(struct gate *g, bool open)
{
	pthread_mutex_lock(&g->lock);
	if (open)
		g->open = true;
	else
		g->changes++;
	pthread_mutex_unlock(&g->lock);
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
		r = gate_install(&o->gate, vm, e);
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

		if (o->by_time)
			nanosleep(&period, NULL);
		else
			gate_wait(&o->gate);
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
		if (strncmp((*vm)->machine.engine->name, next, strcspn(next, ",")))
			return -1;
		gate_count(&o->gate, false);
		n++;
	}
	if (o->then)
		dprintf(o->to_guest, "%s\n", o->then);
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

	if (vm_create(&vm, &o->vm, &e) || pc_create(&pc, vm, &o->pc, &e) || gate_install(&o->gate, vm, &e) ||
	    start(vm, o, &e)) {
		fprintf(stderr, "exchange: %s\n", e.text);
		vm_destroy(vm);
		return HARNESS;
	}
	n = alternate(&vm, o);
	gate_count(&o->gate, true);
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
		.gate = { .lock = PTHREAD_MUTEX_INITIALIZER, .reached = PTHREAD_COND_INITIALIZER },
		.period = 10,
	};
	int r = parse(&o, argc, argv), pipes[2];

	if (!r && o.then) {
		if (pipe(pipes) || dup2(pipes[0], STDIN_FILENO) < 0)
			return HARNESS;
		o.to_guest = pipes[1];
	}

	setvbuf(stdout, NULL, _IOLBF, 0);
	return r ? r : run(&o);
}
