/* SPDX-License-Identifier: Apache-2.0 */
/* The 82540EM as a device: registers, interrupts and their throttling, counters, link, saving. e1000-private.h has the rules. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "pci/e1000-private.h"

#define NEVER UINT64_MAX

/* ---- counters */

void e1000_count(struct e1000 *c, unsigned reg, uint64_t by)
{
	uint64_t v = c->hw.reg[reg] + by;

	c->hw.reg[reg] = (uint32_t)MIN(v, UINT32_MAX);
}

void e1000_count64(struct e1000 *c, unsigned low, uint64_t by)
{
	uint64_t v = (uint64_t)c->hw.reg[low + 1] << 32 | c->hw.reg[low];

	v = v > UINT64_MAX - by ? UINT64_MAX : v + by;
	c->hw.reg[low] = (uint32_t)v;
	c->hw.reg[low + 1] = (uint32_t)(v >> 32);
}

void e1000_count_size(struct e1000 *c, unsigned first, size_t len)
{
	static const uint16_t most[] = { 64, 127, 255, 511, 1023 };
	unsigned i = 0;

	while (i < ARRAY_LEN(most) && len > most[i])
		i++;
	e1000_count(c, first + i, 1);
}

/* ---- interrupts */

static void timer_update(struct e1000 *c)
{
	struct e1000_hw *h = &c->hw;
	uint64_t at = MIN(MIN(h->rx_at, h->rx_most), MIN(h->tx_at, h->tx_most));

	if (h->reg[R_ICR] & h->reg[R_IMS] && clock_now(c->env.clock) < h->next_irq)
		at = MIN(at, h->next_irq);
	if (at == NEVER)
		timer_cancel(&c->timer);
	else
		timer_arm(&c->timer, at);
}

/* The wire follows causes and mask, but rises no sooner than ITR allows. */
void e1000_interrupts(struct e1000 *c)
{
	struct e1000_hw *h = &c->hw;
	bool wanted = h->reg[R_ICR] & h->reg[R_IMS];
	uint64_t now = clock_now(c->env.clock);

	if (wanted && !c->f.hw.intx_level) {
		if (now < h->next_irq) {
			timer_update(c);
			return;
		}
		h->next_irq = now + (uint64_t)(h->reg[R_ITR] & 0xffff) * 256;
	}
	pci_set_intx(&c->f, wanted);
}

void e1000_raise(struct e1000 *c, uint32_t causes)
{
	c->hw.reg[R_ICR] |= causes & ICR_ALL;
	e1000_interrupts(c);
}

static void e1000_timer(void *opaque)
{
	struct e1000 *c = opaque;
	struct e1000_hw *h = &c->hw;
	uint64_t now;

	pthread_mutex_lock(&c->lock);
	now = clock_now(c->env.clock);
	if (MIN(h->rx_at, h->rx_most) <= now) {
		h->rx_at = h->rx_most = NEVER;
		h->reg[R_ICR] |= ICR_RXT0;
	}
	if (MIN(h->tx_at, h->tx_most) <= now) {
		h->tx_at = h->tx_most = NEVER;
		h->reg[R_ICR] |= ICR_TXDW;
	}
	e1000_interrupts(c);
	timer_update(c);
	pthread_mutex_unlock(&c->lock);
}

/* Pending delayed causes now. */
static void flush_delayed(struct e1000 *c)
{
	struct e1000_hw *h = &c->hw;

	if (h->rx_at != NEVER)
		h->reg[R_ICR] |= ICR_RXT0;
	if (h->tx_at != NEVER)
		h->reg[R_ICR] |= ICR_TXDW;
	h->rx_at = h->rx_most = h->tx_at = h->tx_most = NEVER;
}

/* A cause after `delay`, begun anew by each event, but no later than `most` after the first; both in 1.024 us. */
static void e1000_delay(struct e1000 *c, uint64_t *at, uint64_t *latest, uint32_t delay, uint32_t most)
{
	uint64_t now = clock_now(c->env.clock);

	*at = now + (uint64_t)delay * 1024;
	if (most && *latest == NEVER)
		*latest = now + (uint64_t)most * 1024;
	timer_update(c);
}

void e1000_rx_delay(struct e1000 *c)
{
	struct e1000_hw *h = &c->hw;

	if (!(h->reg[R_RDTR] & 0xffff))
		e1000_raise(c, ICR_RXT0);
	else
		e1000_delay(c, &h->rx_at, &h->rx_most, h->reg[R_RDTR] & 0xffff, h->reg[R_RADV] & 0xffff);
}

