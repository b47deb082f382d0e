/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 8254 interval timer, and port 0x61 that gates channel 2 and shows its output. A channel's count and output are
 * functions of the virtual clock since its count was loaded; only channel 0 has a timer, for the interrupt.
 *
 * Time is counted in ticks of 1.193182 MHz, exactly 105/88 MHz, since virtual time 0, so that a period in ticks
 * never drifts. BCD counting loads and reads in decimal; in between all is binary.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include "base/err.h"
#include "dev/pc-devices.h"

enum pit_access { ACCESS_LATCH, ACCESS_LOW, ACCESS_HIGH, ACCESS_BOTH };

struct pit_channel {
	uint64_t start;  /* tick the count was loaded at; meaningful when loaded */
	uint64_t frozen; /* ticks counted when the gate went low */
	uint32_t count;  /* as loaded: 1..65536 */
	uint16_t latch;  /* count latched */
	uint8_t mode, access, bcd;
	uint8_t low;     /* first byte of a count being written */
	uint8_t status;  /* latched */
	bool write_high, read_high;   /* the second byte is next */
	bool latched, status_latched; /* not read yet */
	bool loaded, gate, armed;     /* armed: modes 1 and 5 were triggered */
};

struct pit_hw {
	struct pit_channel ch[3];
	uint8_t speaker; /* bits 0, 1 of port 0x61 */
};

struct pit {
	struct device device;
	struct pit_hw hw;
	struct clock *clock;
	struct irq_line irq;
	struct timer timer;
	pthread_mutex_t lock;
	uint64_t next;  /* tick of the timer, UINT64_MAX for none */
	uint64_t fired; /* and that of the one before */
	bool output;
};

static uint64_t ns_to_ticks(uint64_t ns)
{
	return (uint64_t)((unsigned __int128)ns * 105 / 88000);
}

/* The first nanosecond at which that many ticks have passed. */
static uint64_t ticks_to_ns(uint64_t ticks)
{
	unsigned __int128 ns = ((unsigned __int128)ticks * 88000 + 104) / 105;

	return ns > INT64_MAX ? INT64_MAX : (uint64_t)ns;
}

static uint64_t now_ticks(const struct pit *p)
{
	return ns_to_ticks(clock_now(p->clock));
}

/* ---- a channel as a function of time */

static bool is_periodic(const struct pit_channel *c)
{
	return c->mode == 2 || c->mode == 3;
}

/* Ticks counted since the count was loaded. One tick of them is the loading. */
static uint64_t elapsed(const struct pit_channel *c, uint64_t now)
{
	if (!c->gate && c->mode != 1 && c->mode != 5)
		return c->frozen;
	return now > c->start ? now - c->start : 0;
}

static bool counting(const struct pit_channel *c)
{
	return c->loaded && ((c->mode != 1 && c->mode != 5) || c->armed);
}

static bool output(const struct pit_channel *c, uint64_t now)
{
	uint64_t t = elapsed(c, now);

	if (!counting(c))
		return c->mode != 0;
	switch (c->mode) {
	case 0:
	case 1:
		return t >= c->count;
	case 2:
		return !c->gate || t % c->count != c->count - 1;
	case 3: /* high for the longer half */
		return !c->gate || t % c->count < (c->count + 1) / 2;
	default:
		return t != c->count;
	}
}

/* The tick after `now` at which the output changes next, UINT64_MAX when it never does. */
static uint64_t next_change(const struct pit_channel *c, uint64_t now)
{
	uint64_t t = elapsed(c, now), half = (c->count + 1) / 2, phase;

	if (!counting(c) || (!c->gate && c->mode != 1 && c->mode != 5))
		return UINT64_MAX;
	switch (c->mode) {
	case 2: /* the end of its low tick */
		return now + c->count - t % c->count;
	case 3:
		phase = t % c->count;
		return now + (phase < half ? half - phase : c->count - phase);
	case 0:
	case 1:
		return t < c->count ? now + (c->count - t) : UINT64_MAX;
	default:
		return t < c->count ? now + (c->count - t) : t == c->count ? now + 1 : UINT64_MAX;
	}
}

