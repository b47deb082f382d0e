/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MC146818 clock and CMOS memory. The time is the host's UTC when the machine starts plus the virtual clock, plus what the
 * guest has set; the registers are computed from it when they are read.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/err.h"
#include "dev/pc-devices.h"

enum { SECONDS = 0, MINUTES = 2, HOURS = 4, WEEKDAY = 6, DAY = 7, MONTH = 8, YEAR = 9, REG_A = 10, REG_B = 11,
       REG_C = 12, REG_D = 13, CENTURY = 0x32 };

#define A_UIP 0x80
#define B_SET 0x80
#define B_PERIODIC 0x40
#define B_ALARM 0x20
#define B_UPDATE 0x10
#define B_BINARY 0x04
#define B_24H 0x02
#define C_IRQ 0x80
#define NS 1000000000ull
#define UPDATE_NS 244000u /* the update flag shows this long before the second turns */

struct rtc_hw { /* saved */
	uint8_t ram[128];
	uint8_t index;
	int64_t offset;	       /* ns: UTC - virtual clock */
	uint64_t next_periodic; /* virtual ns */
	uint64_t last_second;  /* last second that alarm and update were judged for */
};

struct rtc {
	struct device device;
	struct rtc_hw hw;
	pthread_mutex_t lock;
	struct irq_line irq;
	struct clock *clock;
	struct ports *ports;
	struct timer timer;
};

static uint64_t utc(const struct rtc *r)
{
	return clock_now(r->clock) + (uint64_t)r->hw.offset;
}

static uint8_t encode(const struct rtc *r, unsigned v)
{
	return (uint8_t)(r->hw.ram[REG_B] & B_BINARY ? v : v / 10 << 4 | v % 10);
}

static unsigned decode(const struct rtc *r, uint8_t v)
{
	return r->hw.ram[REG_B] & B_BINARY ? v : (v >> 4) * 10u + (v & 15u);
}

static uint8_t encode_hour(const struct rtc *r, unsigned h)
{
	if (r->hw.ram[REG_B] & B_24H)
		return encode(r, h);
	return (uint8_t)(encode(r, h % 12 ? h % 12 : 12) | (h >= 12 ? 0x80 : 0));
}

static unsigned decode_hour(const struct rtc *r, uint8_t v)
{
	if (r->hw.ram[REG_B] & B_24H)
		return decode(r, v);
	return decode(r, v & 0x7f) % 12 + (v & 0x80 ? 12 : 0);
}

/* The registers of now, unless the guest is setting them. */
static void show_time(struct rtc *r)
{
	time_t t = (time_t)(utc(r) / NS);
	struct tm tm;

	if ((r->hw.ram[REG_B] & B_SET) || !gmtime_r(&t, &tm))
		return;
	r->hw.ram[SECONDS] = encode(r, (unsigned)tm.tm_sec);
	r->hw.ram[MINUTES] = encode(r, (unsigned)tm.tm_min);
	r->hw.ram[HOURS] = encode_hour(r, (unsigned)tm.tm_hour);
	r->hw.ram[WEEKDAY] = encode(r, (unsigned)tm.tm_wday + 1);
	r->hw.ram[DAY] = encode(r, (unsigned)tm.tm_mday);
	r->hw.ram[MONTH] = encode(r, (unsigned)tm.tm_mon + 1);
	r->hw.ram[YEAR] = encode(r, (unsigned)tm.tm_year % 100);
	r->hw.ram[CENTURY] = (uint8_t)(((tm.tm_year + 1900) / 1000) << 4 | (tm.tm_year + 1900) / 100 % 10);
}

/* Take the registers over as the time. */
static void take_time(struct rtc *r)
{
	const uint8_t *m = r->hw.ram;
	struct tm tm = {
		.tm_sec = (int)decode(r, m[SECONDS]),
		.tm_min = (int)decode(r, m[MINUTES]),
		.tm_hour = (int)decode_hour(r, m[HOURS]),
		.tm_mday = (int)decode(r, m[DAY]),
		.tm_mon = (int)decode(r, m[MONTH]) - 1,
		.tm_year = (int)decode(r, m[YEAR]) + ((m[CENTURY] >> 4) * 10 + (m[CENTURY] & 15)) * 100 - 1900,
	};
	time_t t = timegm(&tm);

	if (t != (time_t)-1)
		r->hw.offset = (int64_t)((uint64_t)t * NS - clock_now(r->clock));
}