void e1000_tx_delay(struct e1000 *c)
{
	struct e1000_hw *h = &c->hw;

	e1000_delay(c, &h->tx_at, &h->tx_most, h->reg[R_TIDV] & 0xffff, h->reg[R_TADV] & 0xffff);
}

/* ---- reset */

static void set_link(struct e1000 *c, bool up)
{
	uint32_t was = c->hw.reg[R_STATUS];

	c->hw.reg[R_STATUS] = STATUS_FIXED | (up ? STATUS_LU : 0);
	if (was != c->hw.reg[R_STATUS])
		phy_reset(&c->hw, up);
}

/* Both locks held. PHY and EEPROM have resets of their own. */
static void registers_reset(struct e1000 *c)
{
	struct e1000_hw *h = &c->hw;

	memset(h->reg, 0, sizeof(h->reg));
	h->reg[R_CTRL] = CTRL_FD | 0x200; /* 1000 Mb/s */
	h->reg[R_STATUS] = STATUS_FIXED | (net_up(c->link) ? STATUS_LU : 0);
	h->reg[R_PBA] = 0x00100030;
	h->reg[R_VET] = 0x8100;
	h->reg[R_RA] = (uint32_t)h->eeprom[1] << 16 | h->eeprom[0];
	h->reg[R_RA + 1] = (uint32_t)(RAH_AV | h->eeprom[2]);
	h->rx_at = h->rx_most = h->tx_at = h->tx_most = NEVER;
	h->next_irq = 0;
	e1000_tx_reset(c);
	e1000_interrupts(c);
	timer_update(c);
}

static void e1000_reset(struct device *d, enum reset_kind kind)
{
	struct e1000 *c = container_of(d, struct e1000, device);

	pthread_mutex_lock(&c->tx_lock);
	pthread_mutex_lock(&c->lock);
	eeprom_init(&c->hw, net_mac(c->link));
	eeprom_wires(&c->hw, 0);
	c->hw.ee_enabled = 0;
	c->hw.io_address = 0;
	registers_reset(c);
	phy_reset(&c->hw, net_up(c->link));
	pthread_mutex_unlock(&c->lock);
	pthread_mutex_unlock(&c->tx_lock);
}

/* ---- registers */

static bool is_counter(unsigned reg)
{
	return reg >= R_CRCERRS && reg <= R_TSCTFC;
}

static uint32_t register_read(struct e1000 *c, unsigned reg)
{
	struct e1000_hw *h = &c->hw;
	uint32_t v = h->reg[reg];

	switch (reg) {
	case R_ICR:
		h->reg[R_ICR] = 0;
		e1000_interrupts(c);
		return v;
	case R_ICS:
	case R_IMC:
		return 0;
	case R_EECD:
		return eeprom_read_wires(h);
	case R_GORCL:
	case R_GOTCL:
	case R_TORL:
	case R_TOTL:
		return v; /* cleared with its upper half */
	case R_GORCH:
	case R_GOTCH:
	case R_TORH:
	case R_TOTH:
		h->reg[reg - 1] = 0;
		break;
	default:
		break;
	}
	if (is_counter(reg))
		h->reg[reg] = 0;
	return v;
}

/* What needs no more than to be kept, and which bits; 0: read-only or nothing there. */
static uint32_t register_mask(unsigned reg)
{
	switch (reg) {
	case R_RDLEN:
	case R_TDLEN: return 0xfff80;
	case R_RDBAL:
	case R_TDBAL: return ~15u;
	case R_RDH:
	case R_RDT:
	case R_TDH:
	case R_TDT:
	case R_ITR:
	case R_RADV:
	case R_TIDV:
	case R_TADV:
	case R_VET: return 0xffff;
	case R_STATUS: return 0;
	default: return is_counter(reg) ? 0 : ~0u;
	}
}

static void write_ctrl(struct e1000 *c, uint32_t v)
{
	if (v & CTRL_RST) {
		registers_reset(c);
		return;
	}
	c->hw.reg[R_CTRL] = v & (uint32_t)~(CTRL_RST | CTRL_PHY_RST);
	if (v & CTRL_PHY_RST)
		phy_reset(&c->hw, c->hw.reg[R_STATUS] & STATUS_LU);
}

static void register_write(struct e1000 *c, unsigned reg, uint32_t v)
{
	struct e1000_hw *h = &c->hw;

	switch (reg) {
	case R_CTRL: write_ctrl(c, v); return;
	case R_EECD: eeprom_wires(h, v); return;
	case R_EERD: eeprom_register(h, v); return;
	case R_MDIC: h->reg[R_MDIC] = phy_access(c, v); return;
	case R_ICR: h->reg[R_ICR] &= ~v; break;
	case R_ICS: h->reg[R_ICR] |= v & ICR_ALL; break;
	case R_IMS: h->reg[R_IMS] |= v & ICR_ALL; break;
	case R_IMC: h->reg[R_IMS] &= ~v; break;
	case R_TIDV:
	case R_RDTR:
		h->reg[reg] = v & 0xffff;
		if (v & BIT(31)) /* flush */
			flush_delayed(c);
		break;
	default:
		h->reg[reg] = v & register_mask(reg);
		return;
	}
	e1000_interrupts(c);
	timer_update(c);
}

