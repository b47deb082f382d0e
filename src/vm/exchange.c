/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Another engine for a machine that has been started: pause, set the old engine aside, attach the new one, make its part of each CPU
 * on the CPU's own thread, go on. All engines keep the architectural state in cpu->s while a CPU is parked, so nothing is
 * converted.
 *
 * The old engine is given up only when the new one is attached, so that what can be refused (no such device, CPUID that it
 * cannot hold) is refused with the old one untouched. Should a CPU's part fail after that, the old engine is attached anew.
 *
 * Steps are done by the vCPU threads in vm_park(), one step by all of them before the next: exchange->number counts them,
 * vcpu->exchange_seen says which one a thread has done. struct exchange is under vm->lock; machine->engine and engine_data are
 * written by the exchanging thread between steps alone.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include "base/log.h"
#include "base/trace.h"
#include "vm/private.h"

struct exchange {
	uint64_t number; /* of the step underway; 0: none yet */
	void (*step)(struct exchange *x, struct vcpu *v, struct err *e);
	unsigned left; /* threads that have not done it */
	struct err error; /* of the first that failed */
	struct vm *vm;
	const struct engine_ops *from, *to;
	struct engine_options from_options, to_options;
	bool from_accelerated, to_accelerated;
	void *from_data, *from_cpu[MAX_CPUS];
};

bool exchange_attend(struct vcpu *v)
{
	struct vm *vm = v->vm;
	struct exchange *x = vm->exchange;
	struct err e = { 0 };

	if (!x || x->number == v->exchange_seen)
		return false;
	v->exchange_seen = x->number;
	pthread_mutex_unlock(&vm->lock);
	x->step(x, v, &e);
	pthread_mutex_lock(&vm->lock);
	if (e.code && !x->error.code)
		x->error = e;
	x->left--;
	pthread_cond_broadcast(&vm->changed);
	return true;
}

/* All threads do it; then we go on. 0, or -errno with x->error of the first that failed. */
static int step_all(struct exchange *x, uint64_t number, void (*step)(struct exchange *x, struct vcpu *v, struct err *e))
{
	struct vm *vm = x->vm;
	int r;

	pthread_mutex_lock(&vm->lock);
	x->number = number;
	x->step = step;
	x->left = vm->machine.ncpus;
	x->error = (struct err){ 0 };
	vm->exchange = x;
	pthread_cond_broadcast(&vm->changed);
	while (x->left)
		pthread_cond_wait(&vm->changed, &vm->lock);
	vm->exchange = NULL;
	r = -x->error.code;
	pthread_mutex_unlock(&vm->lock);
	return r;
}

/* ---- what a thread does */

static void step_leave(struct exchange *x, struct vcpu *v, struct err *e)
{
	v->cpu.engine_data = x->from_cpu[v->cpu.id];
	x->from->cpu_destroy(&v->cpu);
	v->cpu.engine_data = NULL;
}

static void step_enter(struct exchange *x, struct vcpu *v, struct err *e)
{
	const struct engine_ops *engine = x->vm->machine.engine;
	struct cpu *c = &v->cpu;

	memset(c->hot, 0, sizeof(c->hot)); /* each engine finds it so */
	tlb_flush_all(c);
	tlb_select(c);
	if (engine->cpu_create(c, e)) {
		if (!e->code)
			err_set(e, EIO, "engine %s: CPU %u cannot be made", engine->name, c->id);
		return;
	}
	engine->state_set(c);
	if (c->debug.active)
		engine->debug_set(c);
	if (engine->state_check)
		engine->state_check(c, e);
}

static void step_undo(struct exchange *x, struct vcpu *v, struct err *e)
{
	if (v->cpu.engine_data)
		x->to->cpu_destroy(&v->cpu);
	v->cpu.engine_data = NULL;
}

/* ---- the whole */

/* Every CPU is parked; wait until nobody is in, or on the way to, the old engine's kick. */
static void exchange_settle(struct vm *vm)
{
	for (unsigned i = 0; i < vm->machine.ncpus; i++)
		while (atomic_load(&vm->vcpus[i].cpu.notifying))
			sched_yield();
}