static uint32_t to_bcd(uint32_t v)
{
	v %= 10000;
	return v % 10 | v / 10 % 10 << 4 | v / 100 % 10 << 8 | v / 1000 << 12;
}

static uint32_t from_bcd(uint32_t v)
{
	return (v & 15) + (v >> 4 & 15) * 10 + (v >> 8 & 15) * 100 + (v >> 12 & 15) * 1000;
}

static uint16_t current(const struct pit_channel *c, uint64_t now)
{
	uint64_t t = elapsed(c, now), wrap = c->bcd ? 10000 : 65536, v;

	if (!c->loaded)
		return 0;
	if (!counting(c))
		v = c->count;
	else if (c->mode == 2)
		v = c->count - t % c->count;
	else if (c->mode == 3) /* by two, twice a period */
		v = (c->count - 2 * t % c->count) & ~1ull;
	else
		v = (c->count + wrap - t % wrap) % wrap;
	return (uint16_t)(c->bcd ? to_bcd((uint32_t)v) : v);
}

/* ---- the interrupt */

/*
 * Channel 0's output now, and a timer for its next change; in mode 2, which is low for one tick only, for the end
 * of that. No more than one in 20 us: a guest that asks for more gets fewer edges, not a busy event loop.
 */
#define TICKS_MIN 24u

static void update_irq(struct pit *p)
{
	const struct pit_channel *c = &p->hw.ch[0];
	uint64_t now = now_ticks(p), next = next_change(c, now);
	bool out = output(c, now);

	if (c->mode == 2)
		out = true;
	if (out != p->output) {
		p->output = out;
		irq_set(&p->irq, out);
	}
	p->next = next == UINT64_MAX ? next : MAX(next, p->fired + TICKS_MIN);
	timer_arm(&p->timer, next == UINT64_MAX ? TIMER_NEVER : ticks_to_ns(p->next));
}

/* Output high before and high again: a low half has passed in between, so there has been an edge. Lock held. */
static void change(struct pit *p)
{
	struct pit_channel *c = &p->hw.ch[0];

	if (now_ticks(p) >= p->next && p->output && is_periodic(c) && counting(c) &&
	    (c->mode == 2 || output(c, now_ticks(p)))) {
		p->output = false;
		irq_set(&p->irq, 0);
	}
	p->fired = now_ticks(p);
	update_irq(p);
}

static void pit_timer(void *opaque)
{
	struct pit *p = opaque;

	pthread_mutex_lock(&p->lock);
	change(p);
	pthread_mutex_unlock(&p->lock);
}

/* Before anybody sees the next period in a register the last one's edge has been there, also where the timer is late. Lock held. */
static void catch_up(struct pit *p)
{
	if (now_ticks(p) >= p->next)
		change(p);
}

/* ---- registers */

static void load(struct pit *p, unsigned i, uint16_t value)
{
	struct pit_channel *c = &p->hw.ch[i];
	uint32_t count = c->bcd ? MIN(from_bcd(value), 10000u) : value; /* digits may be above 9 */

	if (!count)
		count = c->bcd ? 10000 : 65536;
	/* a count of 1 is not allowed in the periodic modes; it would also keep us busy */
	c->count = is_periodic(c) && count < 2 ? 2 : count;
	c->loaded = true;
	c->frozen = 0;
	c->armed = c->armed && c->mode != 1 && c->mode != 5;
	c->start = now_ticks(p);
}

static void set_gate(struct pit *p, unsigned i, bool gate)
{
	struct pit_channel *c = &p->hw.ch[i];
	uint64_t now = now_ticks(p);

	if (gate == c->gate)
		return;
	if (!gate) {
		c->frozen = elapsed(c, now);
		c->gate = false;
		return;
	}
	c->gate = true;
	switch (c->mode) {
	case 1:
	case 2:
	case 3:
	case 5:
		c->start = now;
		c->armed = true;
		break;
	default:
		c->start = now - MIN(c->frozen, now);
		break;
	}
}

static void latch_count(struct pit *p, unsigned i)
{
	struct pit_channel *c = &p->hw.ch[i];

	if (!c->latched) {
		c->latch = current(c, now_ticks(p));
		c->latched = true;
	}
}

