/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 16550A. What is transmitted goes to the back-end at once, so the transmitter is always empty, except while the
 * back-end takes nothing: then one byte waits in the holding register and THRE is low, which is how the guest
 * learns to wait. A guest that polls for THRE waits in the back-end, a little at a time, so that a kernel's console
 * with its time-outs loses nothing to a slow reader.
 *
 * Input stays in the back-end until the FIFO has room, and until the guest listens: it has enabled the receive
 * interrupt or polls the line status. Otherwise input piped in from the start would be thrown away when a driver
 * clears the FIFOs. What comes is all there is at the moment, unless it fills the FIFO: so the interrupt for a rest below the
 * trigger level need not wait for four characters' time, 4 ms at Linux' 9600 baud, to pass without another one. Registers that reading or writing
 * must not disturb are kept exactly as written.
 *
 * The lock is held over chr_write, which never blocks; the back-end calls us with no lock of its own held.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "backend/chr.h"
#include "base/err.h"
#include "dev/pc-devices.h"

enum { UART_DATA, UART_IER, UART_IIR, UART_LCR, UART_MCR, UART_LSR, UART_MSR, UART_SCR };

#define IER_RX 1
#define IER_TX 2
#define IER_LINE 4
#define IER_MODEM 8
#define FCR_ENABLE 1
#define FCR_CLEAR_RX 2
#define LCR_DLAB 0x80
#define MCR_OUT2 0x08
#define MCR_LOOP 0x10
#define LSR_DATA 0x01
#define LSR_OVERRUN 0x02
#define LSR_ERRORS 0x1e
#define LSR_EMPTY 0x60 /* THRE, TEMT */
#define MSR_DELTA 0x0f
#define MSR_LINES 0xb0 /* CTS, DSR, DCD: somebody is there */

#define FIFO 16
#define POLLS 3 /* reads of LSR in a row that make a polling guest */
#define WAIT_MS 50

struct uart_hw {
	uint8_t fifo[FIFO];
	uint8_t first, used;
	uint8_t ier, fcr, lcr, mcr, lsr_errors, msr, scr, dll, dlm;
	uint8_t thr;
	uint8_t polls;
	bool thr_full;
	bool tx_pending, rx_timeout; /* interrupts */
	uint64_t timeout_at;         /* virtual ns, TIMER_NEVER */
};

struct uart {
	struct device device;
	struct uart_hw hw;
	struct clock *clock;
	struct irq_line irq;
	struct chr *chr;
	struct timer timer;
	pthread_mutex_t lock;
	bool held; /* the back-end has been told there is no room */
};

static unsigned capacity(const struct uart *u)
{
	return u->hw.fcr & FCR_ENABLE ? FIFO : 1;
}

static unsigned trigger(const struct uart *u)
{
	static const uint8_t level[4] = { 1, 4, 8, 14 };

	return u->hw.fcr & FCR_ENABLE ? level[u->hw.fcr >> 6] : 1;
}

/* ---- interrupts */

enum { IIR_MODEM = 0, IIR_NONE = 1, IIR_TX = 2, IIR_RX = 4, IIR_LINE = 6, IIR_TIMEOUT = 0xc };

static uint8_t interrupt(const struct uart *u)
{
	if (u->hw.ier & IER_LINE && u->hw.lsr_errors)
		return IIR_LINE;
	if (u->hw.ier & IER_RX && u->hw.used >= trigger(u))
		return IIR_RX;
	if (u->hw.ier & IER_RX && u->hw.rx_timeout)
		return IIR_TIMEOUT;
	if (u->hw.ier & IER_TX && u->hw.tx_pending)
		return IIR_TX;
	if (u->hw.ier & IER_MODEM && u->hw.msr & MSR_DELTA)
		return IIR_MODEM;
	return IIR_NONE;
}

static void update_irq(struct uart *u)
{
	irq_set(&u->irq, interrupt(u) != IIR_NONE);
}

/* Four characters' time at the rate that is set. */
static uint64_t timeout_ns(const struct uart *u)
{
	uint64_t divisor = u->hw.dlm << 8 | u->hw.dll;
	unsigned frame = 2 + 5 + (u->hw.lcr & 3) + !!(u->hw.lcr & 8) + !!(u->hw.lcr & 4);

	return 4 * frame * (divisor ? divisor : 1) * 8681; /* 8681 ns: a bit at 115200 */
}

