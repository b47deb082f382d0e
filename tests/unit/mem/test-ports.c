/* SPDX-License-Identifier: Apache-2.0 */
/* I/O ports: sizes, overlaps, accesses over borders, and the trace of it all. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/err.h"
#include "base/trace.h"
#include "mem/ports.h"

static uint64_t id_read(void *opaque, uint64_t offset, unsigned size)
{
	return (uintptr_t)opaque + offset;
}
static uint64_t last_value, last_offset, last_size;
static void note_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	last_value = value;
	last_offset = offset;
	last_size = size;
}
static const struct io_ops byte_ops = { id_read, note_write, 1, 1 };
static const struct io_ops any_ops = { id_read, note_write, 1, 4 };

static void test_map(void **state)
{
	struct ports *p = ports_create();
	struct err e;

	assert_int_equal(ports_in(p, 0x80, 1), 0xff);
	assert_int_equal(ports_in(p, 0x80, 4), 0xffffffff);
	assert_int_equal(ports_in(p, 0xffff, 4), 0xffffffff);
	ports_out(p, 0xffff, 1, 4);
	assert_int_equal(ports_map(p, 0xfff0, 17, &any_ops, NULL, "x", &e), -EINVAL);
	assert_int_equal(ports_map(p, 0x10, 0, &any_ops, NULL, "x", &e), -EINVAL);
	assert_int_equal(ports_map(p, 0xfffe, 2, &any_ops, (void *)0x10, "end", &e), 0);
	assert_int_equal(ports_in(p, 0xffff, 1), 0x11);
	assert_int_equal(ports_in(p, 0xffff, 2), 0xff11);
	assert_int_equal(ports_map(p, 0x3f8, 8, &byte_ops, (void *)0x20, "uart", &e), 0);
	assert_int_equal(ports_in(p, 0x3f8, 4), 0x23222120);
	assert_int_equal(ports_in(p, 0x3fe, 4), 0xffff2726); /* over its end */
	assert_int_equal(ports_map(p, 0, 65536, &any_ops, (void *)0, "all", &e), 0);
	assert_int_equal(ports_in(p, 0x3f8, 2), 0x3f8);
	ports_unmap(p, 0, "all");
	assert_int_equal(ports_in(p, 0x3f8, 1), 0x20);
	ports_out(p, 0xfffe, 0xaabbccdd, 2);
	assert_int_equal(last_value, 0xccdd);
	assert_int_equal(last_size, 2);
	ports_unmap(p, 0x3f8, "other");
	assert_int_equal(ports_in(p, 0x3f8, 1), 0x20);
	ports_unmap(p, 0x3f8, "uart");
	assert_int_equal(ports_in(p, 0x3f8, 1), 0xff);
	ports_destroy(p);
}

static void test_trace(void **state)
{
	char path[] = "/tmp/ospite-trace-XXXXXX", text[256] = { 0 };
	struct ports *p = ports_create();
	struct trace *t;
	struct err e;
	FILE *f;

	close(mkstemp(path));
	assert_int_equal(trace_create(&t, "", path, &e), 0);
	assert_null(t);
	assert_int_equal(trace_create(&t, "port,nonsense", path, &e), -EINVAL);
	assert_null(t);
	assert_int_equal(trace_create(&t, "mmio,port", path, &e), 0);
	assert_true(trace_on(t, TRACE_port));
	assert_false(trace_on(t, TRACE_insn));
	assert_false(trace_on(NULL, TRACE_port));
	ports_set_trace(p, t);
	assert_int_equal(ports_map(p, 0x60, 1, &byte_ops, (void *)7, "kbd", &e), 0);
	ports_in(p, 0x60, 1);
	ports_out(p, 0x61, 0x155, 1);
	trace_line(t, TRACE_insn, "not to be seen");
	trace_destroy(t);
	f = fopen(path, "r");
	assert_non_null(f);
	assert_true(fread(text, 1, sizeof(text) - 1, f) > 0);
	fclose(f);
	unlink(path);
	assert_string_equal(text, "port kbd 0x60.1 -> 0x7\nport nothing 0x61.1 <- 0x55\n");
	ports_destroy(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_map),
		cmocka_unit_test(test_trace),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
