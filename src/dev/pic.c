/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two 8259A, the second on the first's input 2, and their edge/level control registers. One lock for the pair;
 * the output wire is driven with it held and must lead to something that does not call back.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "dev/pc-devices.h"

#define CASCADE 2

struct pic_hw {
	uint8_t irr, imr, isr, lines, elcr;
	uint8_t base;       /* ICW2 */
	uint8_t priority;   /* the input with the highest */
	uint8_t step;       /* of initialisation: 0 done, 2..4 the ICW awaited */
	bool icw4;          /* is to come */
	bool single, level; /* ICW1 */
	bool auto_eoi, rotate_auto, nested;
	bool read_isr, poll, special_mask;
};

struct pics_hw {
	struct pic_hw pic[2];
};

struct pics {
	struct device device;
	struct pics_hw hw;
	pthread_mutex_t lock;
	struct irq_line out;
	_Atomic bool output;
};

/* Level 0..7 of the highest-priority bit, 8 if none. */
static unsigned priority_of(const struct pic_hw *p, uint8_t map)
{
	unsigned i;

	for (i = 0; i < 8; i++)
		if (map & 1u << ((i + p->priority) & 7))
			return i;
	return 8;
}

/* The input that may interrupt now, -1 if none. */
static int request(const struct pics *s, unsigned n)
{
	const struct pic_hw *p = &s->hw.pic[n];
	uint8_t served = p->isr;
	unsigned want = priority_of(p, p->irr & ~p->imr), held;

	if (want == 8)
		return -1;
	if (p->special_mask)
		served &= ~p->imr;
	/* special fully nested: what the slave's own priorities let through passes the master too */
	if (p->nested && n == 0)
		served &= ~(1u << CASCADE);
	held = priority_of(p, served);
	return want < held ? (int)((want + p->priority) & 7) : -1;
}

static void set_input(struct pic_hw *p, unsigned i, bool level)
{
	uint8_t bit = (uint8_t)(1u << i);

	if ((p->elcr | (p->level ? 0xff : 0)) & bit) {
		p->irr = level ? p->irr | bit : p->irr & ~bit;
	} else if (level && !(p->lines & bit)) {
		p->irr |= bit;
	} else if (!level) {
		p->irr &= ~bit; /* gone before it was acknowledged: the spurious interrupt */
	}
	p->lines = level ? p->lines | bit : p->lines & ~bit;
}

/* Slave's output to the master's input, master's output to the wire. */
static void update(struct pics *s)
{
	bool out;

	set_input(&s->hw.pic[0], CASCADE, request(s, 1) >= 0);
	out = request(s, 0) >= 0;
	if (out != atomic_load(&s->output)) {
		atomic_store(&s->output, out);
		irq_set(&s->out, out);
	}
}

static void acknowledge(struct pic_hw *p, unsigned i)
{
	uint8_t bit = (uint8_t)(1u << i);

	if (p->auto_eoi) {
		if (p->rotate_auto)
			p->priority = (i + 1) & 7;
	} else {
		p->isr |= bit;
	}
	if (!((p->elcr | (p->level ? 0xff : 0)) & bit))
		p->irr &= ~bit;
}

bool pic_pending(void *opaque)
{
	struct pics *s = container_of((struct device *)opaque, struct pics, device);

	return atomic_load(&s->output);
}

/* Input 7 when the request went away. */
int pic_take(void *opaque)
{
	struct pics *s = container_of((struct device *)opaque, struct pics, device);
	int vector, i, k;

	pthread_mutex_lock(&s->lock);
	i = request(s, 0);
	if (i < 0) {
		vector = s->hw.pic[0].base | 7;
	} else if (i == CASCADE) {
		k = request(s, 1);
		acknowledge(&s->hw.pic[0], CASCADE);
		if (k >= 0)
			acknowledge(&s->hw.pic[1], (unsigned)k);
		vector = s->hw.pic[1].base | (k >= 0 ? k : 7);
	} else {
		acknowledge(&s->hw.pic[0], (unsigned)i);
		vector = s->hw.pic[0].base | i;
	}
	update(s);
	pthread_mutex_unlock(&s->lock);
	return vector;
}

static void pic_set(void *opaque, unsigned irq, int level)
{
	struct pics *s = opaque;

	if (irq == CASCADE)
		return;
	pthread_mutex_lock(&s->lock);
	set_input(&s->hw.pic[irq >> 3], irq & 7, level);
	update(s);
	pthread_mutex_unlock(&s->lock);
}

/* ---- registers */

