/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine's life; vm.h has the states. vm->lock covers state and requests and is never held while devices, engine
 * or hooks of the board are called, because those may make requests themselves.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/evloop.h"
#include "base/huge.h"
#include "base/log.h"
#include "base/trace.h"
#include "vm/measure.h"
#include "vm/private.h"

/* ---- listeners */

/* Lock held. */
static void vm_tell(struct vm *vm, enum vm_event what)
{
	for (struct vm_listener *l = vm->listeners; l; l = l->next)
		l->fn(l->opaque, what);
}

void vm_listen(struct vm *vm, struct vm_listener *l)
{
	pthread_mutex_lock(&vm->lock);
	l->next = vm->listeners;
	vm->listeners = l;
	pthread_mutex_unlock(&vm->lock);
}

void vm_unlisten(struct vm *vm, struct vm_listener *l)
{
	struct vm_listener **at = &vm->listeners;

	pthread_mutex_lock(&vm->lock);
	while (*at && *at != l)
		at = &(*at)->next;
	if (*at)
		*at = l->next;
	pthread_mutex_unlock(&vm->lock);
}

/* ---- parking */

/* Lock held. */
static bool vm_wants_parked(const struct vcpu *v)
{
	const struct vm *vm = v->vm;

	return vm->state != VM_RUNNING || vm->pausing || vm->reset_wanted || vm->resetting || vm->works ||
	       vm->debug_stop || vm->end != VM_END_NONE || v->held;
}

/* Make every CPU that runs or halts come and look. No lock needed. */
static void vm_call_in(struct vm *vm)
{
	unsigned i;

	for (i = 0; i < vm->machine.ncpus; i++)
		cpu_notify(&vm->vcpus[i].cpu, ATT_CALLER);
}

/* Devices in wiring order, then the CPUs, then the board's word on what CPU 0 starts with. All CPUs are parked. */
static void vm_reset_all(struct vm *vm, enum reset_kind kind)
{
	const uint32_t stay = ATT_CALLER | ATT_FLUSH;
	struct device *d;
	unsigned i;

	for (i = 0; i < vm->machine.ncpus; i++) {
		struct vcpu *v = &vm->vcpus[i];

		atomic_fetch_and(&v->cpu.attention, stay);
		x86_state_reset(&v->cpu.s, i == 0);
		v->state_changed = true;
	}
	for (d = vm->devices; d; d = d->next)
		if (d->ops->reset)
			d->ops->reset(d, kind);
	if (vm->reset_hook)
		vm->reset_hook(vm->reset_opaque);
}

/*
 * What devices asked to have done while no CPU runs. Lock held on entry and exit. `resetting` keeps everybody parked and
 * whoever pauses or resumes waiting, also while a piece of work is off the list and underway.
 */
static void vm_do_works(struct vm *vm)
{
	vm->resetting = true;
	while (vm->works) {
		struct stop_work *w = vm->works;

		vm->works = w->next;
		w->queued = false; /* it may be asked for again from here on */
		pthread_mutex_unlock(&vm->lock);
		w->fn(w->opaque);
		pthread_mutex_lock(&vm->lock);
	}
	vm->resetting = false;
	pthread_cond_broadcast(&vm->changed);
}

/* All CPUs are parked: do what waits for that. Lock held on entry and exit. True if the world has changed. */
static bool vm_all_parked(struct vm *vm)
{
	if (vm->resetting)
		return false;
	if (vm->end != VM_END_NONE) {
		if (vm->state == VM_STOPPED)
			return false;
		vm->state = VM_STOPPED;
		clock_pause(vm->clock);
		trace_line(vm->machine.trace, TRACE_vm, "stopped: %s", vm->end_reason);
		if (vm->stopped_hook)
			vm->stopped_hook(vm->stopped_opaque);
		vm_tell(vm, VM_EVENT_ENDED);
		pthread_cond_broadcast(&vm->changed);
		return true;
	}
	if (vm->works) {
		vm_do_works(vm);
		return true;
	}
	if (!vm->reset_wanted)
		return false;
	vm->reset_wanted = false;
	vm->resetting = true;
	pthread_mutex_unlock(&vm->lock);
	trace_line(vm->machine.trace, TRACE_vm, "reset");
	vm_reset_all(vm, RESET_WARM);
	pthread_mutex_lock(&vm->lock);
	vm->resetting = false;
	vm_tell(vm, VM_EVENT_RESET);
	pthread_cond_broadcast(&vm->changed);
	return true;
}

