/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the 82540EM (Intel: PCI/PCI-X Family of Gigabit Ethernet Controllers, Software Developer's Manual, 317453).
 *
 * Two locks: tx_lock for the frame being put together and the offload contexts, held while it is sent; `lock` for registers, reception,
 * interrupts. tx_lock is taken first. Neither is held when the back-end is told that there are buffers again.
 */
#ifndef PCI_E1000_PRIVATE_H
#define PCI_E1000_PRIVATE_H

#include "backend/net.h"
#include "pci/e1000.h"

/* registers, as index of double words */
#define R(offset) ((offset) / 4)
enum e1000_register {
	R_CTRL = R(0x0), R_STATUS = R(0x8), R_EECD = R(0x10), R_EERD = R(0x14), R_CTRL_EXT = R(0x18), R_MDIC = R(0x20),
	R_VET = R(0x38), R_ICR = R(0xc0), R_ITR = R(0xc4), R_ICS = R(0xc8), R_IMS = R(0xd0), R_IMC = R(0xd8),
	R_RCTL = R(0x100), R_TCTL = R(0x400), R_PBA = R(0x1000),
	R_RDBAL = R(0x2800), R_RDBAH = R(0x2804), R_RDLEN = R(0x2808), R_RDH = R(0x2810), R_RDT = R(0x2818),
	R_RDTR = R(0x2820), R_RADV = R(0x282c),
	R_TDBAL = R(0x3800), R_TDBAH = R(0x3804), R_TDLEN = R(0x3808), R_TDH = R(0x3810), R_TDT = R(0x3818),
	R_TIDV = R(0x3820), R_TXDCTL = R(0x3828), R_TADV = R(0x382c),
	R_CRCERRS = R(0x4000), R_MPC = R(0x4010), R_RLEC = R(0x4040), R_PRC64 = R(0x405c), R_GPRC = R(0x4074), R_BPRC = R(0x4078),
	R_MPRC = R(0x407c), R_GPTC = R(0x4080), R_GORCL = R(0x4088), R_GORCH = R(0x408c), R_GOTCL = R(0x4090), R_GOTCH = R(0x4094),
	R_RNBC = R(0x40a0), R_RUC = R(0x40a4), R_ROC = R(0x40ac), R_TORL = R(0x40c0), R_TORH = R(0x40c4), R_TOTL = R(0x40c8),
	R_TOTH = R(0x40cc), R_TPR = R(0x40d0), R_TPT = R(0x40d4), R_PTC64 = R(0x40d8), R_MPTC = R(0x40f0), R_BPTC = R(0x40f4),
	R_TSCTC = R(0x40f8), R_TSCTFC = R(0x40fc),
	R_RXCSUM = R(0x5000), R_MTA = R(0x5200), R_RA = R(0x5400), R_VFTA = R(0x5600), R_WUFC = R(0x5808), R_WUS = R(0x5810),
	R_COUNT = R(0x6000),
};

#define CTRL_FD BIT(0)
#define CTRL_SLU BIT(6)
#define CTRL_RST BIT(26)
#define CTRL_VME BIT(30)
#define CTRL_PHY_RST BIT(31)
#define STATUS_LU BIT(1)
#define STATUS_FIXED 0x881u /* full duplex, 1000 Mb/s, a 66 MHz bus */
#define RCTL_EN BIT(1)
#define RCTL_SBP BIT(2)
#define RCTL_UPE BIT(3)
#define RCTL_MPE BIT(4)
#define RCTL_LPE BIT(5)
#define RCTL_BAM BIT(15)
#define RCTL_VFE BIT(18)
#define RCTL_BSEX BIT(25)
#define RCTL_SECRC BIT(26)
#define TCTL_EN BIT(1)
#define TCTL_PSP BIT(3)
#define RAH_AV BIT(31)

/* interrupt causes */
#define ICR_TXDW BIT(0)
#define ICR_TXQE BIT(1)
#define ICR_LSC BIT(2)
#define ICR_RXDMT0 BIT(4)
#define ICR_RXO BIT(6)
#define ICR_RXT0 BIT(7)
#define ICR_MDAC BIT(9)
#define ICR_TXD_LOW BIT(15)
#define ICR_ALL 0x1ffffu

#define E1000_EEPROM 64u /* words */
#define E1000_FRAME (NET_WIRE_FRAME + 16u)

/* What a context descriptor says. */
struct e1000_context {
	uint8_t ipcss, ipcso, tucss, tucso;
	uint16_t ipcse, tucse, mss;
	uint8_t hdrlen, command;
};

struct e1000_hw {
	uint32_t reg[R_COUNT];
	uint16_t phy[32];
	uint16_t eeprom[E1000_EEPROM];
	uint32_t io_address;
	/* the EEPROM's wires */
	uint16_t ee_shift, ee_out;
	uint8_t ee_bits, ee_reading, ee_left, ee_address, ee_enabled, ee_do;
	/* interrupts held back until, virtual ns; ~0: none */
	uint64_t rx_at, rx_most, tx_at, tx_most, next_irq;
	/* the frame being put together */
	struct e1000_context tso, plain; /* the last of either kind */
	uint8_t tx_command, tx_options; /* of the first descriptor */
	uint16_t tx_special;
	uint8_t tx_overrun, tx_extended;
	uint32_t tx_len;
	uint8_t tx_data[E1000_FRAME];
	struct net_flow flows[NET_FLOWS]; /* as of when it was saved */
};

struct e1000 {
	struct device device;
	struct e1000_hw hw; /* tx_*, tso and plain: tx_lock; the rest: lock */
	struct pci_function f;
	struct device_env env;
	struct net_link *link;
	pthread_mutex_t tx_lock, lock;
	struct timer timer;
	bool paused;
	bool rx_refused; /* lock */
	/* a whole frame in tx_data; waits: the back-end was busy. tx_lock */
	struct {
		bool waits;
		struct net_wire wire;
		struct iovec iov[3];
		unsigned n;
		uint8_t tag[4];
		uint64_t at;  /* of its last descriptor */
		uint8_t command;
	} ready;
	uint8_t scratch[E1000_FRAME]; /* reception; lock */
};

/* e1000.c; under `lock` */
void e1000_raise(struct e1000 *c, uint32_t causes);
void e1000_interrupts(struct e1000 *c);
void e1000_rx_delay(struct e1000 *c); /* ICR_RXT0, now or soon */
void e1000_tx_delay(struct e1000 *c); /* ICR_TXDW soon */
void e1000_count(struct e1000 *c, unsigned reg, uint64_t by);  /* sticks at its largest */
void e1000_count64(struct e1000 *c, unsigned low, uint64_t by);
void e1000_count_size(struct e1000 *c, unsigned first, size_t len); /* of the six counters by size */

/* e1000-eeprom.c; under `lock` */
void eeprom_init(struct e1000_hw *h, const uint8_t mac[6]);
void eeprom_wires(struct e1000_hw *h, uint32_t value); /* EECD is written */
uint32_t eeprom_read_wires(const struct e1000_hw *h);
void eeprom_register(struct e1000_hw *h, uint32_t value); /* EERD */
void phy_reset(struct e1000_hw *h, bool up);
uint32_t phy_access(struct e1000 *c, uint32_t mdic); /* the register's new value */

/* e1000-tx.c */
void e1000_transmit(struct e1000 *c); /* no lock held */
void e1000_tx_reset(struct e1000 *c); /* tx_lock held */
void e1000_tx_give_up(struct e1000 *c); /* a frame that waits is lost; tx_lock held */

/* e1000-rx.c */
enum net_result e1000_receive(void *opaque, const struct net_wire *w, const struct iovec *iov, unsigned n, size_t len);

/* How many descriptors a ring has; 0: none. */
static inline uint32_t ring_size(const struct e1000_hw *h, unsigned length_register)
{
	return (h->reg[length_register] & 0xfff80) / 16;
}

static inline uint64_t ring_base(const struct e1000_hw *h, unsigned low_register)
{
	return (uint64_t)h->reg[low_register + 1] << 32 | (h->reg[low_register] & ~15u);
}

#endif