static void icw1(struct pic_hw *p, uint8_t v)
{
	uint8_t lines = p->lines, elcr = p->elcr, base = p->base;

	memset(p, 0, sizeof(*p));
	p->lines = lines;
	p->elcr = elcr;
	p->base = base;
	p->icw4 = v & 1;
	p->single = v & 2;
	p->level = v & 8;
	p->step = 2;
	if (p->level || elcr)
		p->irr = lines & (p->level ? 0xff : elcr);
}

static void ocw2(struct pic_hw *p, uint8_t v)
{
	unsigned command = v >> 5, i = v & 7, held = priority_of(p, p->isr);

	switch (command) {
	case 0: /* rotate in automatic EOI mode: clear, set */
	case 4:
		p->rotate_auto = command == 4;
		break;
	case 1: /* non-specific EOI; with rotation */
	case 5:
		if (held == 8)
			break;
		i = (held + p->priority) & 7;
		p->isr &= ~(1u << i);
		if (command == 5)
			p->priority = (i + 1) & 7;
		break;
	case 3: /* specific EOI; with rotation */
	case 7:
		p->isr &= ~(1u << i);
		if (command == 7)
			p->priority = (i + 1) & 7;
		break;
	case 6: /* set priority */
		p->priority = (i + 1) & 7;
		break;
	default:
		break;
	}
}

static void ocw3(struct pic_hw *p, uint8_t v)
{
	p->poll = v & 4;
	if (v & 2)
		p->read_isr = v & 1;
	if (v & 0x40)
		p->special_mask = v & 0x20;
}

static void write_data(struct pic_hw *p, uint8_t v)
{
	switch (p->step) {
	case 2:
		p->base = v & 0xf8;
		p->step = !p->single ? 3 : p->icw4 ? 4 : 0;
		break;
	case 3: /* how the two are connected: fixed */
		p->step = p->icw4 ? 4 : 0;
		break;
	case 4:
		p->nested = v & 0x10;
		p->auto_eoi = v & 2;
		p->step = 0;
		break;
	default:
		p->imr = v;
		break;
	}
}

static void pic_write(void *opaque, uint64_t offset, uint64_t value, unsigned n)
{
	struct pics *s = opaque;
	struct pic_hw *p = &s->hw.pic[n];
	uint8_t v = (uint8_t)value;

	pthread_mutex_lock(&s->lock);
	if (offset & 1)
		write_data(p, v);
	else if (v & 0x10)
		icw1(p, v);
	else if (v & 8)
		ocw3(p, v);
	else
		ocw2(p, v);
	update(s);
	pthread_mutex_unlock(&s->lock);
}

static uint8_t poll_read(struct pics *s, unsigned n)
{
	int i = request(s, n);

	s->hw.pic[n].poll = false;
	if (i < 0)
		return 0;
	acknowledge(&s->hw.pic[n], (unsigned)i);
	return (uint8_t)(0x80 | i);
}

static uint64_t pic_read(void *opaque, uint64_t offset, unsigned n)
{
	struct pics *s = opaque;
	struct pic_hw *p = &s->hw.pic[n];
	uint8_t v;

	pthread_mutex_lock(&s->lock);
	if (p->poll)
		v = poll_read(s, n);
	else if (offset & 1)
		v = p->imr;
	else
		v = p->read_isr ? p->isr : p->irr;
	update(s);
	pthread_mutex_unlock(&s->lock);
	return v;
}

static uint64_t master_read(void *opaque, uint64_t offset, unsigned size)
{
	return pic_read(opaque, offset, 0);
}
static void master_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	pic_write(opaque, offset, value, 0);
}
static uint64_t slave_read(void *opaque, uint64_t offset, unsigned size)
{
	return pic_read(opaque, offset, 1);
}
static void slave_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	pic_write(opaque, offset, value, 1);
}

/* Timer, keyboard, cascade; clock and coprocessor are edge-triggered for good. */
static const uint8_t elcr_writable[2] = { 0xf8, 0xde };

static uint64_t elcr_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pics *s = opaque;
	uint8_t v;

	pthread_mutex_lock(&s->lock);
	v = s->hw.pic[offset].elcr;
	pthread_mutex_unlock(&s->lock);
	return v;
}

static void elcr_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pics *s = opaque;
	struct pic_hw *p = &s->hw.pic[offset];

	pthread_mutex_lock(&s->lock);
	p->elcr = (uint8_t)value & elcr_writable[offset];
	p->irr = (p->irr & ~p->elcr) | (p->lines & p->elcr);
	update(s);
	pthread_mutex_unlock(&s->lock);
}