bool vm_park(struct vcpu *v)
{
	struct vm *vm = v->vm;
	bool stay;

	pthread_mutex_lock(&vm->lock);
	vm->stopped_vcpus++;
	pthread_cond_broadcast(&vm->changed);
	while (!vm->exiting && vm_wants_parked(v)) {
		if (exchange_attend(v) || (vm->stopped_vcpus == vm->machine.ncpus && vm_all_parked(vm)))
			continue;
		pthread_cond_wait(&vm->changed, &vm->lock);
	}
	vm->stopped_vcpus--;
	stay = !vm->exiting;
	pthread_mutex_unlock(&vm->lock);
	return stay;
}

void vm_vcpu_ready(struct vcpu *v, const struct err *e)
{
	struct vm *vm = v->vm;

	pthread_mutex_lock(&vm->lock);
	v->ready = true;
	if (e && !vm->start_error.code)
		vm->start_error = *e;
	pthread_cond_broadcast(&vm->changed);
	pthread_mutex_unlock(&vm->lock);
}

void vm_debug_stop(struct vcpu *v)
{
	struct vm *vm = v->vm;

	if (!vm->debug_hook)
		return;
	pthread_mutex_lock(&vm->lock);
	vm->debug_stop = true;
	pthread_mutex_unlock(&vm->lock);
	vm->debug_hook(vm->debug_opaque, v);
	vm_call_in(vm);
}

/* ---- requests */

void vm_request_end(struct vm *vm, enum vm_end why, int status, const char *reason)
{
	bool first;

	pthread_mutex_lock(&vm->lock);
	first = vm->end == VM_END_NONE;
	if (first) {
		vm->end = why;
		vm->exit_status = status;
		snprintf(vm->end_reason, sizeof(vm->end_reason), "%s", reason ? reason : "");
		pthread_cond_broadcast(&vm->changed);
	}
	pthread_mutex_unlock(&vm->lock);
	if (first)
		vm_call_in(vm);
}

void vm_request_reset(struct vm *vm)
{
	if (vm->config->no_reboot) {
		vm_request_end(vm, VM_END_RESET, 0, "the guest reset itself");
		return;
	}
	pthread_mutex_lock(&vm->lock);
	vm->reset_wanted = true;
	pthread_cond_broadcast(&vm->changed);
	pthread_mutex_unlock(&vm->lock);
	vm_call_in(vm);
}

/*
 * The caller, if it is a vCPU, parks when its access is over and its instruction complete, so two of them asking at once do
 * not wait for each other: the last to park does the work of both, before any of them goes on.
 */
void vm_when_stopped(struct vm *vm, struct stop_work *w)
{
	struct stop_work **at;
	bool now;

	pthread_mutex_lock(&vm->lock);
	now = vm->state == VM_INACTIVE;
	if (!now && !w->queued) {
		for (at = &vm->works; *at; at = &(*at)->next)
			;
		w->next = NULL;
		w->queued = true;
		*at = w;
		pthread_cond_broadcast(&vm->changed);
	}
	pthread_mutex_unlock(&vm->lock);
	if (now)
		w->fn(w->opaque);
	else
		vm_call_in(vm);
}

static void env_when_stopped(void *vm, struct stop_work *w)
{
	vm_when_stopped(vm, w);
}

/* Devices that work on their own account. Not under vm->lock: they may interrupt CPUs, and wait for threads that do. */
static void vm_devices_pause(struct vm *vm)
{
	for (struct device *d = vm->devices; d; d = d->next)
		if (d->ops->pause)
			d->ops->pause(d);
}

