/* SPDX-License-Identifier: Apache-2.0 */
/* What the translator needs of the host. */
#include <errno.h>
#include <sys/auxv.h>
#include "base/err.h"
#include "engine/dbt/probe.h"

#define HWCAP2_FSGSBASE 2u

int dbt_probe(struct err *e)
{
	if (!(getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE))
		return err_set(e, ENOTSUP, "translator: the host kernel does not offer FSGSBASE (Linux 5.9 does)");
	if (!__builtin_cpu_supports("bmi"))
		return err_set(e, ENOTSUP, "translator: the host processor has no BMI1");
	return 0;
}
