/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VM_LIMITS_PRIVATE_H
#define VM_LIMITS_PRIVATE_H

#include "vm/limits.h"

#define LIMITS_SCOPE "ospite-%d.scope"

/* These limits for systemd's unit, the system's or the user's. */
int limits_ask_systemd(const struct cgroups *c, const char *unit, bool user, const struct limits *l, struct err *e);
/* Asks the user's systemd for a scope with this process in it; the process is moved a moment later. */
int limits_make_scope(const struct cgroups *c, pid_t pid, struct err *e);

#endif
