/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Devices on ports, by scripts. Numbers are hexadecimal but for times and counts:
 *
 *	w PORT VALUE		write a byte		W PORT VALUE	two bytes
 *	r PORT VALUE		read and expect		m PORT MASK VALUE	the bits of MASK only
 *	adv NS			let time pass		irq WIRE LEVEL	expect the wire's level
 *	edges WIRE N		so many rising edges since the last such line
 *	line PIN LEVEL		drive an input (8259)	take VECTOR	acknowledge (8259)
 *	key CODE DOWN		a key (decimal; i8042)	mouse DX DY WHEEL BUTTONS	motion (decimal; i8042)
 *	button			the power button	power OFFS RESETS	so many calls up to now
 *
 * Each script runs twice, the second time with the device saved, thrown away, made anew and loaded before every
 * line: that must make no difference. Then the state goes through device_roundtrip, and each device is given
 * random accesses (a fixed seed) with reloads in between, which has to end without a crash.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>
#include "backend/private.h"
#include "dev/fw-cfg.h"
#include "dev/i8042.h"
#include "rig.h"
#include "../state/roundtrip.h"

static struct device *make_uart(struct rig *r)
{
	return uart_create(&r->env, 0, 0x3f8, rig_line(r, 4), NULL, NULL);
}

static struct device *make_pic(struct rig *r)
{
	struct device *d = pic_create(&r->env, NULL);

	pic_set_output(d, rig_line(r, 16));
	return d;
}

static struct device *make_pit(struct rig *r)
{
	return pit_create(&r->env, rig_line(r, 0), NULL);
}

static struct device *make_rtc(struct rig *r)
{
	return rtc_create(&r->env, rig_line(r, 8), NULL);
}

static struct device *make_pm(struct rig *r)
{
	return acpi_pm_create(&r->env, rig_line(r, 9), &r->power, NULL);
}

static struct device *make_reset(struct rig *r)
{
	return reset_port_create(&r->env, &r->power, NULL);
}

static struct device *make_i8042(struct rig *r)
{
	return i8042_create(&r->env, rig_line(r, 1), rig_line(r, 12), &r->power, NULL);
}

static struct device *make_fw_cfg(struct rig *r)
{
	struct device *d = fw_cfg_create(&r->env, NULL);

	assert_int_equal(fw_cfg_add_file(d, "etc/x", "hello", 5, NULL), 0);
	return d;
}

static struct device *make_debug(struct rig *r)
{
	return debug_port_create(&r->env, NULL, NULL);
}

struct script {
	const char *name;
	struct device *(*make)(struct rig *r);
	uint16_t first, count; /* ports for the random part */
	const char *text;
};

