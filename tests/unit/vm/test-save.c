/* SPDX-License-Identifier: Apache-2.0 */
/* A paused machine to a file and into another machine, and what must be refused. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "vm/save.h"

#define MEMORY (8u << 20)

/* ---- an engine that counts in RBX, and a device that counts its resets */

static enum cpu_stop count_run(struct cpu *c)
{
	while (!(atomic_load(&c->attention) & ATT_CALLER)) {
		c->s.gpr[RBX]++;
		usleep(10);
	}
	c->stop = STOP_KICK;
	return STOP_KICK;
}
static int ok(struct err *e)
{
	return 0;
}
static int ok_vm(struct machine *m, struct err *e)
{
	return 0;
}
static int ok_cpu(struct cpu *c, struct err *e)
{
	return 0;
}
static void no_vm(struct machine *m)
{
}
static void no_cpu(struct cpu *c)
{
}
static const struct engine_ops engine = { .name = "count", .probe = ok, .vm_attach = ok_vm, .vm_detach = no_vm,
					  .cpu_create = ok_cpu, .cpu_destroy = no_cpu, .run = count_run,
					  .kick = no_cpu, .state_get = no_cpu, .state_set = no_cpu,
					  .debug_set = no_cpu };

struct toy_hw {
	uint32_t value;
	bool on;
};
struct toy {
	struct device d;
	struct toy_hw hw;
	unsigned resets, loads;
};
static const struct state_field toy_fields[] = { STATE_INT(struct toy_hw, value), STATE_INT(struct toy_hw, on) };
static const struct state_desc toy_desc = { "toy", 1, sizeof(struct toy_hw), toy_fields, 2, NULL };
static void toy_reset(struct device *d, enum reset_kind kind)
{
	struct toy *t = container_of(d, struct toy, d);

	t->resets++;
	t->hw = (struct toy_hw){ 0 };
}
static void toy_loaded(struct device *d)
{
	container_of(d, struct toy, d)->loads++;
}
static const struct device_ops toy_ops = { .state = &toy_desc, .reset = toy_reset, .loaded = toy_loaded };

static struct toy devices[2];
static char path[64];

static struct vm *make(const struct vm_config *config)
{
	struct vm *vm = NULL;
	struct err e = { 0 };
	unsigned i;

	if (vm_create(&vm, config, &e))
		fail_msg("%s", e.text);
	assert_int_equal(mem_map_ram(vm->machine.mem, 0, 0, config->memory, "ram", &e), 0);
	memset(devices, 0, sizeof(devices));
	for (i = 0; i < 2; i++) {
		devices[i].d = (struct device){ .ops = &toy_ops, .instance = i, .hw = &devices[i].hw };
		vm_add_device(vm, &devices[i].d);
	}
	vm->start_paused = true;
	return vm;
}

static const struct vm_config config = { .name = "s", .cpus = 2, .memory = MEMORY, .cpu_model = "v2",
					 .engine_ops = &engine };

static uint64_t ram_pattern(uint64_t i)
{
	return i * 0x9e3779b97f4a7c15 ^ i >> 7;
}

/* Some pages full of noise, some of one value, most empty. */
static void ram_fill(uint8_t *ram)
{
	uint64_t i;

	for (i = 0; i < 700 * 4096 / 8; i++)
		((uint64_t *)(void *)(ram + (1 << 20)))[i] = ram_pattern(i);
	memset(ram + (6 << 20), 0x5a, 50 * 4096);
	ram[MEMORY - 1] = 1;
}

static void save(struct err *e)
{
	struct vm *vm = make(&config);

	assert_int_equal(vm_save(vm, path, e), -EBUSY);
	assert_int_equal(vm_start(vm, e), 0);
	ram_fill(mem_ram_base(vm->machine.mem));
	assert_int_equal(vm_resume(vm, e), 0);
	usleep(2000);
	assert_int_equal(vm_save(vm, path, e), -EBUSY);
	assert_int_equal(vm_pause(vm, e), 0);
	vm->vcpus[1].cpu.s.gpr[R15] = 0x1122334455667788;
	vm->vcpus[1].cpu.s.v[9].q[3] = 99;
	vm->vcpus[1].cpu.s.gpr[RBX] = 1000000;
	atomic_fetch_or(&vm->vcpus[1].cpu.attention, ATT_NMI);
	devices[0].hw = (struct toy_hw){ 7, true };
	devices[1].hw = (struct toy_hw){ 8, false };
	if (vm_save(vm, path, e))
		fail_msg("%s", e->text);
	vm_destroy(vm);
}

