/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running and stopping for the debugger. The stop mode is "all": whenever the client may speak, the machine is
 * paused and every CPU parked, so their state can be read and changed from the event loop.
 *
 * A CPU that runs into a point calls gdb_hook on its own thread, which only notes it and posts to the loop; the loop
 * pauses the machine and reports. Several can stop at the same time: one is reported, the others stay in g->hit
 * and are reported instead of going on.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "base/log.h"
#include "vm/gdb-private.h"

#define NO_HIT UINT64_MAX

static struct cpu *gdb_cpu(struct gdb *g, unsigned n)
{
	return &g->vm->vcpus[n].cpu;
}

/* The debugger's wishes have changed: the engine takes them over before the CPU runs again. */
static void gdb_touch(struct gdb *g, unsigned n)
{
	struct cpu *c = gdb_cpu(g, n);

	c->debug.active = c->debug.step || c->debug.nbreaks || c->debug.nwatches;
	g->vm->vcpus[n].debug_changed = true;
	g->vm->vcpus[n].state_changed = true; /* pages with watchpoints must leave the TLB, and may come back */
}

static bool break_at(const struct cpu *c, gva_t at, unsigned *which)
{
	for (*which = 0; *which < c->debug.nbreaks; ++*which)
		if (c->debug.breaks[*which] == at)
			return true;
	return false;
}

static void gdb_report(struct gdb *g, unsigned cpu, unsigned number)
{
	const struct cpu *c = gdb_cpu(g, cpu);
	char extra[64] = "";
	unsigned i;

	if (number == GDB_SIGTRAP && c->debug.hit != NO_HIT) {
		const char *kind = "watch";

		for (i = 0; i < c->debug.nwatches; i++)
			if (c->debug.watches[i].at == c->debug.hit)
				kind = !c->debug.watches[i].on_read ? "watch" :
				       !c->debug.watches[i].on_write ? "rwatch" : "awatch";
		snprintf(extra, sizeof(extra), "%s:%" PRIx64 ";", kind, c->debug.hit);
	} else if (number == GDB_SIGTRAP && !c->debug.step && break_at(c, c->s.rip, &i)) {
		if (g->hard[i] ? g->hwbreak : g->swbreak)
			snprintf(extra, sizeof(extra), "%sbreak:;", g->hard[i] ? "hw" : "sw");
	}
	snprintf(g->last_stop, sizeof(g->last_stop), "T%02xthread:%x;%s", number, cpu + 1, extra);
	g->general = g->steer = cpu;
	if (g->running) {
		g->running = false;
		gdb_send(g, g->last_stop, (unsigned)strlen(g->last_stop));
	}
}

/* CPUs not in the mask stay parked when the machine goes on. */
static void gdb_hold(struct gdb *g, uint64_t going)
{
	unsigned i;

	pthread_mutex_lock(&g->vm->lock);
	for (i = 0; i < g->vm->machine.ncpus; i++)
		g->vm->vcpus[i].held = !(going & BIT(i));
	pthread_mutex_unlock(&g->vm->lock);
}

/* Stepping and holding last until the next stop. */
static void gdb_settle(struct gdb *g)
{
	unsigned i;

	gdb_hold(g, ~0ull);
	for (i = 0; i < g->vm->machine.ncpus; i++) {
		if (gdb_cpu(g, i)->debug.step) {
			gdb_cpu(g, i)->debug.step = false;
			gdb_touch(g, i);
		}
	}
}

static void gdb_report_end(struct gdb *g)
{
	const char *how = g->vm->end == VM_END_CRASH || g->vm->end == VM_END_ENGINE ? "X0b" : "W00";

	snprintf(g->last_stop, sizeof(g->last_stop), "%s", how);
	if (g->running)
		gdb_send(g, how, 3);
	g->running = false;
}

/* On the loop: CPUs may have stopped, or the machine has ended. */
static void gdb_news(void *opaque)
{
	struct gdb *g = opaque;
	uint64_t hit;
	unsigned cpu;

	if (g->ended) {
		gdb_report_end(g);
		return;
	}
	if (!g->running || !g->hit)
		return;
	if (vm_pause(g->vm, NULL))
		return; /* it ends: gdb_stopped_hook has posted as well */
	hit = g->hit;
	if (!hit)
		return;
	cpu = (unsigned)__builtin_ctzll(hit);
	atomic_fetch_and(&g->hit, ~BIT(cpu));
	gdb_report(g, cpu, GDB_SIGTRAP); /* while it still is known whether it stepped */
	gdb_settle(g);
}

void gdb_hook(void *opaque, struct vcpu *v)
{
	struct gdb *g = opaque;

	g->hit_rip[v->cpu.id] = v->cpu.s.rip;
	atomic_fetch_or(&g->hit, BIT(v->cpu.id));
	evloop_post(g->vm->loop, gdb_news, g);
}

void gdb_stopped_hook(void *opaque)
{
	struct gdb *g = opaque;

	atomic_store(&g->ended, true);
	evloop_post(g->vm->loop, gdb_news, g);
}

