/* SPDX-License-Identifier: Apache-2.0 */
/* The interpreter of one CPU; private to the engine. */
#ifndef ENGINE_INTERP_LOOP_H
#define ENGINE_INTERP_LOOP_H

#include "engine/interp/interp.h"

struct code_cache;
struct code_registry;

struct interp {
	struct cpu *cpu;
	/* the engine's; NULL for one made by interp_create() alone, which decodes each time */
	struct code_cache *cache;
	struct code_registry *registry;
	uint32_t watched; /* attention bits that end the quick way */
	bool resumed;	  /* a debugger's breakpoint at resumed_rip was where it stopped us */
	uint64_t resumed_rip;
};

enum cpu_stop interp_run(struct interp *in, struct cpu *c);

#endif