static int load(struct vm *vm, struct save_meta *meta, struct err *e)
{
	struct state_reader *r = state_reader_open(path, e);
	int rc;

	if (!r)
		return -e->code;
	rc = vm_save_read_meta(r, meta, e);
	if (!rc)
		rc = vm_load(vm, r, meta, e);
	state_reader_close(r);
	return rc;
}

static void test_round_trip(void **state)
{
	struct save_meta *meta = calloc(1, sizeof(*meta));
	struct err e = { 0 };
	struct vm *vm;
	uint8_t *ram, *want = calloc(1, MEMORY);

	save(&e);
	vm = make(&config);
	memset(mem_ram_base(vm->machine.mem), 0, MEMORY);
	if (load(vm, meta, &e))
		fail_msg("%s", e.text);
	assert_int_equal(meta->cpus, 2);
	assert_string_equal(meta->engine, "count");
	assert_int_equal(clock_now(vm->clock), meta->clock_ns);
	assert_true(meta->clock_ns > 1000000);
	assert_int_equal(cpu_tsc(&vm->vcpus[0].cpu), meta->tsc);
	assert_int_equal(devices[0].hw.value, 7);
	assert_true(devices[0].hw.on);
	assert_int_equal(devices[1].hw.value, 8);
	assert_int_equal(devices[1].loads, 1);
	assert_true(vm->vcpus[1].cpu.s.gpr[R15] == 0x1122334455667788);
	assert_int_equal(vm->vcpus[1].cpu.s.v[9].q[3], 99);
	assert_true(vm->vcpus[1].cpu.attention & ATT_NMI);
	assert_false(vm->vcpus[0].cpu.attention & ATT_NMI);
	ram = mem_ram_base(vm->machine.mem);
	ram_fill(want);
	assert_memory_equal(ram, want, MEMORY);
	/* it goes on, it does not start anew */
	assert_int_equal(vm_start(vm, &e), 0);
	assert_int_equal(devices[0].resets, 0);
	for (int i = 0; i < 500 && vm->vcpus[1].cpu.s.gpr[RBX] <= 1000000; i++) { /* a busy host needs a few */
		assert_int_equal(vm_resume(vm, &e), 0);
		usleep(2000);
		assert_int_equal(vm_pause(vm, &e), 0);
	}
	assert_true(vm->vcpus[1].cpu.s.gpr[RBX] > 1000000);
	assert_true(clock_now(vm->clock) > meta->clock_ns);
	vm_destroy(vm);
	unlink(path);
	free(meta);
	free(want);
}

static void refused(const struct vm_config *cfg, const char *text)
{
	struct save_meta *meta = calloc(1, sizeof(*meta));
	struct vm *vm = make(cfg);
	struct err e = { 0 };

	assert_true(load(vm, meta, &e) < 0);
	if (!strstr(e.text, text))
		fail_msg("%s", e.text);
	assert_false(vm->loaded);
	vm_destroy(vm);
	free(meta);
}

static void test_refused(void **state)
{
	struct vm_config cfg = config;
	struct err e = { 0 };
	FILE *f;

	save(&e);
	cfg.cpus = 1;
	refused(&cfg, "saved with 2 CPUs");
	cfg = config;
	cfg.memory = MEMORY / 2;
	refused(&cfg, "8 MiB");
	cfg = config;
	cfg.cpu_model = "v3";
	refused(&cfg, "CPU");
	/* a byte of memory, changed behind the file's back */
	f = fopen(path, "r+");
	assert_non_null(f);
	fseek(f, -5000, SEEK_END);
	fputc(fgetc(f) ^ 1, f);
	fclose(f);
	refused(&config, "");
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_refused),
	};

	snprintf(path, sizeof(path), "/tmp/ospite-save-%d", (int)getpid());
	return cmocka_run_group_tests(tests, NULL, NULL);
}