static void vm_devices_resume(struct vm *vm)
{
	for (struct device *d = vm->devices; d; d = d->next)
		if (d->ops->resume)
			d->ops->resume(d);
}

/* vm->lock held, vm->pausing set. */
static void vm_wait_parked(struct vm *vm)
{
	while (vm->state == VM_RUNNING &&
	       (vm->stopped_vcpus < vm->machine.ncpus || vm->resetting || vm->reset_wanted || vm->works))
		pthread_cond_wait(&vm->changed, &vm->lock);
}

int vm_pause(struct vm *vm, struct err *e)
{
	int r = 0;

	pthread_mutex_lock(&vm->lock);
	if (vm->state == VM_INACTIVE) {
		pthread_mutex_unlock(&vm->lock);
		return err_set(e, EINVAL, "the machine has not been started");
	}
	while (vm->pausing && vm->state == VM_RUNNING) /* somebody else is at it */
		pthread_cond_wait(&vm->changed, &vm->lock);
	if (vm->state == VM_RUNNING) {
		vm->pausing = true;
		pthread_mutex_unlock(&vm->lock);
		vm_call_in(vm);
		pthread_mutex_lock(&vm->lock);
		vm_wait_parked(vm);
		pthread_mutex_unlock(&vm->lock);
		vm_devices_pause(vm);
		pthread_mutex_lock(&vm->lock);
		vm_wait_parked(vm); /* a reset may have come meanwhile */
		vm->pausing = false;
		if (vm->state == VM_RUNNING) {
			clock_pause(vm->clock);
			vm->state = VM_PAUSED;
			trace_line(vm->machine.trace, TRACE_vm, "paused");
			vm_tell(vm, VM_EVENT_PAUSED);
		}
		pthread_cond_broadcast(&vm->changed);
	}
	if (vm->state == VM_STOPPED)
		r = err_set(e, EBUSY, "the machine has ended");
	pthread_mutex_unlock(&vm->lock);
	return r;
}

int vm_resume(struct vm *vm, struct err *e)
{
	bool resumed = false;
	int r = 0;

	pthread_mutex_lock(&vm->lock);
	while (vm->resetting)
		pthread_cond_wait(&vm->changed, &vm->lock);
	if (vm->state == VM_PAUSED) {
		resumed = true;
		vm->debug_stop = false;
		vm->state = VM_RUNNING;
		clock_resume(vm->clock);
		trace_line(vm->machine.trace, TRACE_vm, "resumed");
		vm_tell(vm, VM_EVENT_RESUMED);
		pthread_cond_broadcast(&vm->changed);
	} else if (vm->state != VM_RUNNING) {
		r = err_set(e, vm->state == VM_STOPPED ? EBUSY : EINVAL, "the machine %s",
			    vm->state == VM_STOPPED ? "has ended" : "has not been started");
	}
	pthread_mutex_unlock(&vm->lock);
	if (resumed)
		vm_devices_resume(vm);
	return r;
}

int vm_hold(struct vm *vm, struct err *e)
{
	int r = 0;

	pthread_mutex_lock(&vm->lock);
	while (vm->resetting)
		pthread_cond_wait(&vm->changed, &vm->lock);
	if (vm->state == VM_PAUSED)
		vm->resetting = true;
	else
		r = err_set(e, EBUSY, "the machine must be paused");
	pthread_mutex_unlock(&vm->lock);
	return r;
}

void vm_release(struct vm *vm)
{
	pthread_mutex_lock(&vm->lock);
	vm->resetting = false;
	pthread_cond_broadcast(&vm->changed);
	pthread_mutex_unlock(&vm->lock);
}

enum vm_state vm_state_now(struct vm *vm)
{
	enum vm_state state;

	pthread_mutex_lock(&vm->lock);
	state = vm->state;
	pthread_mutex_unlock(&vm->lock);
	return state;
}

enum vm_end vm_wait(struct vm *vm)
{
	enum vm_end end;