static const struct script scripts[] = {
	{ "uart", make_uart, 0x3f8, 8,
	  "r 3fd 60\n r 3fa 1\n r 3fe b0\n"
	  "w 3fb 83\n w 3f8 1\n w 3f9 0\n r 3f8 1\n r 3f9 0\n w 3fb 3\n r 3f9 0\n r 3fb 3\n"
	  "w 3ff 5a\n r 3ff 5a\n"
	  "w 3fa 7\n r 3fa c1\n"
	  /* transmitter empty interrupts when enabled, IIR acknowledges, sending brings it back */
	  "w 3f9 2\n irq 4 1\n r 3fa c2\n irq 4 0\n r 3fa c1\n w 3f8 41\n irq 4 1\n r 3fa c2\n w 3f9 0\n w 3f9 2\n"
	  "irq 4 1\n w 3f9 0\n irq 4 0\n"
	  /* loopback: modem lines and their changes, data */
	  "w 3fc 10\n r 3fe b\n r 3fe 0\n w 3fc 1a\n r 3fe 99\n w 3f8 55\n r 3fd 61\n r 3f8 55\n r 3fd 60\n"
	  /* below the trigger level: after four characters' time */
	  "w 3fa c1\n w 3f9 1\n w 3f8 11\n irq 4 0\n adv 347000\n irq 4 0\n adv 300\n irq 4 1\n r 3fa cc\n"
	  "r 3f8 11\n irq 4 0\n r 3fa c1\n"
	  /* 17 bytes into 16: overrun, level interrupt at 14 */
	  "w 3fa c3\n w 3f9 5\n w 3f8 1\n w 3f8 2\n w 3f8 3\n w 3f8 4\n w 3f8 5\n w 3f8 6\n w 3f8 7\n w 3f8 8\n w 3f8 9\n"
	  "w 3f8 a\n w 3f8 b\n w 3f8 c\n w 3f8 d\n irq 4 0\n w 3f8 e\n irq 4 1\n r 3fa c4\n w 3f8 f\n w 3f8 10\n"
	  "w 3f8 11\n r 3fa c6\n r 3fd 63\n r 3fd 61\n r 3fa c4\n r 3f8 1\n r 3f8 2\n r 3f8 3\n r 3f8 4\n r 3f8 5\n"
	  "irq 4 0\n w 3fa 3\n r 3fd 60\n r 3f8 0\n"
	  /* modem status */
	  "w 3f9 8\n w 3fc 1f\n irq 4 1\n r 3fa c0\n r 3fe f2\n irq 4 0\n w 3fc 0\n" },
	{ "pic", make_pic, 0x20, 2,
	  "w 20 11\n w 21 20\n w 21 4\n w 21 1\n w a0 11\n w a1 28\n w a1 2\n w a1 1\n w 21 0\n w a1 0\n r 21 0\n"
	  /* one, in service, ended */
	  "line 1 1\n irq 16 1\n take 21\n irq 16 0\n w 20 b\n r 20 2\n w 20 20\n r 20 0\n line 1 0\n"
	  /* priorities: a lower one waits, a higher one nests */
	  "line 4 1\n take 24\n line 5 1\n irq 16 0\n line 3 1\n irq 16 1\n take 23\n w 20 20\n w 20 20\n irq 16 1\n"
	  "take 25\n w 20 20\n line 3 0\n line 4 0\n line 5 0\n"
	  /* the slave through the cascade, both want their EOI */
	  "line 9 1\n irq 16 1\n take 29\n r 20 4\n w a0 b\n r a0 2\n w a0 20\n w 20 20\n line 9 0\n irq 16 0\n"
	  /* gone before the acknowledgement: spurious, and not in service */
	  "line 6 1\n line 6 0\n irq 16 0\n take 27\n r 20 0\n"
	  /* masked: the edge waits */
	  "w 21 ff\n line 1 1\n irq 16 0\n w 20 a\n r 20 2\n w 21 0\n irq 16 1\n take 21\n w 20 61\n line 1 0\n"
	  /* level-triggered by ELCR: comes again until it is lowered */
	  "W 4d0 20\n r 4d0 20\n line 5 1\n take 25\n w 20 20\n irq 16 1\n take 25\n line 5 0\n w 20 20\n irq 16 0\n"
	  "w 4d0 0\n"
	  /* rotation on EOI: 3 becomes the lowest, so 4 goes before it */
	  "line 3 1\n take 23\n line 3 0\n w 20 a0\n line 3 1\n line 4 1\n take 24\n w 20 20\n take 23\n w 20 20\n"
	  "line 3 0\n line 4 0\n w 20 c7\n"
	  /* special mask: a masked one in service does not hold lower ones back */
	  "line 0 1\n take 20\n line 7 1\n irq 16 0\n w 20 68\n w 21 1\n irq 16 1\n take 27\n w 20 67\n w 20 60\n w 20 48\n"
	  "w 21 0\n line 0 0\n line 7 0\n"
	  /* polling */
	  "line 2 0\n line 1 1\n w 20 c\n r 20 81\n w 20 c\n r 20 0\n w 20 20\n line 1 0\n"
	  /* automatic EOI */
	  "w 20 11\n w 21 40\n w 21 4\n w 21 3\n line 1 1\n take 41\n w 20 b\n r 20 0\n line 1 0\n" },
	{ "pit", make_pit, 0x40, 4,
	  /* mode 2, 1193 ticks: just under a millisecond */
	  "w 43 34\n w 40 a9\n w 40 4\n edges 0 0\n adv 999000\n edges 0 0\n adv 2000\n edges 0 1\n adv 9998500\n edges 0 10\n"
	  /* mode 3 */
	  "w 43 36\n w 40 a9\n w 40 4\n edges 0 0\n irq 0 1\n adv 500500\n irq 0 0\n adv 500000\n irq 0 1\n edges 0 1\n"
	  /* mode 0: one edge and no more */
	  "w 43 30\n irq 0 0\n w 40 a9\n w 40 4\n irq 0 0\n adv 1001000\n irq 0 1\n edges 0 1\n adv 100000000\n edges 0 0\n"
	  /* read-back of status: output high, mode 0, both bytes */
	  "w 43 e2\n r 40 b0\n"
	  /* count latched stays while time passes; low byte first */
	  "w 43 b0\n w 61 1\n w 42 0\n w 42 10\n w 43 80\n adv 838096\n r 42 0\n r 42 10\n w 43 80\n r 42 18\n r 42 c\n"
	  /* channel 2 at port 0x61: gate stops it, output shows */
	  "m 61 23 1\n w 61 0\n adv 100000000\n m 61 20 0\n w 61 1\n adv 2590000\n m 61 20 0\n adv 7000\n m 61 20 20\n"
	  /* one-shot triggered by the gate */
	  "w 61 0\n w 43 b2\n m 61 20 20\n w 42 a9\n w 42 4\n m 61 20 20\n w 61 1\n m 61 20 0\n adv 1001000\n m 61 20 20\n"
	  "w 61 0\n w 61 1\n m 61 20 0\n adv 1001000\n m 61 20 20\n"
	  /* strobes: 4 by software, 5 by the gate: one tick low */
	  "w 43 b8\n w 42 a9\n w 42 4\n m 61 20 20\n adv 999850\n m 61 20 0\n adv 900\n m 61 20 20\n"
	  "w 61 0\n w 43 ba\n w 42 a9\n w 42 4\n adv 5000000\n m 61 20 20\n w 61 1\n adv 999850\n m 61 20 0\n adv 900\n"
	  "m 61 20 20\n"
	  /* decimal: 1000 down by 10 is 990 */
	  "w 43 b1\n w 42 0\n w 42 10\n adv 8385\n r 42 90\n r 42 9\n"
	  /* one byte, and the refresh toggle */
	  "w 43 96\n w 42 40\n adv 30170\n adv 15085\n" },
	{ "rtc", make_rtc, 0x70, 2,
	  "w 70 d\n r 71 80\n w 70 e\n w 71 77\n r 71 77\n w 70 b\n r 71 2\n"
	  /* 2024-02-28 23:59:58, a leap year */
	  "w 71 82\n w 70 0\n w 71 58\n w 70 2\n w 71 59\n w 70 4\n w 71 23\n w 70 7\n w 71 28\n w 70 8\n w 71 2\n"
	  "w 70 9\n w 71 24\n w 70 32\n w 71 20\n adv 5000000000\n w 70 0\n r 71 58\n w 70 b\n w 71 2\n"
	  "w 70 0\n adv 999999999\n r 71 58\n adv 1\n r 71 59\n adv 1000000000\n r 71 0\n w 70 4\n r 71 0\n w 70 7\n r 71 29\n"
	  "w 70 6\n r 71 5\n w 70 9\n r 71 24\n w 70 32\n r 71 20\n"
	  /* twelve hours, binary */
	  "w 70 b\n w 71 0\n w 70 4\n r 71 12\n w 70 b\n w 71 6\n w 70 9\n r 71 18\n w 70 b\n w 71 2\n"
	  /* update in progress before the second turns */
	  "w 70 a\n r 71 26\n adv 999800000\n r 71 a6\n adv 200000\n r 71 26\n"
	  /* update interrupt; C clears */
	  "w 70 c\n m 71 0 0\n w 70 b\n w 71 12\n irq 8 0\n adv 1000000000\n irq 8 1\n w 70 c\n r 71 d0\n irq 8 0\n r 71 0\n"
	  /* alarm at any hour and minute, second 4: it is second 2 now */
	  "w 70 0\n r 71 2\n w 70 1\n w 71 4\n w 70 3\n w 71 ff\n w 70 5\n w 71 ff\n w 70 b\n w 71 22\n adv 1000000000\n irq 8 0\n"
	  "adv 1000000000\n irq 8 1\n w 70 c\n r 71 f0\n irq 8 0\n w 70 b\n w 71 2\n"
	  /* periodic, 1024 Hz: an interrupt only after each acknowledgement */
	  "w 70 c\n m 71 0 0\n w 70 b\n w 71 42\n adv 976563\n irq 8 1\n adv 5000000\n edges 8 3\n w 70 c\n r 71 c0\n"
	  "irq 8 0\n adv 976563\n irq 8 1\n w 70 b\n w 71 2\n irq 8 0\n" },
	{ "acpi-pm", make_pm, 0x600, 48,
	  "r 604 1\n r 600 0\n W 602 100\n irq 9 0\n button\n irq 9 1\n r 601 1\n w 601 1\n irq 9 0\n r 601 0\n"
	  /* the timer: 3579545 a second */
	  "adv 1000000000\n r 608 99\n r 609 9e\n r 60a 36\n r 60b 0\n"
	  /* its carry after 2^31 ticks, 600 seconds */
	  "W 602 1\n adv 598900000000\n irq 9 0\n adv 40000000000\n irq 9 1\n r 600 1\n w 600 1\n irq 9 0\n"
	  "W 604 401\n power 0 0\n W 604 3401\n power 1 0\n W 604 1401\n power 1 0\n W 604 3001\n power 1 0\n" },
	{ "reset-port", make_reset, 0xcf9, 1,
	  "r 92 2\n w 92 0\n r 92 2\n w cf9 2\n r cf9 2\n power 0 0\n w cf9 6\n power 0 1\n w 92 3\n power 0 2\n" },
	{ "i8042", make_i8042, 0x60, 5,
	  /* controller: self-test, interfaces, configuration, resets */
	  "r 64 14\n w 64 aa\n r 64 1d\n irq 1 1\n r 60 55\n irq 1 0\n r 64 1c\n w 64 ab\n r 60 0\n w 64 a9\n r 60 0\n"
	  "w 64 20\n r 60 47\n w 64 60\n w 60 65\n w 64 20\n r 60 65\n"
	  "power 0 0\n w 64 fe\n power 0 1\n w 64 d1\n w 60 fe\n power 0 2\n w 64 d1\n w 60 3\n power 0 2\n"
	  /* keyboard: identification and reset, keys translated (A, right arrow, F12), then as they are */
	  "w 60 f2\n r 64 15\n r 60 fa\n r 60 ab\n r 60 41\n w 60 ff\n r 60 fa\n r 60 aa\n r 64 14\n"
	  "key 30 1\n irq 1 1\n r 60 1e\n irq 1 0\n key 30 0\n r 60 9e\n key 106 1\n key 106 0\n"
	  "r 60 e0\n r 60 4d\n r 60 e0\n r 60 cd\n key 88 1\n r 60 58\n"
	  "w 64 60\n w 60 25\n key 30 1\n r 60 1c\n key 30 0\n r 60 f0\n r 60 1c\n"
	  "w 60 f0\n r 60 fa\n w 60 1\n r 60 fa\n key 30 0\n r 60 9e\n w 60 f0\n r 60 fa\n w 60 0\n r 60 fa\n r 60 1\n"
	  "w 60 f0\n r 60 fa\n w 60 3\n r 60 fe\n w 60 ed\n r 60 fa\n w 60 7\n r 60 fa\n w 60 ee\n r 60 ee\n"
	  /* switched off it says nothing; the interrupt masked it comes without */
	  "w 60 f5\n r 60 fa\n key 30 1\n r 64 14\n w 60 f4\n r 60 fa\n w 64 60\n w 60 24\n key 30 1\n irq 1 0\n r 60 1c\n"
	  "w 64 ad\n key 30 1\n r 64 1c\n w 64 ae\n r 64 1d\n r 60 1c\n"
	  /* mouse: reset, plain packets, the knock for a wheel */
	  "w 64 60\n w 60 47\n w 64 d4\n w 60 ff\n irq 12 1\n r 64 35\n r 60 fa\n r 60 aa\n r 60 0\n irq 12 0\n"
	  "mouse 5 -3 0 1\n r 64 14\n w 64 d4\n w 60 f4\n r 60 fa\n r 64 35\n r 60 9\n r 60 5\n r 60 3\n r 64 14\n"
	  "mouse -2 4 1 0\n r 60 38\n r 60 fe\n r 60 fc\n r 64 14\n"
	  "w 64 d4\n w 60 f3\n r 60 fa\n w 64 d4\n w 60 c8\n r 60 fa\n w 64 d4\n w 60 f3\n r 60 fa\n w 64 d4\n w 60 64\n"
	  "r 60 fa\n w 64 d4\n w 60 f3\n r 60 fa\n w 64 d4\n w 60 50\n r 60 fa\n w 64 d4\n w 60 f2\n r 60 fa\n r 60 3\n"
	  "mouse 0 0 -1 0\n r 60 8\n r 60 0\n r 60 0\n r 60 ff\n"
	  "mouse 300 0 0 0\n r 60 8\n r 60 ff\n r 60 0\n r 60 0\n r 60 8\n r 60 2d\n r 60 0\n r 60 0\n r 64 14\n"
	  "w 64 d4\n w 60 e9\n r 60 fa\n r 60 20\n r 60 2\n r 60 50\n" },
	{ "fw-cfg", make_fw_cfg, 0x510, 12,
	  "W 510 0\n r 511 51\n r 511 45\n r 511 4d\n r 511 55\n r 511 0\n W 510 1\n r 511 3\n r 511 0\n"
	  "W 510 19\n r 511 0\n r 511 0\n r 511 0\n r 511 1\n r 511 0\n r 511 0\n r 511 0\n r 511 5\n r 511 0\n r 511 20\n"
	  "r 511 0\n r 511 0\n r 511 65\n r 511 74\n r 511 63\n W 510 20\n r 511 68\n r 511 65\n"
	  "W 510 8020\n r 511 0\n W 510 4020\n r 511 68\n r 514 51\n r 51b 47\n" },
	{ "debug-port", make_debug, 0x80, 1, "w 80 aa\n r 80 aa\n r e9 ff\n" },
};

