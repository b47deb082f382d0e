/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bus between local APICs: who a destination names, and posting to it.
 *
 * A sender never touches a target's registers. It sets the vector's bit in the target's posted bitmap and notifies the
 * CPU; both are needless when the bit was set already, since whoever set it notifies. The trigger mode goes into a
 * second bitmap first. To choose targets, senders read one word that the owner publishes whenever what it is made of
 * changes. No locks anywhere here; the 8259 and the IOAPIC may call with theirs held.
 *
 * The APIC page is one page for all CPUs: which one is meant follows from the thread that accesses it. MMIO
 * callbacks do not know their CPU, so that is kept in a thread-local pointer.
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/err.h"
#include "dev/lapic-private.h"

/* struct lapic's match word: LDR below */
#define MATCH_X2APIC BIT(32)
#define MATCH_CLUSTER BIT(33)
#define MATCH_ENABLED BIT(34)  /* globally: takes INIT, SIPI, NMI, SMI */
#define MATCH_SOFTWARE BIT(35) /* takes fixed vectors */

static _Thread_local struct lapic *lapic_current;

/* ---- sending */

void lapic_post(struct lapic *l, uint8_t vector, bool level)
{
	uint64_t bit = BIT(vector & 63);
	unsigned i = vector >> 6;

	if (level)
		atomic_fetch_or(&l->posted_level[i], bit);
	else if (atomic_load(&l->posted_level[i]) & bit)
		atomic_fetch_and(&l->posted_level[i], ~bit);
	if (!(atomic_fetch_or(&l->posted[i], bit) & bit))
		cpu_notify(l->cpu, ATT_IRQ);
}

void lapic_publish(struct lapic *l)
{
	uint64_t match = l->hw.ldr;

	if (lapic_x2apic(l))
		match = MATCH_X2APIC;
	else if (l->hw.dfr >> 28 == 0)
		match |= MATCH_CLUSTER;
	if (lapic_enabled(l))
		match |= MATCH_ENABLED;
	if (l->hw.svr & SVR_ENABLE)
		match |= MATCH_SOFTWARE;
	atomic_store(&l->match, match);
	atomic_store(&l->lint0, lapic_enabled(l) ? l->hw.lvt[LVT_LINT0] :
			       l->cpu->id == 0	 ? (uint32_t)DELIVER_EXTINT << 8 :
						   LVT_MASKED);
}

static bool logical_match(const struct lapic *l, uint64_t match, uint32_t dest)
{
	uint32_t id = l->cpu->id, ldr = (uint32_t)match >> 24;

	if (match & MATCH_X2APIC)
		return dest >> 16 == id >> 4 && dest & 0xffff & 1u << (id & 15);
	if (dest > 0xff)
		return false;
	if (match & MATCH_CLUSTER)
		return (dest >> 4 == ldr >> 4 || dest >> 4 == 15) && dest & ldr & 15;
	return dest & ldr;
}

/* All ones in eight or in thirty-two bits is everybody: there is no CPU 255. */
static bool is_target(const struct lapic *l, const struct lapic_msg *m)
{
	uint64_t match = atomic_load(&l->match);

	if (!(match & MATCH_ENABLED))
		return false;
	if (m->delivery <= DELIVER_LOWEST && !(match & MATCH_SOFTWARE))
		return false;
	if (m->dest == ~0u || (!m->logical && m->dest == 0xff))
		return true;
	return m->logical ? logical_match(l, match, m->dest) : m->dest == l->cpu->id;
}

static void accept(struct lapic *l, const struct lapic_msg *m)
{
	struct cpu *c = l->cpu;

	switch (m->delivery) {
	case DELIVER_FIXED:
	case DELIVER_LOWEST:
		if (m->vector < 16)
			atomic_fetch_or(&l->posted_errors, ESR_RECEIVE_ILLEGAL);
		else
			lapic_post(l, m->vector, m->level);
		break;
	case DELIVER_SMI:
		cpu_notify(c, ATT_SMI);
		break;
	case DELIVER_NMI:
		cpu_notify(c, ATT_NMI);
		break;
	case DELIVER_INIT:
		cpu_notify(c, ATT_INIT);
		break;
	case DELIVER_SIPI:
		c->sipi_vector = m->vector;
		cpu_notify(c, ATT_SIPI);
		break;
	default: /* ExtINT by message: nothing is wired for it */
		break;
	}
}