static void latch_status(struct pit *p, unsigned i)
{
	struct pit_channel *c = &p->hw.ch[i];

	if (!c->status_latched) {
		c->status = (uint8_t)(output(c, now_ticks(p)) << 7 | !c->loaded << 6 | c->access << 4 |
				      c->mode << 1 | c->bcd);
		c->status_latched = true;
	}
}

static void control(struct pit *p, uint8_t v)
{
	unsigned i = v >> 6, mode = v >> 1 & 7;
	struct pit_channel *c;

	if (i == 3) { /* read-back */
		for (i = 0; i < 3; i++) {
			if (!(v & 2u << i))
				continue;
			if (!(v & 0x20))
				latch_count(p, i);
			if (!(v & 0x10))
				latch_status(p, i);
		}
		return;
	}
	c = &p->hw.ch[i];
	if (!(v >> 4 & 3)) {
		latch_count(p, i);
		return;
	}
	c->mode = (uint8_t)(mode > 5 ? mode - 4 : mode);
	c->access = v >> 4 & 3;
	c->bcd = v & 1;
	c->loaded = c->armed = c->latched = c->status_latched = c->write_high = c->read_high = false;
}

static void write_count(struct pit *p, unsigned i, uint8_t v)
{
	struct pit_channel *c = &p->hw.ch[i];

	switch (c->access) {
	case ACCESS_LOW:
		load(p, i, v);
		break;
	case ACCESS_HIGH:
		load(p, i, (uint16_t)(v << 8));
		break;
	default:
		if (c->write_high) {
			load(p, i, (uint16_t)(v << 8 | c->low));
		} else {
			c->low = v;
			if (c->mode == 0)
				c->loaded = false; /* stops until the second byte */
		}
		c->write_high = !c->write_high;
		break;
	}
}

static uint8_t read_count(struct pit *p, unsigned i)
{
	struct pit_channel *c = &p->hw.ch[i];
	uint16_t v = c->latched ? c->latch : current(c, now_ticks(p));

	if (c->status_latched) {
		c->status_latched = false;
		return c->status;
	}
	if (c->access == ACCESS_BOTH) {
		c->read_high = !c->read_high;
		if (c->read_high)
			return (uint8_t)v;
	}
	c->latched = false;
	return (uint8_t)(c->access == ACCESS_LOW ? v : v >> 8);
}

static uint64_t pit_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pit *p = opaque;
	uint8_t v;

	if (offset == 3)
		return 0xff;
	pthread_mutex_lock(&p->lock);
	catch_up(p);
	v = read_count(p, (unsigned)offset);
	pthread_mutex_unlock(&p->lock);
	return v;
}

static void pit_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pit *p = opaque;

	pthread_mutex_lock(&p->lock);
	catch_up(p);
	if (offset == 3)
		control(p, (uint8_t)value);
	else
		write_count(p, (unsigned)offset, (uint8_t)value);
	if (offset == 0 || (offset == 3 && value >> 6 == 0 && value & 0x30))
		update_irq(p);
	pthread_mutex_unlock(&p->lock);
}

/* Bit 4 toggles every 15 us, as the refresh of memory did; programs wait by it. */
static uint64_t port61_read(void *opaque, uint64_t offset, unsigned size)
{
	struct pit *p = opaque;
	uint8_t v;

	pthread_mutex_lock(&p->lock);
	v = (uint8_t)(p->hw.speaker | (clock_now(p->clock) / 15085 & 1) << 4 |
		      output(&p->hw.ch[2], now_ticks(p)) << 5);
	pthread_mutex_unlock(&p->lock);
	return v;
}

static void port61_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct pit *p = opaque;

	pthread_mutex_lock(&p->lock);
	p->hw.speaker = value & 3;
	set_gate(p, 2, value & 1);
	pthread_mutex_unlock(&p->lock);
}

static const struct io_ops pit_io = { pit_read, pit_write, 1, 1 };
static const struct io_ops port61_io = { port61_read, port61_write, 1, 1 };

/* ---- the device */

