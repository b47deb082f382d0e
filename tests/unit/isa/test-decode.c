/* SPDX-License-Identifier: Apache-2.0 */
/* The decoder: every field for a table of encodings, status of what is invalid, truncated or too
 * long. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "isa/insn.h"
#include "x86/state.h"

static struct insn decode_hex(const char *hex, enum insn_mode mode, enum insn_status want)
{
	uint8_t bytes[15] = { 0 };
	struct insn i;
	unsigned n = 0;

	for (; hex[2 * n] && n < 15; n++) {
		unsigned x;

		assert_int_equal(sscanf(hex + 2 * n, "%2x", &x), 1);
		bytes[n] = (uint8_t)x;
	}
	assert_int_equal(insn_decode(&i, bytes, n, mode), want);
	return i;
}

struct row {
	const char *hex;
	enum insn_mode mode;
	enum insn_op op;
	enum insn_form form;
	uint8_t opsize, reg, rm, base, index, scale, seg;
	int64_t disp;
	uint64_t imm;
	uint16_t flags;
};

#define N REG_NONE
static const struct row rows[] = {
	{ "0fb6c4", MODE_64, OP_MOVZX, FORM_REG_RM, 4, 0, 4, N, N, 0, 3, 0, 0, INSN_HIGH_RM },
	{ "8864c804", MODE_64, OP_MOV, FORM_RM_REG, 1, 4, 0, 0, 1, 3, 3, 4, 0,
	  INSN_MEM | INSN_HIGH_REG },
	{ "408864c804", MODE_64, OP_MOV, FORM_RM_REG, 1, 4, 0, 0, 1, 3, 3, 4, 0, INSN_MEM },
	{ "488b0510000000", MODE_64, OP_MOV, FORM_REG_RM, 8, 0, 0, REG_RIP, N, 0, 3, 16, 0,
	  INSN_MEM },
	{ "04ff", MODE_64, OP_ADD, FORM_REG_IMM, 1, 0, 0, N, N, 0, 3, 0, ~0ull, 0 },
	{ "4883c0ff", MODE_64, OP_ADD, FORM_RM_IMM, 8, 0, 0, N, N, 0, 3, 0, ~0ull, 0 },
	{ "8200ff", MODE_32, OP_ADD, FORM_RM_IMM, 1, 0, 0, 0, N, 0, 3, 0, ~0ull, INSN_MEM },
	{ "41b878563412", MODE_64, OP_MOV, FORM_REG_IMM, 4, 8, 0, N, N, 0, 3, 0, 0x12345678, 0 },
	{ "4c8b6c2408", MODE_64, OP_MOV, FORM_REG_RM, 8, 13, 0, 4, N, 0, 2, 8, 0, INSN_MEM },
	{ "67658b4301", MODE_64, OP_MOV, FORM_REG_RM, 4, 0, 0, 3, N, 0, 5, 1, 0, INSN_MEM },
	{ "8b4600", MODE_16, OP_MOV, FORM_REG_RM, 2, 0, 0, 5, N, 0, 2, 0, 0, INSN_MEM },
	{ "8b00", MODE_16, OP_MOV, FORM_REG_RM, 2, 0, 0, 3, 6, 0, 3, 0, 0, INSN_MEM },
	{ "d0f0", MODE_64, OP_SHL, FORM_RM_1, 1, 6, 0, N, N, 0, 3, 0, 1, 0 },
	{ "d3e0", MODE_64, OP_SHL, FORM_RM_CL, 4, 4, 0, N, N, 0, 3, 0, 0, 0 },
	{ "0fa4c805", MODE_64, OP_SHLD, FORM_RM_REG_IMM, 4, 1, 0, N, N, 0, 3, 0, 5, 0 },
	{ "6bc1f6", MODE_64, OP_IMUL, FORM_REG_RM_IMM, 4, 0, 1, N, N, 0, 3, 0, -10ull, 0 },
	{ "a10102030405060708", MODE_64, OP_MOV, FORM_REG_RM, 4, 0, 0, N, N, 0, 3,
	  0x807060504030201, 0, INSN_MEM },
	{ "f00108", MODE_64, OP_ADD, FORM_RM_REG, 4, 1, 0, 0, N, 0, 3, 0, 0, INSN_MEM | INSN_LOCK },
	{ "f348ab", MODE_64, OP_STOSQ, FORM_NONE, 8, 0, 0, N, N, 0, 3, 0, 0, INSN_REP },
	{ "f2a6", MODE_64, OP_CMPSB, FORM_NONE, 1, 0, 0, N, N, 0, 3, 0, 0, INSN_REPNE },
	{ "64a5", MODE_32, OP_MOVSD, FORM_NONE, 4, 0, 0, N, N, 0, 4, 0, 0, 0 },
	{ "ea112233445566", MODE_32, OP_JMP_FAR, FORM_IMM, 4, 0, 0, N, N, 0, 3, 0, 0x665544332211,
	  0 },
	{ "7510", MODE_64, OP_JNZ, FORM_IMM, 8, 0, 0, N, N, 0, 3, 0, 0x10, INSN_COND },
	{ "0f22d8", MODE_64, OP_MOV_CR, FORM_REG_RM, 8, 3, 0, N, N, 0, 3, 0, 0, 0 },
	{ "8ed8", MODE_32, OP_MOV_SREG, FORM_REG_RM, 4, 3, 0, N, N, 0, 3, 0, 0, 0 },
	{ "0fa0", MODE_64, OP_PUSH_SREG, FORM_REG, 8, 4, 0, N, N, 0, 3, 0, 0, 0 },
	{ "e620", MODE_64, OP_OUT, FORM_OTHER, 1, 0, 0, N, N, 0, 3, 0, 0x20, 0 },
};

static void test_fields(void **state)
{
	for (unsigned n = 0; n < ARRAY_LEN(rows); n++) {
		const struct row *r = &rows[n];
		struct insn i = decode_hex(r->hex, r->mode, INSN_OK);

		if (i.op != r->op || i.form != r->form)
			fail_msg("%s: got %s form %u", r->hex, insn_name(i.op), i.form);
		if (i.opsize != r->opsize || i.reg != r->reg || i.rm != r->rm ||
		    i.base != r->base || i.index != r->index || i.scale != r->scale ||
		    i.seg != r->seg || i.disp != r->disp || i.imm != r->imm || i.flags != r->flags)
			fail_msg("%s: opsize %u reg %u rm %u base %u index %u scale %u seg %u disp "
				 "%lld imm "
				 "%llx flags %x",
				 r->hex, i.opsize, i.reg, i.rm, i.base, i.index, i.scale, i.seg,
				 (long long)i.disp, (unsigned long long)i.imm, i.flags);
		assert_int_equal(i.len, strlen(r->hex) / 2);
	}
}

static void test_raw_offsets(void **state)
{
	struct insn i = decode_hex("66f048818c88112233441234567f", MODE_64, INSN_OK);

	assert_int_equal(i.op, OP_OR);
	assert_int_equal(i.rex, 0x48);
	assert_int_equal(i.opcode_at, 3);
	assert_int_equal(i.opcode, 0x81);
	assert_int_equal(i.modrm_at, 4);
	assert_int_equal(i.modrm, 0x8c);
	assert_int_equal(i.disp_at, 6);
	assert_int_equal(i.disp_len, 4);
	assert_int_equal(i.imm_at, 10);
	assert_int_equal(i.imm_len, 4);
	assert_int_equal(i.prefix, 0x66);
	i = decode_hex("c4e278f2c1", MODE_64, INSN_OK);
	assert_int_equal(i.op, OP_ANDN);
	assert_int_equal(i.opmap, 2);
	assert_int_equal(i.opcode_at, 3);
	assert_int_equal(i.vvvv, 0);
	assert_int_equal(i.rm, 1);
	assert_true(i.flags & INSN_VEX);
	i = decode_hex("c4e3fbf0c107", MODE_64, INSN_OK);
	assert_int_equal(i.op, OP_RORX);
	assert_int_equal(i.prefix, 0xf2);
	assert_int_equal(i.opsize, 8);
	assert_int_equal(i.form, FORM_REG_RM_IMM);
	assert_int_equal(i.imm_at, 5);
}

static void test_flags(void **state)
{
	struct insn i = decode_hex("11c8", MODE_32, INSN_OK);

	assert_int_equal(i.flags_read, FLAG_CF);
	assert_int_equal(i.flags_written, FLAGS_ARITH);
	i = decode_hex("40", MODE_32, INSN_OK);
	assert_int_equal(i.op, OP_INC);
	assert_int_equal(i.flags_written, FLAGS_ARITH & ~FLAG_CF);
	i = decode_hex("d3e0", MODE_32, INSN_OK); /* by CL: may leave them */
	assert_int_equal(i.flags_read & FLAGS_ARITH, FLAGS_ARITH);
	i = decode_hex("c1e003", MODE_32, INSN_OK);
	assert_int_equal(i.flags_read, 0);
}