/* One of those named, in turn: as fair as comparing priorities, and without looking at others' registers. */
static bool deliver_lowest(struct lapic_bus *b, const struct lapic_msg *m)
{
	unsigned turn = atomic_fetch_add(&b->turn, 1);

	for (unsigned i = 0; i < b->count; i++) {
		struct lapic *l = b->lapic[(turn + i) % b->count];

		if (l && is_target(l, m)) {
			accept(l, m);
			return true;
		}
	}
	return false;
}

bool lapic_deliver(struct lapic_bus *b, const struct lapic_msg *m)
{
	bool any = false;
	int r;

	if (unlikely(atomic_load(&b->machine->apic_host)) && (r = lapic_host_deliver(b, m)) >= 0)
		return r;
	if (m->delivery == DELIVER_LOWEST)
		return deliver_lowest(b, m);
	if (m->delivery == DELIVER_EXTINT || m->delivery == 3)
		return false;
	if (!m->logical && m->dest < b->count) {
		if (!b->lapic[m->dest] || !is_target(b->lapic[m->dest], m))
			return false;
		accept(b->lapic[m->dest], m);
		return true;
	}
	for (unsigned i = 0; i < b->count; i++) {
		if (b->lapic[i] && is_target(b->lapic[i], m)) {
			accept(b->lapic[i], m);
			any = true;
		}
	}
	return any;
}

bool lapic_deliver_msi(struct lapic_bus *b, uint64_t address, uint32_t data)
{
	struct lapic_msg m = {
		.dest = (uint32_t)bits(address, 19, 12),
		.logical = address & 4,
		.vector = (uint8_t)data,
		.delivery = (data >> 8) & 7,
		.level = data & 0x8000,
	};

	if (address >> 20 != 0xfee)
		return false;
	return lapic_deliver(b, &m);
}

/* Interprocessor interrupt: shorthands, then like any message. */
void lapic_send(struct lapic *l, uint32_t icr, uint32_t dest)
{
	struct lapic_bus *b = l->bus;
	unsigned shorthand = (icr >> 18) & 3;
	struct lapic_msg m = {
		.dest = dest, .logical = icr & 0x800, .vector = (uint8_t)icr, .delivery = (icr >> 8) & 7,
	};

	if (m.delivery == DELIVER_INIT && (icr & 0xc000) == 0x8000)
		return; /* level de-assert: only for APICs before the integrated ones */
	if (m.delivery <= DELIVER_LOWEST && m.vector < 16) {
		lapic_error(l, ESR_SEND_ILLEGAL);
		return;
	}
	if (!shorthand) {
		lapic_deliver(b, &m);
		return;
	}
	m.logical = false;
	m.dest = 0xff;
	if (m.delivery == DELIVER_LOWEST)
		m.delivery = DELIVER_FIXED;
	for (unsigned i = 0; i < b->count; i++) {
		struct lapic *t = b->lapic[i];
		bool wanted = shorthand == 1 ? t == l : shorthand == 2 || t != l;

		if (t && wanted && is_target(t, &m))
			accept(t, &m);
	}
}

/* ---- the 8259 pair */

bool lapic_extint(const struct lapic *l)
{
	uint32_t lint0 = atomic_load(&l->lint0);
	struct lapic_bus *b = l->bus;

	return !(lint0 & LVT_MASKED) && LVT_MODE(lint0) == DELIVER_EXTINT && b->pic_pending &&
	       b->pic_pending(b->pic_opaque);
}

