/* SPDX-License-Identifier: Apache-2.0 */
/* The pair of 8259 interrupt controllers, with ELCR. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "dev/pc-devices.h"

struct chip {
	uint8_t irr, imr, isr;
	uint8_t lines;	   /* levels of the inputs */
	uint8_t base;	   /* vector of input 0 */
	uint8_t lowest;	   /* input of lowest priority: 7 without rotation */
	uint8_t elcr;	   /* inputs that are level-triggered */
	uint8_t init;	   /* next ICW expected: 0 none, 2, 3, 4 */
	uint8_t icw1, icw4;
	uint8_t read_isr, poll, special_mask, rotate_aeoi;
};

struct pic_hw { /* saved */
	struct chip chip[2]; /* master, slave */
};

struct pic {
	struct device device;
	struct pic_hw hw;
	pthread_mutex_t lock;
	struct irq_line out;
	struct ports *ports;
	int level; /* of out */
};

#define AEOI 2
#define SPECIAL_NESTED 0x10
#define CASCADE 2

/* Rank of an input: 0 is served first. */
static unsigned rank(const struct chip *c, unsigned i)
{
	return (i - c->lowest - 1) & 7;
}

static int best(const struct chip *c, uint8_t bits)
{
	for (unsigned r = 0; r < 8; r++) {
		unsigned i = (c->lowest + 1 + r) & 7;

		if (bits & 1u << i)
			return (int)i;
	}
	return -1;
}

/* The input this chip asks service for, or -1. */
static int asks(const struct chip *c, bool master)
{
	int i = best(c, c->irr & ~c->imr), in_service;
	uint8_t blocking = c->isr;

	if (i < 0)
		return -1;
	if (c->special_mask)
		blocking &= (uint8_t)~c->imr;
	/* A slave's second interrupt must get through while its first is in service. */
	if (master && (c->icw4 & SPECIAL_NESTED) && i == CASCADE)
		blocking &= (uint8_t)~(1u << CASCADE);
	in_service = best(c, blocking);
	if (in_service >= 0 && rank(c, (unsigned)in_service) <= rank(c, (unsigned)i))
		return -1;
	return i;
}

static void input(struct chip *c, unsigned i, int level)
{
	uint8_t bit = (uint8_t)(1u << i);

	if (c->elcr & bit)
		c->irr = level ? c->irr | bit : c->irr & (uint8_t)~bit;
	else if (level && !(c->lines & bit))
		c->irr |= bit;
	else if (!level)
		c->irr &= (uint8_t)~bit; /* an edge that was not acknowledged in time is gone */
	c->lines = level ? c->lines | bit : c->lines & (uint8_t)~bit;
}

static void update(struct pic *p)
{
	int level;

	input(&p->hw.chip[0], CASCADE, asks(&p->hw.chip[1], false) >= 0);
	level = asks(&p->hw.chip[0], true) >= 0;
	if (level != p->level) {
		p->level = level;
		irq_set(&p->out, level);
	}
}

static void line_set(void *opaque, unsigned pin, int level)
{
	struct pic *p = opaque;

	pthread_mutex_lock(&p->lock);
	input(&p->hw.chip[pin >> 3], pin & 7, level);
	update(p);
	pthread_mutex_unlock(&p->lock);
}

static void chip_ack(struct chip *c, int i)
{
	uint8_t bit = (uint8_t)(1u << i);

	if (!(c->elcr & bit))
		c->irr &= (uint8_t)~bit;
	if (!(c->icw4 & AEOI))
		c->isr |= bit;
	else if (c->rotate_aeoi)
		c->lowest = (uint8_t)i;
}

static int take_locked(struct pic *p)
{
	struct chip *m = &p->hw.chip[0], *s = &p->hw.chip[1];
	int i = asks(m, true), vector;

	if (i < 0) {
		vector = m->base + 7; /* spurious */
	} else if (i != CASCADE) {
		chip_ack(m, i);
		vector = m->base + i;
	} else {
		int j = asks(s, false);

		chip_ack(m, CASCADE);
		if (j >= 0)
			chip_ack(s, j);
		vector = s->base + (j < 0 ? 7 : j);
	}
	update(p);
	return vector;
}

