/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The 82540EM's EEPROM, read by a register or by its four wires as the drivers of old do (Microwire, 93C46: 64 words), and its PHY
 * (a Marvell 88E1011), whose negotiation has always just succeeded: gigabit, full duplex.
 */
#include <string.h>
#include "pci/e1000-private.h"

#define EECD_SK BIT(0)
#define EECD_CS BIT(1)
#define EECD_DI BIT(2)
#define EECD_DO BIT(3)
#define EECD_REQ BIT(6)
#define EECD_GNT BIT(7)
#define EECD_PRES BIT(8)
#define CHECKSUM 0xbabau /* of all words */

enum { EE_COMMAND, EE_READ, EE_WRITE, EE_DONE };

void eeprom_init(struct e1000_hw *h, const uint8_t mac[6])
{
	static const uint16_t words[] = {
		[3] = 0x0000, [4] = 0xffff, [8] = 0x3000, [9] = 0x1000, /* the board's number */
		[10] = 0x6400, /* initialization control 1: nothing is inverted */
		[11] = 0x100e, [12] = 0x8086, [13] = 0x100e, [14] = 0x8086, [15] = 0x3040,
		[16] = 0x0008, [17] = 0x2000, [18] = 0x7e14, [19] = 0x0048, [20] = 0x1000, [21] = 0x00d8, [23] = 0x2700,
		[24] = 0x6cc9, [25] = 0x3150, [26] = 0x0722, [27] = 0x040b, [28] = 0x0984, [30] = 0xc000, [31] = 0x0706,
		[32] = 0x1008, [34] = 0x0f04, [35] = 0x7fff, [36] = 0x4d01, [47] = 0x0100, [48] = 0x4000, [49] = 0x121c,
	};
	uint16_t sum = 0;

	memset(h->eeprom, 0xff, sizeof(h->eeprom));
	memcpy(h->eeprom, words, sizeof(words));
	for (unsigned i = 0; i < 3; i++)
		h->eeprom[i] = (uint16_t)(mac[2 * i] | mac[2 * i + 1] << 8);
	for (unsigned i = 0; i < E1000_EEPROM - 1; i++)
		sum = (uint16_t)(sum + h->eeprom[i]);
	h->eeprom[E1000_EEPROM - 1] = (uint16_t)(CHECKSUM - sum);
}

/* A command is a one, two bits of what and six of where: read 10, write 01, erase 11, 00 by the first two of where. */
static void wires_command(struct e1000_hw *h)
{
	unsigned what = h->ee_shift >> 6 & 3, where = h->ee_shift & 63;

	h->ee_bits = 0;
	h->ee_address = (uint8_t)where;
	h->ee_reading = EE_DONE;
	h->ee_do = 1;
	if (what == 2) {
		h->ee_reading = EE_READ;
		h->ee_out = h->eeprom[where];
		h->ee_left = 16;
		h->ee_do = 0; /* a zero goes before the data */
	} else if (what == 1) {
		h->ee_reading = EE_WRITE;
		h->ee_shift = 0;
	} else if (what == 3 && h->ee_enabled) {
		h->eeprom[where] = 0xffff;
	} else if (!what && (where >> 4 == 3 || !(where >> 4))) {
		h->ee_enabled = where >> 4 == 3;
	}
}

static void wires_clock(struct e1000_hw *h, bool in)
{
	switch (h->ee_reading) {
	case EE_COMMAND:
		if (!h->ee_bits && !in)
			return; /* before the one it begins with */
		h->ee_shift = (uint16_t)(h->ee_shift << 1 | in);
		if (++h->ee_bits == 9)
			wires_command(h);
		return;
	case EE_READ:
		if (!h->ee_left) { /* on to the next word */
			h->ee_address = (h->ee_address + 1) % E1000_EEPROM;
			h->ee_out = h->eeprom[h->ee_address];
			h->ee_left = 16;
		}
		h->ee_do = h->ee_out >> 15;
		h->ee_out = (uint16_t)(h->ee_out << 1);
		h->ee_left--;
		return;
	case EE_WRITE:
		h->ee_shift = (uint16_t)(h->ee_shift << 1 | in);
		if (++h->ee_bits < 16)
			return;
		if (h->ee_enabled)
			h->eeprom[h->ee_address % E1000_EEPROM] = h->ee_shift;
		h->ee_reading = EE_DONE;
		h->ee_do = 1; /* ready */
		return;
	default:
		return;
	}
}