static uint64_t mmio_read(void *opaque, uint64_t at, unsigned size)
{
	struct e1000 *c = opaque;
	uint32_t v;

	if (at / 4 >= R_COUNT)
		return 0;
	pthread_mutex_lock(&c->lock);
	v = register_read(c, (unsigned)at / 4);
	pthread_mutex_unlock(&c->lock);
	return v;
}

/* Whoever waited for buffers may try again. */
static void receive_again(struct e1000 *c)
{
	bool refused;

	pthread_mutex_lock(&c->lock);
	refused = c->rx_refused;
	c->rx_refused = false;
	pthread_mutex_unlock(&c->lock);
	if (refused)
		net_ready(c->link);
}

static void mmio_write(void *opaque, uint64_t at, uint64_t value, unsigned size)
{
	struct e1000 *c = opaque;
	unsigned reg = (unsigned)MIN(at / 4, (uint64_t)R_COUNT);
	bool both = reg == R_CTRL && value & CTRL_RST;

	if (reg >= R_COUNT)
		return;
	if (both)
		pthread_mutex_lock(&c->tx_lock);
	pthread_mutex_lock(&c->lock);
	register_write(c, reg, (uint32_t)value);
	pthread_mutex_unlock(&c->lock);
	if (both)
		pthread_mutex_unlock(&c->tx_lock);
	if (reg == R_TDT || reg == R_TCTL)
		e1000_transmit(c);
	if (reg == R_RDT || reg == R_RCTL || both)
		receive_again(c);
}

static const struct io_ops mmio_ops = { mmio_read, mmio_write, 4, 4 };

/* The same registers by address and data, for who cannot reach memory yet. */
static uint64_t port_read(void *opaque, uint64_t at, unsigned size)
{
	struct e1000 *c = opaque;

	return at == 0 ? c->hw.io_address : at == 4 ? mmio_read(c, c->hw.io_address & ~3u, 4) : 0;
}

static void port_write(void *opaque, uint64_t at, uint64_t value, unsigned size)
{
	struct e1000 *c = opaque;

	if (at == 0)
		c->hw.io_address = (uint32_t)value & 0x1ffff;
	else if (at == 4)
		mmio_write(c, c->hw.io_address & ~3u, value, 4);
}

static const struct io_ops port_ops = { port_read, port_write, 4, 4 };

/* ---- the back-end's calls */

static void e1000_drained(void *opaque)
{
	e1000_transmit(opaque);
}

static void e1000_link(void *opaque, bool up)
{
	struct e1000 *c = opaque;

	pthread_mutex_lock(&c->lock);
	set_link(c, up);
	e1000_raise(c, ICR_LSC);
	pthread_mutex_unlock(&c->lock);
}

static const struct net_card_ops card_ops = { .receive = e1000_receive, .drained = e1000_drained, .link = e1000_link };

/* ---- saving */

#define F STATE_INT
#define CONTEXT(x)                                                                                                    \
	F(struct e1000_hw, x.ipcss), F(struct e1000_hw, x.ipcso), F(struct e1000_hw, x.tucss), F(struct e1000_hw, x.tucso), \
	F(struct e1000_hw, x.ipcse), F(struct e1000_hw, x.tucse), F(struct e1000_hw, x.mss),                          \
	F(struct e1000_hw, x.hdrlen), F(struct e1000_hw, x.command)

static const struct state_field fields[] = {
	STATE_INTS(struct e1000_hw, reg), STATE_INTS(struct e1000_hw, phy), STATE_INTS(struct e1000_hw, eeprom),
	F(struct e1000_hw, io_address), F(struct e1000_hw, ee_shift), F(struct e1000_hw, ee_out), F(struct e1000_hw, ee_bits),
	F(struct e1000_hw, ee_reading), F(struct e1000_hw, ee_left), F(struct e1000_hw, ee_address), F(struct e1000_hw, ee_enabled),
	F(struct e1000_hw, ee_do), F(struct e1000_hw, rx_at), F(struct e1000_hw, rx_most), F(struct e1000_hw, tx_at),
	F(struct e1000_hw, tx_most), F(struct e1000_hw, next_irq), CONTEXT(tso), CONTEXT(plain), F(struct e1000_hw, tx_command),
	F(struct e1000_hw, tx_options), F(struct e1000_hw, tx_special), F(struct e1000_hw, tx_overrun),
	F(struct e1000_hw, tx_extended), F(struct e1000_hw, tx_len), STATE_RAW(struct e1000_hw, tx_data),
	STATE_RAW(struct e1000_hw, flows),
};