static uint64_t period(const struct rtc *r)
{
	unsigned rate = r->hw.ram[REG_A] & 15;

	if (!rate || (r->hw.ram[REG_A] >> 4 & 7) > 2)
		return 0;
	if (rate < 3)
		rate += 7;
	return NS * (1u << (rate - 1)) / 32768;
}

static void raise_cause(struct rtc *r, uint8_t cause)
{
	r->hw.ram[REG_C] |= cause;
	if (r->hw.ram[REG_C] & r->hw.ram[REG_B] & (B_PERIODIC | B_ALARM | B_UPDATE))
		r->hw.ram[REG_C] |= C_IRQ;
	irq_set(&r->irq, !!(r->hw.ram[REG_C] & C_IRQ));
}

static bool alarm_matches(struct rtc *r)
{
	static const uint8_t at[] = { SECONDS, MINUTES, HOURS };

	show_time(r);
	for (unsigned i = 0; i < 3; i++) {
		uint8_t want = r->hw.ram[at[i] + 1];

		if (want < 0xc0 && want != r->hw.ram[at[i]]) /* 0xc0 and more: any */
			return false;
	}
	return true;
}

/* Next moment at which something may have to be raised; nothing runs while no interrupt is enabled. */
static void schedule(struct rtc *r)
{
	uint8_t b = r->hw.ram[REG_B];
	uint64_t next = TIMER_NEVER;

	if ((b & (B_ALARM | B_UPDATE)) && !(b & B_SET))
		next = clock_now(r->clock) + (NS - utc(r) % NS);
	if ((b & B_PERIODIC) && period(r))
		next = MIN(next, r->hw.next_periodic);
	timer_arm(&r->timer, next);
}

static void due(void *opaque)
{
	struct rtc *r = opaque;
	uint64_t now, second;

	pthread_mutex_lock(&r->lock);
	now = clock_now(r->clock);
	if ((r->hw.ram[REG_B] & B_PERIODIC) && period(r) && now >= r->hw.next_periodic) {
		r->hw.next_periodic += ((now - r->hw.next_periodic) / period(r) + 1) * period(r);
		raise_cause(r, B_PERIODIC);
	}
	second = utc(r) / NS;
	if (second != r->hw.last_second) {
		r->hw.last_second = second;
		raise_cause(r, B_UPDATE);
		if (alarm_matches(r))
			raise_cause(r, B_ALARM);
	}
	schedule(r);
	pthread_mutex_unlock(&r->lock);
}

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
	struct rtc *r = opaque;
	uint8_t v;

	if (!(offset & 1))
		return 0xff;
	pthread_mutex_lock(&r->lock);
	if (r->hw.index <= YEAR || r->hw.index == CENTURY)
		show_time(r);
	v = r->hw.ram[r->hw.index];
	if (r->hw.index == REG_A && !(r->hw.ram[REG_B] & B_SET) && utc(r) % NS > NS - UPDATE_NS)
		v |= A_UIP;
	if (r->hw.index == REG_C) {
		r->hw.ram[REG_C] = 0;
		irq_set(&r->irq, 0);
	}
	if (r->hw.index == REG_D)
		v = 0x80; /* the battery is good */
	pthread_mutex_unlock(&r->lock);
	return v;
}

static void data_write(struct rtc *r, uint8_t v)
{
	uint8_t *m = r->hw.ram, old;

	switch (r->hw.index) {
	case SECONDS: case MINUTES: case HOURS: case WEEKDAY: case DAY: case MONTH: case YEAR: case CENTURY:
		show_time(r);
		m[r->hw.index] = v;
		if (!(m[REG_B] & B_SET))
			take_time(r);
		break;
	case REG_A:
		m[REG_A] = v & 0x7f;
		r->hw.next_periodic = clock_now(r->clock) + period(r);
		break;
	case REG_B:
		show_time(r);
		old = m[REG_B];
		m[REG_B] = v;
		if ((old & B_SET) && !(v & B_SET))
			take_time(r);
		if (!(old & B_PERIODIC))
			r->hw.next_periodic = clock_now(r->clock) + period(r);
		r->hw.last_second = utc(r) / NS;
		raise_cause(r, 0);
		break;
	case REG_C:
	case REG_D:
		break;
	default:
		m[r->hw.index] = v;
		break;
	}
	schedule(r);
}

