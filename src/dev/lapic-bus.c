/* SPDX-License-Identifier: Apache-2.0 */
/* All local APICs of a machine: who a message is for, and handing it over. Any thread. */
#include <stdlib.h>
#include "base/err.h"
#include "dev/lapic-private.h"

extern const struct io_ops lapic_page_ops;

#define LAPIC_PAGE 0xfee00000ull

enum { FIXED = 0, LOWEST = 1, SMI = 2, NMI = 4, INIT = 5, SIPI = 6, EXTINT = 7 };

struct lapic_bus *lapic_bus_create(struct machine *m, struct clock *clock)
{
	struct lapic_bus *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->machine = m;
	b->clock = clock;
	if (mem_map_io(m->mem, LAPIC_PAGE, GUEST_PAGE, &lapic_page_ops, b, "lapic", NULL)) {
		free(b);
		return NULL;
	}
	return b;
}

void lapic_bus_destroy(struct lapic_bus *b)
{
	free(b);
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

void lapic_bus_pic_changed(struct lapic_bus *b, int level)
{
	if (level && b->count)
		cpu_notify(b->lapic[0]->cpu, ATT_IRQ);
}

static uint32_t load(const uint32_t *reg)
{
	return __atomic_load_n(reg, __ATOMIC_RELAXED);
}

/* wide: 32-bit destinations (from an x2APIC's ICR); else 8 bits, 0xff is everybody. */
static bool addressed(const struct lapic *l, uint32_t dest, bool logical, bool wide)
{
	uint32_t ldr;

	if (dest == (wide ? ~0u : 0xff))
		return true;
	if (!logical)
		return load(&l->hw.id) == dest;
	ldr = load(&l->hw.ldr);
	if (lapic_x2(l))
		return ldr >> 16 == dest >> 16 && (ldr & dest & 0xffff);
	ldr >>= 24;
	if (load(&l->hw.dfr) >> 28 == 0xf)
		return ldr & dest & 0xff; /* flat */
	return ldr >> 4 == (dest >> 4 & 0xf) && (ldr & dest & 0xf);
}

static void hand_over(struct lapic *l, uint8_t vector, uint8_t delivery, bool level)
{
	switch (delivery) {
	case FIXED:
	case LOWEST:
		if (vector >= 16 && lapic_enabled(l))
			lapic_post(l, vector, level);
		break;
	case NMI: cpu_notify(l->cpu, ATT_NMI); break;
	case INIT: cpu_notify(l->cpu, ATT_INIT); break;
	case SIPI:
		l->cpu->sipi_vector = vector;
		cpu_notify(l->cpu, ATT_SIPI);
		break;
	case EXTINT: cpu_notify(l->cpu, ATT_IRQ); break;
	default: break; /* SMI: there is no system management mode */
	}
}

static bool deliver(struct lapic_bus *b, const struct lapic_msg *m, bool wide, const struct lapic *not_to)
{
	struct lapic *chosen = NULL;
	unsigned start = m->delivery == LOWEST ? atomic_fetch_add(&b->rotate, 1) : 0;
	bool any = false;

	for (unsigned n = 0; n < b->count; n++) {
		struct lapic *l = b->lapic[(start + n) % b->count];

		if (l == not_to || !addressed(l, m->dest, m->logical, wide))
			continue;
		any = true;
		if (m->delivery != LOWEST)
			hand_over(l, m->vector, m->delivery, m->level);
		else if (!chosen && lapic_enabled(l))
			chosen = l;
	}
	if (chosen)
		hand_over(chosen, m->vector, FIXED, m->level);
	return any;
}

bool lapic_deliver(struct lapic_bus *b, const struct lapic_msg *msg)
{
	return deliver(b, msg, false, NULL);
}

bool lapic_deliver_msi(struct lapic_bus *b, uint64_t address, uint32_t data)
{
	struct lapic_msg m = {
		.dest = address >> 12 & 0xff,
		.vector = data & 0xff,
		.delivery = data >> 8 & 7,
		.logical = address >> 2 & 1,
		.level = false,
	};

	return address >> 20 == 0xfee && deliver(b, &m, false, NULL);
}

void lapic_icr_send(struct lapic *l, uint32_t low, uint32_t dest)
{
	struct lapic_msg m = {
		.dest = dest, .vector = low & 0xff, .delivery = low >> 8 & 7, .logical = low >> 11 & 1, .level = false,
	};

	if (m.delivery <= LOWEST && m.vector < 16) {
		lapic_error(l, ESR_SEND_ILLEGAL);
		return;
	}
	if (m.delivery == INIT && !(low >> 14 & 1))
		return; /* INIT level de-assert does nothing on these processors */
	switch (low >> 18 & 3) {
	case 0:
		deliver(l->bus, &m, lapic_x2(l), NULL);
		break;
	case 1:
		hand_over(l, m.vector, m.delivery, false);
		break;
	default:
		m.dest = ~0u;
		m.logical = false;
		deliver(l->bus, &m, true, (low >> 18 & 3) == 3 ? l : NULL);
		break;
	}
}
