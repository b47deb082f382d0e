/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MC146818 clock with 114 bytes of CMOS memory and the century at 0x32, as PCs have it.
 *
 * The time of day is seconds since 1970 as a function of the virtual clock: at virtual ns `epoch_ns` it was
 * `epoch_s`. With SET in register B, or the divider held in reset, time stands still and the ten time registers are
 * plain memory; what they hold becomes the time when it goes on. One timer serves the next of: end of a second
 * (update and alarm interrupts), next periodic interrupt; it runs only while something could come of it.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/err.h"
#include "dev/pc-devices.h"

enum { RTC_SECOND, RTC_SECOND_ALARM, RTC_MINUTE, RTC_MINUTE_ALARM, RTC_HOUR, RTC_HOUR_ALARM, RTC_WEEKDAY, RTC_DAY,
       RTC_MONTH, RTC_YEAR, RTC_A, RTC_B, RTC_C, RTC_D, RTC_CENTURY = 0x32 };

#define A_UIP 0x80
#define B_SET 0x80
#define B_PIE 0x40
#define B_AIE 0x20
#define B_UIE 0x10
#define B_BINARY 0x04
#define B_24H 0x02
#define C_IRQF 0x80
#define C_PF 0x40
#define C_AF 0x20
#define C_UF 0x10

#define SECOND 1000000000ull
#define UIP_NS 244000ull /* the update is announced that long before it */

struct rtc_hw {
	uint8_t cmos[128]; /* time registers: only while stopped; alarms: always */
	uint8_t index;
	int64_t epoch_s;
	int64_t skew_s; /* what the guest has set, less the host's time when it did */
	uint64_t epoch_ns;
	uint64_t seen_ns;     /* updates up to here have set their flags */
	uint64_t periodic_ns; /* periodic ones likewise */
};

struct rtc {
	struct device device;
	struct rtc_hw hw;
	struct clock *clock;
	struct irq_line irq;
	struct timer timer;
	pthread_mutex_t lock;
};

static bool stopped(const struct rtc *r)
{
	return r->hw.cmos[RTC_B] & B_SET || (r->hw.cmos[RTC_A] & 0x70) != 0x20;
}

/* ---- representation */

static uint8_t encode(const struct rtc *r, unsigned v)
{
	return (uint8_t)(r->hw.cmos[RTC_B] & B_BINARY ? v : (v / 10 % 10) << 4 | v % 10);
}

static unsigned decode(const struct rtc *r, uint8_t v)
{
	return r->hw.cmos[RTC_B] & B_BINARY ? v : (v >> 4) * 10u + (v & 15);
}

static uint8_t encode_hour(const struct rtc *r, unsigned h)
{
	if (r->hw.cmos[RTC_B] & B_24H)
		return encode(r, h);
	return (uint8_t)(encode(r, h % 12 ? h % 12 : 12) | (h >= 12 ? 0x80 : 0));
}

static unsigned decode_hour(const struct rtc *r, uint8_t v)
{
	if (r->hw.cmos[RTC_B] & B_24H)
		return decode(r, v);
	return decode(r, v & 0x7f) % 12 + (v & 0x80 ? 12 : 0);
}

static int64_t now_s(const struct rtc *r, uint64_t ns)
{
	return r->hw.epoch_s + (int64_t)((ns - r->hw.epoch_ns) / SECOND);
}

static uint8_t time_register(const struct rtc *r, unsigned i, int64_t s)
{
	time_t t = (time_t)s;
	struct tm tm;

	gmtime_r(&t, &tm);
	switch (i) {
	case RTC_SECOND:
		return encode(r, (unsigned)tm.tm_sec);
	case RTC_MINUTE:
		return encode(r, (unsigned)tm.tm_min);
	case RTC_HOUR:
		return encode_hour(r, (unsigned)tm.tm_hour);
	case RTC_WEEKDAY:
		return encode(r, (unsigned)tm.tm_wday + 1);
	case RTC_DAY:
		return encode(r, (unsigned)tm.tm_mday);
	case RTC_MONTH:
		return encode(r, (unsigned)tm.tm_mon + 1);
	case RTC_YEAR:
		return encode(r, (unsigned)(tm.tm_year + 2000) % 100);
	default: /* from year -100 on */
		return encode(r, ((unsigned)(tm.tm_year + 2000) / 100 + 99) % 100);
	}
}

static bool is_time(unsigned i)
{
	return i == RTC_CENTURY || (i < RTC_A && i != RTC_SECOND_ALARM && i != RTC_MINUTE_ALARM &&
				    i != RTC_HOUR_ALARM);
}

