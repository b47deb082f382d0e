// SPDX-License-Identifier: Apache-2.0
/* No access, wherever, may hit an entry that is empty: its addend is nothing, and the host's memory lies behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/err.h"
#include "x86/access.h"
#include "x86/tlb-table.h"

static void probe(const struct tlb_table *t, gva_t at)
{
	static const unsigned sizes[] = { 1, 2, 4, 8, 10, 16, 32, 64 };

	for (unsigned k = 0; k < ARRAY_LEN(sizes); k++) {
		assert_null(tlb_read_hit(t, at, sizes[k]));
		assert_null(tlb_write_hit(t, at, sizes[k]));
	}
}

static void empty_entries_never_hit(void **state)
{
	static const uint64_t high[] = { 0, 0x400000, 0x100000000, 0x7fffffc00000, 0x800000000000,
					 0x8000000000000000, 0xffff800000000000, 0xffffffffffc00000 };
	static const unsigned offsets[] = { 0, 1, 8, 2048, 4032, 4088, 4092, 4095 };
	struct tlb t;
	struct err e;

	assert_int_equal(tlb_init(&t, &e), 0);
	for (unsigned entry = 0; entry < TLB_ENTRIES; entry++)
		for (unsigned h = 0; h < ARRAY_LEN(high); h++)
			for (unsigned k = 0; k < ARRAY_LEN(offsets); k++)
				probe(t.data, high[h] + ((uint64_t)entry << 12) + offsets[k]);
	/* and those of a grown table, also by the low entry */
	t.data->driven = TLB_DRIVEN;
	tlb_grow(&t);
	assert_int_equal(t.data->mask, TLB_GROWN_ENTRIES - 1);
	for (unsigned entry = 0; entry < TLB_GROWN_ENTRIES; entry++) {
		for (unsigned h = 0; h < ARRAY_LEN(high); h++) {
			gva_t at = high[h] + ((uint64_t)entry << 12), low = entry & (TLB_ENTRIES - 1);

			probe(t.data, at);
			assert_true(at - t.data->read_tag[low] > 4095);
			assert_true(at - t.data->write_tag[low] > 4095);
		}
	}
	tlb_dispose(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(empty_entries_never_hit) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