	measured_dispose(vm->measured); /* there is time now */
	vm->measured = NULL;
	pthread_mutex_lock(&vm->lock);
	while (vm->state != VM_STOPPED)
		pthread_cond_wait(&vm->changed, &vm->lock);
	end = vm->end;
	pthread_mutex_unlock(&vm->lock);
	return end;
}

/* ---- start */

/* Threads up, or all of them down again. */
static int vm_start_threads(struct vm *vm, struct err *e)
{
	unsigned i;
	int r = 0;

	for (i = 0; i < vm->machine.ncpus && !r; i++)
		r = vcpu_start(&vm->vcpus[i], e);
	pthread_mutex_lock(&vm->lock);
	for (i = 0; i < vm->machine.ncpus; i++)
		while (vm->vcpus[i].started && !vm->vcpus[i].ready)
			pthread_cond_wait(&vm->changed, &vm->lock);
	if (!r && vm->start_error.code) {
		r = -vm->start_error.code;
		if (e)
			*e = vm->start_error;
	}
	if (r) {
		vm->exiting = true;
		pthread_cond_broadcast(&vm->changed);
	}
	pthread_mutex_unlock(&vm->lock);
	for (i = 0; i < vm->machine.ncpus && r; i++)
		vcpu_join(&vm->vcpus[i]);
	return r;
}

int vm_start(struct vm *vm, struct err *e)
{
	int r;

	if (vm->state != VM_INACTIVE || vm->exiting)
		return err_set(e, EINVAL, "the machine has been started already");
	if (!vm->loaded)
		vm_reset_all(vm, RESET_COLD);
	if (vm->end != VM_END_NONE) /* what it was to start with could not be put in place */
		return err_set(e, EIO, "%s", vm->end_reason);
	r = vm_start_threads(vm, e);
	if (r)
		return r;
	if (!vm->start_paused)
		vm_devices_resume(vm);
	/* whatever the loop calls and asks for the machine's state finds it started */
	pthread_mutex_lock(&vm->lock);
	r = evloop_start(vm->loop, e);
	if (!r)
		vm->state = vm->start_paused ? VM_PAUSED : VM_RUNNING;
	vm->machine.cpuid_promised = true;
	if (vm->state == VM_RUNNING)
		clock_resume(vm->clock);
	pthread_cond_broadcast(&vm->changed);
	pthread_mutex_unlock(&vm->lock);
	return r;
}

/* ---- making and breaking */

bool vm_accelerated(struct vm *vm, const struct engine_ops *engine)
{
	if (strcmp(engine->name, "kvm"))
		return false;
	if (!vm->kvm_accelerated)
		vm->kvm_accelerated = measure_accelerated(engine, NULL) ? 1 : -1;
	return vm->kvm_accelerated > 0;
}

static bool vm_engine_is_auto(const struct vm *vm)
{
	return !vm->config->engine_ops && (!vm->config->engine || !strcmp(vm->config->engine, "auto"));
}

static int vm_measure_engines(struct vm *vm, struct verdict *v, struct err *e)
{
	measured_dispose(vm->measured);
	vm->machine.engine = measure_choose(vm->engine_why, sizeof(vm->engine_why), &vm->measured, v);
	vm->machine.accelerated = vm->machine.engine && !strcmp(vm->machine.engine->name, "kvm");
	return vm->machine.engine ? 0 : err_set(e, ENODEV, "no engine works on this host: %s", vm->engine_why);
}

/* "auto" takes the fastest that works here. */
static int vm_choose_engine(struct vm *vm, struct err *e)
{
	const char *name = vm->config->engine;
	int r;

	if (vm->config->engine_ops) {
		vm->machine.engine = vm->config->engine_ops;
		return 0;
	}
	if (vm_engine_is_auto(vm))
		return vm_measure_engines(vm, vm->config->verdict, e);
	snprintf(vm->engine_why, sizeof(vm->engine_why), "as asked");
	r = engine_parse(name, &vm->machine.engine, &vm->machine.engine_options, e);
	if (r)
		return r;
	if (vm->machine.engine->probe(e)) {
		vm->machine.engine = NULL;
		return err_prefix(e, "engine %s cannot be used", name);
	}
	if (!strcmp(vm->machine.engine->name, "kvm"))
		vm->kvm_accelerated = measure_accelerated(vm->machine.engine, vm->config->verdict) ? 1 : -1;
	vm->machine.accelerated = vm_accelerated(vm, vm->machine.engine);
	return 0;
}

