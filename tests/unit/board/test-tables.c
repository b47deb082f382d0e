/* SPDX-License-Identifier: Apache-2.0 */
/* Tables the firmware is given: ACPI that can be moved, system management, and the script that places them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include "board/private.h"

static uint8_t sum(const uint8_t *p, uint32_t n)
{
	uint8_t s = 0;

	while (n--)
		s = (uint8_t)(s + *p++);
	return s;
}

/* Done to them what firmware does, every table is reachable and sums up, wherever they are put. */
static void test_movable(void **state)
{
	static uint8_t buf[ACPI_SIZE];
	const char *serial[] = { "null" };
	struct acpi_config config = { .cpus = 3, .serial = serial, .nserial = 1, .pm_base = 0x600, .hpet = true,
				      .pirq = { 10, 10, 11, 11 }, .pci_low = 0xc0000000, .pci_low_end = 0xfec00000,
				      .pci_high = 1ull << 32, .pci_high_end = 1ull << 36 };
	const uint32_t base = 0x1fff0000;
	uint8_t rsdp[RSDP_SIZE];
	struct acpi_links links;
	const uint8_t *xsdt;
	unsigned found = 0;

	assert_int_equal(acpi_build_movable(buf, rsdp, &links, &config, NULL), 0);
	for (unsigned i = 0; i < links.npointers; i++) {
		uint8_t *p = buf + links.pointer[i].at;

		assert_true(links.pointer[i].at + links.pointer[i].width <= links.size);
		if (links.pointer[i].width == 8)
			put64(p, get64(p) + base);
		else
			put32(p, get32(p) + base);
	}
	for (unsigned i = 0; i < links.nsums; i++) {
		uint8_t *p = buf + links.sum[i].at;

		assert_int_equal(links.sum[i].size, get32(p + 4));
		p[9] = 0;
		p[9] = (uint8_t)-sum(p, links.sum[i].size);
	}
	assert_int_equal(sum(rsdp, 20), 0);
	xsdt = buf + get64(rsdp + 24); /* itself not moved yet */
	assert_memory_equal(xsdt, "XSDT", 4);
	assert_memory_equal(buf + get32(rsdp + 16), "RSDT", 4);
	for (uint32_t i = 36; i < get32(xsdt + 4); i += 8, found++) {
		const uint8_t *t = buf + (get64(xsdt + i) - base);

		assert_int_equal(sum(t, get32(t + 4)), 0);
		if (!memcmp(t, "FACP", 4)) {
			const uint8_t *dsdt = buf + (get32(t + 40) - base);

			assert_int_equal(get64(t + 140), get32(t + 40));
			assert_memory_equal(dsdt, "DSDT", 4);
			assert_int_equal(sum(dsdt, get32(dsdt + 4)), 0);
			assert_non_null(memmem(dsdt, get32(dsdt + 4), "_PRT", 4));
			assert_memory_equal(buf + (get32(t + 36) - base), "FACS", 4);
		}
	}
	assert_int_equal(found, 3);
	assert_int_equal(sum(xsdt, get32(xsdt + 4)), 0);
}

static void test_smbios(void **state)
{
	static uint8_t tables[SMBIOS_SIZE];
	uint8_t anchor[SMBIOS_ANCHOR];

	for (unsigned cpus = 1; cpus <= 64; cpus *= 4) {
		struct smbios_config config = { .cpus = cpus, .cores = 1, .threads = 1, .memory = cpus * (3ull << 30), .uuid = { 1, 2, 3 } };
		unsigned count = 0, seen = 0, mib = 0;
		uint32_t size, at = 0;

		assert_int_equal(smbios_build(tables, anchor, &size, 0x12340, &config, NULL), 0);
		assert_int_equal(sum(anchor, sizeof(anchor)), 0);
		assert_int_equal(sum(anchor + 16, 15), 0);
		assert_int_equal(get16(anchor + 22), size);
		assert_int_equal(get32(anchor + 24), 0x12340);
		while (at < size) {
			const uint8_t *p = tables + at;

			seen += p[0] == 4;
			mib += p[0] == 17 ? get16(p + 12) : 0;
			if (p[0] == 1)
				assert_memory_equal(p + 8, config.uuid, 16);
			for (at += p[1]; tables[at] || tables[at + 1]; at++)
				;
			at += 2;
			count++;
		}
		assert_int_equal(at, size);
		assert_int_equal(count, get16(anchor + 28));
		assert_int_equal(seen, cpus);
		assert_int_equal(mib, config.memory >> 20);
		config.cores = cpus > 1 ? cpus / 4 : 1; /* four sockets, no more */
		assert_int_equal(smbios_build(tables, anchor, &size, 0x12340, &config, NULL), 0);
		seen = at = 0;
		while (at < size) {
			const uint8_t *p = tables + at;

			seen += p[0] == 4 && p[35] == config.cores;
			for (at += p[1]; tables[at] || tables[at + 1]; at++)
				;
			at += 2;
		}
		assert_int_equal(seen, cpus > 1 ? 4 : 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_movable), cmocka_unit_test(test_smbios) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