static const uint8_t time_registers[] = { RTC_SECOND, RTC_MINUTE, RTC_HOUR, RTC_WEEKDAY, RTC_DAY, RTC_MONTH,
					  RTC_YEAR, RTC_CENTURY };

/* Running to stopped: the time becomes memory. */
static void freeze(struct rtc *r)
{
	int64_t s = now_s(r, clock_now(r->clock));

	for (unsigned i = 0; i < ARRAY_LEN(time_registers); i++)
		r->hw.cmos[time_registers[i]] = time_register(r, time_registers[i], s);
}

/* Stopped to running: memory becomes the time; impossible dates are normalised. The next second is a whole one away. */
static void thaw(struct rtc *r)
{
	struct tm tm = {
		.tm_sec = (int)decode(r, r->hw.cmos[RTC_SECOND]),
		.tm_min = (int)decode(r, r->hw.cmos[RTC_MINUTE]),
		.tm_hour = (int)decode_hour(r, r->hw.cmos[RTC_HOUR]),
		.tm_mday = (int)decode(r, r->hw.cmos[RTC_DAY]),
		.tm_mon = (int)decode(r, r->hw.cmos[RTC_MONTH]) - 1,
		.tm_year = (int)(decode(r, r->hw.cmos[RTC_CENTURY]) * 100 + decode(r, r->hw.cmos[RTC_YEAR])) - 1900,
	};

	r->hw.epoch_s = (int64_t)timegm(&tm);
	r->hw.skew_s = r->hw.epoch_s - (int64_t)time(NULL);
	r->hw.epoch_ns = r->hw.seen_ns = clock_now(r->clock);
}

/* ---- interrupts */

/* Period in ns x 2^15 (ticks of 32768 Hz), 0: none. */
static uint64_t period_ticks(const struct rtc *r)
{
	unsigned rate = r->hw.cmos[RTC_A] & 15;

	if (!rate || (r->hw.cmos[RTC_A] & 0x70) != 0x20)
		return 0;
	return 1ull << (rate < 3 ? rate + 6 : rate - 1);
}

static uint64_t ns_to_ticks(uint64_t ns)
{
	return (uint64_t)((unsigned __int128)ns * 32768 / SECOND);
}

static uint64_t ticks_to_ns(uint64_t ticks)
{
	return (uint64_t)(((unsigned __int128)ticks * SECOND + 32767) / 32768);
}

static bool alarm_matches(const struct rtc *r, int64_t s)
{
	static const uint8_t pairs[3][2] = { { RTC_SECOND_ALARM, RTC_SECOND }, { RTC_MINUTE_ALARM, RTC_MINUTE },
					     { RTC_HOUR_ALARM, RTC_HOUR } };

	for (unsigned i = 0; i < 3; i++) {
		uint8_t want = r->hw.cmos[pairs[i][0]];

		if (want < 0xc0 && want != time_register(r, pairs[i][1], s)) /* 0xc0..0xff: any */
			return false;
	}
	return true;
}

/* Flags of the updates since we looked last. A day holds every alarm, so more of them need not be gone through. */
static void catch_up_seconds(struct rtc *r, uint64_t now)
{
	int64_t from, to;

	if (stopped(r) || now < r->hw.seen_ns)
		return;
	from = now_s(r, r->hw.seen_ns);
	to = now_s(r, now);
	r->hw.seen_ns = now;
	if (to <= from)
		return;
	r->hw.cmos[RTC_C] |= C_UF;
	if (r->hw.cmos[RTC_C] & C_AF)
		return;
	for (from = MAX(from, to - 86400); from < to; from++) {
		if (alarm_matches(r, from + 1)) {
			r->hw.cmos[RTC_C] |= C_AF;
			break;
		}
	}
}

static void catch_up(struct rtc *r)
{
	uint64_t now = clock_now(r->clock), period = period_ticks(r);

	catch_up_seconds(r, now);
	if (period && now > r->hw.periodic_ns &&
	    ns_to_ticks(now) / period != ns_to_ticks(r->hw.periodic_ns) / period)
		r->hw.cmos[RTC_C] |= C_PF;
	r->hw.periodic_ns = now;
}

/* Flags that are enabled make the interrupt, which stays until register C is read. */
static void update_irq(struct rtc *r)
{
	uint8_t *c = &r->hw.cmos[RTC_C];

	if (*c & r->hw.cmos[RTC_B] & (C_PF | C_AF | C_UF))
		*c |= C_IRQF;
	else
		*c &= (uint8_t)~C_IRQF;
	irq_set(&r->irq, !!(*c & C_IRQF));
}

