/* SPDX-License-Identifier: Apache-2.0 */
/* The translator as an engine. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <time.h>
#include "base/err.h"
#include "base/huge.h"
#include "engine/dbt/emit.h"
#include "engine/dbt/probe.h"
#include "engine/dbt/translate.h"

#define CACHE_SIZE (128u << 20)

static uint32_t trampoline(struct emit *e, void (*to)(void))
{
	uint32_t at;

	emit_align(e, 16);
	at = emit_offset(e);
	emit_bytes(e, "\xff\x25\x00\x00\x00\x00", 6); /* jmp [rip] */
	emit64(e, (uint64_t)(uintptr_t)to);
	return at;
}

static void trampolines(struct dbt *d)
{
	struct emit e = { .base = d->rw, .p = d->rw, .end = d->rw + 4096 };

	d->tramp_exit_h = trampoline(&e, dbt_stub_exit_h);
	d->tramp_exit_m = trampoline(&e, dbt_stub_exit_m);
	d->tramp_link_h = trampoline(&e, dbt_stub_link_h);
	d->tramp_link_m = trampoline(&e, dbt_stub_link_m);
	d->tramp_slow = trampoline(&e, dbt_stub_slow);
	d->tramp_indirect = trampoline(&e, dbt_stub_indirect);
}

static void dbt_destroy(struct dbt *d)
{
	dbt_cache_destroy(d);
	code_pages_free(d);
	if (d->perf_map)
		fclose(d->perf_map);
	free(d->slot_of);
	free(d->slot_stub);
	free(d->slot_next);
	free(d->tr);
	insn_memo_destroy(d->memo);
	pthread_mutex_destroy(&d->lock);
	pthread_cond_destroy(&d->evicted);
	huge_free(d, sizeof(*d));
}

static void perf_map_open(struct dbt *d)
{
	char path[64];

	if (!getenv("OSPITE_PERF_MAP"))
		return;
	snprintf(path, sizeof(path), "/tmp/perf-%d.map", (int)getpid());
	d->perf_map = fopen(path, "we");
}

static int vm_attach(struct machine *m, struct err *e)
{
	const char *size = getenv("OSPITE_CODE_CACHE");
	struct dbt *d = huge_alloc(sizeof(*d));
	int r;

	if (!d)
		return err_set(e, ENOMEM, "translator: out of memory");
	d->fd = -1;
	d->machine = m;
	blocks_size(d, TABLES_USUAL);
	dbt_idle_start(d);
	pthread_mutex_init(&d->lock, NULL);
	pthread_cond_init(&d->evicted, NULL);
	d->slot_of = calloc(LINK_SLOTS, sizeof(struct exit *));
	d->slot_stub = calloc(LINK_SLOTS, sizeof(*d->slot_stub));
	d->slot_next = calloc(LINK_SLOTS, sizeof(*d->slot_next));
	d->tr = calloc(1, sizeof(*d->tr));
	d->memo = insn_memo_create();
	if (!d->slot_of || !d->slot_stub || !d->slot_next || !d->tr || !d->memo) {
		dbt_destroy(d);
		return err_set(e, ENOMEM, "translator: out of memory");
	}
	d->slot_free = -1;
	perf_map_open(d);
	r = dbt_cache_create(d, size ? MAX(strtoul(size, NULL, 0), 1ul << 18) : CACHE_SIZE, e);
	if (!r)
		r = signals_install(e);
	if (r) {
		dbt_destroy(d);
		return r;
	}
	trampolines(d);
	d->decoded = registry_create(m);
	if (!d->decoded) {
		dbt_destroy(d);
		return err_set(e, ENOMEM, "translator: out of memory");
	}
	m->engine_data = d;
	smc_start(d);
	return 0;
}

static void vm_detach(struct machine *m)
{
	struct dbt *d = m->engine_data;

	if (!d)
		return;
	smc_stop(d);
	m->engine_data = NULL;
	registry_destroy(d->decoded);
	dbt_destroy(d);
}

static int cpu_create(struct cpu *c, struct err *e)
{
	struct dbt_cpu *dc = calloc(1, sizeof(*dc));
	struct dbt_hot *h = dbt_hot(c);
	struct dbt *d = dbt_of(c);

	if (!dc)
		return err_set(e, ENOMEM, "translator: out of memory");
	dc->c = c;
	dc->d = d;
	dc->mode = MODE_NONE;
	dc->jc2_mask = (1u << JC2_BITS) - 1;
	dc->slots_global = calloc(LINK_SLOTS, sizeof(*dc->slots_global));
	dc->slots_local = calloc(LINK_SLOTS, sizeof(*dc->slots_local));
	dc->interp = interp_create(c, e);
	dc->legacy = interp_create_keeping(c, d->decoded, e);
	if (!dc->slots_global || !dc->slots_local || !dc->interp || !dc->legacy) {
		interp_destroy(dc->interp);
		interp_destroy(dc->legacy);
		free(dc->slots_global);
		free(dc->slots_local);
		free(dc);
		return err_set(e, ENOMEM, "translator: out of memory");
	}
	h->self = (uint64_t)(uintptr_t)c;
	h->jc_id = 1;
	pthread_mutex_lock(&d->lock);
	c->engine_data = dc;
	for (unsigned n = 0; n < d->slots_begun; n++) {
		if (d->slot_of[n])
			h->slot[n] = (uint64_t)(uintptr_t)(d->rx + d->slot_of[n]->stub);
	}
	pthread_mutex_unlock(&d->lock);
	if (signals_attach(dc, e))
		return -(e->code ? e->code : EIO);
	sample_start(dc);
	return 0;
}

