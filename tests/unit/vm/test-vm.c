/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Life-cycle and posting, with an engine made for it: its CPUs "run" by spinning, halt when there is nothing to do,
 * and note every request they serve.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "vm/vm.h"

#define POSTERS 2
#define CPUS 3

enum script { SPIN, HALT, MIX, TRIPLE, BROKEN, DEBUG_POINT, ASK };

static struct {
	_Atomic int script;
	_Atomic uint64_t posted[CPUS][POSTERS]; /* the "data" of a request */
	_Atomic uint64_t served[CPUS][POSTERS];
	_Atomic uint64_t kicks, wakes, runs[CPUS], gets, sets, created, destroyed, attached, resets, saw_reset;
	_Atomic bool fail_create;
	struct vm *vm;
	struct stop_work work[CPUS];
	_Atomic uint64_t asked[CPUS], worked, running, at_work, mixed;
} lab;

static void fake_serve(struct cpu *c)
{
	unsigned p;

	atomic_fetch_and(&c->attention, ~(uint32_t)ATT_IRQ);
	for (p = 0; p < POSTERS; p++)
		atomic_store(&lab.served[c->id][p], atomic_load(&lab.posted[c->id][p]));
}

static enum cpu_stop fake_stop(struct cpu *c, enum cpu_stop why)
{
	if (lab.vm)
		atomic_fetch_sub(&lab.running, 1);
	c->s.activity = why == STOP_HLT ? ACTIVITY_HLT : ACTIVITY_RUN;
	c->stop = why;
	return why;
}

static enum cpu_stop fake_run(struct cpu *c)
{
	unsigned spin = 0;

	atomic_fetch_add(&lab.runs[c->id], 1);
	if (lab.vm)
		atomic_fetch_add(&lab.running, 1);
	if (atomic_load(&lab.at_work))
		atomic_fetch_add(&lab.mixed, 1);
	if (c->s.gpr[RAX] == 77) /* what the reset hook left there */
		atomic_store(&lab.saw_reset, 1);
	for (;;) {
		uint32_t attention = atomic_load(&c->attention);

		if (attention & ATT_IRQ)
			fake_serve(c);
		if (attention & ATT_CALLER) {
			if (++spin & 1) /* engines may clear it, but need not */
				atomic_fetch_and(&c->attention, ~(uint32_t)ATT_CALLER);
			return fake_stop(c, STOP_KICK);
		}
		switch (atomic_load(&lab.script)) {
		case HALT:
			return fake_stop(c, STOP_HLT);
		case MIX:
			if (++spin % 50 == 0)
				return fake_stop(c, STOP_HLT);
			break;
		case ASK: /* in the middle of an access */
			if (lab.work[c->id].fn && ++spin % 3 == 0) {
				atomic_fetch_add(&lab.asked[c->id], 1);
				vm_when_stopped(lab.vm, &lab.work[c->id]);
			}
			break;
		case TRIPLE:
			atomic_store(&lab.script, SPIN);
			return fake_stop(c, STOP_SHUTDOWN);
		case BROKEN:
			c->error = "out of glue";
			return fake_stop(c, STOP_ERROR);
		case DEBUG_POINT:
			atomic_store(&lab.script, SPIN);
			return fake_stop(c, STOP_DEBUG);
		default:
			if (++spin % 64 == 0)
				sched_yield(); /* there are fewer host CPUs than threads */
			break;
		}
	}
}

static int fake_probe(struct err *e)
{
	return 0;
}
static int fake_attach(struct machine *m, struct err *e)
{
	lab.attached++;
	return 0;
}
static void fake_detach(struct machine *m)
{
	lab.attached--;
}
static int fake_create(struct cpu *c, struct err *e)
{
	if (lab.fail_create && c->id == 1)
		return err_set(e, EPERM, "CPU 1 is shy");
	lab.created++;
	return 0;
}
static void fake_destroy(struct cpu *c)
{
	lab.destroyed++;
}
static void fake_kick(struct cpu *c)
{
	lab.kicks++;
}
static void fake_get(struct cpu *c)
{
	lab.gets++;
}
static void fake_set(struct cpu *c)
{
	lab.sets++;
}
static void fake_debug(struct cpu *c)
{
}

