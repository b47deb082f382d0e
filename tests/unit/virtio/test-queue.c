/* SPDX-License-Identifier: Apache-2.0 */
/* Virtqueues: both layouts in order and out of order, notification both ways, and rings a hostile guest makes. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <cmocka.h>
#include "driver.h"

static struct virtqueue vq;
static struct driver d;
static struct vq_chain chain[8];

static const struct piece request[3] = {
	{ AT_DATA, 16, 0 }, { AT_DATA + 0x1000, 512, D_WRITE }, { AT_DATA + 0x2000, 1, D_WRITE },
};

/* Chains go round the ring many times, come back out of order, and nothing is lost or doubled. */
static void round_trips(uint16_t size, bool packed, bool event_idx)
{
	driver_open(&d, &vq, size, packed, event_idx);
	for (unsigned round = 0; round < 3000; round++) {
		uint16_t id[2], got;
		uint32_t len;
		char text[8] = "12345678";

		memcpy(d.ram + AT_DATA, text, 8);
		d.ram[AT_DATA] = (uint8_t)round;
		id[0] = driver_add(&d, request, 3);
		id[1] = driver_add(&d, request, 3);
		for (unsigned i = 0; i < 2; i++) {
			assert_true(vq_pop(&vq, &chain[i]));
			assert_int_equal(chain[i].id, id[i]);
			assert_int_equal(chain[i].nout, 1);
			assert_int_equal(chain[i].nin, 2);
			assert_int_equal(chain[i].out_len, 16);
			assert_int_equal(chain[i].in_len, 513);
		}
		assert_false(vq_pop(&vq, &chain[2]));
		assert_true(vq_empty(&vq));
		assert_int_equal(vq_read(&chain[0], 0, text, 8), 8);
		assert_int_equal((uint8_t)text[0], (uint8_t)round);
		assert_int_equal(vq_write(&vq, &chain[1], 511, "ab", 2), 2);
		assert_int_equal(d.ram[AT_DATA + 0x11ff], 'a');
		assert_int_equal(d.ram[AT_DATA + 0x2000], 'b');
		vq_push(&vq, &chain[1], 7);
		assert_false(driver_used(&d, &got, &len, 3)); /* staged only */
		vq_push(&vq, &chain[0], 9);
		vq_publish(&vq);
		assert_true(driver_used(&d, &got, &len, 3));
		assert_int_equal(got, id[1]);
		assert_int_equal(len, 7);
		assert_true(driver_used(&d, &got, &len, 3));
		assert_int_equal(got, id[0]);
		assert_int_equal(len, 9);
		assert_false(driver_used(&d, &got, &len, 3));
	}
	assert_int_equal(d.broken, 0);
	assert_int_equal(vq.inflight, 0);
	driver_close(&d);
}

static void test_split(void **state)
{
	round_trips(8, false, false);
	round_trips(64, false, true);
}

static void test_packed(void **state)
{
	round_trips(8, true, false);
	round_trips(7, true, true); /* no power of two */
	round_trips(64, true, true);
}

static void test_unpop(void **state)
{
	for (unsigned packed = 0; packed < 2; packed++) {
		uint16_t id;

		driver_open(&d, &vq, 8, packed, false);
		for (unsigned i = 0; i < 20; i++) {
			uint16_t got;
			uint32_t len;

			id = driver_add(&d, request, 3);
			assert_true(vq_pop(&vq, &chain[0]));
			vq_unpop(&vq, &chain[0]);
			assert_false(vq_empty(&vq));
			assert_true(vq_pop(&vq, &chain[0]));
			assert_int_equal(chain[0].id, id);
			vq_push(&vq, &chain[0], 1);
			vq_publish(&vq);
			assert_true(driver_used(&d, &got, &len, 3));
		}
		driver_close(&d);
	}
}

static void use_one(void)
{
	uint16_t id;
	uint32_t len;

	driver_add(&d, request, 3);
	assert_true(vq_pop(&vq, &chain[0]));
	vq_push(&vq, &chain[0], 1);
	vq_publish(&vq);
	assert_true(driver_used(&d, &id, &len, 3));
}

