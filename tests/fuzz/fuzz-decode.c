/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer harness of the decoder. The first byte chooses the mode, the rest is code. What must
 * hold for whatever comes out: lengths and offsets within the instruction, registers within their
 * files, a row that exists.
 */
#include <string.h>
#include "isa/insn.h"
#include "x86/state.h"

static void check_places(const struct insn *i)
{
	CHECK(i->opcode_at < i->len);
	CHECK(i->bytes[i->opcode_at] == i->opcode);
	CHECK(!i->modrm_at || (i->modrm_at > i->opcode_at && i->modrm_at < i->len));
	CHECK(i->disp_at + i->disp_len <= i->len);
	CHECK(i->imm_at + i->imm_len <= i->len);
	CHECK(!i->disp_len || i->disp_at > i->opcode_at);
	CHECK(!i->imm_len || i->imm_at > i->opcode_at);
}

static void check_registers(const struct insn *i)
{
	unsigned limit = i->flags & INSN_EVEX ? 32 : 16;

	CHECK(i->reg < limit && i->rm < limit && i->vvvv < limit);
	CHECK(i->base == REG_NONE || i->base == REG_RIP || i->base < 16);
	CHECK(i->index == REG_NONE || i->index < (i->flags & INSN_VSIB ? 32 : 16));
	CHECK(i->scale <= 3 && i->seg <= SEG_GS && i->cond < 16);
	if (!(i->flags & INSN_MEM))
		CHECK(i->base == REG_NONE && i->index == REG_NONE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct insn i, again;
	char text[96];
	enum insn_mode mode;
	enum insn_status status;

	if (!size)
		return 0;
	mode = (enum insn_mode)(data[0] % 3);
	status = insn_decode(&i, data + 1, size - 1, mode);
	CHECK(i.op < OP_COUNT && i.len <= 15);
	if (status == INSN_TRUNCATED)
		CHECK(size - 1 < 15);
	if (status != INSN_OK)
		return 0;
	CHECK(i.len >= 1 && i.len <= size - 1 && i.op != OP_INVALID && i.mode == mode);
	check_places(&i);
	check_registers(&i);
	insn_format(&i, 0x1000, text, sizeof(text));
	/* its own bytes alone decode to the same */
	CHECK(insn_decode(&again, i.bytes, i.len, mode) == INSN_OK);
	CHECK(!memcmp(&again, &i, sizeof(i)));
	return 0;
}
