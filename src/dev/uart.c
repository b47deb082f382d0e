/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 16550A UART. Transmission is immediate, so the transmitter is always empty; reception holds input back in the back-end
 * while the FIFO is full, so that piped input is never lost.
 *
 * Input is also held back until the guest listens: a driver that starts clears the FIFO and reads what is in it, several
 * times in Linux, and would swallow the beginning of what was piped in. A guest listens when it has the
 * receive interrupt on, or when it has polled for a byte often enough (LISTEN_POLLS, without sending in between).
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "backend/chr.h"
#include "base/err.h"
#include "dev/pc-devices.h"

#define FIFO 16

enum { RBR = 0, IER = 1, IIR = 2, LCR = 3, MCR = 4, LSR = 5, MSR = 6, SCR = 7 };

#define IER_RX 1
#define IER_TX 2
#define IER_LINE 4
#define IER_MODEM 8
#define LCR_DLAB 0x80
#define MCR_DTR 1
#define MCR_RTS 2
#define MCR_OUT1 4
#define MCR_OUT2 8
#define MCR_LOOP 0x10
#define LSR_DATA 1
#define LSR_OVERRUN 2
#define LSR_TX_EMPTY 0x60
#define FCR_ENABLE 1

struct uart_hw { /* saved */
	uint8_t ier, fcr, lcr, mcr, lsr, msr, scr;
	uint8_t dll, dlm;
	uint8_t tx_pending; /* the "transmitter empty" interrupt has not been acknowledged */
	uint8_t timeout;    /* received data has waited long enough to be told */
	uint8_t fifo[FIFO];
	uint8_t head, count;
};

#define LISTEN_POLLS 64

struct uart {
	struct device device;
	struct uart_hw hw;
	unsigned polls; /* reads of LSR that found nothing since the last byte was sent */
	pthread_mutex_t lock;
	struct irq_line irq;
	struct chr *chr;
	struct ports *ports;
	uint16_t port;
	struct timer timer; /* FIFO time-out: four characters' time */
	struct clock *clock;
};

#define TIMEOUT_NS 400000u /* four characters at 115200 */

static unsigned fifo_size(const struct uart *u)
{
	return u->hw.fcr & FCR_ENABLE ? FIFO : 1;
}

static unsigned trigger(const struct uart *u)
{
	static const uint8_t level[] = { 1, 4, 8, 14 };

	return u->hw.fcr & FCR_ENABLE ? level[u->hw.fcr >> 6] : 1;
}

/* Highest-priority cause, as IIR shows it; 1 is none. */
static uint8_t cause(const struct uart *u)
{
	const struct uart_hw *h = &u->hw;

	if ((h->ier & IER_LINE) && (h->lsr & LSR_OVERRUN))
		return 0x06;
	if ((h->ier & IER_RX) && h->count >= trigger(u))
		return 0x04;
	if ((h->ier & IER_RX) && h->count && h->timeout)
		return 0x0c;
	if ((h->ier & IER_TX) && h->tx_pending)
		return 0x02;
	if ((h->ier & IER_MODEM) && (h->msr & 0x0f))
		return 0x00;
	return 0x01;
}

static void update(struct uart *u)
{
	/* OUT2 gates the wire on a PC */
	irq_set(&u->irq, cause(u) != 1 && (u->hw.mcr & MCR_OUT2));
}

static void fifo_put(struct uart *u, uint8_t byte)
{
	struct uart_hw *h = &u->hw;

	if (h->count == fifo_size(u)) {
		h->lsr |= LSR_OVERRUN;
		return;
	}
	h->fifo[(h->head + h->count++) % FIFO] = byte;
	h->lsr |= LSR_DATA;
	h->timeout = 0;
	timer_arm(&u->timer, clock_now(u->clock) + TIMEOUT_NS);
}

static void timed_out(void *opaque)
{
	struct uart *u = opaque;

	pthread_mutex_lock(&u->lock);
	u->hw.timeout = u->hw.count > 0;
	update(u);
	pthread_mutex_unlock(&u->lock);
}

static uint8_t rbr_read(struct uart *u)
{
	struct uart_hw *h = &u->hw;
	uint8_t v = h->fifo[h->head];

	if (!h->count)
		return 0;
	h->head = (h->head + 1) % FIFO;
	if (!--h->count) {
		h->lsr &= (uint8_t)~LSR_DATA;
		h->timeout = 0;
	}
	return v;
}