void eeprom_wires(struct e1000_hw *h, uint32_t value)
{
	uint32_t was = h->reg[R_EECD];

	h->reg[R_EECD] = value & (EECD_SK | EECD_CS | EECD_DI | EECD_REQ | 0x30);
	if (!(value & EECD_CS)) {
		h->ee_reading = EE_COMMAND;
		h->ee_bits = 0;
		h->ee_shift = 0;
		h->ee_do = 1;
		return;
	}
	if (value & EECD_SK && !(was & EECD_SK) && was & EECD_CS)
		wires_clock(h, value & EECD_DI);
}

uint32_t eeprom_read_wires(const struct e1000_hw *h)
{
	uint32_t v = h->reg[R_EECD] | EECD_PRES | (h->ee_do ? EECD_DO : 0);

	return v & EECD_REQ ? v | EECD_GNT : v;
}

void eeprom_register(struct e1000_hw *h, uint32_t value)
{
	unsigned at = value >> 8 & 0xff;

	if (!(value & 1)) {
		h->reg[R_EERD] = 0;
		return;
	}
	h->reg[R_EERD] = (uint32_t)(at < E1000_EEPROM ? h->eeprom[at] : 0xffff) << 16 | at << 8 | 0x10;
}

/* ---- the PHY */

enum { PHY_CONTROL, PHY_STATUS, PHY_ID1, PHY_ID2, PHY_ADVERTISE, PHY_PARTNER, PHY_EXPANSION, PHY_GIGA_CONTROL = 9, PHY_GIGA_STATUS,
       PHY_EXTENDED = 15, PHY_SPECIFIC_CONTROL, PHY_SPECIFIC_STATUS, PHY_INT_ENABLE, PHY_INT_STATUS, PHY_EXT_SPECIFIC };

static void phy_link(struct e1000_hw *h, bool up)
{
	h->phy[PHY_STATUS] = up ? 0x796d : 0x7949; /* negotiated, link */
	h->phy[PHY_PARTNER] = up ? 0x45e1 : 0;
	h->phy[PHY_EXPANSION] = up ? 1 : 0;
	h->phy[PHY_GIGA_STATUS] = up ? 0x7c00 : 0;
	h->phy[PHY_SPECIFIC_STATUS] = up ? 0xac04 : 0x8000; /* 1000 Mb/s, full duplex, resolved, link */
}

void phy_reset(struct e1000_hw *h, bool up)
{
	static const uint16_t first[32] = {
		[PHY_CONTROL] = 0x1140, [PHY_ID1] = 0x0141, [PHY_ID2] = 0x0c20, [PHY_ADVERTISE] = 0x0de1, [PHY_GIGA_CONTROL] = 0x0e00,
		[PHY_EXTENDED] = 0x3000, [PHY_SPECIFIC_CONTROL] = 0x0360, [PHY_EXT_SPECIFIC] = 0x0d60,
	};

	memcpy(h->phy, first, sizeof(first));
	phy_link(h, up);
}

static void phy_write(struct e1000 *c, unsigned at, uint16_t v)
{
	struct e1000_hw *h = &c->hw;

	switch (at) {
	case PHY_CONTROL:
		if (v & 0x8000) {
			phy_reset(h, h->reg[R_STATUS] & STATUS_LU);
			return;
		}
		h->phy[at] = v & 0x7dc0; /* reset and restart have happened */
		if (v & 0x0200) {
			phy_link(h, h->reg[R_STATUS] & STATUS_LU);
			e1000_raise(c, ICR_LSC);
		}
		return;
	case PHY_STATUS:
	case PHY_ID1:
	case PHY_ID2:
	case PHY_PARTNER:
	case PHY_EXPANSION:
	case PHY_GIGA_STATUS:
	case PHY_EXTENDED:
	case PHY_SPECIFIC_STATUS:
	case PHY_INT_STATUS:
		return; /* read-only */
	default:
		h->phy[at] = v;
	}
}

uint32_t phy_access(struct e1000 *c, uint32_t mdic)
{
	unsigned at = mdic >> 16 & 31, op = mdic >> 26 & 3;
	uint32_t done = (mdic & ~BIT(30)) | BIT(28);

	if ((mdic >> 21 & 31) != 1 || (op != 1 && op != 2)) {
		done |= BIT(30); /* nobody answers there */
	} else if (op == 1) {
		phy_write(c, at, (uint16_t)mdic);
	} else {
		done = (done & ~0xffffu) | c->hw.phy[at];
		if (at == PHY_STATUS && !(c->hw.reg[R_STATUS] & STATUS_LU))
			phy_link(&c->hw, false);
	}
	if (mdic & BIT(29))
		e1000_raise(c, ICR_MDAC);
	return done;
}
