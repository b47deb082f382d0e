/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every device of the board at once, given random accesses by ports and memory, with saving, loading and resets in between:
 * it ends without a crash, and the machine can be reset and saved after it. The machine does not run: accesses come from
 * this thread, and what waits for stopped CPUs is done at once. By hand for longer: test-hostile-ports ACCESSES SEED.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "board/pc.h"
#include "dev/i8042.h"
#include "../state/roundtrip.h"

static unsigned accesses = 60000, seed = 4711;

static uint32_t next(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 17;
	seed ^= seed << 5;
	return seed;
}

static void make_file(char *path, size_t size)
{
	int fd;

	strcpy(path, "/tmp/ospite-test-XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	close(fd);
}

static uint16_t some_port(void)
{
	static const struct {
		uint16_t first, count;
	} known[] = {
		{ 0x20, 2 }, { 0xa0, 2 }, { 0x40, 4 }, { 0x60, 5 }, { 0x70, 2 }, { 0x80, 1 }, { 0x92, 1 }, { 0xb2, 2 },
		{ 0xe9, 1 }, { 0x1f0, 8 }, { 0x3f6, 1 }, { 0x170, 8 }, { 0x376, 1 }, { 0x1ce, 4 }, { 0x3b0, 48 },
		{ 0x3f8, 8 }, { 0x402, 1 }, { 0x4d0, 2 }, { 0x510, 12 }, { 0x600, 64 }, { 0xcf8, 8 }, { 0xc000, 256 },
	};
	unsigned i = next() % (ARRAY_LEN(known) + 1);

	return (uint16_t)(i == ARRAY_LEN(known) ? next() : known[i].first + next() % known[i].count);
}

static void pci_access(struct vm *vm)
{
	struct ports *p = vm->machine.ports;
	uint32_t r = next(), v = next();
	unsigned size = 1u << r % 3;

	ports_out(p, 0xcf8, 0x80000000u | (r >> 8 & 0x1ffc), 4);
	/* addresses where something can be, more often than anywhere */
	if (r & 0x10000000)
		v = r & 0x20000000 ? 0xc000 | (v & 0xff) : 0xe0000000 | (v & 0x00fff000);
	if (r & 0x40000000)
		ports_in(p, (uint16_t)(0xcfc + (r >> 4 & 3)), size);
	else
		ports_out(p, (uint16_t)(0xcfc + (r >> 4 & 3)), v, size);
}

/* Somewhere in one of the devices' ranges; the local APIC's registers are its own CPU's thread's alone. */
static void memory_access(struct vm *vm)
{
	struct mem *m = vm->machine.mem;
	unsigned count;
	const struct mem_range *range = mem_ranges(m, &count);
	const struct mem_range *r = &range[next() % count];
	unsigned size = 1u << next() % 4;
	gpa_t at = r->start + (r->size > 0x100000000ull ? next() : next() % r->size);
	uint64_t v = next() * 0x100000001ull;

	if (r->kind != MEM_IO || !strcmp(r->name, "lapic") || (at & ~0xfffull) == PC_LAPIC)
		return;
	if (next() & 1)
		mem_read(m, at, size);
	else
		mem_write(m, at, v, size);
}

static void one_access(struct vm *vm, struct pc *pc)
{
	uint32_t r = next();

	switch (r & 15) {
	case 0:
	case 1:
	case 2:
		pci_access(vm);
		break;
	case 3:
	case 4:
	case 5:
		memory_access(vm);
		break;
	case 6:
		i8042_key(pc_keyboard(pc), r >> 8 & 0x7f, r >> 20 & 1);
		i8042_mouse(pc_keyboard(pc), (int)next(), (int)next(), (int)next(), r >> 8);
		break;
	default:
		if (r & 16)
			ports_in(vm->machine.ports, some_port(), 1u << (r >> 8) % 3);
		else
			ports_out(vm->machine.ports, some_port(), next(), 1u << (r >> 8) % 3);
		break;
	}
}

static void reset_all(struct vm *vm)
{
	for (struct device *d = vm->devices; d; d = d->next)
		if (d->ops->reset)
			d->ops->reset(d, RESET_WARM);
}

static void roundtrip_all(struct vm *vm)
{
	for (struct device *d = vm->devices; d; d = d->next)
		if (d->ops->state)
			device_roundtrip(d);
}

static void test_everything(void **state)
{
	static char rom[40], disk[40], spec[80];
	struct pc_config config = { .firmware = rom, .serial = { "null" }, .nserial = 1, .exit_port = -1, .vga_bios = "",
				    .ndisks = 2 };
	struct vm_config vc = { .name = "t", .cpus = 2, .memory = 8 << 20, .cpu_model = "v2", .engine = "interp" };
	struct vm *vm = NULL;
	struct pc *pc = NULL;
	int fd;
	struct err e = { 0 };

	make_file(rom, 65536);
	fd = open(rom, O_WRONLY | O_CLOEXEC);
	assert_int_equal(pwrite(fd, "\xf4\xf4", 2, 65536 - 16), 2); /* HLT: an image without anything there is refused */
	close(fd);
	make_file(disk, 1 << 20);
	snprintf(spec, sizeof(spec), "%s", disk);
	config.disk[0] = (struct pc_disk){ .spec = spec };
	config.disk[1] = (struct pc_disk){ .cdrom = true };
	if (vm_create(&vm, &vc, &e) || pc_create(&pc, vm, &config, &e))
		fail_msg("%s", e.text);
	reset_all(vm);
	for (unsigned i = 0; i < accesses; i++) {
		one_access(vm, pc);
		if (i % 20011 == 20010)
			roundtrip_all(vm);
		if (i % 30011 == 30010)
			reset_all(vm);
	}
	reset_all(vm);
	assert_int_equal(ports_in(vm->machine.ports, 0x402, 1), 0xff);
	ports_out(vm->machine.ports, 0xcf8, 0x80000000, 4);
	assert_int_equal(ports_in(vm->machine.ports, 0xcfc, 4), 0x12378086);
	roundtrip_all(vm);
	vm_destroy(vm);
	unlink(rom);
	unlink(disk);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_everything) };

	if (argc > 1)
		accesses = (unsigned)strtoul(argv[1], NULL, 0);
	if (argc > 2)
		seed = (unsigned)strtoul(argv[2], NULL, 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
