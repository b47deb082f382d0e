/* SPDX-License-Identifier: Apache-2.0 */
/* A paused machine to a file and into another machine, and what must be refused. */
#include <errno.h>
#include <fcntl.h>
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

static struct vm_config config = { .name = "s", .cpus = 2, .memory = MEMORY, .cpu_model = "v2", .engine_ops = &engine };

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

static int mapped(void **state)
{
	config.save_mapped = true;
	return 0;
}
static int packed(void **state)
{
	config.save_mapped = false;
	return 0;
}

static uint64_t image_of(const char *file)
{
	struct state_reader *r = state_reader_open(file, NULL);
	uint64_t at;
	int fd;

	assert_non_null(r);
	assert_int_equal(state_reader_image(r, &fd, &at), MEMORY);
	assert_int_equal(at % 4096, 0);
	state_reader_close(r);
	return at;
}

static struct vm *restored(void)
{
	struct save_meta *meta = calloc(1, sizeof(*meta));
	struct vm *vm = make(&config);
	struct err e = { 0 };

	if (load(vm, meta, &e))
		fail_msg("%s", e.text);
	free(meta);
	return vm;
}

/* Memory that is mapped from the file: written, given back, saved once more; the file itself stays as it is, or goes. */
static void test_mapped(void **state)
{
	struct err e = { 0 };
	uint8_t *ram, *want = calloc(1, MEMORY), byte;
	struct mem *m;
	struct vm *vm;
	uint64_t at;
	int fd;

	save(&e);
	at = image_of(path);
	vm = restored();
	m = vm->machine.mem;
	ram = mem_ram_base(m);
	fd = open(path, O_RDONLY);
	ram_fill(want);
	assert_memory_equal(ram, want, MEMORY);
	memset(ram + (1 << 20), 0xaa, 3 * 4096);
	memset(want + (1 << 20), 0xaa, 3 * 4096);
	assert_int_equal(pread(fd, &byte, 1, (off_t)(at + (1 << 20))), 1);
	assert_int_not_equal(byte, 0xaa);
	/* given back: zero, whether it was written before or not, and then like any other memory */
	mem_dma_discard(m, ram + (1 << 20) + 4096, 20 * 4096);
	assert_int_equal(mem_next_data(m, (1 << 20) + 4096), (1 << 20) + 21 * 4096); /* before they are read, which fills them */
	mem_dma_discard(m, ram + (6 << 20) - 4096, 3 * 4096); /* half of it was never lent */
	memset(want + (1 << 20) + 4096, 0, 20 * 4096);
	memset(want + (6 << 20), 0, 2 * 4096);
	assert_memory_equal(ram, want, MEMORY);
	ram[(1 << 20) + 5 * 4096] = want[(1 << 20) + 5 * 4096] = 9;
	mem_dma_discard(m, ram + (1 << 20), 12 * 4096);
	memset(want + (1 << 20), 0, 12 * 4096);
	assert_memory_equal(ram, want, MEMORY);
	/* and saved to the same name while the old file is still mapped, either way */
	assert_int_equal(vm_start(vm, &e), 0);
	for (int i = 0; i < 2; i++) {
		config.save_mapped = i == 0;
		if (vm_save(vm, path, &e))
			fail_msg("%s", e.text);
		assert_memory_equal(ram, want, MEMORY);
		vm_destroy(vm);
		vm = restored();
		unlink(path);
		ram = mem_ram_base(vm->machine.mem);
		assert_memory_equal(ram, want, MEMORY);
		assert_int_equal(vm_start(vm, &e), 0);
	}
	vm_destroy(vm);
	close(fd);
	free(want);
}

static void flip(const char *file, uint64_t at)
{
	int fd = open(file, O_RDWR);
	uint8_t byte;

	assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
	close(fd);
}

/* Any byte of memory changed, the list of it, the file cut or longer: refused. A copy without holes is the same machine. */
static void test_mapped_refused(void **state)
{
	static const uint64_t changed[] = { 1 << 20, (1 << 20) + 4096 * 700 - 1, (6 << 20) + 5000, MEMORY - 1 };
	struct err e = { 0 };
	uint8_t *all = malloc(MEMORY * 2), *want = calloc(1, MEMORY);
	struct vm *vm;
	uint64_t at;
	ssize_t size;
	int fd;

	save(&e);
	at = image_of(path);
	for (unsigned i = 0; i < ARRAY_LEN(changed); i++) {
		flip(path, at + changed[i]);
		refused(&config, "does not match its checksum");
		flip(path, at + changed[i]);
	}
	fd = open(path, O_RDWR);
	size = pread(fd, all, MEMORY * 2, 0);
	assert_int_equal(size, at + MEMORY);
	for (uint64_t cut = 1; cut < (uint64_t)size; cut *= 17) {
		assert_int_equal(ftruncate(fd, size - (off_t)cut), 0);
		refused(&config, "");
	}
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(pwrite(fd, all, (size_t)size, 0), size);
	assert_int_equal(ftruncate(fd, size + 1), 0);
	refused(&config, "end mark");
	assert_int_equal(ftruncate(fd, size), 0);
	for (uint64_t i = 8; i < at; i += 397) { /* headers and lists; what pads them to a page is nobody's */
		bool padding = true;

		for (uint64_t k = i; k < at; k++)
			padding &= !all[k];
		if (padding)
			break;
		flip(path, i);
		refused(&config, "");
		flip(path, i);
	}
	close(fd);
	vm = restored(); /* from the copy that has no holes */
	ram_fill(want);
	assert_memory_equal(mem_ram_base(vm->machine.mem), want, MEMORY);
	vm_destroy(vm);
	unlink(path);
	free(all);
	free(want);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_refused),
		cmocka_unit_test_setup_teardown(test_round_trip, mapped, packed),
		cmocka_unit_test_setup_teardown(test_mapped, mapped, packed),
		cmocka_unit_test_setup_teardown(test_mapped_refused, mapped, packed),
	};

	snprintf(path, sizeof(path), "/tmp/ospite-save-%d", (int)getpid());
	return cmocka_run_group_tests(tests, NULL, NULL);
}