void lapic_bus_pic_changed(struct lapic_bus *b, int level)
{
	if (!level)
		return;
	for (unsigned i = 0; i < b->count; i++) {
		struct lapic *l = b->lapic[i];
		uint32_t lint0 = l ? atomic_load(&l->lint0) : LVT_MASKED;

		if (l && lapic_host(l)) { /* knows whose LINT0 is open */
			cpu_notify(l->cpu, ATT_IRQ);
			continue;
		}
		if (lint0 & LVT_MASKED)
			continue;
		if (LVT_MODE(lint0) == DELIVER_EXTINT)
			cpu_notify(l->cpu, ATT_IRQ);
		else
			accept(l, &(struct lapic_msg){ .vector = (uint8_t)lint0, .delivery = LVT_MODE(lint0) });
	}
}

void lapic_bus_set_eoi(struct lapic_bus *b, void (*eoi)(void *opaque, uint8_t vector), void *opaque)
{
	b->eoi = eoi;
	b->eoi_opaque = opaque;
}

void lapic_bus_set_pic(struct lapic_bus *b, bool (*pending)(void *opaque), int (*take)(void *opaque), void *opaque)
{
	b->pic_pending = pending;
	b->pic_take = take;
	b->pic_opaque = opaque;
}

/* ---- the page */

static struct lapic *page_owner(const struct lapic_bus *b)
{
	struct lapic *l = lapic_current;

	return l && l->bus == b && lapic_enabled(l) && !lapic_x2apic(l) ? l : NULL;
}

static uint64_t page_read(void *opaque, uint64_t offset, unsigned size)
{
	struct lapic *l = page_owner(opaque);

	if (!l)
		return 0xffffffffu;
	return offset & 15 ? 0 : lapic_read(l, (unsigned)offset >> 4);
}

static void page_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct lapic *l = page_owner(opaque);

	if (l && !(offset & 15))
		lapic_write(l, (unsigned)offset >> 4, (uint32_t)value);
}

static const struct io_ops page_ops = { page_read, page_write, 4, 4 };

int lapic_map(struct lapic_bus *b, struct err *e)
{
	return mem_map_io(b->machine->mem, BASE_ADDRESS, 4096, &page_ops, b, "lapic", e);
}

struct lapic_bus *lapic_bus_create(struct machine *m, struct clock *clock)
{
	struct lapic_bus *b = calloc(1, sizeof(*b));

	if (b) {
		b->machine = m;
		b->clock = clock;
	}
	return b;
}

void lapic_bus_destroy(struct lapic_bus *b)
{
	free(b);
}

/* ---- threads */

/* Sent by the timer to its own thread: the attention word is all that is needed. */
static void timer_signal(int number, siginfo_t *info, void *ucontext)
{
	struct lapic *l = lapic_current;

	if (l && info->si_code == SI_TIMER) {
		l->armed = false;
		cpu_notify(l->cpu, ATT_IRQ);
	}
}

static int timer_signal_number(void)
{
	return SIGRTMIN + 3;
}

void lapic_thread_attach(struct lapic *l)
{
	struct sigaction sa = { .sa_sigaction = timer_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART };
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = timer_signal_number() };
	sigset_t open;

	lapic_current = l;
	sigfillset(&sa.sa_mask);
	event._sigev_un._tid = gettid();
	/* without a timer of our own the clock's, on another thread, will do */
	if (sigaction(timer_signal_number(), &sa, NULL) ||
	    timer_create(CLOCK_MONOTONIC, &event, &l->posix_timer))
		return;
	timer_cancel(&l->timer);
	l->attached = true;
	l->armed = false;
	sigemptyset(&open);
	sigaddset(&open, timer_signal_number());
	pthread_sigmask(SIG_UNBLOCK, &open, NULL);
	lapic_timer_update(l);
}

void lapic_thread_detach(struct lapic *l)
{
	sigset_t block;

	sigemptyset(&block);
	sigaddset(&block, timer_signal_number());
	pthread_sigmask(SIG_BLOCK, &block, NULL);
	if (l->attached)
		timer_delete(l->posix_timer);
	l->attached = false;
	lapic_current = NULL;
}