bool pic_pending(void *pic)
{
	struct pic *p = pic;

	return __atomic_load_n(&p->level, __ATOMIC_ACQUIRE);
}

int pic_take(void *pic)
{
	struct pic *p = pic;
	int v;

	pthread_mutex_lock(&p->lock);
	v = take_locked(p);
	pthread_mutex_unlock(&p->lock);
	return v;
}

static void end_of_interrupt(struct chip *c, uint8_t v)
{
	unsigned command = v >> 5;
	int i = command & 2 ? (int)(v & 7) : best(c, c->isr);

	switch (command) {
	case 0: c->rotate_aeoi = 0; break;
	case 4: c->rotate_aeoi = 1; break;
	case 1: /* non-specific, specific, each with and without rotation */
	case 3:
	case 5:
	case 7:
		if (i < 0)
			break;
		c->isr &= (uint8_t)~(1u << i);
		if (command & 4)
			c->lowest = (uint8_t)i;
		break;
	case 6: c->lowest = v & 7; break;
	default: break;
	}
}

static void icw1(struct chip *c, uint8_t v)
{
	uint8_t elcr = c->elcr, lines = c->lines;

	memset(c, 0, sizeof(*c));
	c->elcr = elcr;
	c->lines = lines;
	c->irr = lines & elcr;
	c->lowest = 7;
	c->icw1 = v;
	c->init = 2;
}

static void command_write(struct chip *c, uint8_t v)
{
	if (v & 0x10) {
		icw1(c, v);
	} else if (v & 8) { /* OCW3 */
		if (v & 0x40)
			c->special_mask = v >> 5 & 1;
		if (v & 4)
			c->poll = 1;
		if (v & 2)
			c->read_isr = v & 1;
	} else {
		end_of_interrupt(c, v);
	}
}

static void data_write(struct chip *c, uint8_t v)
{
	switch (c->init) {
	case 2:
		c->base = v & 0xf8;
		c->init = c->icw1 & 2 ? (c->icw1 & 1 ? 4 : 0) : 3; /* single: no ICW3 */
		break;
	case 3: c->init = c->icw1 & 1 ? 4 : 0; break;
	case 4:
		c->icw4 = v;
		c->init = 0;
		break;
	default: c->imr = v; break;
	}
}

static uint8_t chip_read(struct pic *p, unsigned n, bool data)
{
	struct chip *c = &p->hw.chip[n];

	if (c->poll) {
		int i = asks(c, n == 0);

		c->poll = 0;
		if (i < 0)
			return 0;
		chip_ack(c, i);
		return (uint8_t)(0x80 | i);
	}
	return data ? c->imr : c->read_isr ? c->isr : c->irr;
}


static uint64_t do_read(struct pic *p, unsigned chip, uint64_t offset)
{
	uint64_t v;

	pthread_mutex_lock(&p->lock);
	v = chip_read(p, chip, offset & 1);
	update(p);
	pthread_mutex_unlock(&p->lock);
	return v;
}

static void do_write(struct pic *p, unsigned chip, uint64_t offset, uint64_t value)
{
	pthread_mutex_lock(&p->lock);
	if (offset & 1)
		data_write(&p->hw.chip[chip], (uint8_t)value);
	else
		command_write(&p->hw.chip[chip], (uint8_t)value);
	update(p);
	pthread_mutex_unlock(&p->lock);
}

static uint64_t master_read(void *opaque, uint64_t offset, unsigned size)
{
	return do_read(opaque, 0, offset);
}

static void master_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	do_write(opaque, 0, offset, value);
}

static uint64_t slave_read(void *opaque, uint64_t offset, unsigned size)
{
	return do_read(opaque, 1, offset);
}

static void slave_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	do_write(opaque, 1, offset, value);
}

static uint64_t elcr_read(void *opaque, uint64_t offset, unsigned size)
{
	return ((struct pic *)opaque)->hw.chip[offset & 1].elcr;
}

static void elcr_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pic *p = opaque;

	pthread_mutex_lock(&p->lock);
	/* timer, keyboard, cascade, RTC and FPU are always edge-triggered */
	p->hw.chip[offset & 1].elcr = (uint8_t)(value & (offset & 1 ? 0xde : 0xf8));
	update(p);
	pthread_mutex_unlock(&p->lock);
}