/* ---- running them */

static void replace(const struct script *s, struct rig *r)
{
	struct state_buf b = { 0 };
	uint64_t now = clock_now(r->machine.clock);
	struct err e = { 0 };

	if (r->device->ops->saving)
		r->device->ops->saving(r->device);
	assert_int_equal(state_save(&b, r->device->ops->state, 0, r->device->hw, &e), 0);
	assert_int_equal(state_end(&b, &e), 0);
	{
		int level[WIRES];
		unsigned edges[WIRES];

		memcpy(level, r->level, sizeof(level));
		memcpy(edges, r->edges, sizeof(edges));
		rig_close(r);
		rig_open(r, now);
		r->device = s->make(r);
		memcpy(r->level, level, sizeof(level)); /* what making and resetting did to the wires is not the script's */
		memcpy(r->edges, edges, sizeof(edges));
	}
	if (state_load(&b, r->device->ops->state, 0, r->device->hw, &e))
		fail_msg("%s: %s", s->name, e.text);
	if (r->device->ops->loaded)
		r->device->ops->loaded(r->device);
	state_buf_dispose(&b);
}

static void expect(const struct script *s, const char *line, uint64_t got, uint64_t want)
{
	if (got != want)
		fail_msg("%s at %u: \"%.*s\": got %llx, want %llx", s->name, (unsigned)(line - s->text), (int)strcspn(line, "\n"), line,
			 (unsigned long long)got, (unsigned long long)want);
}