/* Hardware that was there when KVM was measured may be taken by somebody else now: then it is measured again. */
static int vm_attach_engine(struct vm *vm, struct err *e)
{
	struct machine *m = &vm->machine;
	bool remembered = m->accelerated && !vm->measured && vm_engine_is_auto(vm);
	int r = m->engine->vm_attach(m, e);

	if (r && remembered) {
		*e = (struct err){ 0 };
		r = vm_measure_engines(vm, NULL, e);
		r = r ? r : m->engine->vm_attach(m, e);
	}
	vm->attached = !r;
	return r;
}

static int vm_create_cpus(struct vm *vm, struct err *e)
{
	unsigned n = vm->config->cpus, i;
	size_t size = sizeof(struct vcpu) * n;
	int r;

	if (n < 1 || n > MAX_CPUS)
		return err_set(e, EINVAL, "%u CPUs: 1 to %u are possible", n, MAX_CPUS);
	vm->vcpus = huge_alloc(size);
	if (!vm->vcpus)
		return err_set(e, ENOMEM, "no memory for %u CPUs", n);
	for (i = 0; i < n; i++) {
		r = vcpu_init(&vm->vcpus[i], vm, i, e);
		if (r)
			return r;
		vm->machine.ncpus = i + 1;
	}
	return 0;
}

static int vm_build(struct vm *vm, struct err *e)
{
	struct machine *m = &vm->machine;
	int r;

	vm->loop = evloop_create(e);
	vm->clock = vm->loop ? clock_create(vm->loop, &vm->config->born, e) : NULL;
	if (!vm->clock)
		return -(e && e->code ? e->code : ENOMEM);
	m->clock = vm->clock;
	m->mem = mem_create_with(vm->config->memory, vm->config->files, vm->config->huge_pages, e);
	if (!m->mem)
		return -(e && e->code ? e->code : ENOMEM);
	m->ports = ports_create();
	if (!m->ports)
		return err_set(e, ENOMEM, "no memory for ports");
	r = vm_choose_engine(vm, e);
	m->cpuid_promised = vm->config->cpuid;
	if (!r && vm->config->cpuid)
		r = cpuid_adopt(&vm->cpuid, vm->config->cpuid, e);
	else if (!r)
		r = cpuid_build(&vm->cpuid, vm->config->cpu_model, vm->config->cpus, clock_tsc_khz(vm->clock), e);
	if (!r && !vm->config->cpuid && vm->config->cores)
		r = cpuid_set_topology(&vm->cpuid, vm->config->cpus, vm->config->cores, vm->config->threads, e);
	m->cpuid = &vm->cpuid;
	if (!r)
		r = vm_create_cpus(vm, e);
	return r ? r : vm_attach_engine(vm, e);
}

int vm_create(struct vm **out, const struct vm_config *config, struct err *e)
{
	struct vm *vm = calloc(1, sizeof(*vm));
	struct err mine = { 0 };
	int r;

	if (!vm)
		return err_set(e, ENOMEM, "no memory for a machine");
	if (!e)
		e = &mine;
	vm->config = config;
	pthread_mutex_init(&vm->lock, NULL);
	pthread_cond_init(&vm->changed, NULL);
	r = vm_build(vm, e);
	if (r) {
		vm_destroy(vm);
		return r;
	}
	*out = vm;
	return 0;
}

static void vm_destroy_devices(struct vm *vm)
{
	struct device *reversed = NULL, *d, *next;

	for (d = vm->devices; d; d = next) {
		next = d->next;
		d->next = reversed;
		reversed = d;
	}
	vm->devices = NULL;
	for (d = reversed; d; d = next) {
		next = d->next;
		if (d->ops->destroy)
			d->ops->destroy(d);
	}
}