static int pit_check(const void *opaque, struct err *e)
{
	const struct pit_hw *hw = opaque;

	for (unsigned i = 0; i < 3; i++) {
		const struct pit_channel *c = &hw->ch[i];

		if (c->mode > 5 || c->access > 3 || c->bcd > 1 || c->start > INT64_MAX || c->frozen > INT64_MAX)
			return err_set(e, EINVAL, "pit: channel %u in an impossible state", i);
		if (c->loaded && (c->count < (is_periodic(c) ? 2 : 1) || c->count > (c->bcd ? 10000 : 65536)))
			return err_set(e, EINVAL, "pit: channel %u with an impossible count", i);
		if (i < 2 && !c->gate)
			return err_set(e, EINVAL, "pit: channel %u with its gate closed", i);
	}
	if (hw->speaker & ~3u || (hw->speaker & 1) != hw->ch[2].gate)
		return err_set(e, EINVAL, "pit: port 0x61 in an impossible state");
	return 0;
}

#define PIT_FIELDS(n)                                                                                      \
	STATE_INT(struct pit_hw, ch[n].start), STATE_INT(struct pit_hw, ch[n].frozen),                     \
	STATE_INT(struct pit_hw, ch[n].count), STATE_INT(struct pit_hw, ch[n].latch),                      \
	STATE_INT(struct pit_hw, ch[n].mode), STATE_INT(struct pit_hw, ch[n].access),                      \
	STATE_INT(struct pit_hw, ch[n].bcd), STATE_INT(struct pit_hw, ch[n].low),                          \
	STATE_INT(struct pit_hw, ch[n].status), STATE_INT(struct pit_hw, ch[n].write_high),                \
	STATE_INT(struct pit_hw, ch[n].read_high), STATE_INT(struct pit_hw, ch[n].latched),                \
	STATE_INT(struct pit_hw, ch[n].status_latched), STATE_INT(struct pit_hw, ch[n].loaded),            \
	STATE_INT(struct pit_hw, ch[n].gate), STATE_INT(struct pit_hw, ch[n].armed)

static const struct state_field fields[] = {
	PIT_FIELDS(0),
	PIT_FIELDS(1),
	PIT_FIELDS(2),
	STATE_INT(struct pit_hw, speaker),
};

static const struct state_desc pit_state = {
	.name = "pit", .version = 1, .size = sizeof(struct pit_hw),
	.fields = fields, .nfields = ARRAY_LEN(fields), .check = pit_check,
};

static void pit_loaded(struct device *d)
{
	struct pit *p = container_of(d, struct pit, device);

	pthread_mutex_lock(&p->lock);
	p->output = p->hw.ch[0].mode == 2 || output(&p->hw.ch[0], now_ticks(p));
	irq_set(&p->irq, p->output);
	update_irq(p);
	pthread_mutex_unlock(&p->lock);
}

static void pit_reset(struct device *d, enum reset_kind kind)
{
	struct pit *p = container_of(d, struct pit, device);

	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < 3; i++)
		p->hw.ch[i] = (struct pit_channel){ .mode = 3, .access = ACCESS_BOTH, .gate = i != 2 };
	p->hw.speaker = 0;
	pthread_mutex_unlock(&p->lock);
	pit_loaded(d);
}

static void pit_destroy(struct device *d)
{
	struct pit *p = container_of(d, struct pit, device);

	timer_cancel(&p->timer);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static const struct device_ops pit_ops = {
	.state = &pit_state,
	.reset = pit_reset,
	.loaded = pit_loaded,
	.destroy = pit_destroy,
};

struct device *pit_create(struct device_env *env, struct irq_line irq, struct err *e)
{
	struct pit *p = calloc(1, sizeof(*p));

	if (!p) {
		err_set(e, ENOMEM, "no memory for the 8254");
		return NULL;
	}
	p->device = (struct device){ .ops = &pit_ops, .hw = &p->hw };
	p->clock = env->clock;
	p->irq = irq;
	pthread_mutex_init(&p->lock, NULL);
	timer_init(&p->timer, env->clock, pit_timer, p);
	pit_reset(&p->device, RESET_COLD);
	if (ports_map(env->ports, 0x40, 4, &pit_io, p, "pit", e) ||
	    ports_map(env->ports, 0x61, 1, &port61_io, p, "pit", e)) {
		pit_destroy(&p->device);
		return NULL;
	}
	return &p->device;
}