/* What engines are asked for is theirs: it changes with them. */
static void exchange_options(struct exchange *x, bool to)
{
	x->vm->machine.engine_options = to ? x->to_options : x->from_options;
	x->vm->machine.accelerated = to ? x->to_accelerated : x->from_accelerated;
}

/* The new engine beside the old one, which finds none of its CPUs meanwhile. */
static int exchange_attach(struct exchange *x, struct err *e)
{
	struct machine *m = &x->vm->machine;
	int r;

	x->from_data = m->engine_data;
	for (unsigned i = 0; i < m->ncpus; i++) {
		x->from_cpu[i] = m->cpus[i]->engine_data;
		m->cpus[i]->engine_data = NULL;
	}
	m->engine_data = NULL;
	m->engine = x->to;
	exchange_options(x, true);
	r = x->to->vm_attach(m, e);
	if (!r)
		return 0;
	exchange_options(x, false);
	m->engine = x->from;
	m->engine_data = x->from_data;
	for (unsigned i = 0; i < m->ncpus; i++)
		m->cpus[i]->engine_data = x->from_cpu[i];
	return r;
}

/* The old one gave up its CPUs but the new one cannot have them. */
static void exchange_undo(struct exchange *x)
{
	struct machine *m = &x->vm->machine;
	struct err e = { 0 };
	int r;

	step_all(x, x->number + 1, step_undo);
	m->engine->vm_detach(m);
	m->engine_data = NULL;
	m->engine = x->from;
	exchange_options(x, false);
	r = x->from->vm_attach(m, &e);
	if (!r)
		r = step_all(x, x->number + 1, step_enter);
	if (!r)
		return;
	log_msg(LOG_ERROR, "vm", "engine %s cannot go on either: %s", x->from->name, e.code ? e.text : x->error.text);
	vm_request_end(x->vm, VM_END_ENGINE, 0, "neither the new engine nor the old one can go on");
}

static int exchange_do(struct exchange *x, struct err *e)
{
	struct machine *m = &x->vm->machine;
	void *to_data;
	int r;

	exchange_settle(x->vm);
	for (unsigned i = 0; i < m->ncpus; i++)
		x->number = MAX(x->number, x->vm->vcpus[i].exchange_seen);
	r = exchange_attach(x, e);
	if (r)
		return r;
	to_data = m->engine_data;
	m->engine_data = x->from_data; /* the old engine's last word */
	m->engine = x->from;
	step_all(x, x->number + 1, step_leave);
	x->from->vm_detach(m);
	m->engine = x->to;
	m->engine_data = to_data;
	r = step_all(x, x->number + 1, step_enter);
	if (r) {
		if (e)
			*e = x->error;
		exchange_undo(x);
	}
	return r;
}

int vm_change_engine(struct vm *vm, const char *name, struct err *e)
{
	struct exchange x = { .vm = vm, .from = vm->machine.engine };
	struct err why = { 0 };
	bool ran;
	int r = engine_parse(name, &x.to, &x.to_options, e);

	if (r || !x.to)
		return r ? r : err_set(e, EINVAL, "which engine? 'ospite engines' lists them");
	if (x.to->probe(&why))
		return err_set(e, ENOTSUP, "engine %s cannot be used: %.300s", x.to->name, why.text);
	x.to_accelerated = vm_accelerated(vm, x.to);
	ran = vm_state_now(vm) == VM_RUNNING;
	r = vm_pause(vm, e);
	if (!r)
		r = vm_hold(vm, e);
	if (r)
		return r;
	x.from = vm->machine.engine;
	x.from_options = vm->machine.engine_options;
	x.from_accelerated = vm->machine.accelerated;
	if (x.from != x.to || memcmp(&x.from_options, &x.to_options, sizeof(x.to_options))) {
		r = exchange_do(&x, &why);
		if (r)
			err_set(e, why.code ? why.code : EIO, "the machine stays under engine %s: %.400s", x.from->name, why.text);
		else
			snprintf(vm->engine_why, sizeof(vm->engine_why), "changed from %s while running", x.from->name);
		trace_line(vm->machine.trace, TRACE_vm, r ? "engine %s refused" : "engine %s", x.to->name);
	}
	vm_release(vm);
	if (ran)
		vm_resume(vm, NULL);
	return r;
}
