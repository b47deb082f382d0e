/* SPDX-License-Identifier: Apache-2.0 */
/* Memory operands that are several accesses. */
#include "engine/interp/operand.h"

int operand_first_fault(struct cpu *c, const struct insn *i, unsigned first, bool write)
{
	struct cpu_fault whole = c->fault;
	gva_t at;
	int r;

	if (whole.vector != VEC_GP && whole.vector != VEC_SS)
		return CPU_FAULT;
	r = operand_linear(c, i, first, write, &at);
	if (!r)
		r = cpu_probe(c, at, first, write ? ACCESS_WRITE : ACCESS_READ);
	if (!r)
		c->fault = whole;
	return CPU_FAULT;
}
