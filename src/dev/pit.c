/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 8254 timer with port 0x61. Nothing counts: a channel keeps when its count was loaded, and everything a guest can see
 * (count, output, status) is computed from the virtual clock. Channel 0's output is a wire, so it has a timer for the
 * next change of it.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "dev/pc-devices.h"

#define HZ 1193182u

struct channel {
	uint64_t start;	   /* virtual ns at which the count in force began */
	uint32_t count;	   /* 1..0x10000 */
	uint16_t latch;
	uint8_t mode, access, bcd; /* access: 1 low, 2 high, 3 both */
	uint8_t write_low, write_state; /* both bytes: the first one written */
	uint8_t read_state, latched;   /* latched: bytes still to be read */
	uint8_t status, status_latched;
	uint8_t gate, loaded;
};

struct pit_hw { /* saved */
	struct channel channel[3];
	uint8_t speaker; /* port 0x61 bits 0, 1 */
};

struct pit {
	struct device device;
	struct pit_hw hw;
	pthread_mutex_t lock;
	struct irq_line irq;
	struct clock *clock;
	struct ports *ports;
	struct timer timer;
};

static uint64_t ticks_to_ns(uint64_t ticks)
{
	return (uint64_t)(((unsigned __int128)ticks * 1000000000u + HZ - 1) / HZ);
}

static uint64_t elapsed(const struct pit *p, const struct channel *c)
{
	return (uint64_t)((unsigned __int128)(clock_now(p->clock) - c->start) * HZ / 1000000000u);
}

/* The counter's value after t ticks. */
static uint32_t value_at(const struct channel *c, uint64_t t)
{
	switch (c->mode) {
	case 2: return c->count - (uint32_t)(t % c->count);
	case 3: return (c->count - (uint32_t)(t * 2 % c->count)) & ~1u;
	default: return (uint32_t)(c->count - t) & 0xffff;
	}
}

/* The output's level after t ticks. */
static int output_at(const struct channel *c, uint64_t t)
{
	if (!c->loaded)
		return c->mode != 0;
	switch (c->mode) {
	case 0:
	case 1: return t >= c->count;
	case 2: return t % c->count != c->count - 1;
	case 3: return t % c->count < (c->count + 1) / 2;
	default: return t != c->count; /* 4, 5: one tick low */
	}
}

/* Ticks from t to the next rising edge of the output; 0: none. */
static uint64_t next_edge(const struct channel *c, uint64_t t)
{
	switch (c->mode) {
	case 0:
	case 1: return t < c->count ? c->count - t : 0;
	case 2:
	case 3: return c->count - t % c->count;
	default: return t < c->count ? c->count + 1 - t : 0;
	}
}

static int output(const struct pit *p, const struct channel *c)
{
	return output_at(c, elapsed(p, c));
}

/* Channel 0: an edge-triggered wire, so what counts is that each rising edge is shown. */
static void schedule(struct pit *p)
{
	struct channel *c = &p->hw.channel[0];
	uint64_t t, n;

	if (!c->loaded) {
		timer_cancel(&p->timer);
		return;
	}
	t = elapsed(p, c);
	n = next_edge(c, t);
	if (n)
		timer_arm(&p->timer, c->start + ticks_to_ns(t + n));
	else
		timer_cancel(&p->timer);
}

static void edge(void *opaque)
{
	struct pit *p = opaque;

	pthread_mutex_lock(&p->lock);
	irq_set(&p->irq, 0);
	irq_set(&p->irq, 1);
	schedule(p);
	pthread_mutex_unlock(&p->lock);
}

static uint32_t from_bcd(uint32_t v)
{
	return (v >> 12 & 15) * 1000 + (v >> 8 & 15) * 100 + (v >> 4 & 15) * 10 + (v & 15);
}

static uint32_t to_bcd(uint32_t v)
{
	return v / 1000 % 10 << 12 | v / 100 % 10 << 8 | v / 10 % 10 << 4 | v % 10;
}

