/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Posting requests to a CPU from any thread, so that none is lost and none costs more than it must.
 *
 *	poster				owner, before it runs or waits
 *	  store the request's data	  run_state = RUNNING (or HALTED)
 *	  attention |= bit		  full barrier
 *	  full barrier			  look at attention
 *	  look at run_state		  serve: clear the bit, then look at the data
 *
 * Each side writes its own word and then reads the other's, with a full barrier between, so at least one of
 * them sees what the other wrote: either the owner finds the bit, or the poster finds the state that needs a
 * notification. A bit that was set already has not been seen to yet: the owner clears it before it looks at the
 * data, so it finds ours as well, and whoever set the bit has notified.
 *
 * The poster that turns HALTED into READY is the one that wakes; further ones have nothing to do. A READY thread is
 * between the two and looks at the attention word before it runs or waits.
 *
 * `notifying` is for who exchanges the engine: it has made every CPU READY, and once the count is zero nobody is on the
 * way into the old engine's kick, because whoever comes later finds READY.
 */
#include "engine/engine.h"
#include "x86/cpu.h"

void cpu_notify(struct cpu *c, uint32_t what)
{
	uint32_t state;

	if ((atomic_fetch_or(&c->attention, what) & what) == what)
		return;
	atomic_fetch_add(&c->notifying, 1);
	state = atomic_load(&c->run_state);
	if (state == CPU_RUNNING) {
		if (c->machine->engine && c->machine->engine->kick)
			c->machine->engine->kick(c);
	} else if (state == CPU_HALTED) {
		if (atomic_compare_exchange_strong(&c->run_state, &state, CPU_READY) && c->wake)
			c->wake(c);
		else if (state == CPU_RUNNING && c->machine->engine && c->machine->engine->kick)
			c->machine->engine->kick(c);
	}
	atomic_fetch_sub(&c->notifying, 1);
}