/* Modem lines: a connected peer, or our own outputs in loop-back. */
static uint8_t modem_lines(const struct uart *u)
{
	uint8_t m = u->hw.mcr;

	if (!(m & MCR_LOOP))
		return 0xb0; /* CD, DSR, CTS */
	return (uint8_t)((m & MCR_RTS ? 0x10 : 0) | (m & MCR_DTR ? 0x20 : 0) | (m & MCR_OUT1 ? 0x40 : 0) |
			 (m & MCR_OUT2 ? 0x80 : 0));
}

static void modem_update(struct uart *u)
{
	uint8_t now = modem_lines(u), was = u->hw.msr & 0xf0, changed = now ^ was;
	uint8_t delta = (uint8_t)(changed >> 4 & 0xb);

	if (was & ~now & 0x40) /* ring: trailing edge */
		delta |= 4;
	u->hw.msr = (uint8_t)(now | (u->hw.msr & 0xf) | delta);
}

static bool listening(const struct uart *u)
{
	/* Without OUT2 the interrupt leads nowhere: a probe that tries IER's bits. */
	return ((u->hw.ier & IER_RX) && (u->hw.mcr & MCR_OUT2)) || u->polls >= LISTEN_POLLS;
}

static uint64_t uart_read(void *opaque, uint64_t offset, unsigned size)
{
	struct uart *u = opaque;
	struct uart_hw *h = &u->hw;
	uint8_t v = 0;
	bool room = false;

	pthread_mutex_lock(&u->lock);
	switch (offset) {
	case RBR:
		if (h->lcr & LCR_DLAB) {
			v = h->dll;
		} else {
			v = rbr_read(u);
			room = true;
		}
		break;
	case IER: v = h->lcr & LCR_DLAB ? h->dlm : h->ier; break;
	case IIR:
		v = cause(u);
		if (v == 2)
			h->tx_pending = 0; /* reading it acknowledges it */
		v |= h->fcr & FCR_ENABLE ? 0xc0 : 0;
		break;
	case LCR: v = h->lcr; break;
	case MCR: v = h->mcr; break;
	case LSR:
		v = h->lsr;
		h->lsr &= (uint8_t)~LSR_OVERRUN;
		if (!(v & LSR_DATA) && u->polls < LISTEN_POLLS)
			room = ++u->polls == LISTEN_POLLS;
		break;
	case MSR:
		v = h->msr;
		h->msr &= 0xf0;
		break;
	case SCR: v = h->scr; break;
	}
	update(u);
	pthread_mutex_unlock(&u->lock);
	if (room && u->chr)
		chr_room_changed(u->chr);
	return v;
}

static void fcr_write(struct uart *u, uint8_t v)
{
	struct uart_hw *h = &u->hw;

	/*
	 * Turning the FIFO on without clearing it keeps a byte that waits, unlike the chip: Linux enables the receive
	 * interrupt first, and the first byte of piped input would be gone.
	 */
	if ((h->fcr & ~v & FCR_ENABLE) || v & 2) {
		h->head = h->count = 0;
		h->timeout = 0;
		h->lsr &= (uint8_t)~(LSR_DATA | LSR_OVERRUN);
	}
	h->fcr = v & FCR_ENABLE ? v & 0xc9 : 0;
}

/* A byte leaves. In loop-back it comes in again. */
static bool transmit(struct uart *u, uint8_t v)
{
	u->hw.tx_pending = 1;
	u->polls = 0;
	if (!(u->hw.mcr & MCR_LOOP))
		return true;
	fifo_put(u, v);
	return false;
}

static void uart_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct uart *u = opaque;
	struct uart_hw *h = &u->hw;
	uint8_t v = (uint8_t)value;
	bool out = false, deaf;

	pthread_mutex_lock(&u->lock);
	deaf = !listening(u);
	switch (offset) {
	case RBR:
		if (h->lcr & LCR_DLAB)
			h->dll = v;
		else
			out = transmit(u, v);
		break;
	case IER:
		if (h->lcr & LCR_DLAB) {
			h->dlm = v;
			break;
		}
		if ((v & ~h->ier) & IER_TX)
			h->tx_pending = 1; /* enabling it with an empty transmitter raises it */
		h->ier = v & 0xf;
		break;
	case IIR: fcr_write(u, v); break;
	case LCR: h->lcr = v; break;
	case MCR:
		h->mcr = v & 0x1f;
		modem_update(u);
		break;
	case SCR: h->scr = v; break;
	}
	update(u);
	deaf = deaf && listening(u);
	pthread_mutex_unlock(&u->lock);
	if (out && u->chr)
		chr_write(u->chr, &v, 1);
	if ((deaf || offset == IIR) && u->chr) /* it listens from now on, or has cleared its FIFO */
		chr_room_changed(u->chr);
}