static int e1000_check(const void *opaque, struct err *e)
{
	const struct e1000_hw *h = opaque;

	if (h->tx_len > NET_WIRE_FRAME || h->ee_left > 16 || h->ee_bits > 16 || h->ee_address >= E1000_EEPROM || h->ee_reading > 3 ||
	    h->io_address > 0x1ffff)
		return err_set(e, EINVAL, "e1000: an impossible frame or EEPROM access");
	return 0;
}

static const struct state_desc e1000_state = {
	.name = "e1000", .version = 1, .size = sizeof(struct e1000_hw),
	.fields = fields, .nfields = ARRAY_LEN(fields), .check = e1000_check,
};

static void e1000_saving(struct device *d)
{
	struct e1000 *c = container_of(d, struct e1000, device);

	net_flows_of(c->link, c->hw.flows);
}

static void e1000_loaded(struct device *d)
{
	struct e1000 *c = container_of(d, struct e1000, device);

	pthread_mutex_lock(&c->lock);
	if (!(c->hw.reg[R_STATUS] & STATUS_LU) != !net_up(c->link)) {
		set_link(c, net_up(c->link));
		c->hw.reg[R_ICR] |= ICR_LSC;
	}
	e1000_interrupts(c);
	timer_update(c);
	pthread_mutex_unlock(&c->lock);
	net_flows_over(c->link, c->hw.flows, net_mac(c->link));
}

static void e1000_pause(struct device *d)
{
	struct e1000 *c = container_of(d, struct e1000, device);

	/* who sends has finished when we have its lock, and will not begin again */
	pthread_mutex_lock(&c->tx_lock);
	e1000_tx_give_up(c);
	pthread_mutex_lock(&c->lock);
	c->paused = true;
	pthread_mutex_unlock(&c->lock);
	pthread_mutex_unlock(&c->tx_lock);
}

static void e1000_resume(struct device *d)
{
	struct e1000 *c = container_of(d, struct e1000, device);

	pthread_mutex_lock(&c->lock);
	c->paused = false;
	pthread_mutex_unlock(&c->lock);
	e1000_transmit(c);
	receive_again(c);
}

static void e1000_destroy(struct device *d)
{
	struct e1000 *c = container_of(d, struct e1000, device);

	net_attach(c->link, NULL, NULL);
	timer_cancel(&c->timer);
	pci_function_dispose(&c->f);
	pthread_mutex_destroy(&c->tx_lock);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static const struct device_ops e1000_ops = {
	.state = &e1000_state,
	.reset = e1000_reset,
	.saving = e1000_saving,
	.loaded = e1000_loaded,
	.pause = e1000_pause,
	.resume = e1000_resume,
	.destroy = e1000_destroy,
};

struct device *e1000_create(struct pci_bus *bus, struct device_env *env, unsigned instance, int devfn, struct net_link *link,
			    struct err *e)
{
	static const struct pci_identity id = { .vendor = 0x8086, .device = 0x100e, .subsystem_vendor = 0x8086, .subsystem = 0x001e,
						.class_code = 0x020000, .revision = 2, .pin = 1 };
	struct e1000 *c = calloc(1, sizeof(*c));

	if (!c) {
		err_set(e, ENOMEM, "no memory for a network card");
		return NULL;
	}
	c->device = (struct device){ .ops = &e1000_ops, .hw = &c->hw, .instance = instance };
	c->env = *env;
	c->link = link;
	c->paused = env->when_stopped != NULL; /* devices of a machine are made paused; in tests there is nobody to resume them */
	pthread_mutex_init(&c->tx_lock, NULL);
	pthread_mutex_init(&c->lock, NULL);
	timer_init(&c->timer, env->clock, e1000_timer, c);
	pci_function_init(&c->f, &id, NULL, NULL);
	pci_add_bar(&c->f, 0, PCI_BAR_MEM32, 0x20000, &mmio_ops, c, "e1000");
	pci_add_bar(&c->f, 1, PCI_BAR_IO, 64, &port_ops, c, "e1000-io");
	net_attach(link, &card_ops, c);
	if (pci_attach(bus, &c->f, devfn, e)) {
		e1000_destroy(&c->device);
		return NULL;
	}
	e1000_reset(&c->device, RESET_COLD);
	return &c->device;
}