static const struct engine_ops fake = {
	.name = "fake", .probe = fake_probe, .vm_attach = fake_attach, .vm_detach = fake_detach,
	.cpu_create = fake_create, .cpu_destroy = fake_destroy, .run = fake_run, .kick = fake_kick,
	.state_get = fake_get, .state_set = fake_set, .debug_set = fake_debug,
};

static const struct vm_config config = { .name = "t", .cpus = CPUS, .memory = 4 << 20, .cpu_model = "v2",
					 .engine_ops = &fake };

static struct vm *make(const struct vm_config *cfg, enum script script)
{
	struct vm *vm = NULL;
	struct err e = { 0 };

	memset(&lab, 0, sizeof(lab));
	lab.script = script;
	if (vm_create(&vm, cfg, &e))
		fail_msg("%s", e.text);
	return vm;
}

static void sleep_ms(long ms)
{
	struct timespec ts = { .tv_nsec = ms * 1000000 };

	nanosleep(&ts, NULL);
}

/* Within two seconds. */
static bool until(_Atomic uint64_t *v, uint64_t least)
{
	int i;

	for (i = 0; i < 20000; i++) {
		if (atomic_load(v) >= least)
			return true;
		if (i > 100)
			usleep(100);
		else
			sched_yield();
	}
	return false;
}

/* ---- cpu_notify by itself */

static void count_wake(struct cpu *c)
{
	lab.wakes++;
}

static void test_notify(void **state)
{
	struct machine m = { .engine = &fake };
	struct cpu *c = aligned_alloc(64, sizeof(*c));

	memset(c, 0, sizeof(*c));
	memset(&lab, 0, sizeof(lab));
	c->machine = &m;
	c->wake = count_wake;
	c->run_state = CPU_READY;
	cpu_notify(c, ATT_IRQ);
	assert_int_equal(c->attention, ATT_IRQ);
	assert_int_equal(lab.kicks + lab.wakes, 0);
	c->run_state = CPU_RUNNING;
	cpu_notify(c, ATT_IRQ); /* already set: whoever set it has notified */
	assert_int_equal(lab.kicks, 0);
	cpu_notify(c, ATT_NMI);
	assert_int_equal(lab.kicks, 1);
	c->attention = 0;
	c->run_state = CPU_HALTED;
	cpu_notify(c, ATT_IRQ);
	assert_int_equal(lab.wakes, 1);
	assert_int_equal(c->run_state, CPU_READY);
	cpu_notify(c, ATT_INIT); /* it is on its way */
	assert_int_equal(lab.wakes, 1);
	assert_int_equal(lab.kicks, 1);
	assert_int_equal(c->attention, ATT_IRQ | ATT_INIT);
	free(c);
}

/* ---- stress */

struct poster {
	struct vm *vm;
	unsigned number;
	uint64_t posts;
	bool wait; /* for each to be served */
	_Atomic uint64_t late;
};

static void *post(void *opaque)
{
	struct poster *p = opaque;
	uint64_t i, value;

	for (i = 0; i < p->posts; i++) {
		unsigned cpu = (unsigned)(i * 7 + p->number) % CPUS;

		value = atomic_fetch_add(&lab.posted[cpu][p->number], 1) + 1;
		cpu_notify(&p->vm->vcpus[cpu].cpu, ATT_IRQ);
		if (p->wait && !until(&lab.served[cpu][p->number], value))
			atomic_fetch_add(&p->late, 1);
	}
	return NULL;
}