static void test_refused(void **state)
{
	decode_hex("0f0b", MODE_64, INSN_OK); /* UD2 is an instruction */
	decode_hex("d6", MODE_64, INSN_UD);   /* SALC */
	decode_hex("06", MODE_64, INSN_UD);
	decode_hex("f089c8", MODE_64, INSN_UD); /* LOCK MOV */
	decode_hex("f001c8", MODE_64, INSN_UD); /* LOCK ADD on a register */
	decode_hex("f03b00", MODE_64, INSN_UD); /* LOCK CMP */
	decode_hex("8ec8", MODE_32, INSN_UD);	/* MOV CS */
	decode_hex("c4417abced", MODE_64, INSN_UD); /* TZCNT with VEX: Knights Corner's */
	decode_hex("c4c278f2", MODE_64, INSN_TRUNCATED);
	decode_hex("488b", MODE_64, INSN_TRUNCATED);
	decode_hex("", MODE_64, INSN_TRUNCATED);
	decode_hex("666666666666666666666666666690", MODE_64, INSN_OK); /* 15 bytes */
	decode_hex("666666666666666666666666666666", MODE_64, INSN_TOO_LONG);
}

/* Whatever was decoded before, the result is insn_decode()'s, in every field. */
static void test_memo(void **state)
{
	static const uint8_t firsts[] = { 0x66, 0xf2, 0xf3, 0xf0, 0x64, 0x48, 0x41, 0x4d, 0x0f, 0x0f, 0xc5, 0xc4, 0x67 };
	struct insn_memo *m = insn_memo_create();
	uint64_t seed = 1;

	assert_non_null(m);
	for (unsigned n = 0; n < 300000; n++) {
		enum insn_mode mode = n % 8 ? MODE_64 : n % 16 ? MODE_32 : MODE_16;
		enum insn_status s, want;
		struct insn i, j;
		uint8_t b[16];
		unsigned at = 0;

		for (unsigned k = 0; k < 16; k += 8) {
			seed = seed * 6364136223846793005ull + 1442695040888963407ull;
			memcpy(b + k, &(uint64_t){ seed ^ seed >> 29 }, 8);
		}
		while (at < 3 && b[15] >> at & 1) {
			b[at] = firsts[b[at] % ARRAY_LEN(firsts)];
			at++;
		}
		b[at + 1] &= 0xdb; /* fewer ModRM bytes, so that entries are met again */
		want = insn_decode(&j, b, 15, mode);
		for (unsigned times = 0; times < 3; times++) {
			s = insn_decode_memo(m, &i, b, 15, mode);
			assert_int_equal(s, want);
			assert_memory_equal(&i, &j, sizeof(i));
		}
		want = insn_decode(&j, b, b[14] % 15, mode);
		assert_int_equal(insn_decode_memo(m, &i, b, b[14] % 15, mode), want);
	}
	insn_memo_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fields),
		cmocka_unit_test(test_raw_offsets),
		cmocka_unit_test(test_flags),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_memo),
	};

	return cmocka_run_group_tests_name("isa-decode", tests, NULL, NULL);
}
