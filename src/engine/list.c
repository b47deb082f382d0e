/* SPDX-License-Identifier: Apache-2.0 */
/* The engines there are. */
#include <string.h>
#include "engine/engine.h"
#include "engine/kvm/engine.h"

const struct engine_ops *const *engine_list(void)
{
	static const struct engine_ops *const engines[] = { &engine_kvm, &engine_dbt,
							    &engine_interp, &engine_verify, NULL };

	return engines;
}

const struct engine_ops *engine_find(const char *name)
{
	for (const struct engine_ops *const *e = engine_list(); *e; e++) {
		if (!strcmp((*e)->name, name))
			return *e;
	}
	return NULL;
}
