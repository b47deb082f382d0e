/* SPDX-License-Identifier: Apache-2.0 */
/* How fast an engine really is here: a short guest loop, timed. */
#ifndef VM_MEASURE_H
#define VM_MEASURE_H

#include "base/err.h"
#include "engine/engine.h"
#include "vm/verdict.h"

/* Below this, what calls itself hardware virtualization executes guest code in software (million instructions a second). */
#define MEASURE_ACCELERATED 300.0

struct measured; /* a machine that was measured */

/* Million guest instructions a second of a simple loop, or -errno. Takes about 20 ms; on a thread that runs no guest. */
int measure_engine(const struct engine_ops *ops, double *mips, struct err *e);

/* Is this KVM, with hardware behind it? As remembered, if `v` remembers; else it does from then on. NULL: nobody does. */
bool measure_accelerated(const struct engine_ops *ops, struct verdict *v);

/*
 * The fastest engine that works here, for "auto", and why no other: one line in `why`. KVM is used only when the
 * measurement, or `v`, as above, shows that hardware runs the guest. *left: what the measurement has left, or NULL: KVM takes 15 to 40 ms to take a machine down,
 * which nobody should wait for.
 */
const struct engine_ops *measure_choose(char *why, size_t size, struct measured **left, struct verdict *v);
/* NULL too. Any thread. */
void measured_dispose(struct measured *m);

#endif