static void test_suppression_split(void **state)
{
	driver_open(&d, &vq, 8, false, false);
	use_one();
	assert_int_equal(d.interrupts, 1);
	put16(d.ram + AT_DRIVER, 1);
	use_one();
	assert_int_equal(d.interrupts, 1);
	vq_notify_off(&vq);
	assert_int_equal(get16(d.ram + AT_DEVICE), 1);
	assert_false(vq_notify_on(&vq));
	assert_int_equal(get16(d.ram + AT_DEVICE), 0);
	driver_add(&d, request, 3);
	assert_true(vq_notify_on(&vq)); /* it came in between */
	driver_close(&d);

	driver_open(&d, &vq, 8, false, true);
	put16(d.ram + AT_DRIVER + 4 + 16, 2); /* used_event: after the third */
	use_one();
	use_one();
	assert_int_equal(d.interrupts, 0);
	use_one();
	assert_int_equal(d.interrupts, 1);
	use_one();
	assert_int_equal(d.interrupts, 1);
	assert_false(vq_notify_on(&vq));
	assert_int_equal(get16(d.ram + AT_DEVICE + 4 + 64), 4); /* avail_event */
	driver_close(&d);
}

static void test_suppression_packed(void **state)
{
	driver_open(&d, &vq, 8, true, true);
	use_one();
	assert_int_equal(d.interrupts, 1);
	put16(d.ram + AT_DRIVER + 2, 1);
	use_one();
	assert_int_equal(d.interrupts, 1);
	/* seen 6 slots: wait for slot 1 of the next round */
	put16(d.ram + AT_DRIVER, 1);
	put16(d.ram + AT_DRIVER + 2, 2);
	use_one(); /* 6, 7, 0: next is 1 */
	assert_int_equal(d.interrupts, 1);
	use_one();
	assert_int_equal(d.interrupts, 2);
	vq_notify_off(&vq);
	assert_int_equal(get16(d.ram + AT_DEVICE + 2), 1);
	assert_false(vq_notify_on(&vq));
	assert_int_equal(get16(d.ram + AT_DEVICE), 4); /* 12 slots: index 4, wrapped once */
	assert_int_equal(get16(d.ram + AT_DEVICE + 2), 2);
	driver_close(&d);
}

static void test_indirect(void **state)
{
	for (unsigned packed = 0; packed < 2; packed++) {
		struct piece table[3], one = { AT_TABLE, 48, D_INDIRECT };

		driver_open(&d, &vq, 8, packed, false);
		memcpy(table, request, sizeof(table));
		for (unsigned i = 0; i < 3; i++) {
			if (packed) {
				struct piece p = { table[i].addr, table[i].len, 0xffff }; /* the id is not looked at */

				driver_desc(&d, AT_TABLE, i, &p, table[i].flags);
			} else {
				/* in a strange order: 0, 2, 1 */
				static const uint16_t at[3] = { 0, 2, 1 };

				if (i < 2)
					table[i].flags |= D_NEXT;
				driver_desc(&d, AT_TABLE, at[i], &table[i], i < 2 ? at[i + 1] : 99);
			}
		}
		driver_add(&d, &one, 1);
		assert_true(vq_pop(&vq, &chain[0]));
		assert_int_equal(chain[0].nout, 1);
		assert_int_equal(chain[0].nin, 2);
		assert_int_equal(chain[0].in_len, 513);
		assert_ptr_equal(chain[0].iov[2].iov_base, d.ram + AT_DATA + 0x2000);
		assert_int_equal(d.broken, 0);
		driver_close(&d);
	}
}

/* ---- hostile rings: the queue breaks, gives nothing, and nothing else happens */

static void expect_broken(void)
{
	assert_false(vq_pop(&vq, &chain[0]));
	assert_int_equal(d.broken, 1);
	assert_true(vq_empty(&vq));
	vq_push(&vq, &chain[0], 1);
	vq_publish(&vq);
	vq_notify_off(&vq);
	assert_false(vq_notify_on(&vq));
	assert_int_equal(d.interrupts, 0);
	driver_close(&d);
}

static void bad_pieces(const struct piece *p, unsigned n)
{
	for (unsigned packed = 0; packed < 2; packed++) {
		driver_open(&d, &vq, 8, packed, false);
		driver_add(&d, p, n);
		expect_broken();
	}
}

static void test_bad_pieces(void **state)
{
	static const struct piece beyond = { RAM_SIZE - 8, 16, 0 }, huge = { 0, 0xffffffff, D_WRITE },
				  wraps = { UINT64_MAX - 7, 16, D_WRITE }, nowhere = { 1ull << 40, 1, 0 },
				  no_table = { RAM_SIZE, 16, D_INDIRECT }, odd_table = { AT_TABLE, 17, D_INDIRECT },
				  empty_table = { AT_TABLE, 0, D_INDIRECT },
				  huge_table = { AT_TABLE, 16 * 4096, D_INDIRECT };
	static const struct piece order[2] = { { AT_DATA, 1, D_WRITE }, { AT_DATA, 1, 0 } };
	static const struct piece middle[2] = { { AT_TABLE, 16, D_INDIRECT }, { AT_DATA, 1, 0 } };

	bad_pieces(&beyond, 1);
	bad_pieces(&huge, 1);
	bad_pieces(&wraps, 1);
	bad_pieces(&nowhere, 1);
	bad_pieces(&no_table, 1);
	bad_pieces(&odd_table, 1);
	bad_pieces(&empty_table, 1);
	bad_pieces(&huge_table, 1);
	bad_pieces(order, 2);
	bad_pieces(middle, 2);
}

