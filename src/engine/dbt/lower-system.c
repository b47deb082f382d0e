/* SPDX-License-Identifier: Apache-2.0 */
/* System instructions, and what else changes more than registers. */
#include "engine/dbt/translate.h"

enum lowered lower_string(struct tr *t, const struct insn *i)
{
	return LOWER_HELPER;
}

enum lowered lower_system(struct tr *t, const struct insn *i)
{
	return i->class == CLASS_FAR ? LOWER_LEAVE : LOWER_HELPER;
}
