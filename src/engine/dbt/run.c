/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop around translated code: attend to requests, find or make the block at rip, enter, see why it came back.
 * Built with general registers only: the guest's vector registers are in the host's while this runs, and
 * are put by before anything else is called.
 */
#include "engine/dbt/dbt.h"
#include "x86/access.h"
#include "x86/event.h"

static void epoch_odd(struct cpu *c) /* blocks found from here on stay until the next change */
{
	uint32_t *epoch = &dbt_hot(c)->epoch;

	__atomic_store_n(epoch, *epoch + (*epoch & 1 ? 2 : 1), __ATOMIC_SEQ_CST);
}

static void epoch_even(struct cpu *c)
{
	uint32_t *epoch = &dbt_hot(c)->epoch;

	if (*epoch & 1)
		__atomic_store_n(epoch, *epoch + 1, __ATOMIC_SEQ_CST);
}

static void fp_by(struct cpu *c)
{
	if (dbt_hot(c)->vec_live || dbt_hot(c)->x87_live)
		fp_release(c);
}

static void gs_set(struct cpu *c)
{
	uintptr_t now;

	__asm__ volatile("rdgsbase %0" : "=r"(now));
	if (now != (uintptr_t)c)
		__asm__ volatile("wrgsbase %0" ::"r"(c));
}

/* The clock stands still or jumps only while no vCPU runs. */
static void tsc_set(struct cpu *c)
{
	const struct clock *clock = c->machine->clock;
	int64_t offset = clock_tsc_host_offset(clock), wrong;

	dbt_hot(c)->tsc_host = offset;
	wrong = (int64_t)(__builtin_ia32_rdtsc() + (uint64_t)offset - clock_tsc(clock));
	/* a watcher wants every reading of the time to pass by it */
	dbt_cpu(c)->tsc_slow = wrong > 1000000000 || wrong < -1000000000 || dbt_of(c)->watch;
}

/* What other threads want done by the owner of the TLB. */
static void wanted(struct cpu *c)
{
	uint32_t what = __atomic_exchange_n(&dbt_cpu(c)->wanted, 0, __ATOMIC_SEQ_CST);

	registry_boundary(dbt_of(c)->decoded, c);
	if (what & WANT_FLUSH_TLB)
		tlb_flush_all(c);
	if (what & WANT_REVOKE_WRITES)
		tlb_revoke_writes(c);
}

/* At a boundary: CPU_OK goes on, CPU_STOP leaves. */
static int boundary(struct cpu *c)
{
	struct dbt_hot *h = dbt_hot(c);

	for (;;) {
		uint32_t attention;
		int r;

		__atomic_store_n(&h->kick, 0, __ATOMIC_SEQ_CST);
		attention = atomic_load(&c->attention);
		if (attention & ATT_FLUSH) {
			atomic_fetch_and(&c->attention, ~(uint32_t)ATT_FLUSH);
			fp_by(c);
			wanted(c);
			attention &= ~(uint32_t)ATT_FLUSH;
		}
		fp_by(c);
		if (!attention && c->s.activity == ACTIVITY_RUN) {
			bool waiting = event_interrupt_waiting(c);

			h->irq_check = waiting;
			if (!waiting || !(c->s.rflags & FLAG_IF))
				return CPU_OK;
		}
		dbt_cpu(c)->calling = true;
		r = event_attend(c);
		dbt_cpu(c)->calling = false;
		h->irq_check = 1; /* as long as nobody has looked */
		if (r != CPU_BOUNDARY)
			return r;
	}
}

/* See watch.h. */
static void watch_stop(struct cpu *c, enum watch_how how)
{
	struct dbt_watch *w = dbt_of(c)->watch;

	if (likely(!w) || !w->active)
		return;
	fp_by(c);
	w->stop(c, how);
}

/* The stretch has been ended. */
static void watch_foreign(struct cpu *c)
{
	const struct dbt_watch *w = dbt_of(c)->watch;

	if (unlikely(w))
		w->foreign(c);
}

/* Interpret one instruction at rip. */
static int step(struct cpu *c)
{
	struct dbt_cpu *dc = dbt_cpu(c);
	int r;

	fp_by(c);
	watch_foreign(c);
	dc->counters.interp_steps++;
	epoch_odd(c);
	r = interp_step(dc->interp, c);
	epoch_even(c);
	return r;
}

/* What is not translated: 16 and 32 bits in the interpreter's own loop, which keeps what it decodes, the rest singly. */
static int run_legacy(struct cpu *c)
{
	struct dbt_cpu *dc = dbt_cpu(c);
	int r;

	fp_by(c);
	watch_foreign(c);
	epoch_odd(c);
	r = x86_64bit(&c->s) ? interp_step(dc->interp, c) : interp_run_on(dc->legacy, c, dc->unserved);
	epoch_even(c);
	return r;
}