/* First all threads, so that nothing is used while it goes; then everything in the reverse order of its making. */
void vm_destroy(struct vm *vm)
{
	bool alive;
	unsigned i;

	if (!vm)
		return;
	pthread_mutex_lock(&vm->lock);
	alive = vm->state == VM_RUNNING || vm->state == VM_PAUSED;
	pthread_mutex_unlock(&vm->lock);
	if (alive) {
		vm_request_end(vm, VM_END_USER, 0, "destroyed");
		vm_wait(vm);
	}
	pthread_mutex_lock(&vm->lock);
	vm->exiting = true;
	pthread_cond_broadcast(&vm->changed);
	pthread_mutex_unlock(&vm->lock);
	for (i = 0; i < vm->machine.ncpus; i++)
		vcpu_join(&vm->vcpus[i]);
	if (vm->loop)
		evloop_stop(vm->loop);
	vm_destroy_devices(vm);
	measured_dispose(vm->measured);
	if (vm->attached)
		vm->machine.engine->vm_detach(&vm->machine);
	for (i = 0; i < vm->machine.ncpus; i++)
		vcpu_dispose(&vm->vcpus[i]);
	huge_free(vm->vcpus, sizeof(struct vcpu) * vm->config->cpus);
	ports_destroy(vm->machine.ports);
	mem_destroy(vm->machine.mem);
	clock_destroy(vm->clock);
	evloop_destroy(vm->loop);
	trace_destroy(vm->machine.trace);
	pthread_cond_destroy(&vm->changed);
	pthread_mutex_destroy(&vm->lock);
	free(vm);
}

void vm_add_device(struct vm *vm, struct device *d)
{
	struct device **at = &vm->devices;

	while (*at)
		at = &(*at)->next;
	d->next = NULL;
	*at = d;
}

void vm_remove_device(struct vm *vm, struct device *d)
{
	struct device **at = &vm->devices;

	while (*at && *at != d)
		at = &(*at)->next;
	if (*at)
		*at = d->next;
}

struct device_env vm_device_env(struct vm *vm)
{
	return (struct device_env){ .mem = vm->machine.mem, .ports = vm->machine.ports, .clock = vm->clock,
				    .loop = vm->loop, .when_stopped = env_when_stopped, .vm = vm };
}

void vm_stats(struct vm *vm, void (*line)(void *opaque, const char *name, uint64_t value), void *opaque)
{
	uint64_t halts = 0, kicks = 0, timeouts = 0, fills = 0, second = 0, grows = 0, flushes = 0, switches = 0;
	unsigned i;

	if (vm->machine.engine->stats)
		vm->machine.engine->stats(&vm->machine, line, opaque);
	for (i = 0; i < vm->machine.ncpus; i++) {
		const struct vcpu *v = &vm->vcpus[i];

		halts += v->halts;
		timeouts += v->timeouts;
		kicks += v->kicks;
		fills += v->cpu.tlb.fills;
		second += v->cpu.tlb.second_hits;
		grows += v->cpu.tlb.grows;
		flushes += v->cpu.tlb.flushes;
		switches += v->cpu.tlb.switches;
	}
	line(opaque, "vcpu.halts", halts);
	line(opaque, "vcpu.halts-ended-by-timer", timeouts);
	line(opaque, "vcpu.stops", kicks);
	line(opaque, "tlb.fills", fills);
	line(opaque, "tlb.second-level", second);
	line(opaque, "tlb.tables-grown", grows);
	line(opaque, "tlb.flushes", flushes);
	line(opaque, "tlb.switches", switches);
	line(opaque, "machine.virtual-ms", clock_now(vm->clock) / 1000000);
}

void vm_set_trace(struct vm *vm, struct trace *t)
{
	trace_destroy(vm->machine.trace);
	vm->machine.trace = t;
	mem_set_trace(vm->machine.mem, t);
	ports_set_trace(vm->machine.ports, t);
}