static void run_line(const struct script *s, struct rig *r, const char *line)
{
	unsigned a = 0, b = 0, c = 0;
	unsigned long long ns;
	int dx, dy, wheel;

	if (sscanf(line, " W %x %x", &a, &b) == 2) {
		ports_out(r->machine.ports, (uint16_t)a, b, 2);
	} else if (sscanf(line, " w %x %x", &a, &b) == 2) {
		ports_out(r->machine.ports, (uint16_t)a, b, 1);
	} else if (sscanf(line, " r %x %x", &a, &b) == 2) {
		expect(s, line, ports_in(r->machine.ports, (uint16_t)a, 1), b);
	} else if (sscanf(line, " m %x %x %x", &a, &b, &c) == 3) {
		expect(s, line, ports_in(r->machine.ports, (uint16_t)a, 1) & b, c);
	} else if (sscanf(line, " adv %llu", &ns) == 1) {
		clock_advance(r->machine.clock, ns);
	} else if (sscanf(line, " irq %u %u", &a, &b) == 2) {
		expect(s, line, (uint64_t)r->level[a], b);
	} else if (sscanf(line, " edges %u %u", &a, &b) == 2) {
		expect(s, line, r->edges[a], b);
		r->edges[a] = 0;
	} else if (sscanf(line, " line %u %u", &a, &b) == 2) {
		irq_set(&(struct irq_line){ pic_input(r->device, a).set, pic_input(r->device, a).opaque, a }, (int)b);
	} else if (sscanf(line, " take %x", &a) == 1) {
		expect(s, line, (uint64_t)pic_take(r->device), a);
	} else if (sscanf(line, " key %u %u", &a, &b) == 2) {
		i8042_key(r->device, a, b);
	} else if (sscanf(line, " mouse %d %d %d %u", &dx, &dy, &wheel, &a) == 4) {
		i8042_mouse(r->device, dx, dy, wheel, a);
	} else if (!strncmp(line + strspn(line, " "), "button", 6)) {
		acpi_pm_power_button(r->device);
	} else if (sscanf(line, " power %u %u", &a, &b) == 2) {
		expect(s, line, r->offs, a);
		expect(s, line, r->resets, b);
	} else {
		fail_msg("%s: what is \"%.*s\"?", s->name, (int)strcspn(line, "\n"), line);
	}
}