/* A character has come or gone: a rest below the trigger level is reported after a while. */
static void restart_timeout(struct uart *u)
{
	u->hw.rx_timeout = false;
	u->hw.timeout_at = TIMER_NEVER;
	if (u->hw.fcr & FCR_ENABLE && u->hw.used)
		u->hw.timeout_at = clock_now(u->clock) + timeout_ns(u);
	timer_arm(&u->timer, u->hw.timeout_at);
}

static void time_out(struct uart *u)
{
	u->hw.rx_timeout = u->hw.used && u->hw.fcr & FCR_ENABLE;
	u->hw.timeout_at = TIMER_NEVER;
	timer_arm(&u->timer, TIMER_NEVER);
}

static void uart_timer(void *opaque)
{
	struct uart *u = opaque;

	pthread_mutex_lock(&u->lock);
	if (clock_now(u->clock) >= u->hw.timeout_at)
		time_out(u);
	update_irq(u);
	pthread_mutex_unlock(&u->lock);
}

/* ---- receiving */

static void push(struct uart *u, uint8_t byte)
{
	if (u->hw.used == capacity(u)) {
		u->hw.lsr_errors |= LSR_OVERRUN;
		return;
	}
	u->hw.fifo[(u->hw.first + u->hw.used++) % FIFO] = byte;
}

static uint8_t pop(struct uart *u)
{
	uint8_t byte = u->hw.fifo[u->hw.first];

	if (!u->hw.used)
		return 0;
	u->hw.first = (uint8_t)((u->hw.first + 1) % FIFO);
	u->hw.used--;
	restart_timeout(u);
	return byte;
}

static bool listening(const struct uart *u)
{
	bool probe = u->hw.ier == 0xf && !(u->hw.mcr & MCR_OUT2); /* which bits are there? */

	return ((u->hw.ier & IER_RX && !probe) || u->hw.polls >= POLLS) && !(u->hw.mcr & MCR_LOOP);
}

/* Is the back-end to be told? After that, nothing until it has been refused again. */
static bool room_returned(struct uart *u)
{
	if (!u->held || !listening(u) || u->hw.used > capacity(u) / 2)
		return false;
	u->held = false;
	return true;
}

static size_t uart_room(void *opaque)
{
	struct uart *u = opaque;
	size_t room = 0;

	pthread_mutex_lock(&u->lock);
	if (listening(u))
		room = capacity(u) - MIN(u->hw.used, capacity(u));
	u->held = !room;
	pthread_mutex_unlock(&u->lock);
	return room;
}

static void uart_input(void *opaque, const uint8_t *data, size_t n)
{
	struct uart *u = opaque;

	pthread_mutex_lock(&u->lock);
	for (size_t i = 0; i < n; i++)
		push(u, data[i]);
	u->held = true; /* it asks for room before it comes again; if there is none we have to tell */
	if (u->hw.used < capacity(u))
		time_out(u);
	else
		restart_timeout(u);
	update_irq(u);
	pthread_mutex_unlock(&u->lock);
}

/* ---- transmitting */

/* The holding register to the back-end, if that takes it. */
static void transmit(struct uart *u)
{
	if (!u->chr || chr_write(u->chr, &u->hw.thr, 1)) {
		u->hw.thr_full = false;
		u->hw.tx_pending = true;
	}
	update_irq(u);
}

static void uart_drained(void *opaque)
{
	struct uart *u = opaque;

	pthread_mutex_lock(&u->lock);
	if (u->hw.thr_full)
		transmit(u);
	pthread_mutex_unlock(&u->lock);
}

static void write_data(struct uart *u, uint8_t v)
{
	if (u->hw.mcr & MCR_LOOP) {
		push(u, v);
		restart_timeout(u);
		u->hw.tx_pending = true;
		return;
	}
	u->hw.tx_pending = false;
	u->hw.thr = v;
	u->hw.thr_full = true;
	transmit(u);
}

/* ---- registers */

/* In loopback the four outputs come back as the four inputs: OUT2, OUT1, RTS, DTR as DCD, RI, CTS, DSR. */
static void update_msr(struct uart *u)
{
	uint8_t m = u->hw.mcr, old = u->hw.msr, lines = MSR_LINES, changed;

	if (m & MCR_LOOP)
		lines = (uint8_t)((m & 8) << 4 | (m & 4) << 4 | (m & 2) << 3 | (m & 1) << 5);
	changed = (old ^ lines) & 0xf0;
	u->hw.msr = (uint8_t)(lines | (old & MSR_DELTA) | (changed & 0xb0) >> 4);
	if (old & 0x40 && !(lines & 0x40)) /* the ring indicator counts when it ends */
		u->hw.msr |= 4;
}