void gdb_interrupt(struct gdb *g)
{
	if (vm_pause(g->vm, NULL))
		return;
	gdb_report(g, g->general, GDB_SIGINT);
	gdb_settle(g);
}

void gdb_attach(struct gdb *g)
{
	unsigned i;

	g->running = false;
	g->general = g->steer = 0;
	g->hit = 0;
	for (i = 0; i < g->vm->machine.ncpus; i++)
		gdb_cpu(g, i)->debug.hit = NO_HIT;
	if (!vm_pause(g->vm, NULL))
		gdb_report(g, 0, GDB_SIGTRAP);
	else
		gdb_report_end(g);
}

void gdb_detach(struct gdb *g)
{
	unsigned i;

	if (vm_pause(g->vm, NULL))
		return;
	gdb_settle(g);
	for (i = 0; i < g->vm->machine.ncpus; i++) {
		memset(&gdb_cpu(g, i)->debug, 0, sizeof(gdb_cpu(g, i)->debug));
		gdb_touch(g, i);
	}
	g->running = false;
	vm_resume(g->vm, NULL);
}

/* A CPU that stopped together with one reported: is the reason still there? */
static bool gdb_still_hit(struct gdb *g, unsigned cpu)
{
	const struct cpu *c = gdb_cpu(g, cpu);
	unsigned i;

	return c->s.rip == g->hit_rip[cpu] && (c->debug.hit != NO_HIT || break_at(c, c->s.rip, &i));
}

void gdb_continue(struct gdb *g, uint64_t step, uint64_t run)
{
	uint64_t hit = atomic_exchange(&g->hit, 0);
	unsigned i;

	g->running = true;
	for (i = 0; i < g->vm->machine.ncpus; i++) {
		if ((hit & BIT(i)) && gdb_still_hit(g, i)) {
			atomic_fetch_or(&g->hit, hit & ~(BIT(i) | (BIT(i) - 1)));
			gdb_report(g, i, GDB_SIGTRAP);
			gdb_cpu(g, i)->debug.hit = NO_HIT;
			return;
		}
	}
	for (i = 0; i < g->vm->machine.ncpus; i++) {
		struct cpu *c = gdb_cpu(g, i);

		c->debug.hit = NO_HIT;
		if (step & BIT(i)) {
			c->debug.step = true;
			gdb_touch(g, i);
		}
	}
	gdb_hold(g, step | run);
	if (vm_resume(g->vm, NULL))
		gdb_report_end(g);
}

/* An engine that uses the processor's debug registers has few, and they watch 1, 2, 4 or 8 aligned bytes. */
static bool engine_has_room(struct gdb *g, bool code, gva_t at, uint64_t len)
{
	const struct cpu_debug *d = &gdb_cpu(g, 0)->debug;
	unsigned limit = g->vm->machine.engine->debug_points;

	if (!limit)
		return true;
	return d->nbreaks + d->nwatches < limit && (code || (len <= 8 && !(len & (len - 1)) && !(at & (len - 1))));
}

int gdb_point(struct gdb *g, bool insert, unsigned type, gva_t at, uint64_t len)
{
	struct cpu_debug *d = &gdb_cpu(g, 0)->debug, set;
	bool code = type <= 1, on_read = type >= 3, on_write = type == 2 || type == 4;
	unsigned n, i;

	if (type > 4)
		return 1;
	if (!code && (!len || len > GUEST_PAGE || at > UINT64_MAX - len))
		return -1;
	set = *d;
	n = code ? set.nbreaks : set.nwatches;
	for (i = 0; i < n; i++)
		if (code ? set.breaks[i] == at && g->hard[i] == (type == 1) :
			   set.watches[i].at == at && set.watches[i].len == len && set.watches[i].on_read == on_read &&
				   set.watches[i].on_write == on_write)
			break;
	if (insert == (i < n))
		return 0; /* it is there already, or is not */
	if (insert && (n == DEBUG_POINTS || !engine_has_room(g, code, at, len)))
		return -1;
	if (code && insert) {
		set.breaks[n] = at;
		g->hard[n] = type == 1;
	} else if (code) {
		set.breaks[i] = set.breaks[n - 1];
		g->hard[i] = g->hard[n - 1];
	} else if (insert) {
		set.watches[n].at = at;
		set.watches[n].len = (uint32_t)len;
		set.watches[n].on_read = on_read;
		set.watches[n].on_write = on_write;
	} else {
		set.watches[i] = set.watches[n - 1];
	}
	n = insert ? n + 1 : n - 1;
	for (i = 0; i < g->vm->machine.ncpus; i++) {
		struct cpu_debug *mine = &gdb_cpu(g, i)->debug;

		memcpy(mine->breaks, set.breaks, sizeof(set.breaks));
		memcpy(mine->watches, set.watches, sizeof(set.watches));
		mine->nbreaks = code ? n : set.nbreaks;
		mine->nwatches = code ? set.nwatches : n;
		gdb_touch(g, i);
	}
	return 0;
}