/* Several keys are taken together or not at all. */
static void test_keys(void **state)
{
	static const struct key_event shifted[] = { { 42, true }, { 30, true }, { 30, false }, { 42, false } };
	struct key_event many[40], none = { 0x2ff, true };
	struct rig r = { 0 };
	unsigned struck = 0, got = 0;

	rig_open(&r, 0);
	r.device = make_i8042(&r);
	assert_non_null(r.device);
	for (unsigned i = 0; i < ARRAY_LEN(many); i++)
		many[i] = (struct key_event){ 30, !(i & 1) };
	assert_int_equal(i8042_keys(r.device, &none, 1), -EINVAL);
	assert_int_equal(i8042_keys(r.device, many, ARRAY_LEN(many)), -E2BIG);
	assert_int_equal(ports_in(r.machine.ports, 0x64, 1) & 1, 0); /* nothing of them has come */
	while (!i8042_keys(r.device, shifted, ARRAY_LEN(shifted)))
		assert_true(++struck < 100);
	assert_true(struck >= 8);
	assert_int_equal(i8042_keys(r.device, shifted, ARRAY_LEN(shifted)), -EAGAIN);
	for (; ports_in(r.machine.ports, 0x64, 1) & 1; got++) {
		static const uint8_t codes[] = { 0x2a, 0x1e, 0x9e, 0xaa };

		assert_int_equal(ports_in(r.machine.ports, 0x60, 1), codes[got % 4]);
	}
	assert_int_equal(got, struck * 4);
	assert_int_equal(i8042_keys(r.device, shifted, ARRAY_LEN(shifted)), 0);
	ports_out(r.machine.ports, 0x60, 0xf5, 1);
	assert_int_equal(i8042_keys(r.device, shifted, ARRAY_LEN(shifted)), -ENODEV);
	rig_close(&r);
}