static void clear_rx(struct uart *u)
{
	u->hw.first = u->hw.used = 0;
	u->hw.lsr_errors &= (uint8_t)~LSR_OVERRUN;
	u->hw.polls = 0;
	restart_timeout(u);
}

/*
 * Turning the FIFO on without clearing it keeps a byte that waits, unlike the chip: Linux enables the receive
 * interrupt first, and the first byte of piped input would be gone.
 */
static void write_fcr(struct uart *u, uint8_t v)
{
	bool off = u->hw.fcr & ~v & FCR_ENABLE;

	u->hw.fcr = v & FCR_ENABLE ? v & 0xc9 : 0;
	if (off || v & FCR_CLEAR_RX)
		clear_rx(u);
	else
		restart_timeout(u);
}

static void write_ier(struct uart *u, uint8_t v)
{
	v &= 0xf;
	if (v & ~u->hw.ier & IER_TX && !u->hw.thr_full)
		u->hw.tx_pending = true; /* empty when it is enabled: that interrupts too, drivers test for it */
	u->hw.ier = v;
}

static void register_write(struct uart *u, unsigned reg, uint8_t v)
{
	bool dlab = u->hw.lcr & LCR_DLAB;

	switch (reg) {
	case UART_DATA:
		if (dlab)
			u->hw.dll = v;
		else
			write_data(u, v);
		break;
	case UART_IER:
		if (dlab)
			u->hw.dlm = v;
		else
			write_ier(u, v);
		break;
	case UART_IIR:
		write_fcr(u, v);
		break;
	case UART_LCR:
		u->hw.lcr = v;
		break;
	case UART_MCR:
		u->hw.mcr = v & 0x1f;
		update_msr(u);
		break;
	case UART_SCR:
		u->hw.scr = v;
		break;
	default:
		break;
	}
}

static uint8_t read_iir(struct uart *u)
{
	uint8_t i = interrupt(u);

	if (i == IIR_TX)
		u->hw.tx_pending = false;
	return (uint8_t)(i | (u->hw.fcr & FCR_ENABLE ? 0xc0 : 0));
}

/* The guest waits for THRE: wait with it for a while. A signal for this CPU ends that. */
static void wait_for_reader(struct uart *u)
{
	pthread_mutex_unlock(&u->lock);
	chr_wait(u->chr, WAIT_MS);
	pthread_mutex_lock(&u->lock);
	if (u->hw.thr_full)
		transmit(u);
}

static uint8_t read_lsr(struct uart *u)
{
	uint8_t v;

	if (u->hw.thr_full)
		wait_for_reader(u);
	v = (uint8_t)(u->hw.lsr_errors | (u->hw.used ? LSR_DATA : 0) | (u->hw.thr_full ? 0 : LSR_EMPTY));
	u->hw.lsr_errors = 0;
	return v;
}

static uint8_t register_read(struct uart *u, unsigned reg)
{
	bool dlab = u->hw.lcr & LCR_DLAB;
	uint8_t v;

	switch (reg) {
	case UART_DATA:
		return dlab ? u->hw.dll : pop(u);
	case UART_IER:
		return dlab ? u->hw.dlm : u->hw.ier;
	case UART_IIR:
		return read_iir(u);
	case UART_LCR:
		return u->hw.lcr;
	case UART_MCR:
		return u->hw.mcr;
	case UART_LSR:
		return read_lsr(u);
	case UART_MSR:
		v = u->hw.msr;
		u->hw.msr &= (uint8_t)~MSR_DELTA;
		return v;
	default:
		return u->hw.scr;
	}
}

/* Reading the line status again and again and nothing else: it waits for input without interrupts. */
static void count_polls(struct uart *u, bool poll)
{
	if (u->hw.polls >= POLLS)
		return;
	u->hw.polls = poll ? u->hw.polls + 1 : 0;
}

static uint64_t uart_read(void *opaque, uint64_t offset, unsigned size)
{
	struct uart *u = opaque;
	bool tell;
	uint8_t v;

	pthread_mutex_lock(&u->lock);
	count_polls(u, offset == UART_LSR && !u->hw.thr_full);
	v = register_read(u, (unsigned)offset);
	update_irq(u);
	tell = room_returned(u);
	pthread_mutex_unlock(&u->lock);
	if (tell && u->chr)
		chr_room_changed(u->chr);
	return v;
}

