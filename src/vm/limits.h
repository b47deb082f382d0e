/* SPDX-License-Identifier: Apache-2.0 */
/* What a machine's process may use of the host at most: a control group of its own, where the host lets us make one. */
#ifndef VM_LIMITS_H
#define VM_LIMITS_H

#include <stdbool.h>
#include <stdint.h>
#include "base/err.h"

struct limits {
	unsigned cpu_weight;  /* 1 to 10000 beside others' 100; 0: as it is */
	unsigned cpu_quota;   /* percent of one CPU; 0: no limit */
	uint64_t memory_max;  /* bytes; 0: no limit */
};

static inline bool limits_any(const struct limits *l)
{
	return l->cpu_weight || l->cpu_quota || l->memory_max;
}
/* The calling process, before it has threads and gives up rights. All or an error: a limit that was asked for and is none is worse. */
int limits_apply(const struct limits *l, struct err *e);

#endif
