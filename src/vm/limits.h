/* SPDX-License-Identifier: Apache-2.0 */
/* What a machine's process may use of the host at most: a control group of its own, where the host lets us make one. */
#ifndef VM_LIMITS_H
#define VM_LIMITS_H

#include <stdbool.h>
#include <limits.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/err.h"

#define LIMIT_NONE UINT_MAX /* of each: taken away again */

struct limits {
	unsigned cpu_weight;  /* 1 to 10000 beside others' 100; 0: as it is */
	unsigned cpu_quota;   /* percent of one CPU; 0: as it is, without limit at first */
	uint64_t memory_max;  /* bytes; 0: the same; UINT64_MAX: none */
};

/* Where this host has its control groups. */
struct cgroups {
	const char *top, *proc; /* /sys/fs/cgroup, /proc */
	const char *systemctl, *busctl;
	bool unified;		/* version 2 */
};
void cgroups_find(struct cgroups *c);

static inline bool limits_any(const struct limits *l)
{
	return l->cpu_weight || l->cpu_quota || l->memory_max;
}
/*
 * Process `pid`, 0 being the caller (before it has threads and gives up rights): in a group of its own from here on, which has these limits.
 * All or an error: a limit that was asked for and is none is worse.
 */
int limits_apply(const struct cgroups *c, pid_t pid, const struct limits *l, struct err *e);

/* Removes the groups of machines that have ended: no process can remove its own. */
void limits_tidy(const struct cgroups *c);

#endif
