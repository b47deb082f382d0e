/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vCPU's thread: run the engine, halt, park. Everything that touches the CPU while it is not parked happens
 * here; other threads reach it through cpu_notify() alone (x86/post.c has the protocol).
 *
 * Halting waits on the run_state word itself with a futex: the poster that turns HALTED into READY wakes, and a wait
 * that comes too late returns at once because the word has changed. The timeout is the deadline of the local APIC's
 * timer, so that a timer interrupt of an idle CPU needs no other thread.
 */
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "base/huge.h"
#include "base/log.h"
#include "dev/lapic.h"
#include "vm/private.h"
#include "x86/cpu-trace.h"

static void vcpu_wake(struct cpu *c)
{
	syscall(SYS_futex, &c->run_state, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 0);
}

/* Until run_state changes, or CLOCK_MONOTONIC reaches `deadline`. False when it timed out. */
static bool vcpu_wait(struct cpu *c, uint64_t deadline)
{
	struct timespec at, *timeout = NULL;

	if (deadline < (uint64_t)INT64_MAX) {
		at.tv_sec = (time_t)(deadline / 1000000000u);
		at.tv_nsec = (long)(deadline % 1000000000u);
		timeout = &at;
	}
	return !(syscall(SYS_futex, &c->run_state, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, CPU_HALTED, timeout,
			 NULL, FUTEX_BITSET_MATCH_ANY) &&
		 errno == ETIMEDOUT);
}

/* Requests that can end the halt. What the CPU cannot take in its present state stays pending and must not. */
static uint32_t vcpu_wakers(const struct cpu *c)
{
	if (c->s.activity == ACTIVITY_WAIT_SIPI)
		return ATT_INIT | ATT_SIPI | ATT_CALLER | ATT_FLUSH | ATT_DEBUG;
	return ~(uint32_t)(c->s.nmi_mask ? ATT_NMI : 0);
}

/* Waits, and lets the engine use the time. True when the deadline has passed. */
static bool vcpu_wait_idle(struct vcpu *v, uint64_t deadline)
{
	const struct engine_ops *engine = v->vm->machine.engine;
	uint64_t again = engine->idle ? engine->idle(&v->cpu) : UINT64_MAX;

	if (engine->idle && again == UINT64_MAX && !v->rest_given) { /* long idle: nobody uses what is behind the CPUs */
		huge_give_rest(v->vm->vcpus, v->vm->config->cpus * sizeof(*v->vm->vcpus));
		v->rest_given = true;
	}
	return !vcpu_wait(&v->cpu, MIN(deadline, again)) && deadline <= again;
}

static void vcpu_halt(struct vcpu *v)
{
	struct cpu *c = &v->cpu;
	uint32_t wakers = vcpu_wakers(c);
	uint64_t deadline = UINT64_MAX;
	bool timer = false;

	/* with interrupts off the timer's could not wake the guest, and its deadline would stay in the past */
	if (v->lapic && c->s.activity == ACTIVITY_HLT && c->s.rflags & FLAG_IF)
		deadline = lapic_timer_deadline(v->lapic);
	v->halts++;
	atomic_store(&c->run_state, CPU_HALTED);
	while (!(atomic_load(&c->attention) & wakers) && atomic_load(&c->run_state) == CPU_HALTED && !timer)
		timer = vcpu_wait_idle(v, deadline);
	atomic_store(&c->run_state, CPU_READY);
	if (v->lapic)
		lapic_timer_woken(v->lapic);
	if (timer) { /* the local APIC finds its timer due when it is asked for interrupts */
		atomic_fetch_or(&c->attention, ATT_IRQ);
		v->timeouts++;
	}
}

static void vcpu_shutdown(struct vcpu *v)
{
	if (v->vm->config->no_reboot)
		vm_request_end(v->vm, VM_END_CRASH, 0, "triple fault");
	else
		vm_request_reset(v->vm);
}