static void update_timer(struct rtc *r)
{
	uint64_t now = clock_now(r->clock), period = period_ticks(r), next = TIMER_NEVER;
	uint8_t b = r->hw.cmos[RTC_B], c = r->hw.cmos[RTC_C];

	if (!stopped(r) && ((b & B_UIE && !(c & C_UF)) || (b & B_AIE && !(c & C_AF))))
		next = now + SECOND - (now - r->hw.epoch_ns) % SECOND;
	if (period && b & B_PIE && !(c & C_PF))
		next = MIN(next, ticks_to_ns((ns_to_ticks(now) / period + 1) * period));
	timer_arm(&r->timer, next);
}

static void update(struct rtc *r)
{
	catch_up(r);
	update_irq(r);
	update_timer(r);
}

static void rtc_timer(void *opaque)
{
	struct rtc *r = opaque;

	pthread_mutex_lock(&r->lock);
	update(r);
	pthread_mutex_unlock(&r->lock);
}

/* ---- registers */

static void control_write(struct rtc *r, unsigned i, uint8_t v)
{
	bool was = stopped(r);

	if (i == RTC_A)
		v = (uint8_t)(v & ~A_UIP);
	else if (v & B_SET)
		v = (uint8_t)(v & ~B_UIE); /* as the data sheet says */
	if (!was && ((i == RTC_B && v & B_SET) || (i == RTC_A && (v & 0x70) != 0x20)))
		freeze(r);
	r->hw.cmos[i] = v;
	if (was && !stopped(r))
		thaw(r);
}

static void rtc_register_write(struct rtc *r, uint8_t v)
{
	unsigned i = r->hw.index & 0x7f;

	catch_up(r);
	switch (i) {
	case RTC_A:
	case RTC_B:
		control_write(r, i, v);
		break;
	case RTC_C:
	case RTC_D:
		break;
	default:
		if (is_time(i) && !stopped(r)) { /* without SET: set that one, keep the others */
			freeze(r);
			r->hw.cmos[i] = v;
			thaw(r);
		} else {
			r->hw.cmos[i] = v;
		}
		break;
	}
	update(r);
}

static uint8_t rtc_register_read(struct rtc *r)
{
	unsigned i = r->hw.index & 0x7f;
	uint64_t now = clock_now(r->clock);
	uint8_t v = r->hw.cmos[i];

	if (is_time(i) && !stopped(r))
		return time_register(r, i, now_s(r, now));
	if (i == RTC_A && !stopped(r) && SECOND - (now - r->hw.epoch_ns) % SECOND <= UIP_NS)
		v |= A_UIP;
	if (i == RTC_C) {
		catch_up(r);
		update_irq(r);
		v = r->hw.cmos[RTC_C];
		r->hw.cmos[RTC_C] = 0;
		update(r);
	}
	if (i == RTC_D)
		v = 0x80; /* the battery is good */
	return v;
}

static uint64_t rtc_read(void *opaque, uint64_t offset, unsigned size)
{
	struct rtc *r = opaque;
	uint8_t v = 0xff;

	pthread_mutex_lock(&r->lock);
	if (offset == 1)
		v = rtc_register_read(r);
	pthread_mutex_unlock(&r->lock);
	return v;
}

static void rtc_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct rtc *r = opaque;

	pthread_mutex_lock(&r->lock);
	if (offset == 0)
		r->hw.index = (uint8_t)value; /* bit 7 masks NMI, of which there is none */
	else
		rtc_register_write(r, (uint8_t)value);
	pthread_mutex_unlock(&r->lock);
}

static const struct io_ops rtc_io = { rtc_read, rtc_write, 1, 1 };

/* ---- the device */

static int rtc_check(const void *opaque, struct err *e)
{
	const struct rtc_hw *hw = opaque;
	const int64_t year = 366ll * 86400;

	/* years 0 to 16500 or so: BCD digits can be up to 15 each */
	if (hw->epoch_s < -1971 * year || hw->epoch_s > 28000 * year)
		return err_set(e, EINVAL, "rtc: impossible time");
	if (hw->skew_s < -30000 * year || hw->skew_s > 30000 * year)
		return err_set(e, EINVAL, "rtc: impossible distance from the host's time");
	if (hw->epoch_ns > INT64_MAX || hw->seen_ns > INT64_MAX || hw->periodic_ns > INT64_MAX)
		return err_set(e, EINVAL, "rtc: impossible virtual time");
	if (hw->cmos[RTC_A] & A_UIP || hw->cmos[RTC_C] & 0x0f)
		return err_set(e, EINVAL, "rtc: impossible flags");
	return 0;
}