static size_t room(void *opaque)
{
	struct uart *u = opaque;
	size_t n;

	pthread_mutex_lock(&u->lock);
	n = u->hw.mcr & MCR_LOOP || !listening(u) ? 0 : fifo_size(u) - MIN((unsigned)u->hw.count, fifo_size(u));
	pthread_mutex_unlock(&u->lock);
	return n;
}

static void input(void *opaque, const uint8_t *data, size_t n)
{
	struct uart *u = opaque;

	pthread_mutex_lock(&u->lock);
	for (size_t i = 0; i < n; i++)
		fifo_put(u, data[i]);
	update(u);
	pthread_mutex_unlock(&u->lock);
}

static const struct io_ops io = { uart_read, uart_write, 1, 1 };

static const struct state_field fields[] = {
	STATE_INT(struct uart_hw, ier), STATE_INT(struct uart_hw, fcr), STATE_INT(struct uart_hw, lcr),
	STATE_INT(struct uart_hw, mcr), STATE_INT(struct uart_hw, lsr), STATE_INT(struct uart_hw, msr),
	STATE_INT(struct uart_hw, scr), STATE_INT(struct uart_hw, dll), STATE_INT(struct uart_hw, dlm),
	STATE_INT(struct uart_hw, tx_pending), STATE_INT(struct uart_hw, timeout),
	STATE_RAW(struct uart_hw, fifo), STATE_INT(struct uart_hw, head), STATE_INT(struct uart_hw, count),
};

static int check(const void *hw, struct err *e)
{
	const struct uart_hw *h = hw;

	if (h->head >= FIFO || h->count > FIFO)
		return err_set(e, EINVAL, "uart: %u bytes at %u in a FIFO of %u", h->count, h->head, FIFO);
	return 0;
}

static const struct state_desc desc = {
	.name = "uart", .version = 1, .size = sizeof(struct uart_hw),
	.fields = fields, .nfields = ARRAY_LEN(fields), .check = check,
};

static void reset(struct device *d, enum reset_kind kind)
{
	struct uart *u = container_of(d, struct uart, device);

	pthread_mutex_lock(&u->lock);
	memset(&u->hw, 0, sizeof(u->hw));
	u->polls = 0;
	u->hw.lsr = LSR_TX_EMPTY;
	u->hw.msr = 0xb0;
	u->hw.dll = 12;
	update(u);
	pthread_mutex_unlock(&u->lock);
	timer_cancel(&u->timer);
}

static void loaded(struct device *d)
{
	struct uart *u = container_of(d, struct uart, device);

	pthread_mutex_lock(&u->lock);
	if (u->hw.count)
		timer_arm(&u->timer, clock_now(u->clock) + TIMEOUT_NS);
	update(u);
	pthread_mutex_unlock(&u->lock);
	if (u->chr)
		chr_room_changed(u->chr);
}

static void destroy(struct device *d)
{
	struct uart *u = container_of(d, struct uart, device);

	if (u->chr)
		chr_attach(u->chr, NULL);
	timer_cancel(&u->timer);
	ports_unmap(u->ports, u->port, "uart");
	pthread_mutex_destroy(&u->lock);
	free(u);
}

static const struct device_ops ops = { .state = &desc, .reset = reset, .loaded = loaded, .destroy = destroy };

struct device *uart_create(struct device_env *env, unsigned instance, uint16_t port, struct irq_line irq,
			   struct chr *chr, struct err *e)
{
	struct uart *u = calloc(1, sizeof(*u));

	if (!u) {
		err_set(e, ENOMEM, "no memory for a serial port");
		return NULL;
	}
	u->device = (struct device){ .ops = &ops, .instance = instance, .hw = &u->hw };
	u->irq = irq;
	u->chr = chr;
	u->port = port;
	u->ports = env->ports;
	u->clock = env->clock;
	pthread_mutex_init(&u->lock, NULL);
	timer_init(&u->timer, env->clock, timed_out, u);
	if (ports_map(env->ports, port, 8, &io, u, "uart", e)) {
		pthread_mutex_destroy(&u->lock);
		free(u);
		return NULL;
	}
	reset(&u->device, RESET_COLD);
	if (chr) {
		struct chr_front front = { .room = room, .input = input, .opaque = u };

		chr_attach(chr, &front);
	}
	return &u->device;
}