static void vcpu_handle(struct vcpu *v, enum cpu_stop stop)
{
	switch (stop) {
	case STOP_HLT:
		vcpu_halt(v);
		break;
	case STOP_SHUTDOWN:
		log_guest("vcpu", "CPU %u: shutdown after a triple fault", v->cpu.id);
		vcpu_shutdown(v);
		break;
	case STOP_DEBUG:
		vm_debug_stop(v);
		break;
	case STOP_ERROR:
		vm_request_end(v->vm, VM_END_ENGINE, 0, v->cpu.error ? v->cpu.error : "the engine failed");
		break;
	case STOP_KICK:
		v->kicks++;
		break;
	case STOP_NONE:
		break;
	}
}

/* What was changed while we were parked goes to the engine. */
static void vcpu_take_over(struct vcpu *v)
{
	const struct engine_ops *engine = v->vm->machine.engine;

	if (v->debug_changed)
		engine->debug_set(&v->cpu);
	if (v->state_changed)
		engine->state_set(&v->cpu);
	v->debug_changed = v->state_changed = false;
}

static void vcpu_loop(struct vcpu *v)
{
	const struct machine *m = &v->vm->machine; /* its engine may be another one after each stop */
	struct cpu *c = &v->cpu;
	enum cpu_stop stop = STOP_KICK; /* park first: see vm_start */

	for (;;) {
		/*
		 * Cleared before we look what it was about, so that a later one is not lost. An engine that has
		 * cleared the bit itself says by STOP_KICK that it was there.
		 */
		if ((atomic_fetch_and(&c->attention, ~(uint32_t)ATT_CALLER) & ATT_CALLER) || stop == STOP_KICK) {
			m->engine->state_get(c);
			if (!vm_park(v))
				return;
			vcpu_take_over(v);
		}
		atomic_store(&c->run_state, CPU_RUNNING);
		stop = m->engine->run(c);
		atomic_store(&c->run_state, CPU_READY);
		vcpu_handle(v, stop);
	}
}

static void *vcpu_thread(void *opaque)
{
	struct vcpu *v = opaque;
	struct err e = { 0 };
	char name[16];

	atomic_store(&v->tid, (pid_t)syscall(SYS_gettid));
	snprintf(name, sizeof(name), "vcpu-%u", v->cpu.id);
	pthread_setname_np(pthread_self(), name);
	prctl(PR_SET_TIMERSLACK, 1ul); /* timers of idle CPUs: not 50 us late */
	if (kick_attach(&v->kick, &e)) {
		vm_vcpu_ready(v, &e);
		vm_park(v);
		return NULL;
	}
	if (v->lapic)
		lapic_thread_attach(v->lapic);
	if (v->vm->machine.engine->cpu_create(&v->cpu, &e)) {
		vm_vcpu_ready(v, &e);
		vm_park(v);
	} else {
		vm_vcpu_ready(v, NULL);
		vcpu_loop(v);
		v->vm->machine.engine->cpu_destroy(&v->cpu);
	}
	if (v->lapic)
		lapic_thread_detach(v->lapic);
	kick_detach(&v->kick);
	return NULL;
}

int vcpu_init(struct vcpu *v, struct vm *vm, unsigned id, struct err *e)
{
	struct cpu *c = &v->cpu;

	v->vm = vm;
	c->id = id;
	c->machine = &vm->machine;
	c->mem = vm->machine.mem;
	c->wake = vcpu_wake;
	c->thread = &v->kick;
	vm->machine.cpus[id] = c;
	x86_state_reset(&c->s, id == 0);
	return tlb_init(&c->tlb, e);
}

void vcpu_dispose(struct vcpu *v)
{
	trace_forget(&v->cpu);
	tlb_dispose(&v->cpu.tlb);
}

int vcpu_start(struct vcpu *v, struct err *e)
{
	int r = pthread_create(&v->thread, NULL, vcpu_thread, v);

	if (r) {
		errno = r;
		return err_errno(e, "cannot create the thread of CPU %u", v->cpu.id);
	}
	v->started = true;
	return 0;
}

void vcpu_join(struct vcpu *v)
{
	if (v->started)
		pthread_join(v->thread, NULL);
	v->started = false;
}