static void port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct rtc *r = opaque;

	pthread_mutex_lock(&r->lock);
	if (offset & 1)
		data_write(r, (uint8_t)value);
	else
		r->hw.index = value & 0x7f;
	pthread_mutex_unlock(&r->lock);
}

static const struct io_ops io = { port_read, port_write, 1, 1 };

static const struct state_field fields[] = {
	STATE_RAW(struct rtc_hw, ram), STATE_INT(struct rtc_hw, index), STATE_INT(struct rtc_hw, offset),
	STATE_INT(struct rtc_hw, next_periodic), STATE_INT(struct rtc_hw, last_second),
};

static int check(const void *hw, struct err *e)
{
	return ((const struct rtc_hw *)hw)->index > 0x7f ? err_set(e, EINVAL, "rtc: index out of range") : 0;
}

static const struct state_desc desc = {
	.name = "rtc", .version = 1, .size = sizeof(struct rtc_hw),
	.fields = fields, .nfields = ARRAY_LEN(fields), .check = check,
};

/* CMOS and time survive a reset, as behind a battery; interrupt enables do not. */
static void reset(struct device *d, enum reset_kind kind)
{
	struct rtc *r = container_of(d, struct rtc, device);

	pthread_mutex_lock(&r->lock);
	r->hw.ram[REG_B] &= (uint8_t)~(B_PERIODIC | B_ALARM | B_UPDATE);
	r->hw.ram[REG_C] = 0;
	irq_set(&r->irq, 0);
	schedule(r);
	pthread_mutex_unlock(&r->lock);
}

static void loaded(struct device *d)
{
	struct rtc *r = container_of(d, struct rtc, device);
	struct timespec now;

	pthread_mutex_lock(&r->lock);
	/* a machine that was away finds the right time again */
	clock_gettime(CLOCK_REALTIME, &now);
	r->hw.offset = (int64_t)((uint64_t)now.tv_sec * NS + (uint64_t)now.tv_nsec - clock_now(r->clock));
	irq_set(&r->irq, !!(r->hw.ram[REG_C] & C_IRQ));
	schedule(r);
	pthread_mutex_unlock(&r->lock);
}

static void destroy(struct device *d)
{
	struct rtc *r = container_of(d, struct rtc, device);

	timer_cancel(&r->timer);
	ports_unmap(r->ports, 0x70, "rtc");
	pthread_mutex_destroy(&r->lock);
	free(r);
}

static const struct device_ops ops = { .state = &desc, .reset = reset, .loaded = loaded, .destroy = destroy };

struct device *rtc_create(struct device_env *env, struct irq_line irq, struct err *e)
{
	struct rtc *r = calloc(1, sizeof(*r));
	struct timespec now;

	if (!r) {
		err_set(e, ENOMEM, "no memory for the clock");
		return NULL;
	}
	r->device = (struct device){ .ops = &ops, .hw = &r->hw };
	r->irq = irq;
	r->clock = env->clock;
	r->ports = env->ports;
	pthread_mutex_init(&r->lock, NULL);
	timer_init(&r->timer, env->clock, due, r);
	clock_gettime(CLOCK_REALTIME, &now);
	r->hw.offset = (int64_t)((uint64_t)now.tv_sec * NS + (uint64_t)now.tv_nsec - clock_now(env->clock));
	r->hw.ram[REG_A] = 0x26;
	r->hw.ram[REG_B] = B_24H;
	if (ports_map(env->ports, 0x70, 2, &io, r, "rtc", e)) {
		pthread_mutex_destroy(&r->lock);
		free(r);
		return NULL;
	}
	return &r->device;
}

void rtc_cmos_set(struct device *rtc, uint8_t index, uint8_t value)
{
	container_of(rtc, struct rtc, device)->hw.ram[index & 0x7f] = value;
}