static void cpu_destroy(struct cpu *c)
{
	struct dbt_cpu *dc = c->engine_data;

	if (!dc)
		return;
	sample_stop(dc);
	signals_detach(dc);
	pthread_mutex_lock(&dc->d->lock);
	c->engine_data = NULL;
	pthread_mutex_unlock(&dc->d->lock);
	interp_destroy(dc->interp);
	interp_destroy(dc->legacy);
	free(dc->slots_global);
	free(dc->slots_local);
	free(dc);
}

static void kick(struct cpu *c)
{
	__atomic_store_n(&dbt_hot(c)->kick, 1, __ATOMIC_SEQ_CST);
	if (c->engine_data)
		signals_kick(dbt_cpu(c));
}

/* run() leaves cpu->s complete. */
static void state_get(struct cpu *c)
{
}

static void state_set(struct cpu *c)
{
	tlb_flush_all(c);
	tlb_select(c);
	if (c->engine_data) {
		dbt_cpu(c)->mode = MODE_NONE;
		interp_forget(dbt_cpu(c)->legacy);
	}
}

static void debug_set(struct cpu *c)
{
}

struct block *translate_timed(struct dbt *d, struct cpu *c, uint64_t va, uint64_t page, uint64_t page2, uint32_t mode)
{
	struct timespec a, b;
	struct block *block;

	dbt_cpu(c)->translating = true;
	clock_gettime(CLOCK_MONOTONIC, &a);
	block = translate(d, c, va, page, page2, mode);
	dbt_cpu(c)->translating = false;
	clock_gettime(CLOCK_MONOTONIC, &b);
	d->counters.translate_ns += (uint64_t)(b.tv_sec - a.tv_sec) * 1000000000u + (uint64_t)(b.tv_nsec - a.tv_nsec);
	if (block && d->perf_map)
		fprintf(d->perf_map, "%lx %x guest_%lx_%x\n", (long)(uintptr_t)(d->rx + block->start),
			block->end - block->start, (long)va, mode);
	return block;
}

/* The instructions that went to the interpreter most. */
static void stats_helped(struct machine *m, void (*line)(void *opaque, const char *name, uint64_t value), void *opaque)
{
	uint64_t sum[OP_COUNT] = { 0 };
	char name[64];

	for (unsigned n = 0; n < m->ncpus; n++) {
		const struct dbt_cpu *dc = m->cpus[n] ? m->cpus[n]->engine_data : NULL;

		for (unsigned op = 0; dc && op < OP_COUNT; op++)
			sum[op] += dc->helped[op];
	}
	for (unsigned rows = 0; rows < 24; rows++) {
		unsigned most = 0;

		for (unsigned op = 1; op < OP_COUNT; op++)
			most = sum[op] > sum[most] ? op : most;
		if (!sum[most])
			break;
		snprintf(name, sizeof(name), "dbt.helped.%s", insn_name((enum insn_op)most));
		line(opaque, name, sum[most]);
		sum[most] = 0;
	}
}

static uint64_t per_million(uint64_t some, uint64_t of)
{
	return of ? (uint64_t)((unsigned __int128)some * 1000000 / of) : 0;
}

static void stats(struct machine *m, void (*line)(void *opaque, const char *name, uint64_t value), void *opaque)
{
	struct dbt *d = m->engine_data;
	uint64_t ran = 0, reached = 0;
	struct dbt_counters sum;

	if (!d)
		return;
	sum = d->counters;
	for (unsigned n = 0; n < m->ncpus; n++) {
		const struct dbt_cpu *dc = m->cpus[n] ? m->cpus[n]->engine_data : NULL;

		if (!dc)
			continue;
#define X(name) sum.name += dc->counters.name;
		DBT_COUNTERS(X)
#undef X
		ran += dbt_hot(m->cpus[n])->ran;
		reached += dbt_hot(m->cpus[n])->reached;
	}
#define X(name) line(opaque, "dbt." #name, sum.name);
	DBT_COUNTERS(X)
#undef X
	if (m->sample) {
		line(opaque, "dbt.blocks_run", ran);
		line(opaque, "dbt.accesses", reached);
		line(opaque, "dbt.chain_misses_per_million", per_million(sum.exits_link + sum.exits_indirect, ran));
		line(opaque, "dbt.tlb_misses_per_million", per_million(sum.slow_paths, reached));
	}
	stats_helped(m, line, opaque);
}

const struct engine_ops engine_dbt = {
	.name = "dbt",
	.probe = dbt_probe,
	.vm_attach = vm_attach,
	.vm_detach = vm_detach,
	.cpu_create = cpu_create,
	.cpu_destroy = cpu_destroy,
	.run = dbt_run,
	.kick = kick,
	.idle = dbt_idle,
	.state_get = state_get,
	.state_set = state_set,
	.debug_set = debug_set,
	.stats = stats,
};