static void run_script(const struct script *s, bool reloading)
{
	struct rig r = { 0 };

	rig_open(&r, 0);
	r.device = s->make(&r);
	assert_non_null(r.device);
	memset(r.edges, 0, sizeof(r.edges));
	for (const char *line = s->text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
		if (reloading)
			replace(s, &r);
		run_line(s, &r, line);
	}
	device_roundtrip(r.device);
	r.device->ops->reset(r.device, RESET_WARM);
	device_roundtrip(r.device);
	rig_close(&r);
}

static void test_scripts(void **state)
{
	for (unsigned i = 0; i < ARRAY_LEN(scripts); i++) {
		run_script(&scripts[i], false);
		run_script(&scripts[i], true);
	}
}

/* ---- random accesses */

static uint64_t rnd(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

static void test_random(void **state)
{
	static const uint64_t steps[] = { 0, 1, 1000, 1000000, 50000000, 3000000000ull };
	uint64_t seed = 0x9e3779b97f4a7c15ull;

	for (unsigned i = 0; i < ARRAY_LEN(scripts); i++) {
		const struct script *s = &scripts[i];
		struct rig r = { 0 };

		rig_open(&r, 0);
		r.device = s->make(&r);
		for (unsigned n = 0; n < 20000; n++) {
			uint64_t v = rnd(&seed);
			uint16_t port = (uint16_t)(s->first + (v >> 8) % s->count);
			unsigned size = 1u << (v >> 40 & 1);

			if (s->make == make_pic && v >> 41 & 1)
				port = (v >> 42 & 1 ? 0x4d0 : 0xa0) + (port & 1);
			if (s->make == make_pit && !(v >> 41 & 7))
				port = 0x61;
			if (s->make == make_pic && !(v >> 44 & 3))
				irq_set(&(struct irq_line){ pic_input(r.device, v >> 48 & 15).set,
							    pic_input(r.device, 0).opaque, v >> 48 & 15 },
					v >> 52 & 1);
			if (s->make == make_pic && !(v >> 44 & 7))
				assert_in_range(pic_take(r.device), 0, 255);
			if (v & 1)
				ports_in(r.machine.ports, port, size);
			else
				ports_out(r.machine.ports, port, (uint32_t)(v >> 16), size);
			if (!(v >> 56 & 7))
				clock_advance(r.machine.clock, steps[(v >> 60) % ARRAY_LEN(steps)] >> (s->make == make_pit ? 8 : 2));
			if (!(n % 500))
				replace(s, &r);
		}
		device_roundtrip(r.device);
		rig_close(&r);
	}
}

/* Bytes of the saved form changed at random: refused, or a device that still works. */
static void test_hostile_state(void **state)
{
	uint64_t seed = 88172645463325252ull;

	for (unsigned i = 0; i < ARRAY_LEN(scripts); i++) {
		const struct script *s = &scripts[i];

		for (unsigned n = 0; n < 300; n++) {
			struct rig r = { 0 };
			uint8_t *hw;
			size_t size;

			rig_open(&r, rnd(&seed) >> 30);
			r.device = s->make(&r);
			size = r.device->ops->state->size;
			hw = calloc(1, size);
			memcpy(hw, r.device->hw, size);
			for (unsigned k = 0; k < 1 + n % 16; k++) {
				const struct state_desc *d = r.device->ops->state;
				const struct state_field *f = &d->fields[rnd(&seed) % d->nfields];
				uint64_t at = f->offset + rnd(&seed) % ((uint64_t)f->size * f->count);

				hw[at] = (uint8_t)(rnd(&seed) & (f->truth ? 1 : 255));
			}
			if (!r.device->ops->state->check || !r.device->ops->state->check(hw, NULL)) {
				memcpy(r.device->hw, hw, size);
				if (r.device->ops->loaded)
					r.device->ops->loaded(r.device);
				for (unsigned k = 0; k < 64; k++) {
					ports_in(r.machine.ports, (uint16_t)(s->first + k % s->count), 1);
					clock_advance(r.machine.clock, rnd(&seed) >> 38);
				}
			}
			free(hw);
			rig_close(&r);
		}
	}
}

/* A key alone interrupts at once, however slow the line is said to be; bytes that fill the FIFO do by their number. */
static void test_uart_input(void **state)
{
	static const uint8_t keys[16] = "0123456789abcdef";
	struct chr_config config = { .spec = "null" };
	struct evloop *loop = evloop_create(NULL);
	struct rig r = { 0 };
	struct chr *chr;

	assert_non_null(loop);
	chr = chr_open(loop, &config, NULL);
	assert_non_null(chr);
	rig_open(&r, 0);
	r.device = uart_create(&r.env, 0, 0x3f8, rig_line(&r, 4), chr, NULL);
	assert_non_null(r.device);
	assert_int_equal(chr->front.room(chr->front.opaque), 0); /* the guest does not listen */
	ports_out(r.machine.ports, 0x3fa, 0x81, 1);		 /* FIFO, trigger level 8 */
	ports_out(r.machine.ports, 0x3f9, 1, 1);
	assert_int_equal(chr->front.room(chr->front.opaque), 16);
	chr->front.input(chr->front.opaque, keys, 1);
	assert_int_equal(r.level[4], 1);
	assert_int_equal(ports_in(r.machine.ports, 0x3fa, 1), 0xcc);
	assert_int_equal(ports_in(r.machine.ports, 0x3f8, 1), '0');
	assert_int_equal(r.level[4], 0);
	clock_advance(r.machine.clock, 10000000);
	assert_int_equal(r.level[4], 0);
	chr->front.input(chr->front.opaque, keys, 16);
	assert_int_equal(ports_in(r.machine.ports, 0x3fa, 1), 0xc4);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(ports_in(r.machine.ports, 0x3f8, 1), keys[i]);
	assert_int_equal(r.level[4], 0); /* the rest: after a while */
	clock_advance(r.machine.clock, 10000000);
	assert_int_equal(ports_in(r.machine.ports, 0x3fa, 1), 0xcc);
	rig_close(&r);
	evloop_destroy(loop);
	chr_close(chr);
}

static void test_exit_port(void **state)
{
	struct rig r = { 0 };

	rig_open(&r, 0);
	r.device = exit_port_create(&r.env, 0xf4, &r.power, NULL);
	ports_out(r.machine.ports, 0xf4, 0, 1);
	assert_int_equal(r.exits, 1);
	assert_int_equal(r.status, 1);
	ports_out(r.machine.ports, 0xf4, 0x10, 4);
	assert_int_equal(r.status, 0x21);
	rig_close(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_scripts),
		cmocka_unit_test(test_uart_input),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_hostile_state),
		cmocka_unit_test(test_exit_port),
		cmocka_unit_test(test_keys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