static const struct io_ops master_io = { master_read, master_write, 1, 1 },
			   slave_io = { slave_read, slave_write, 1, 1 }, elcr_io = { elcr_read, elcr_write, 1, 1 };

#define CHIP(n)                                                                                                        \
	STATE_INT(struct pic_hw, chip[n].irr), STATE_INT(struct pic_hw, chip[n].imr),                                  \
		STATE_INT(struct pic_hw, chip[n].isr), STATE_INT(struct pic_hw, chip[n].lines),                        \
		STATE_INT(struct pic_hw, chip[n].base), STATE_INT(struct pic_hw, chip[n].lowest),                      \
		STATE_INT(struct pic_hw, chip[n].elcr), STATE_INT(struct pic_hw, chip[n].init),                        \
		STATE_INT(struct pic_hw, chip[n].icw1), STATE_INT(struct pic_hw, chip[n].icw4),                        \
		STATE_INT(struct pic_hw, chip[n].read_isr), STATE_INT(struct pic_hw, chip[n].poll),                    \
		STATE_INT(struct pic_hw, chip[n].special_mask), STATE_INT(struct pic_hw, chip[n].rotate_aeoi)
static const struct state_field fields[] = { CHIP(0), CHIP(1) };

static int check(const void *hw, struct err *e)
{
	const struct pic_hw *h = hw;

	for (unsigned i = 0; i < 2; i++)
		if (h->chip[i].lowest > 7 || h->chip[i].init > 4 || h->chip[i].init == 1 || (h->chip[i].base & 7))
			return err_set(e, EINVAL, "8259: register values that cannot be");
	return 0;
}

static const struct state_desc desc = {
	.name = "pic", .version = 1, .size = sizeof(struct pic_hw),
	.fields = fields, .nfields = ARRAY_LEN(fields), .check = check,
};

static void reset(struct device *d, enum reset_kind kind)
{
	struct pic *p = container_of(d, struct pic, device);

	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < 2; i++) {
		struct chip *c = &p->hw.chip[i];
		uint8_t lines = c->lines;

		memset(c, 0, sizeof(*c));
		c->lines = lines;
		c->lowest = 7;
		c->imr = 0xff; /* nothing until somebody sets it up */
	}
	update(p);
	pthread_mutex_unlock(&p->lock);
}

static void loaded(struct device *d)
{
	struct pic *p = container_of(d, struct pic, device);

	pthread_mutex_lock(&p->lock);
	p->level = -1; /* tell it anew */
	update(p);
	pthread_mutex_unlock(&p->lock);
}

static void destroy(struct device *d)
{
	struct pic *p = container_of(d, struct pic, device);

	ports_unmap(p->ports, 0x20, "pic");
	ports_unmap(p->ports, 0xa0, "pic");
	ports_unmap(p->ports, 0x4d0, "pic");
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static const struct device_ops ops = { .state = &desc, .reset = reset, .loaded = loaded, .destroy = destroy };

struct device *pic_create(struct device_env *env, struct err *e)
{
	struct pic *p = calloc(1, sizeof(*p));

	if (!p) {
		err_set(e, ENOMEM, "no memory for the interrupt controllers");
		return NULL;
	}
	p->device = (struct device){ .ops = &ops, .hw = &p->hw };
	p->ports = env->ports;
	pthread_mutex_init(&p->lock, NULL);
	if (ports_map(env->ports, 0x20, 2, &master_io, p, "pic", e) ||
	    ports_map(env->ports, 0xa0, 2, &slave_io, p, "pic", e) ||
	    ports_map(env->ports, 0x4d0, 2, &elcr_io, p, "pic", e)) {
		destroy(&p->device);
		return NULL;
	}
	reset(&p->device, RESET_COLD);
	return &p->device;
}

struct irq_line pic_input(struct device *pic, unsigned irq)
{
	return (struct irq_line){ .set = line_set, .opaque = container_of(pic, struct pic, device), .pin = irq };
}

void pic_set_output(struct device *pic, struct irq_line out)
{
	container_of(pic, struct pic, device)->out = out;
}