static const struct io_ops master_io = { master_read, master_write, 1, 1 };
static const struct io_ops slave_io = { slave_read, slave_write, 1, 1 };
static const struct io_ops elcr_io = { elcr_read, elcr_write, 1, 1 };

/* ---- the device */

static int pic_check(const void *opaque, struct err *e)
{
	const struct pics_hw *hw = opaque;

	for (unsigned n = 0; n < 2; n++) {
		const struct pic_hw *p = &hw->pic[n];

		if (p->base & 7 || p->priority > 7 || p->step == 1 || p->step > 4 || p->elcr & ~elcr_writable[n])
			return err_set(e, EINVAL, "pic: 8259 %u in an impossible state", n);
	}
	return 0;
}

#define PIC_FIELDS(n)                                                                                      \
	STATE_INT(struct pics_hw, pic[n].irr), STATE_INT(struct pics_hw, pic[n].imr),                      \
	STATE_INT(struct pics_hw, pic[n].isr), STATE_INT(struct pics_hw, pic[n].lines),                    \
	STATE_INT(struct pics_hw, pic[n].elcr), STATE_INT(struct pics_hw, pic[n].base),                    \
	STATE_INT(struct pics_hw, pic[n].priority), STATE_INT(struct pics_hw, pic[n].step),                \
	STATE_INT(struct pics_hw, pic[n].icw4), STATE_INT(struct pics_hw, pic[n].single),                  \
	STATE_INT(struct pics_hw, pic[n].level), STATE_INT(struct pics_hw, pic[n].auto_eoi),               \
	STATE_INT(struct pics_hw, pic[n].rotate_auto), STATE_INT(struct pics_hw, pic[n].nested),           \
	STATE_INT(struct pics_hw, pic[n].read_isr), STATE_INT(struct pics_hw, pic[n].poll),                \
	STATE_INT(struct pics_hw, pic[n].special_mask)

static const struct state_field fields[] = { PIC_FIELDS(0), PIC_FIELDS(1) };

static const struct state_desc pic_state = {
	.name = "pic", .version = 1, .size = sizeof(struct pics_hw),
	.fields = fields, .nfields = ARRAY_LEN(fields), .check = pic_check,
};

/* Wires keep their levels: those who drive them reset themselves. Everything masked, as firmware leaves it. */
static void pic_reset(struct device *d, enum reset_kind kind)
{
	struct pics *s = container_of(d, struct pics, device);

	pthread_mutex_lock(&s->lock);
	for (unsigned n = 0; n < 2; n++) {
		uint8_t lines = s->hw.pic[n].lines;

		s->hw.pic[n] = (struct pic_hw){ .lines = lines, .imr = 0xff, .base = n ? 0x70 : 0x08 };
	}
	update(s);
	pthread_mutex_unlock(&s->lock);
}

static void pic_loaded(struct device *d)
{
	struct pics *s = container_of(d, struct pics, device);

	pthread_mutex_lock(&s->lock);
	update(s);
	pthread_mutex_unlock(&s->lock);
}

static void pic_destroy(struct device *d)
{
	struct pics *s = container_of(d, struct pics, device);

	pthread_mutex_destroy(&s->lock);
	free(s);
}

static const struct device_ops pic_ops = {
	.state = &pic_state,
	.reset = pic_reset,
	.loaded = pic_loaded,
	.destroy = pic_destroy,
};

struct device *pic_create(struct device_env *env, struct err *e)
{
	struct pics *s = calloc(1, sizeof(*s));

	if (!s) {
		err_set(e, ENOMEM, "no memory for the 8259 pair");
		return NULL;
	}
	s->device = (struct device){ .ops = &pic_ops, .hw = &s->hw };
	pthread_mutex_init(&s->lock, NULL);
	pic_reset(&s->device, RESET_COLD);
	if (ports_map(env->ports, 0x20, 2, &master_io, s, "pic", e) ||
	    ports_map(env->ports, 0xa0, 2, &slave_io, s, "pic", e) ||
	    ports_map(env->ports, 0x4d0, 2, &elcr_io, s, "pic", e)) {
		pic_destroy(&s->device);
		return NULL;
	}
	return &s->device;
}

struct irq_line pic_input(struct device *d, unsigned irq)
{
	CHECK(irq < 16);
	return (struct irq_line){ pic_set, container_of(d, struct pics, device), irq };
}

void pic_set_output(struct device *d, struct irq_line out)
{
	container_of(d, struct pics, device)->out = out;
}