static void test_circles(void **state)
{
	const struct piece p = { AT_DATA, 1, D_NEXT }, one = { AT_TABLE, 32, D_INDIRECT };

	driver_open(&d, &vq, 8, false, false);
	driver_add(&d, &p, 1);
	driver_desc(&d, AT_DESC, 0, &p, 0); /* to itself */
	expect_broken();

	driver_open(&d, &vq, 8, false, false);
	driver_add(&d, &p, 1);
	driver_desc(&d, AT_DESC, 0, &p, 8); /* beyond the end */
	expect_broken();

	driver_open(&d, &vq, 8, false, false);
	driver_desc(&d, AT_TABLE, 0, &p, 1);
	driver_desc(&d, AT_TABLE, 1, &p, 0);
	driver_add(&d, &one, 1);
	expect_broken();

	driver_open(&d, &vq, 8, false, false);
	driver_desc(&d, AT_TABLE, 0, &p, 2);
	driver_add(&d, &one, 1);
	expect_broken();

	/* packed: every slot says there is another */
	driver_open(&d, &vq, 8, true, false);
	for (unsigned i = 0; i < 8; i++) {
		const struct piece q = { AT_DATA, 1, 0 };

		driver_desc(&d, AT_DESC, i, &q, 0x80 | D_NEXT);
	}
	expect_broken();
}

static void test_bad_positions(void **state)
{
	driver_open(&d, &vq, 8, false, false);
	put16(d.ram + AT_DRIVER + 2, 9); /* more than there is room for */
	expect_broken();

	driver_open(&d, &vq, 8, false, false);
	put16(d.ram + AT_DRIVER + 4, 8); /* a head beyond the end */
	put16(d.ram + AT_DRIVER + 2, 1);
	expect_broken();

	driver_open(&d, &vq, 8, false, false);
	put16(d.ram + AT_DRIVER + 2, 0xffff);
	expect_broken();
}

static void test_bad_areas(void **state)
{
	static const uint64_t bad[] = { RAM_SIZE, RAM_SIZE - 64, UINT64_MAX - 15, 1, 0xfee00000 };

	for (unsigned packed = 0; packed < 2; packed++) {
		for (unsigned i = 0; i < ARRAY_LEN(bad) * 3; i++) {
			driver_open(&d, &vq, 64, packed, false);
			vq_reset(&vq);
			vq.desc = i % 3 == 0 ? bad[i / 3] : AT_DESC;
			vq.driver = i % 3 == 1 ? bad[i / 3] | 1 : AT_DRIVER;
			vq.device = i % 3 == 2 ? bad[i / 3] | 1 : AT_DEVICE;
			vq.packed = packed;
			vq.enabled = true;
			assert_false(vq_start(&vq));
			assert_int_equal(d.broken, 1);
			assert_false(vq_pop(&vq, &chain[0]));
			driver_close(&d);
		}
	}
}

/* Random rings, rewritten while they are in use: whatever comes out lies in RAM. */
static void test_random_rings(void **state)
{
	unsigned chains = 0;

	srand(1);
	for (unsigned run = 0; run < 400; run++) {
		driver_open(&d, &vq, (uint16_t)(1u << rand() % 7), run & 1, run & 2);
		for (unsigned i = 0; i < 256; i++) {
			/* mostly sensible; packed ones have flags where next is */
			struct piece p = { (uint64_t)rand() % (RAM_SIZE + 0x8000), (uint32_t)rand() % 0x2000,
					   (uint16_t)(rand() % 100 < 80 ? rand() & 2 : rand() & 7) };
			uint16_t next = (uint16_t)(rand() % (vq.size + 1u));

			if (rand() % 20 == 0)
				p.addr = AT_TABLE + 16u * (unsigned)(rand() % 8), p.len = 16u * (unsigned)(rand() % 20);
			driver_desc(&d, AT_DESC, i, &p, vq.packed ? (uint16_t)(p.flags | (i < vq.size ? 0x80 : 0)) : next);
			driver_desc(&d, AT_TABLE, i, &p, vq.packed ? p.flags : next);
			put16(d.ram + AT_DRIVER + 4 + 2 * i, next);
		}
		put16(d.ram + AT_DRIVER + 2, (uint16_t)(rand() % 8));
		for (unsigned k = 0; k < 8 && vq_pop(&vq, &chain[0]); k++) {
			chains++;
			for (unsigned i = 0; i < chain[0].nout + chain[0].nin; i++) {
				const uint8_t *p = chain[0].iov[i].iov_base;

				assert_true(p >= d.ram && range_fits((uint64_t)(p - d.ram), chain[0].iov[i].iov_len, RAM_SIZE));
			}
			vq_push(&vq, &chain[0], 1);
			vq_publish(&vq);
		}
		driver_close(&d);
	}
	assert_true(chains > 20);
}