static void stress(enum script script, uint64_t posts, bool wait)
{
	struct vm *vm = make(&config, script);
	struct poster p[POSTERS];
	pthread_t t[POSTERS];
	unsigned i, c;

	assert_int_equal(vm_start(vm, NULL), 0);
	for (i = 0; i < POSTERS; i++) {
		p[i] = (struct poster){ .vm = vm, .number = i, .posts = posts, .wait = wait };
		pthread_create(&t[i], NULL, post, &p[i]);
	}
	for (i = 0; i < POSTERS; i++) {
		pthread_join(t[i], NULL);
		assert_int_equal(p[i].late, 0);
	}
	for (c = 0; c < CPUS; c++)
		for (i = 0; i < POSTERS; i++)
			assert_true(until(&lab.served[c][i], lab.posted[c][i]));
	assert_true(lab.kicks <= posts * POSTERS + 2 * CPUS);
	vm_destroy(vm);
	assert_int_equal(lab.created, CPUS);
	assert_int_equal(lab.destroyed, CPUS);
	assert_int_equal(lab.attached, 0);
}

static void test_flood(void **state)
{
	stress(MIX, 1000000, false);
}
static void test_flood_halted(void **state)
{
	stress(HALT, 500000, false);
}
static void test_each_halted(void **state)
{
	stress(HALT, 4000, true);
}
static void test_each_mixed(void **state)
{
	stress(MIX, 4000, true);
}

/* ---- life-cycle */

static void test_pause(void **state)
{
	static const enum script scripts[] = { SPIN, HALT, MIX };
	struct vm *vm;
	struct err e;
	unsigned s, i, c;

	for (s = 0; s < ARRAY_LEN(scripts); s++) {
		vm = make(&config, scripts[s]);
		assert_int_equal(vm_pause(vm, &e), -EINVAL);
		assert_int_equal(vm_resume(vm, &e), -EINVAL);
		assert_int_equal(vm_start(vm, &e), 0);
		assert_int_equal(vm_start(vm, &e), -EINVAL);
		for (i = 0; i < 100; i++) {
			uint64_t runs[CPUS], now;

			assert_int_equal(vm_pause(vm, &e), 0);
			assert_int_equal(vm_state_now(vm), VM_PAUSED);
			assert_int_equal(vm->stopped_vcpus, CPUS);
			now = clock_now(vm->clock);
			for (c = 0; c < CPUS; c++)
				runs[c] = lab.runs[c];
			cpu_notify(&vm->vcpus[i % CPUS].cpu, ATT_IRQ); /* must not make it run */
			assert_int_equal(vm_pause(vm, &e), 0);
			if (i == 50)
				sleep_ms(2);
			for (c = 0; c < CPUS; c++)
				assert_int_equal(runs[c], lab.runs[c]);
			assert_int_equal(clock_now(vm->clock), now);
			assert_int_equal(vm_resume(vm, &e), 0);
			assert_int_equal(vm_resume(vm, &e), 0);
		}
		vm_destroy(vm); /* while running */
	}
}

static void *pauser(void *opaque)
{
	struct vm *vm = opaque;
	int i;

	for (i = 0; i < 200; i++) {
		if (vm_pause(vm, NULL) || vm_resume(vm, NULL))
			break;
	}
	return NULL;
}