static void load(struct pit *p, unsigned n, uint32_t v)
{
	struct channel *c = &p->hw.channel[n];

	if (c->bcd)
		v = from_bcd(v);
	c->count = v ? v : c->bcd ? 10000 : 0x10000;
	c->start = clock_now(p->clock);
	c->loaded = 1;
	if (n == 0) {
		irq_set(&p->irq, output(p, c));
		schedule(p);
	}
}

static uint16_t current(const struct pit *p, const struct channel *c)
{
	uint32_t v = c->loaded ? value_at(c, c->gate ? elapsed(p, c) : 0) : 0;

	return (uint16_t)(c->bcd ? to_bcd(v % 10000) : v);
}

static void latch_count(struct pit *p, struct channel *c)
{
	if (c->latched)
		return;
	c->latch = current(p, c);
	c->latched = c->access == 3 ? 3 : c->access;
}

static void read_back(struct pit *p, uint8_t v)
{
	for (unsigned i = 0; i < 3; i++) {
		struct channel *c = &p->hw.channel[i];

		if (!(v & 2u << i))
			continue;
		if (!(v & 0x20))
			latch_count(p, c);
		if (!(v & 0x10) && !c->status_latched) {
			c->status = (uint8_t)(output(p, c) << 7 | !c->loaded << 6 | c->access << 4 | c->mode << 1 | c->bcd);
			c->status_latched = 1;
		}
	}
}

static void control_write(struct pit *p, uint8_t v)
{
	struct channel *c;

	if (v >> 6 == 3) {
		read_back(p, v);
		return;
	}
	c = &p->hw.channel[v >> 6];
	if (!(v & 0x30)) {
		latch_count(p, c);
		return;
	}
	c->access = v >> 4 & 3;
	c->mode = v >> 1 & 7;
	if (c->mode > 5)
		c->mode &= 3; /* 6 and 7 are other names of 2 and 3 */
	c->bcd = v & 1;
	c->write_state = c->read_state = c->latched = c->status_latched = 0;
	c->loaded = 0;
	if (v >> 6 == 0) {
		irq_set(&p->irq, c->mode != 0);
		schedule(p);
	}
}

static void count_write(struct pit *p, unsigned n, uint8_t v)
{
	struct channel *c = &p->hw.channel[n];

	switch (c->access) {
	case 1: load(p, n, v); break;
	case 2: load(p, n, (uint32_t)v << 8); break;
	case 3:
		if (!c->write_state) {
			c->write_low = v;
			c->write_state = 1;
			if (c->mode == 0)
				c->loaded = 0; /* counting stops between the two bytes */
		} else {
			c->write_state = 0;
			load(p, n, c->write_low | (uint32_t)v << 8);
		}
		break;
	default: break;
	}
}

static uint8_t count_read(struct pit *p, struct channel *c)
{
	uint16_t v;

	if (c->status_latched) {
		c->status_latched = 0;
		return c->status;
	}
	if (c->latched) {
		bool low = c->latched & 1;

		c->latched &= (uint8_t)~(low ? 1 : 2);
		return (uint8_t)(low ? c->latch : c->latch >> 8);
	}
	v = current(p, c);
	if (c->access == 3)
		c->read_state ^= 1;
	return (uint8_t)(c->access == 2 || (c->access == 3 && !c->read_state) ? v >> 8 : v);
}

static uint64_t pit_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pit *p = opaque;
	uint64_t v;

	if (offset == 3)
		return 0xff;
	pthread_mutex_lock(&p->lock);
	v = count_read(p, &p->hw.channel[offset]);
	pthread_mutex_unlock(&p->lock);
	return v;
}

static void pit_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pit *p = opaque;

	pthread_mutex_lock(&p->lock);
	if (offset == 3)
		control_write(p, (uint8_t)value);
	else
		count_write(p, (unsigned)offset, (uint8_t)value);
	pthread_mutex_unlock(&p->lock);
}

