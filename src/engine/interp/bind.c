/* SPDX-License-Identifier: Apache-2.0 */
/* From a decoded instruction to the function that executes it: the row's handler, or a specialised
 * one. */
#include "engine/interp/private.h"

static const insn_fn handlers[OP_COUNT] = {
	[OP_INVALID] = far_ud,
#define I(mnemonic, class, handler) [OP_##mnemonic] = handler,
#include "isa/insn.def"
#include "isa/insn-x87.def"
#include "isa/insn-vector.def"
#undef I
};

void interp_bind(struct insn *i)
{
	unsigned op = i->op;

	if (op >= OP_ADD && op <= OP_NOT)
		i->exec = alu_bind(i);
	else if (op == OP_MOV || op == OP_MOVNTI || (op >= OP_MOVZX && op <= OP_MOVSXD) ||
		 op == OP_LEA || (op >= OP_CMOVO && op <= OP_CMOVNLE))
		i->exec = mov_bind(i);
	else if (op == OP_PUSH || op == OP_POP)
		i->exec = stack_bind(i);
	else if (op >= OP_ROL && op <= OP_SAR)
		i->exec = shift_bind(i);
	else if (op >= OP_JMP && op <= OP_JNLE)
		i->exec = control_bind(i);
	else
		i->exec = handlers[op];
}