static void test_pausers(void **state)
{
	struct vm *vm = make(&config, MIX);
	pthread_t t[3];
	unsigned i;

	assert_int_equal(vm_start(vm, NULL), 0);
	for (i = 0; i < 3; i++)
		pthread_create(&t[i], NULL, pauser, vm);
	for (i = 0; i < 20; i++) {
		vm_request_reset(vm);
		sleep_ms(1);
	}
	for (i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(vm_state_now(vm), VM_RUNNING);
	pthread_create(&t[0], NULL, pauser, vm);
	vm_request_end(vm, VM_END_POWER_OFF, 0, "test");
	pthread_join(t[0], NULL);
	assert_int_equal(vm_wait(vm), VM_END_POWER_OFF);
	vm_destroy(vm);
}

/* ---- devices, reset, end */

struct toy {
	struct device d;
	char name;
	char *log;
};
static void toy_note(struct device *d, char what)
{
	struct toy *t = container_of(d, struct toy, d);
	size_t n = strlen(t->log);

	if (n < 60) {
		t->log[n] = t->name;
		t->log[n + 1] = what;
	}
}
static void toy_reset(struct device *d, enum reset_kind kind)
{
	toy_note(d, kind == RESET_COLD ? 'c' : 'w');
}
static void toy_destroy(struct device *d)
{
	toy_note(d, 'd');
}
static const struct device_ops toy_ops = { .reset = toy_reset, .destroy = toy_destroy };

static void reset_hook(void *opaque)
{
	struct vm *vm = opaque;

	vm->vcpus[0].cpu.s.gpr[RAX] = 77;
	lab.resets++;
}

static void test_reset_and_end(void **state)
{
	char log[64] = "";
	struct toy a = { .d.ops = &toy_ops, .name = 'a', .log = log }, b = { .d.ops = &toy_ops, .name = 'b', .log = log };
	struct vm *vm = make(&config, SPIN);
	uint64_t sets;

	vm_add_device(vm, &a.d);
	vm_add_device(vm, &b.d);
	vm->reset_hook = reset_hook;
	vm->reset_opaque = vm;
	assert_int_equal(vm_start(vm, NULL), 0);
	assert_int_equal(lab.resets, 1);
	assert_true(until(&lab.saw_reset, 1));
	assert_true(until(&lab.sets, CPUS));
	/* a triple fault is a reset */
	sets = lab.sets;
	lab.script = TRIPLE;
	assert_true(until(&lab.resets, 2));
	assert_true(until(&lab.sets, sets + CPUS));
	/* a reset asked for while paused is done, and the machine stays paused */
	assert_int_equal(vm_pause(vm, NULL), 0);
	vm_request_reset(vm);
	assert_true(until(&lab.resets, 3));
	sleep_ms(1);
	assert_int_equal(vm_state_now(vm), VM_PAUSED);
	assert_int_equal(vm_resume(vm, NULL), 0);
	vm_request_end(vm, VM_END_EXIT_PORT, 33, "exit port");
	vm_request_end(vm, VM_END_CRASH, 1, "too late");
	assert_int_equal(vm_wait(vm), VM_END_EXIT_PORT);
	assert_int_equal(vm->exit_status, 33);
	assert_int_equal(vm_pause(vm, NULL), -EBUSY);
	assert_int_equal(vm_resume(vm, NULL), -EBUSY);
	vm_destroy(vm);
	assert_string_equal(log, "acbcawbwawbwbdad");
}

static void test_crash(void **state)
{
	struct vm_config cfg = config;
	struct vm *vm;

	cfg.no_reboot = true;
	vm = make(&cfg, TRIPLE);
	assert_int_equal(vm_start(vm, NULL), 0);
	assert_int_equal(vm_wait(vm), VM_END_CRASH);
	assert_string_equal(vm->end_reason, "triple fault");
	vm_destroy(vm);

	vm = make(&cfg, SPIN);
	assert_int_equal(vm_start(vm, NULL), 0);
	vm_request_reset(vm);
	assert_int_equal(vm_wait(vm), VM_END_RESET);
	vm_destroy(vm);

	vm = make(&config, BROKEN);
	assert_int_equal(vm_start(vm, NULL), 0);
	assert_int_equal(vm_wait(vm), VM_END_ENGINE);
	assert_string_equal(vm->end_reason, "out of glue");
	vm_destroy(vm);
}

static void test_no_start(void **state)
{
	struct vm_config cfg = config;
	struct vm *vm = make(&cfg, SPIN);
	struct err e;

	lab.fail_create = true;
	assert_int_equal(vm_start(vm, &e), -EPERM);
	assert_string_equal(e.text, "CPU 1 is shy");
	vm_destroy(vm);
	assert_int_equal(lab.created, lab.destroyed);
	vm = make(&cfg, SPIN);
	vm_destroy(vm); /* never started */
	cfg.cpus = 0;
	assert_int_equal(vm_create(&vm, &cfg, &e), -EINVAL);
	cfg = config;
	cfg.memory = 1ull << 50;
	assert_int_equal(vm_create(&vm, &cfg, &e), -ENOMEM);
	cfg = config;
	cfg.engine_ops = NULL;
	cfg.engine = "steam";
	assert_int_equal(vm_create(&vm, &cfg, &e), -EINVAL);
}

static _Atomic uint64_t hooked;
static void debug_hook(void *opaque, struct vcpu *v)
{
	hooked++;
}

static void test_debug(void **state)
{
	struct vm *vm = make(&config, SPIN);
	uint64_t runs[CPUS];
	unsigned c;

	vm->start_paused = true;
	vm->debug_hook = debug_hook;
	hooked = 0;
	assert_int_equal(vm_start(vm, NULL), 0);
	sleep_ms(1);
	assert_int_equal(vm_state_now(vm), VM_PAUSED);
	assert_int_equal(lab.runs[0], 0);
	assert_int_equal(clock_now(vm->clock), 0);
	lab.script = DEBUG_POINT;
	assert_int_equal(vm_resume(vm, NULL), 0);
	assert_true(until(&hooked, 1));
	assert_int_equal(vm_pause(vm, NULL), 0); /* all of them stop, whoever hit it */
	/* one may run alone */
	for (c = 0; c < CPUS; c++) {
		vm->vcpus[c].held = c != 1;
		runs[c] = lab.runs[c];
	}
	assert_int_equal(vm_resume(vm, NULL), 0);
	assert_true(until(&lab.runs[1], runs[1] + 1));
	assert_int_equal(lab.runs[0], runs[0]);
	assert_int_equal(lab.runs[2], runs[2]);
	assert_int_equal(vm_pause(vm, NULL), 0);
	vm_destroy(vm);
}

/* ---- work for which all CPUs stop, asked for by all of them at once, with pauses and a reset in between */

static void stopped_work(void *opaque)
{
	atomic_store(&lab.at_work, 1);
	if (atomic_load(&lab.running))
		atomic_fetch_add(&lab.mixed, 1);
	usleep(20);
	if (atomic_load(&lab.running))
		atomic_fetch_add(&lab.mixed, 1);
	atomic_store(&lab.at_work, 0);
	atomic_fetch_add(&lab.worked, 1);
}

static void test_stopped(void **state)
{
	struct vm *vm = make(&config, ASK);
	unsigned i;

	lab.vm = vm;
	for (i = 0; i < CPUS; i++)
		lab.work[i] = (struct stop_work){ .fn = stopped_work };
	vm_when_stopped(vm, &lab.work[0]); /* not started: at once */
	assert_int_equal(lab.worked, 1);
	assert_int_equal(vm_start(vm, NULL), 0);
	for (i = 0; i < 5; i++) {
		assert_true(until(&lab.worked, 200 * (i + 1)));
		assert_int_equal(vm_pause(vm, NULL), 0);
		assert_int_equal(lab.running, 0);
		assert_null(vm->works);
		assert_int_equal(vm_resume(vm, NULL), 0);
		if (i == 3)
			vm_request_reset(vm);
	}
	for (i = 0; i < CPUS; i++)
		assert_true(lab.asked[i] > 10);
	assert_int_equal(lab.mixed, 0);
	vm_destroy(vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_notify),
		cmocka_unit_test(test_pause),
		cmocka_unit_test(test_pausers),
		cmocka_unit_test(test_reset_and_end),
		cmocka_unit_test(test_crash),
		cmocka_unit_test(test_no_start),
		cmocka_unit_test(test_debug),
		cmocka_unit_test(test_stopped),
		cmocka_unit_test(test_each_halted),
		cmocka_unit_test(test_each_mixed),
		cmocka_unit_test(test_flood),
		cmocka_unit_test(test_flood_halted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
