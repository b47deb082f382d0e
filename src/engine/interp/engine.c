/* SPDX-License-Identifier: Apache-2.0 */
/* The interpreter as an engine: works everywhere. */
#include <errno.h>
#include <stdlib.h>
#include "base/err.h"
#include "engine/engine.h"
#include "engine/interp/cache.h"
#include "engine/interp/loop.h"

static int probe(struct err *e)
{
	return 0;
}

static int vm_attach(struct machine *m, struct err *e)
{
	m->engine_data = registry_create(m);
	return m->engine_data ? 0 : err_set(e, ENOMEM, "interpreter: out of memory");
}

static void vm_detach(struct machine *m)
{
	registry_destroy(m->engine_data);
	m->engine_data = NULL;
}

static int cpu_create(struct cpu *c, struct err *e)
{
	c->engine_data = interp_create_keeping(c, c->machine->engine_data, e);
	return c->engine_data ? 0 : -ENOMEM;
}

static void cpu_destroy(struct cpu *c)
{
	interp_destroy(c->engine_data);
	c->engine_data = NULL;
}

static enum cpu_stop run(struct cpu *c)
{
	return interp_run(c->engine_data, c);
}

/* The attention word is looked at between blocks, and between the pieces of a repeated string
 * instruction. */
static void kick(struct cpu *c)
{
}

/* cpu->s is always current. */
static void state_get(struct cpu *c)
{
}

static void state_set(struct cpu *c)
{
	struct interp *in = c->engine_data;

	tlb_flush_all(c);
	tlb_select(c);
	cache_drop_all(in->cache);
}

static void debug_set(struct cpu *c)
{
}

static void stats(struct machine *m, void (*line)(void *opaque, const char *name, uint64_t value),
		  void *opaque)
{
	uint64_t insns = 0, built = 0, decoded = 0, flushed = 0, dropped = 0;

	for (unsigned n = 0; n < m->ncpus; n++) {
		const struct interp *in = m->cpus[n] ? m->cpus[n]->engine_data : NULL;

		if (!in)
			continue;
		insns += m->cpus[n]->insns;
		built += in->cache->built;
		decoded += in->cache->decoded;
		flushed += in->cache->flushed;
		dropped += in->cache->dropped;
	}
	line(opaque, "interp.instructions", insns);
	line(opaque, "interp.blocks-built", built);
	line(opaque, "interp.decoded", decoded);
	line(opaque, "interp.cache-flushes", flushed);
	line(opaque, "interp.blocks-dropped", dropped);
}

const struct engine_ops engine_interp = {
	.name = "interp",
	.probe = probe,
	.vm_attach = vm_attach,
	.vm_detach = vm_detach,
	.cpu_create = cpu_create,
	.cpu_destroy = cpu_destroy,
	.run = run,
	.kick = kick,
	.state_get = state_get,
	.state_set = state_set,
	.debug_set = debug_set,
	.stats = stats,
};