static void uart_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct uart *u = opaque;
	bool tell;

	pthread_mutex_lock(&u->lock);
	count_polls(u, false);
	register_write(u, (unsigned)offset, (uint8_t)value);
	update_irq(u);
	tell = room_returned(u);
	pthread_mutex_unlock(&u->lock);
	if (tell && u->chr)
		chr_room_changed(u->chr);
}

static const struct io_ops uart_io = { uart_read, uart_write, 1, 1 };

/* ---- the device */

static int uart_check(const void *opaque, struct err *e)
{
	const struct uart_hw *hw = opaque;

	if (hw->first >= FIFO || hw->used > (hw->fcr & FCR_ENABLE ? FIFO : 1))
		return err_set(e, EINVAL, "uart: impossible FIFO");
	if (hw->ier & ~0xf || hw->mcr & ~0x1f || hw->fcr & ~0xc9 || (hw->fcr && !(hw->fcr & FCR_ENABLE)) ||
	    hw->lsr_errors & ~LSR_ERRORS || hw->polls > POLLS)
		return err_set(e, EINVAL, "uart: reserved bits set");
	return 0;
}

static const struct state_field fields[] = {
	STATE_RAW(struct uart_hw, fifo),       STATE_INT(struct uart_hw, first),
	STATE_INT(struct uart_hw, used),       STATE_INT(struct uart_hw, ier),
	STATE_INT(struct uart_hw, fcr),	       STATE_INT(struct uart_hw, lcr),
	STATE_INT(struct uart_hw, mcr),	       STATE_INT(struct uart_hw, lsr_errors),
	STATE_INT(struct uart_hw, msr),	       STATE_INT(struct uart_hw, scr),
	STATE_INT(struct uart_hw, dll),	       STATE_INT(struct uart_hw, dlm),
	STATE_INT(struct uart_hw, thr),	       STATE_INT(struct uart_hw, polls),
	STATE_INT(struct uart_hw, thr_full),   STATE_INT(struct uart_hw, tx_pending),
	STATE_INT(struct uart_hw, rx_timeout), STATE_INT(struct uart_hw, timeout_at),
};

static const struct state_desc uart_state = {
	.name = "uart", .version = 1, .size = sizeof(struct uart_hw),
	.fields = fields, .nfields = ARRAY_LEN(fields), .check = uart_check,
};

static void uart_loaded(struct device *d)
{
	struct uart *u = container_of(d, struct uart, device);

	pthread_mutex_lock(&u->lock);
	timer_arm(&u->timer, u->hw.timeout_at);
	if (u->hw.thr_full)
		transmit(u);
	update_irq(u);
	pthread_mutex_unlock(&u->lock);
	if (u->chr)
		chr_room_changed(u->chr);
}

static void uart_reset(struct device *d, enum reset_kind kind)
{
	struct uart *u = container_of(d, struct uart, device);

	pthread_mutex_lock(&u->lock);
	u->hw = (struct uart_hw){ .dll = 12, .msr = MSR_LINES, .timeout_at = TIMER_NEVER };
	u->held = true;
	timer_cancel(&u->timer);
	update_irq(u);
	pthread_mutex_unlock(&u->lock);
}

static void uart_destroy(struct device *d)
{
	struct uart *u = container_of(d, struct uart, device);

	if (u->chr)
		chr_attach(u->chr, NULL);
	timer_cancel(&u->timer);
	pthread_mutex_destroy(&u->lock);
	free(u);
}

static const struct device_ops uart_ops = {
	.state = &uart_state,
	.reset = uart_reset,
	.loaded = uart_loaded,
	.destroy = uart_destroy,
};

struct device *uart_create(struct device_env *env, unsigned instance, uint16_t port, struct irq_line irq,
			   struct chr *chr, struct err *e)
{
	struct uart *u = calloc(1, sizeof(*u));

	if (!u) {
		err_set(e, ENOMEM, "no memory for a serial port");
		return NULL;
	}
	u->device = (struct device){ .ops = &uart_ops, .instance = instance, .hw = &u->hw };
	u->clock = env->clock;
	u->irq = irq;
	u->chr = chr;
	pthread_mutex_init(&u->lock, NULL);
	timer_init(&u->timer, env->clock, uart_timer, u);
	uart_reset(&u->device, RESET_COLD);
	if (ports_map(env->ports, port, 8, &uart_io, u, "uart", e)) {
		uart_destroy(&u->device);
		return NULL;
	}
	if (chr)
		chr_attach(chr, &(struct chr_front){ uart_room, uart_input, uart_drained, u });
	return &u->device;
}