/* Physical page of the code at rip. */
static int fetch(struct cpu *c, gva_t rip, gpa_t *page, bool *global)
{
	const struct tlb_fetch *f = c->tlb.fetch;
	gva_t at = rip & ~0xfffull;
	unsigned n = (at >> 12) & (TLB_FETCH_ENTRIES - 1);
	int r;

	if (f->tag[n] != at) {
		fp_by(c);
		r = cpu_fetch_page(c, rip, page);
		if (r)
			return r;
	}
	*page = f->page[n] & ~0xfffull;
	*global = !(f->local[n / 64] >> (n % 64) & 1);
	return CPU_OK;
}

/*
 * The block at rip; the exit that led here, if any, is linked to it. The epoch is odd from before x was read and stays so if
 * a block is returned. NULL with CPU_OK: interpret. Translating may wait for others, then x is forgotten.
 */
static int find(struct cpu *c, uint32_t mode, struct exit *x, struct block **out)
{
	struct dbt_cpu *dc = dbt_cpu(c);
	struct dbt *d = dc->d;
	struct block *b;
	bool global = false, global2 = true;
	gpa_t page, page2 = NO_PAGE;
	int r;

	*out = NULL;
	if (unlikely(mode_32bit(mode) && c->s.rip >= LAST_PAGE_32)) {
		epoch_even(c);
		return CPU_OK;
	}
	r = fetch(c, c->s.rip, &page, &global);
	if (r) {
		epoch_even(c);
		return r;
	}
	/* a fault on the next page counts only when the instruction does reach there: then the interpreter raises it */
	if (may_straddle(c->s.rip) && fetch(c, (c->s.rip | 0xfff) + 1, &page2, &global2))
		page2 = NO_PAGE;
	global &= global2;
	pthread_mutex_lock(&d->lock);
	dc->counters.lookups++;
	b = block_find(d, page, page2, c->s.rip, mode);
	if (b && x) {
		link_exit(d, c, x, b, global);
	} else if (!b) {
		uint64_t drops = d->drops, evictions = d->counters.evictions;

		epoch_even(c);
		fp_by(c);
		watch_stop(c, WATCH_LEFT); /* this may free blocks */
		b = translate_timed(d, c, c->s.rip, page, page2, mode);
		if (b && x && d->drops == drops && d->counters.evictions == evictions && !d->watch)
			link_exit(d, c, x, b, global); /* which nobody can have freed meanwhile */
	}
	if (b) {
		epoch_odd(c);
		*out = b;
		if (dc->indirect) {
			jc_insert(c, b->va, dbt_exec(d, b->entry_m));
			dc->super_local |= !global && (mode & MODE_CPL) != 3;
		}
		dc->indirect = false;
	} else {
		epoch_even(c);
	}
	pthread_mutex_unlock(&d->lock);
	return CPU_OK;
}

enum after { AFTER_FIND, AFTER_BOUNDARY, AFTER_STOP };

/* cpu->fault, to the handler; the jump cache is to know that, see slow_fault(). */
static enum after fault(struct cpu *c)
{
	struct dbt_cpu *dc = dbt_cpu(c);
	uint32_t mode;

	if (unlikely(dc->d->watch) || !event_fault_quick(c)) {
		epoch_even(c);
		fp_by(c);
		return event_deliver_fault(c) == CPU_STOP ? AFTER_STOP : AFTER_BOUNDARY;
	}
	mode = mode_of(c);
	if (mode == MODE_NONE)
		return AFTER_BOUNDARY;
	chain_check(c, mode);
	dc->indirect = true;
	return AFTER_FIND;
}

/* Another number after each block executed. */
static uint64_t watch_mark(const struct cpu *c)
{
	const struct dbt_hot *h = (const struct dbt_hot *)c->hot;

	return dbt_of(c)->watch->begun * (WATCH_LOG + 1) + (WATCH_LOG - h->log_left);
}

/*
 * Out of translated code under engine=verify: ends the stretch unless the next block goes on with it. left: what
 * watch_mark() said before; a kick may come before the first block. False: enough.
 */
static bool watch_left(struct cpu *c, enum dbt_exit why, uint64_t left)
{
	struct dbt_watch *w = dbt_of(c)->watch;
	bool nothing = left == watch_mark(c);

	switch (why) {
	case EXIT_LINK:
	case EXIT_INDIRECT:
		return true;
	case EXIT_LOG:
		watch_stop(c, WATCH_LEFT);
		break;
	case EXIT_FAULT:
		watch_stop(c, WATCH_FAULT);
		break;
	case EXIT_STEP:
		watch_stop(c, WATCH_STEP);
		break;
	case EXIT_KICK:
		if (dbt_hot(c)->exit_arg)
			w->at = (unsigned)dbt_hot(c)->exit_arg - 1;
		watch_stop(c, nothing ? WATCH_LEFT : WATCH_KICK);
		break;
	default:
		watch_stop(c, WATCH_BEHIND);
		break;
	}
	if (w->failed)
		c->stop = STOP_ERROR;
	return !w->failed;
}