/* Port 0x61: gate of channel 2 and speaker; its output; the refresh bit that old code times with (15 us a change). */
static uint64_t speaker_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pit *p = opaque;
	uint64_t v;

	pthread_mutex_lock(&p->lock);
	v = p->hw.speaker | (uint64_t)(clock_now(p->clock) / 15085 & 1) << 4 |
	    (uint64_t)output(p, &p->hw.channel[2]) << 5;
	pthread_mutex_unlock(&p->lock);
	return v;
}

static void speaker_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pit *p = opaque;
	struct channel *c = &p->hw.channel[2];

	pthread_mutex_lock(&p->lock);
	p->hw.speaker = value & 3;
	if ((value & 1) && !c->gate)
		c->start = clock_now(p->clock); /* the gate's rising edge starts the count */
	c->gate = value & 1;
	pthread_mutex_unlock(&p->lock);
}

static const struct io_ops counter_io = { pit_read, pit_write, 1, 1 }, speaker_io = { speaker_read, speaker_write, 1, 1 };

#define CH(n, m) STATE_INT(struct pit_hw, channel[n].m)
#define CHANNEL(n)                                                                                                     \
	CH(n, start), CH(n, count), CH(n, latch), CH(n, mode), CH(n, access), CH(n, bcd), CH(n, write_low),            \
		CH(n, write_state), CH(n, read_state), CH(n, latched), CH(n, status), CH(n, status_latched),           \
		CH(n, gate), CH(n, loaded)
static const struct state_field fields[] = {
	CHANNEL(0), CHANNEL(1), CHANNEL(2), STATE_INT(struct pit_hw, speaker),
};

static int check(const void *hw, struct err *e)
{
	const struct pit_hw *h = hw;

	for (unsigned i = 0; i < 3; i++) {
		const struct channel *c = &h->channel[i];

		if (!c->count || c->count > 0x10000 || c->mode > 5 || c->access > 3 || c->gate > 1 || c->loaded > 1)
			return err_set(e, EINVAL, "pit: channel %u has values that cannot be", i);
	}
	return 0;
}

static const struct state_desc desc = {
	.name = "pit", .version = 1, .size = sizeof(struct pit_hw),
	.fields = fields, .nfields = ARRAY_LEN(fields), .check = check,
};

static void reset(struct device *d, enum reset_kind kind)
{
	struct pit *p = container_of(d, struct pit, device);

	pthread_mutex_lock(&p->lock);
	memset(&p->hw, 0, sizeof(p->hw));
	for (unsigned i = 0; i < 3; i++) {
		p->hw.channel[i].count = 0x10000;
		p->hw.channel[i].mode = 3;
		p->hw.channel[i].access = 3;
		p->hw.channel[i].gate = i != 2;
	}
	schedule(p);
	pthread_mutex_unlock(&p->lock);
}

static void loaded(struct device *d)
{
	struct pit *p = container_of(d, struct pit, device);

	pthread_mutex_lock(&p->lock);
	schedule(p);
	pthread_mutex_unlock(&p->lock);
}

static void destroy(struct device *d)
{
	struct pit *p = container_of(d, struct pit, device);

	timer_cancel(&p->timer);
	ports_unmap(p->ports, 0x40, "pit");
	ports_unmap(p->ports, 0x61, "pit");
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static const struct device_ops ops = { .state = &desc, .reset = reset, .loaded = loaded, .destroy = destroy };

struct device *pit_create(struct device_env *env, struct irq_line irq, struct err *e)
{
	struct pit *p = calloc(1, sizeof(*p));

	if (!p) {
		err_set(e, ENOMEM, "no memory for the timer");
		return NULL;
	}
	p->device = (struct device){ .ops = &ops, .hw = &p->hw };
	p->irq = irq;
	p->clock = env->clock;
	p->ports = env->ports;
	pthread_mutex_init(&p->lock, NULL);
	timer_init(&p->timer, env->clock, edge, p);
	if (ports_map(env->ports, 0x40, 4, &counter_io, p, "pit", e) ||
	    ports_map(env->ports, 0x61, 1, &speaker_io, p, "pit", e)) {
		destroy(&p->device);
		return NULL;
	}
	reset(&p->device, RESET_COLD);
	return &p->device;
}
