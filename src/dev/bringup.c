/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bare devices to bring up the machine with, one CPU, no input, nothing saved. They go away as soon
 * as the real ones of this folder and of src/backend are there.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <pthread.h>
#include "dev/pc-devices.h"
#include "backend/chr.h"
#include "base/err.h"
struct simple {
	struct device d;
};
static void sdestroy(struct device *d)
{
}
static const struct device_ops sops = { .destroy = sdestroy };
/* ---- chr ---- */
struct chr {
	int fd;
	struct chr_front f;
};
struct chr *chr_open(struct evloop *l, const struct chr_config *c, struct err *e)
{
	struct chr *x = calloc(1, sizeof *x);
	x->fd = 1;
	return x;
}
void chr_close(struct chr *c)
{
	free(c);
}
void chr_attach(struct chr *c, const struct chr_front *f)
{
}
void chr_write(struct chr *c, const uint8_t *d, size_t n)
{
	if (write(1, d, n) < 0) {
	}
}
void chr_room_changed(struct chr *c)
{
}
void chr_restore_terminal(void)
{
}
/* ---- lapic ---- */
struct lapic_bus {
	struct machine *m;
	struct clock *clock;
	struct lapic *l[64];
	void (*eoi)(void *, uint8_t);
	void *eoi_o;
	bool (*pend)(void *);
	int (*take)(void *);
	void *pic_o;
};
struct lapic {
	struct device d;
	struct lapic_bus *b;
	struct cpu *c;
	_Atomic uint32_t post[8];
	uint32_t irr[8], isr[8], tmr[8];
	uint32_t tpr, svr, ldr, dfr, icr, icr2, lvt[7], init, div, id;
	uint64_t base, tscd;
	struct timer t;
	uint64_t start;
};
static struct lapic *L0;
struct lapic_bus *lapic_bus_create(struct machine *m, struct clock *c)
{
	struct lapic_bus *b = calloc(1, sizeof *b);
	b->m = m;
	b->clock = c;
	return b;
}
void lapic_bus_destroy(struct lapic_bus *b)
{
	free(b);
}
void lapic_bus_set_eoi(struct lapic_bus *b, void (*f)(void *, uint8_t), void *o)
{
	b->eoi = f;
	b->eoi_o = o;
}
void lapic_bus_set_pic(struct lapic_bus *b, bool (*p)(void *), int (*t)(void *), void *o)
{
	b->pend = p;
	b->take = t;
	b->pic_o = o;
}
void lapic_bus_pic_changed(struct lapic_bus *b, int level)
{
	if (b->l[0] && level)
		cpu_notify(b->l[0]->c, ATT_IRQ);
}
static void post(struct lapic *l, unsigned v)
{
	atomic_fetch_or(&l->post[v / 32], 1u << (v & 31));
	cpu_notify(l->c, ATT_IRQ);
}
static int hi(const uint32_t *r)
{
	for (int i = 7; i >= 0; i--)
		if (r[i])
			return i * 32 + 31 - __builtin_clz(r[i]);
	return -1;
}
static void merge(struct lapic *l)
{
	for (int i = 0; i < 8; i++) {
		uint32_t v = atomic_exchange(&l->post[i], 0);
		l->irr[i] |= v;
	}
}
static uint64_t period(struct lapic *l)
{
	static const int d[] = { 2, 4, 8, 16, 32, 64, 128, 1 };
	return (uint64_t)l->init * d[(l->div & 3) | ((l->div >> 1) & 4)];
}
static void tfire(void *o)
{
	struct lapic *l = o;
	uint32_t lv = l->lvt[0];
	if (!(lv & 0x10000))
		post(l, lv & 255);
	int mode = (lv >> 17) & 3;
	if (mode == 1 && l->init) {
		l->start += period(l);
		timer_arm(&l->t, l->start + period(l));
	}
	if (mode == 2)
		l->tscd = 0;
}
static void reset(struct device *d, enum reset_kind k)
{
	struct lapic *l = (void *)d;
	memset(l->irr, 0, 32);
	memset(l->isr, 0, 32);
	l->svr = 0xff;
	l->tpr = 0;
	l->dfr = ~0u;
	for (int i = 0; i < 7; i++)
		l->lvt[i] = 0x10000;
	if (!l->id)
		l->lvt[4] = 0x700;
	l->base = 0xfee00800 | (l->id ? 0 : 0x100);
	if (l->id)
		l->base &= ~0x100ull;
	timer_cancel(&l->t);
}
static const struct device_ops lops = { .reset = reset, .destroy = sdestroy };
static void eoi(struct lapic *l)
{
	int v = hi(l->isr);
	if (v >= 0) {
		l->isr[v / 32] &= ~(1u << (v & 31));
		if (l->b->eoi)
			l->b->eoi(l->b->eoi_o, v);
	}
	if (hi(l->irr) >= 0)
		cpu_notify(l->c, ATT_IRQ);
}
bool lapic_deliver(struct lapic_bus *b, const struct lapic_msg *m)
{
	if (m->delivery <= 1) {
		for (int i = 0; i < 64 && b->l[i]; i++) {
			struct lapic *l = b->l[i];
			bool hit = m->logical
					   ? 1
					   : (m->dest == l->id || m->dest == 255 || m->dest == ~0u);
			if (hit) {
				post(l, m->vector);
				return true;
			}
		}
	}
	return false;
}
bool lapic_deliver_msi(struct lapic_bus *b, uint64_t a, uint32_t d)
{
	return false;
}
static uint64_t rd(struct lapic *l, unsigned r)
{
	switch (r) {
	case 2:
		return l->base & 0x400 ? l->id : l->id << 24;
	case 3:
		return 0x50014;
	case 8:
		return l->tpr;
	case 0xd:
		return l->ldr;
	case 0xe:
		return l->dfr;
	case 0xf:
		return l->svr;
	case 0x30:
		return l->icr;
	case 0x31:
		return l->icr2;
	case 0x38:
		return l->init;
	case 0x3e:
		return l->div;
	case 0x39: {
		if (!l->init || !period(l))
			return 0;
		uint64_t p = period(l), n = clock_now(l->b->clock) - l->start;
		if (((l->lvt[0] >> 17) & 3) == 1)
			n %= p;
		if (n >= p)
			return 0;
		return l->init - (n * l->init / p);
	}
	}
	if (r >= 0x10 && r < 0x18)
		return l->isr[r - 0x10];
	if (r >= 0x20 && r < 0x28) {
		merge(l);
		return l->irr[r - 0x20];
	}
	if (r >= 0x32 && r < 0x38)
		return l->lvt[r == 0x32 ? 0 : r - 0x32];
	return 0;
}
static void wr(struct lapic *l, unsigned r, uint64_t v)
{
	switch (r) {
	case 8:
		l->tpr = v & 255;
		cpu_notify(l->c, ATT_IRQ);
		return;
	case 0xb:
		eoi(l);
		return;
	case 0xd:
		l->ldr = v;
		return;
	case 0xe:
		l->dfr = v;
		return;
	case 0xf:
		l->svr = v;
		return;
	case 0x31:
		l->icr2 = v;
		return;
	case 0x3e:
		l->div = v & 0xb;
		return;
	case 0x38:
		l->init = v;
		l->start = clock_now(l->b->clock);
		if (v)
			timer_arm(&l->t, l->start + period(l));
		else
			timer_cancel(&l->t);
		return;
	case 0x30:
		l->icr = v;
		{
			int sh = (v >> 18) & 3, dm = (v >> 8) & 7;
			if (sh == 1 || (sh == 0) || sh == 2) {
				if (dm == 0)
					post(l, v & 255);
			}
		}
		return;
	case 0x3f:
		post(l, v & 255);
		return;
	}
	if (r >= 0x32 && r < 0x38)
		l->lvt[r - 0x32] = v;
}
static uint64_t mrd(void *o, uint64_t off, unsigned s)
{
	return rd(L0, off >> 4);
}
static void mwr(void *o, uint64_t off, uint64_t v, unsigned s)
{
	wr(L0, off >> 4, v);
}
static const struct io_ops mops = { mrd, mwr, 4, 4 };
struct lapic *lapic_create(struct lapic_bus *b, struct cpu *c, struct err *e)
{
	struct lapic *l = calloc(1, sizeof *l);
	l->d.ops = &lops;
	l->b = b;
	l->c = c;
	l->id = c->id;
	b->l[c->id] = l;
	timer_init(&l->t, b->clock, tfire, l);
	if (!c->id) {
		L0 = l;
		mem_map_io(b->m->mem, 0xfee00000, 4096, &mops, l, "lapic", e);
	}
	return l;
}
struct device *lapic_device(struct lapic *l)
{
	return &l->d;
}
static int ipend(void *o)
{
	struct lapic *l = o;
	merge(l);
	int v = hi(l->irr), s = hi(l->isr);
	int ppr = l->tpr > (s < 0 ? 0 : s) ? l->tpr : (s < 0 ? 0 : s);
	if (v >= 0 && (v >> 4) > (ppr >> 4))
		return v;
	if (!l->id && l->b->pend && !(l->lvt[4] & 0x10000 ? 1 : 0) && l->b->pend(l->b->pic_o))
		return 256;
	return -1;
}
static int itake(void *o)
{
	struct lapic *l = o;
	int v = ipend(o);
	if (v < 0)
		return -1;
	if (v == 256)
		return l->b->take(l->b->pic_o);
	l->irr[v / 32] &= ~(1u << (v & 31));
	l->isr[v / 32] |= 1u << (v & 31);
	return v;
}
static uint64_t c8r(void *o)
{
	return ((struct lapic *)o)->tpr >> 4;
}
static void c8w(void *o, uint64_t v)
{
	((struct lapic *)o)->tpr = v << 4;
	cpu_notify(((struct lapic *)o)->c, ATT_IRQ);
}
static int mr(void *o, uint32_t i, uint64_t *v)
{
	struct lapic *l = o;
	if (i == 0x1b) {
		*v = l->base;
		return 0;
	}
	if (i == 0x6e0) {
		*v = l->tscd;
		return 0;
	}
	if (i >= 0x800 && i < 0x900 && (l->base & 0x400)) {
		*v = i == 0x830 ? l->icr | (uint64_t)l->icr2 << 32 : rd(l, i - 0x800);
		return 0;
	}
	return -1;
}
static int mw(void *o, uint32_t i, uint64_t v)
{
	struct lapic *l = o;
	if (i == 0x1b) {
		l->base = v;
		return 0;
	}
	if (i == 0x6e0) {
		l->tscd = v;
		if (v) {
			uint64_t now = clock_tsc(l->b->clock);
			timer_arm(&l->t,
				  clock_now(l->b->clock) +
					  (v > now ? clock_tsc_to_ns(l->b->clock, v - now) : 0));
		} else
			timer_cancel(&l->t);
		return 0;
	}
	if (i >= 0x800 && i < 0x900 && (l->base & 0x400)) {
		if (i == 0x830)
			l->icr2 = v >> 32;
		wr(l, i - 0x800, (uint32_t)v);
		return 0;
	}
	return -1;
}
const struct cpu_bus lapic_cpu_bus = { ipend, itake, c8r, c8w, mr, mw };
uint64_t lapic_timer_deadline(const struct lapic *l)
{
	return ~0ull;
}
/* ---- uart tx only, with irq for tx ---- */
struct uart {
	struct device d;
	struct chr *c;
	struct irq_line irq;
	uint8_t ier, lcr, mcr, scr, fcr, dl, dm;
	bool thri;
};
static void uirq(struct uart *u)
{
	irq_set(&u->irq, (u->ier & 2) && u->thri);
}
static uint64_t urd(void *o, uint64_t r, unsigned s)
{
	struct uart *u = o;
	switch (r) {
	case 0:
		return u->lcr & 0x80 ? u->dl : 0;
	case 1:
		return u->lcr & 0x80 ? u->dm : u->ier;
	case 2: {
		uint8_t v = 1;
		if ((u->ier & 2) && u->thri) {
			v = 2;
			u->thri = 0;
			uirq(u);
		}
		return v | (u->fcr & 1 ? 0xc0 : 0);
	}
	case 3:
		return u->lcr;
	case 4:
		return u->mcr;
	case 5:
		return 0x60;
	case 6:
		return (u->mcr & 0x10) ? ((u->mcr & 1) << 5 | (u->mcr & 2) << 3 |
					  (u->mcr & 4) << 4 | (u->mcr & 8) << 4)
				       : 0xb0;
	case 7:
		return u->scr;
	}
	return 0;
}
static void uwr(void *o, uint64_t r, uint64_t v, unsigned s)
{
	struct uart *u = o;
	uint8_t b = v;
	switch (r) {
	case 0:
		if (u->lcr & 0x80)
			u->dl = v;
		else {
			chr_write(u->c, &b, 1);
			u->thri = 1;
			uirq(u);
		}
		return;
	case 1:
		if (u->lcr & 0x80)
			u->dm = v;
		else {
			if ((v & 2) && !(u->ier & 2))
				u->thri = 1;
			u->ier = v & 15;
			uirq(u);
		}
		return;
	case 2:
		u->fcr = v;
		return;
	case 3:
		u->lcr = v;
		return;
	case 4:
		u->mcr = v;
		return;
	case 7:
		u->scr = v;
	}
}
static const struct io_ops uops = { urd, uwr, 1, 1 };
struct device *uart_create(struct device_env *e, unsigned i, uint16_t p, struct irq_line irq,
			   struct chr *c, struct err *er)
{
	struct uart *u = calloc(1, sizeof *u);
	u->d.ops = &sops;
	u->c = c;
	u->irq = irq;
	ports_map(e->ports, p, 8, &uops, u, "uart", er);
	return &u->d;
}
/* ---- pic: 8259 pair, simple ---- */
struct pic {
	struct device d;
	struct irq_line out;
	uint8_t irr[2], isr[2], imr[2], base[2], icw[2], elcr[2];
	uint8_t lines[2];
	int rr[2];
};
static struct pic *P;
static bool ppend(struct pic *p)
{
	uint8_t s = p->irr[1] & ~p->imr[1];
	uint8_t m = p->irr[0] | (s ? 4 : 0);
	m &= ~p->imr[0];
	if (!m)
		return false;
	return !p->isr[0] || __builtin_ctz(m) <= __builtin_ctz(p->isr[0]);
}
static void pupd(struct pic *p)
{
	irq_set(&p->out, ppend(p));
}
static void pset(void *o, unsigned n, int l)
{
	struct pic *p = o;
	uint8_t b = 1 << (n & 7);
	int k = n >> 3;
	if (l) {
		if (!(p->lines[k] & b))
			p->irr[k] |= b;
		p->lines[k] |= b;
	} else {
		p->lines[k] &= ~b;
	}
	pupd(p);
}
bool pic_pending(void *o)
{
	return ppend(o);
}
int pic_take(void *o)
{
	struct pic *p = o;
	if (!ppend(p))
		return -1;
	uint8_t s = p->irr[1] & ~p->imr[1];
	uint8_t m = (p->irr[0] | (s ? 4 : 0)) & ~p->imr[0];
	int n = __builtin_ctz(m);
	if (n == 2) {
		int k = __builtin_ctz(s);
		p->irr[1] &= ~(1 << k);
		p->isr[1] |= 1 << k;
		p->isr[0] |= 4;
		return p->base[1] + k;
	}
	p->irr[0] &= ~(1 << n);
	p->isr[0] |= 1 << n;
	return p->base[0] + n;
}
static uint64_t prd(void *o, uint64_t r, unsigned s)
{
	int k = (intptr_t)o;
	struct pic *p = P;
	return r ? p->imr[k] : (p->rr[k] ? p->isr[k] : p->irr[k]);
}
static void pwr(void *o, uint64_t r, uint64_t v, unsigned s)
{
	int k = (intptr_t)o;
	struct pic *p = P;
	if (!r) {
		if (v & 0x10) {
			p->icw[k] = 1;
			p->imr[k] = 0;
			p->irr[k] = p->isr[k] = 0;
		} else if (v & 8) {
			if (v & 2)
				p->rr[k] = v & 1;
		} else if ((v & 0xe0) == 0x20) {
			if (p->isr[k])
				p->isr[k] &= p->isr[k] - 1;
		} else if ((v & 0xe0) == 0x60)
			p->isr[k] &= ~(1 << (v & 7));
	} else {
		if (p->icw[k] == 1) {
			p->base[k] = v & 0xf8;
			p->icw[k] = 2;
		} else if (p->icw[k] == 2)
			p->icw[k] = 3;
		else if (p->icw[k] == 3)
			p->icw[k] = 0;
		else
			p->imr[k] = v;
	}
	pupd(p);
}
static const struct io_ops pops = { prd, pwr, 1, 1 };
static uint64_t erd(void *o, uint64_t r, unsigned s)
{
	return P->elcr[r];
}
static void ewr(void *o, uint64_t r, uint64_t v, unsigned s)
{
	P->elcr[r] = v;
}
static const struct io_ops eops = { erd, ewr, 1, 1 };
struct device *pic_create(struct device_env *e, struct err *er)
{
	struct pic *p = P = calloc(1, sizeof *p);
	p->d.ops = &sops;
	p->imr[0] = p->imr[1] = 0xff;
	ports_map(e->ports, 0x20, 2, &pops, (void *)0, "pic", er);
	ports_map(e->ports, 0xa0, 2, &pops, (void *)1, "pic", er);
	ports_map(e->ports, 0x4d0, 2, &eops, p, "elcr", er);
	return &p->d;
}
struct irq_line pic_input(struct device *d, unsigned i)
{
	return (struct irq_line){ pset, d, i };
}
void pic_set_output(struct device *d, struct irq_line l)
{
	((struct pic *)d)->out = l;
}
/* ---- ioapic ---- */
struct ioapic {
	struct device d;
	struct lapic_bus *b;
	uint32_t sel, id;
	uint64_t r[24];
	uint8_t line[24];
};
static void ifire(struct ioapic *a, int n)
{
	uint64_t r = a->r[n];
	if (r & 0x10000)
		return;
	if ((r & 0x8000) && (r & 0x4000))
		return;
	struct lapic_msg m = { .dest = r >> 56,
			       .vector = r,
			       .delivery = (r >> 8) & 7,
			       .logical = (r >> 11) & 1,
			       .level = (r >> 15) & 1 };
	if (r & 0x8000)
		a->r[n] |= 0x4000;
	lapic_deliver(a->b, &m);
}
static void iset(void *o, unsigned n, int l)
{
	struct ioapic *a = o;
	int was = a->line[n];
	a->line[n] = l;
	if (l && (!was || (a->r[n] & 0x8000)))
		ifire(a, n);
}
static uint64_t iord(void *o, uint64_t r, unsigned s)
{
	struct ioapic *a = o;
	if (r == 0)
		return a->sel;
	if (r == 0x10) {
		if (a->sel == 0)
			return a->id;
		if (a->sel == 1)
			return 0x170011;
		if (a->sel >= 0x10 && a->sel < 0x40) {
			uint64_t v = a->r[(a->sel - 0x10) / 2];
			return a->sel & 1 ? v >> 32 : (uint32_t)v;
		}
	}
	return 0;
}
static void iowr(void *o, uint64_t r, uint64_t v, unsigned s)
{
	struct ioapic *a = o;
	if (r == 0)
		a->sel = v & 255;
	if (r == 0x10) {
		if (a->sel == 0)
			a->id = v;
		if (a->sel >= 0x10 && a->sel < 0x40) {
			int n = (a->sel - 0x10) / 2;
			if (a->sel & 1)
				a->r[n] = (a->r[n] & 0xffffffff) | v << 32;
			else {
				a->r[n] = (a->r[n] & ~0xffffffffull) | (v & ~0x5000) |
					  (a->r[n] & 0x4000);
				if (!(v & 0x8000))
					a->r[n] &= ~0x4000ull;
				if (a->line[n] && (v & 0x8000))
					ifire(a, n);
			}
		}
	}
}
static const struct io_ops ioops = { iord, iowr, 4, 4 };
static void ireset(struct device *d, enum reset_kind k)
{
	struct ioapic *a = (void *)d;
	for (int i = 0; i < 24; i++)
		a->r[i] = 0x10000;
}
static const struct device_ops iodops = { .reset = ireset, .destroy = sdestroy };
struct device *ioapic_create(struct device_env *e, struct lapic_bus *b, struct err *er)
{
	struct ioapic *a = calloc(1, sizeof *a);
	a->d.ops = &iodops;
	a->b = b;
	ireset(&a->d, 0);
	mem_map_io(e->mem, 0xfec00000, 4096, &ioops, a, "ioapic", er);
	return &a->d;
}
struct irq_line ioapic_input(struct device *d, unsigned p)
{
	return (struct irq_line){ iset, d, p };
}
void ioapic_eoi(void *o, uint8_t v)
{
	struct ioapic *a = o;
	for (int i = 0; i < 24; i++)
		if ((a->r[i] & 0x4000) && (a->r[i] & 255) == v) {
			a->r[i] &= ~0x4000ull;
			if (a->line[i])
				ifire(a, i);
		}
}
/* ---- pit ---- */
struct pit {
	struct device d;
	struct clock *c;
	struct irq_line irq;
	struct {
		uint16_t reload;
		uint8_t mode, rw, wl, rl, latched;
		uint16_t latch, wlo;
		uint64_t start;
	} ch[3];
	uint8_t p61;
	struct timer t;
};
#define PN(n) ((uint64_t)(n)*1000000000ull / 1193182)
static uint64_t ticks(struct pit *p, int c)
{
	return (clock_now(p->c) - p->ch[c].start) * 1193182ull / 1000000000ull;
}
static uint16_t cnt(struct pit *p, int c)
{
	uint32_t rl = p->ch[c].reload ? p->ch[c].reload : 65536;
	uint64_t t = ticks(p, c);
	if (p->ch[c].mode == 2 || p->ch[c].mode == 3)
		return rl - t % rl;
	return rl - t;
}
static void pt(void *o)
{
	struct pit *p = o;
	irq_pulse(&p->irq);
	uint32_t rl = p->ch[0].reload ? p->ch[0].reload : 65536;
	if (p->ch[0].mode == 2 || p->ch[0].mode == 3)
		timer_arm(&p->t, p->t.deadline == TIMER_NEVER ? clock_now(p->c) + PN(rl)
							      : clock_now(p->c) + PN(rl));
}
static uint64_t pird(void *o, uint64_t r, unsigned s)
{
	struct pit *p = o;
	if (r > 2)
		return 0;
	uint16_t v = p->ch[r].latched ? p->ch[r].latch : cnt(p, r);
	if (p->ch[r].rw == 1 || (p->ch[r].rw == 3 && !p->ch[r].rl)) {
		if (p->ch[r].rw == 3)
			p->ch[r].rl = 1;
		else
			p->ch[r].latched = 0;
		return v & 255;
	}
	p->ch[r].rl = 0;
	p->ch[r].latched = 0;
	return v >> 8;
}
static void piwr(void *o, uint64_t r, uint64_t v, unsigned s)
{
	struct pit *p = o;
	if (r == 3) {
		int c = v >> 6;
		if (c == 3)
			return;
		int rw = (v >> 4) & 3;
		if (!rw) {
			p->ch[c].latch = cnt(p, c);
			p->ch[c].latched = 1;
			return;
		}
		p->ch[c].rw = rw;
		p->ch[c].mode = (v >> 1) & 7;
		if (p->ch[c].mode > 5)
			p->ch[c].mode &= 3;
		p->ch[c].wl = p->ch[c].rl = 0;
		if (c == 0)
			timer_cancel(&p->t);
		return;
	}
	if (p->ch[r].rw == 1)
		p->ch[r].reload = v;
	else if (p->ch[r].rw == 2)
		p->ch[r].reload = v << 8;
	else if (!p->ch[r].wl) {
		p->ch[r].wlo = v;
		p->ch[r].wl = 1;
		return;
	} else {
		p->ch[r].reload = p->ch[r].wlo | v << 8;
		p->ch[r].wl = 0;
	}
	p->ch[r].start = clock_now(p->c);
	if (r == 0)
		timer_arm(&p->t, p->ch[0].start + PN(p->ch[0].reload ? p->ch[0].reload : 65536));
}
static const struct io_ops piops = { pird, piwr, 1, 1 };
static uint64_t r61(void *o, uint64_t r, unsigned s)
{
	struct pit *p = o;
	uint32_t rl = p->ch[2].reload ? p->ch[2].reload : 65536;
	bool out = p->ch[2].mode == 0 ? ticks(p, 2) >= rl : (ticks(p, 2) % rl) >= rl / 2;
	static int tog;
	tog ^= 0x10;
	return (p->p61 & 3) | (out ? 0x20 : 0) | tog;
}
static void w61(void *o, uint64_t r, uint64_t v, unsigned s)
{
	struct pit *p = o;
	if ((v & 1) && !(p->p61 & 1))
		p->ch[2].start = clock_now(p->c);
	p->p61 = v;
}
static const struct io_ops o61 = { r61, w61, 1, 1 };
struct device *pit_create(struct device_env *e, struct irq_line irq, struct err *er)
{
	struct pit *p = calloc(1, sizeof *p);
	p->d.ops = &sops;
	p->c = e->clock;
	p->irq = irq;
	timer_init(&p->t, e->clock, pt, p);
	ports_map(e->ports, 0x40, 4, &piops, p, "pit", er);
	ports_map(e->ports, 0x61, 1, &o61, p, "p61", er);
	return &p->d;
}
/* ---- rtc ---- */
struct rtc {
	struct device d;
	uint8_t idx, r[128];
};
static uint8_t bcd(int v)
{
	return v / 10 << 4 | v % 10;
}
static uint64_t rrd(void *o, uint64_t r, unsigned s)
{
	struct rtc *c = o;
	if (!r)
		return c->idx;
	time_t t = time(0);
	struct tm m;
	gmtime_r(&t, &m);
	switch (c->idx) {
	case 0:
		return bcd(m.tm_sec);
	case 2:
		return bcd(m.tm_min);
	case 4:
		return bcd(m.tm_hour);
	case 6:
		return m.tm_wday + 1;
	case 7:
		return bcd(m.tm_mday);
	case 8:
		return bcd(m.tm_mon + 1);
	case 9:
		return bcd(m.tm_year % 100);
	case 0x32:
		return 0x20;
	case 10:
		return 0x26;
	case 11:
		return c->r[11] | 2;
	case 12:
		return 0;
	case 13:
		return 0x80;
	}
	return c->r[c->idx];
}
static void rwr(void *o, uint64_t r, uint64_t v, unsigned s)
{
	struct rtc *c = o;
	if (!r)
		c->idx = v & 127;
	else
		c->r[c->idx] = v;
}
static const struct io_ops rops = { rrd, rwr, 1, 1 };
struct device *rtc_create(struct device_env *e, struct irq_line irq, struct err *er)
{
	struct rtc *c = calloc(1, sizeof *c);
	c->d.ops = &sops;
	ports_map(e->ports, 0x70, 2, &rops, c, "rtc", er);
	return &c->d;
}
void rtc_cmos_set(struct device *d, uint8_t i, uint8_t v)
{
	((struct rtc *)d)->r[i] = v;
}
/* ---- pm ---- */
struct pm {
	struct device d;
	struct clock *c;
	const struct power_ops *p;
	uint16_t sts, en, cnt;
};
static uint64_t pmrd(void *o, uint64_t r, unsigned s)
{
	struct pm *p = o;
	uint64_t b = 0;
	uint32_t t = (uint32_t)(clock_now(p->c) * 3579545ull / 1000000000ull);
	uint8_t raw[64] = { 0 };
	memcpy(raw, &p->sts, 2);
	memcpy(raw + 2, &p->en, 2);
	uint16_t c = p->cnt | 1;
	memcpy(raw + 4, &c, 2);
	memcpy(raw + 8, &t, 4);
	memcpy(&b, raw + r, s);
	return b;
}
static void pmwr(void *o, uint64_t r, uint64_t v, unsigned s)
{
	struct pm *p = o;
	if (r == 2)
		p->en = v;
	if (r == 4) {
		p->cnt = v & ~0x2000;
		if (v & 0x2000)
			p->p->off(p->p->opaque);
	}
}
static const struct io_ops pmops = { pmrd, pmwr, 1, 4 };
struct device *acpi_pm_create(struct device_env *e, struct irq_line sci, const struct power_ops *p,
			      struct err *er)
{
	struct pm *x = calloc(1, sizeof *x);
	x->d.ops = &sops;
	x->c = e->clock;
	x->p = p;
	ports_map(e->ports, ACPI_PM_PORT, 64, &pmops, x, "pm", er);
	return &x->d;
}
void acpi_pm_power_button(struct device *d)
{
}
static uint64_t r64(void *o, uint64_t r, unsigned s)
{
	return 0;
}
static void w64(void *o, uint64_t r, uint64_t v, unsigned s)
{
	const struct power_ops *p = o;
	if (v == 0xfe)
		p->reset(p->opaque);
}
static void wcf9(void *o, uint64_t r, uint64_t v, unsigned s)
{
	const struct power_ops *p = o;
	if (v & 4)
		p->reset(p->opaque);
}
static const struct io_ops k64 = { r64, w64, 1, 1 }, kcf9 = { r64, wcf9, 1, 1 };
struct device *reset_port_create(struct device_env *e, const struct power_ops *p, struct err *er)
{
	struct simple *x = calloc(1, sizeof *x);
	x->d.ops = &sops;
	ports_map(e->ports, 0x64, 1, &k64, (void *)p, "kbd", er);
	ports_map(e->ports, 0xcf9, 1, &kcf9, (void *)p, "cf9", er);
	return &x->d;
}
static void wex(void *o, uint64_t r, uint64_t v, unsigned s)
{
	const struct power_ops *p = o;
	p->exit(p->opaque, (int)((v << 1 | 1) & 255));
}
static const struct io_ops kex = { r64, wex, 1, 4 };
struct device *exit_port_create(struct device_env *e, uint16_t port, const struct power_ops *p,
				struct err *er)
{
	struct simple *x = calloc(1, sizeof *x);
	x->d.ops = &sops;
	ports_map(e->ports, port, 1, &kex, (void *)p, "exit", er);
	return &x->d;
}
static void wdb(void *o, uint64_t r, uint64_t v, unsigned s)
{
}
static const struct io_ops kdb = { r64, wdb, 1, 1 };
struct device *debug_port_create(struct device_env *e, struct chr *c, struct err *er)
{
	struct simple *x = calloc(1, sizeof *x);
	x->d.ops = &sops;
	ports_map(e->ports, 0x80, 1, &kdb, 0, "post", er);
	return &x->d;
}