/* Into translated code and out again; *x is the exit taken that could be linked. */
static enum after enter(struct cpu *c, const void *host, struct exit **x)
{
	struct dbt_cpu *dc = dbt_cpu(c);
	struct dbt_hot *h = dbt_hot(c);
	struct dbt_counters *n = &dc->counters;
	uint64_t left;

	if (mode_32bit(dc->mode))
		gpr_narrow(c);
	if (unlikely(dc->d->watch) && !dc->d->watch->active) {
		fp_by(c);
		dc->d->watch->enter(c);
	}
	left = unlikely(dc->d->watch) ? watch_mark(c) : 0;
	h->flags = flags_to_m(c->s.rflags);
	dbt_enter(c, host);
	c->s.rflags = flags_from_m(c->s.rflags, h->flags);
	*x = NULL;
	if (unlikely(dc->d->watch) && !watch_left(c, (enum dbt_exit)h->exit_code, left))
		return AFTER_STOP;
	switch ((enum dbt_exit)h->exit_code) {
	case EXIT_LINK:
		n->exits_link++;
		*x = (struct exit *)(uintptr_t)h->exit_arg;
		c->s.rip = (*x)->target;
		return AFTER_FIND;
	case EXIT_INDIRECT:
		n->exits_indirect++;
		if (unlikely((uint64_t)((int64_t)(c->s.rip << 16) >> 16) != c->s.rip)) {
			c->s.rip = h->from;
			c->s.gpr[RSP] += (uint64_t)h->undo;
			watch_stop(c, WATCH_BRANCH);
			return step(c) == CPU_STOP ? AFTER_STOP : AFTER_BOUNDARY;
		}
		dc->indirect = true;
		return AFTER_FIND;
	case EXIT_LOOKUP:
		n->exits_lookup++;
		return AFTER_FIND;
	case EXIT_LOG:
		return AFTER_FIND;
	case EXIT_FAULT:
		n->exits_fault++;
		return fault(c);
	case EXIT_STEP:
		n->exits_step++;
		return step(c) == CPU_STOP ? AFTER_STOP : AFTER_BOUNDARY;
	case EXIT_STOP:
		return AFTER_STOP;
	case EXIT_KICK:
		n->exits_kick++;
		return AFTER_BOUNDARY;
	case EXIT_BOUNDARY:
		n->exits_boundary++;
		break;
	}
	return AFTER_BOUNDARY;
}

/* Where rip leads, if the jump cache knows; the epoch is odd then. What it does not know it is to learn. */
static const void *enter_known(struct cpu *c)
{
	struct dbt_cpu *dc = dbt_cpu(c);
	uint64_t host;

	if (unlikely(dc->d->watch))
		return NULL;
	epoch_odd(c);
	host = jc_find(c, c->s.rip);
	dc->indirect |= !host;
	return (const void *)(uintptr_t)host;
}

/* Translated code until something needs a boundary. CPU_STOP or CPU_BOUNDARY. */
static int run_blocks(struct cpu *c)
{
	const void *host = enter_known(c);
	struct exit *x = NULL;
	struct block *b = NULL;
	enum after a;
	int r;

	for (;; host = NULL) {
		r = host ? CPU_OK : find(c, dbt_cpu(c)->mode, x, &b); /* may have changed on the way: far.c */
		if (b)
			host = dbt_exec(dbt_cpu(c)->d, b->start);
		if (r || !host)
			watch_stop(c, WATCH_LEFT);
		if (!r && !host)
			return step(c);
		if (r) {
			x = NULL;
			a = fault(c);
		} else {
			a = enter(c, host, &x);
		}
		if (a == AFTER_FIND)
			continue;
		epoch_even(c);
		return a == AFTER_STOP ? CPU_STOP : CPU_BOUNDARY;
	}
}

enum cpu_stop dbt_run(struct cpu *c)
{
	int r;

	interp_resume(dbt_cpu(c)->interp, c);
	interp_resume(dbt_cpu(c)->legacy, c);
	c->stop = STOP_NONE;
	gs_set(c);
	registry_enter(dbt_of(c)->decoded, c);
	tsc_set(c);
	for (;;) {
		uint32_t mode;

		r = boundary(c);
		if (r == CPU_STOP)
			break;
		mode = c->s.shadow || c->s.rflags & FLAG_RF ? MODE_NONE : mode_of(c);
		if (mode == MODE_NONE) {
			dbt_cpu(c)->unserved = atomic_load(&c->attention);
			r = run_legacy(c);
		} else {
			chain_check(c, mode);
			r = run_blocks(c);
		}
		if (r == CPU_STOP && (c->stop != STOP_HLT || c->s.activity == ACTIVITY_RUN))
			break;
	}
	epoch_even(c);
	fp_by(c);
	registry_exit(dbt_of(c)->decoded, c);
	return c->stop;
}