/* ---- rings that change while they are read */

static _Atomic bool scribbling;

static void *scribble(void *opaque)
{
	static const uint64_t address[] = { AT_DATA, AT_TABLE, RAM_SIZE - 8, RAM_SIZE, UINT64_MAX - 4096, 0 };
	static const uint32_t length[] = { 16, 160, 4096, RAM_SIZE, UINT32_MAX, 0 };
	const struct driver *to = opaque;
	unsigned seed = 1;

	while (atomic_load(&scribbling)) {
		uint8_t *desc = to->ram + (rand_r(&seed) & 1 ? AT_DESC : AT_TABLE) + 16u * ((unsigned)rand_r(&seed) % 16);
		uint64_t half = length[rand_r(&seed) % 6] | (uint64_t)(rand_r(&seed) & 0x8087) << 32 |
				(uint64_t)(rand_r(&seed) & 0x808f) << 48;

		__atomic_store_n((uint64_t *)(void *)desc, address[rand_r(&seed) % 6], __ATOMIC_RELAXED);
		__atomic_store_n((uint64_t *)(void *)(desc + 8), half, __ATOMIC_RELAXED);
	}
	return NULL;
}

/* What a chain says it has is what it has, and all of it is memory, whatever another CPU writes meanwhile. */
static void test_changing(void **state)
{
	unsigned chains = 0;
	pthread_t other;

	for (unsigned packed = 0; packed < 2; packed++) {
		driver_open(&d, &vq, 16, packed, true);
		atomic_store(&scribbling, true);
		assert_int_equal(pthread_create(&other, NULL, scribble, &d), 0);
		for (unsigned i = 0; i < 30000 || chains < 200 * (packed + 1); i++) {
			uint64_t out_len = 0, in_len = 0;

			if (!vq.running) { /* broken: as after a reset, and with other rings */
				sched_yield();
				vq_reset(&vq);
				vq.desc = AT_DESC;
				vq.driver = AT_DRIVER;
				vq.device = AT_DEVICE;
				vq.size = 16;
				vq.enabled = vq.indirect = vq.event_idx = true;
				vq.packed = packed;
				assert_true(vq_start(&vq));
			}
			if (!packed)
				__atomic_store_n((uint16_t *)(void *)(d.ram + AT_DRIVER + 2), (uint16_t)(vq.next_avail + 1), __ATOMIC_RELAXED);
			if (!vq_pop(&vq, &chain[0])) {
				if (packed)
					sched_yield();
				continue;
			}
			chains++;
			assert_true(chain[0].nout + chain[0].nin <= VQ_IOV_MAX && chain[0].slots && chain[0].slots <= 16);
			for (unsigned k = 0; k < chain[0].nout + chain[0].nin; k++) {
				const uint8_t *p = chain[0].iov[k].iov_base;

				assert_true(p >= d.ram && range_fits((uint64_t)(p - d.ram), chain[0].iov[k].iov_len, RAM_SIZE));
				*(k < chain[0].nout ? &out_len : &in_len) += chain[0].iov[k].iov_len;
			}
			assert_int_equal(out_len, chain[0].out_len);
			assert_int_equal(in_len, chain[0].in_len);
			vq_push(&vq, &chain[0], 1);
			vq_publish(&vq);
		}
		atomic_store(&scribbling, false);
		pthread_join(other, NULL);
		driver_close(&d);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_split),	     cmocka_unit_test(test_packed),
		cmocka_unit_test(test_unpop),	     cmocka_unit_test(test_suppression_split),
		cmocka_unit_test(test_suppression_packed), cmocka_unit_test(test_indirect),
		cmocka_unit_test(test_bad_pieces),   cmocka_unit_test(test_circles),
		cmocka_unit_test(test_bad_positions), cmocka_unit_test(test_bad_areas),
		cmocka_unit_test(test_random_rings), cmocka_unit_test(test_changing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