static const struct state_field fields[] = {
	STATE_RAW(struct rtc_hw, cmos), STATE_INT(struct rtc_hw, index),
	STATE_INT(struct rtc_hw, epoch_s), STATE_INT(struct rtc_hw, skew_s),
	STATE_INT(struct rtc_hw, epoch_ns),
	STATE_INT(struct rtc_hw, seen_ns), STATE_INT(struct rtc_hw, periodic_ns),
};

static const struct state_desc rtc_state = {
	.name = "rtc", .version = 1, .size = sizeof(struct rtc_hw),
	.fields = fields, .nfields = ARRAY_LEN(fields), .check = rtc_check,
};

static void rtc_saving(struct device *d)
{
	struct rtc *r = container_of(d, struct rtc, device);

	pthread_mutex_lock(&r->lock);
	update(r);
	pthread_mutex_unlock(&r->lock);
}

/* A machine that was away for some time finds the right time again, or the wrong one that it had chosen. */
static void catch_up_with_host(struct rtc *r, uint64_t now)
{
	int64_t late = (int64_t)time(NULL) + r->hw.skew_s - now_s(r, now);

	if (!stopped(r) && late > 2)
		r->hw.epoch_s += late;
}

/* An epoch or a look in the future cannot be this machine's; take it as now. */
static void rtc_loaded(struct device *d)
{
	struct rtc *r = container_of(d, struct rtc, device);
	uint64_t now = clock_now(r->clock);

	pthread_mutex_lock(&r->lock);
	r->hw.epoch_ns = MIN(r->hw.epoch_ns, now);
	r->hw.seen_ns = MAX(MIN(r->hw.seen_ns, now), r->hw.epoch_ns);
	r->hw.periodic_ns = MIN(r->hw.periodic_ns, now);
	catch_up_with_host(r, now);
	update(r);
	pthread_mutex_unlock(&r->lock);
}

/* Time and memory go on over a reset; interrupts are off. */
static void rtc_reset(struct device *d, enum reset_kind kind)
{
	struct rtc *r = container_of(d, struct rtc, device);

	pthread_mutex_lock(&r->lock);
	r->hw.cmos[RTC_B] &= (uint8_t)~(B_PIE | B_AIE | B_UIE);
	r->hw.cmos[RTC_C] = 0;
	r->hw.index = 0;
	update(r);
	pthread_mutex_unlock(&r->lock);
}

static void rtc_destroy(struct device *d)
{
	struct rtc *r = container_of(d, struct rtc, device);

	timer_cancel(&r->timer);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

static const struct device_ops rtc_ops = {
	.state = &rtc_state,
	.reset = rtc_reset,
	.saving = rtc_saving,
	.loaded = rtc_loaded,
	.destroy = rtc_destroy,
};

struct device *rtc_create(struct device_env *env, struct irq_line irq, struct err *e)
{
	struct rtc *r = calloc(1, sizeof(*r));

	if (!r) {
		err_set(e, ENOMEM, "no memory for the clock");
		return NULL;
	}
	r->device = (struct device){ .ops = &rtc_ops, .hw = &r->hw };
	r->clock = env->clock;
	r->irq = irq;
	pthread_mutex_init(&r->lock, NULL);
	timer_init(&r->timer, env->clock, rtc_timer, r);
	r->hw.cmos[RTC_A] = 0x26; /* 32768 Hz crystal, 1024 Hz */
	r->hw.cmos[RTC_B] = B_24H;
	r->hw.epoch_s = (int64_t)time(NULL);
	r->hw.epoch_ns = r->hw.seen_ns = r->hw.periodic_ns = clock_now(env->clock);
	rtc_reset(&r->device, RESET_COLD);
	if (ports_map(env->ports, 0x70, 2, &rtc_io, r, "rtc", e)) {
		rtc_destroy(&r->device);
		return NULL;
	}
	return &r->device;
}

void rtc_cmos_set(struct device *d, uint8_t index, uint8_t value)
{
	struct rtc *r = container_of(d, struct rtc, device);

	pthread_mutex_lock(&r->lock);
	r->hw.cmos[index & 0x7f] = value;
	pthread_mutex_unlock(&r->lock);
}
