/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI tables (specification 6.4, chapter 5): RSDP, RSDT and XSDT, FADT revision 5 with its FACS, MADT, DSDT.
 *
 * ACPI mode is always on (no SMI command port), without firmware there is no VGA, and the tables
 * say so, which spares the guest its probing for it. The DSDT names processors, serial ports,
 * the clock, the ports that are taken, and S5; the power button is a fixed-hardware one.
 */
#include <errno.h>
#include <string.h>
#include "board/private.h"
#include "dev/hpet.h"
#include "dev/pc-devices.h"

#define HEADER_SIZE 36
#define FADT_SIZE 268
#define HPET_SIZE 56
#define HPET_WINDOW 0x400u
#define HPET_MIN_TICK 100 /* periodic interrupts no closer than this many ticks of 10 ns */
#define FACS_SIZE 64

/* The PM block, as dev/acpi-pm.c has it */
#define PM_EVENT 0
#define PM_CONTROL 4
#define PM_TIMER 8
#define PM_GPE0 0x20
#define SLEEP_OFF 5 /* SLP_TYP of S5 */

#define SCI_IRQ 9

struct builder {
	uint8_t *buf;
	struct acpi_links *links; /* NULL: nobody moves the tables later */
	uint32_t base; /* where buf will be, or 0: its addresses are to be relocated */
	uint32_t used;
	bool full;
	uint32_t tables[4]; /* addresses for RSDT and XSDT */
	unsigned ntables;
};

static uint8_t *take(struct builder *b, uint32_t size, uint32_t align, uint32_t *at)
{
	uint32_t start = (b->used + align - 1) & ~(align - 1);

	if (!range_fits(start, size, ACPI_SIZE)) {
		b->full = true;
		start = 0;
	} else {
		b->used = start + size;
	}
	*at = b->base + start;
	memset(b->buf + start, 0, b->full ? 0 : size);
	return b->buf + start;
}

static void checksum(uint8_t *p, uint32_t size, unsigned at)
{
	uint8_t sum = 0;

	p[at] = 0;
	for (uint32_t i = 0; i < size; i++)
		sum = (uint8_t)(sum + p[i]);
	p[at] = (uint8_t)-sum;
}

static void header(uint8_t *p, const char *signature, uint8_t revision, uint32_t size)
{
	memcpy(p, signature, 4);
	put32(p + 4, size);
	p[8] = revision;
	memcpy(p + 10, "OSPITE", 6);
	memcpy(p + 16, "OSPITEPC", 8);
	put32(p + 24, 1);
	memcpy(p + 28, "OSPI", 4);
	put32(p + 32, 1);
}

static void finish(uint8_t *p)
{
	checksum(p, get32(p + 4), 9);
}

/* At p there is an address of the tables, `width` bytes wide. */
static void link_note(struct builder *b, const uint8_t *p, unsigned width)
{
	struct acpi_links *l = b->links;

	if (!l || b->full)
		return;
	CHECK(l->npointers < ARRAY_LEN(l->pointer));
	l->pointer[l->npointers++] = (struct acpi_pointer){ (uint32_t)(p - b->buf), width };
}

/* The table at p has such addresses in it: its sum is to be made again. */
static void sum_note(struct builder *b, const uint8_t *p)
{
	struct acpi_links *l = b->links;

	if (!l || b->full)
		return;
	CHECK(l->nsums < ARRAY_LEN(l->sum));
	l->sum[l->nsums++] = (struct acpi_sum){ (uint32_t)(p - b->buf), get32(p + 4) };
}

/* ---- DSDT ---- */

static void dsdt_sleep(struct aml *a)
{
	unsigned mark;

	aml_byte(a, 0x08);
	aml_name(a, "\\_S5_");
	aml_byte(a, 0x12); /* Package */
	mark = aml_begin(a);
	aml_byte(a, 4);
	aml_integer(a, SLEEP_OFF);
	aml_integer(a, SLEEP_OFF);
	aml_integer(a, 0);
	aml_integer(a, 0);
	aml_end(a, mark);
}

static void dsdt_processors(struct aml *a, unsigned cpus)
{
	static const char digit[] = "0123456789ABCDEF";

	for (unsigned i = 0; i < cpus; i++) {
		char name[5] = { 'C', 'P', digit[i >> 4 & 15], digit[i & 15], 0 };
		unsigned mark = aml_device(a, name);

		aml_byte(a, 0x08);
		aml_name(a, "_HID");
		aml_string(a, "ACPI0007");
		aml_name_integer(a, "_UID", i);
		aml_end(a, mark);
	}
}

static void dsdt_serial(struct aml *a, const struct acpi_config *config)
{
	static const struct {
		const char *name;
		uint16_t port;
		uint8_t irq;
	} com[] = { { "COM1", 0x3f8, 4 }, { "COM2", 0x2f8, 3 }, { "COM3", 0x3e8, 4 }, { "COM4", 0x2e8, 3 } };

	for (unsigned i = 0; i < MIN(config->nserial, ARRAY_LEN(com)); i++) {
		struct aml_crs crs = { 0 };
		unsigned mark;

		if (!config->serial[i])
			continue;
		mark = aml_device(a, com[i].name);
		aml_name_eisaid(a, "_HID", "PNP0501");
		aml_name_integer(a, "_UID", i + 1);
		aml_name_integer(a, "_STA", 0xf);
		aml_crs_io(&crs, com[i].port, 8);
		aml_crs_irq(&crs, com[i].irq);
		aml_name_crs(a, &crs);
		aml_end(a, mark);
	}
}

static void dsdt_keyboard(struct aml *a)
{
	struct aml_crs keyboard = { 0 }, mouse = { 0 };
	unsigned mark = aml_device(a, "KBD_");

	aml_name_eisaid(a, "_HID", "PNP0303");
	aml_name_integer(a, "_STA", 0xf);
	aml_crs_io(&keyboard, 0x60, 1);
	aml_crs_io(&keyboard, 0x64, 1);
	aml_crs_irq(&keyboard, 1);
	aml_name_crs(a, &keyboard);
	aml_end(a, mark);

	mark = aml_device(a, "MOU_");
	aml_name_eisaid(a, "_HID", "PNP0F13");
	aml_name_integer(a, "_STA", 0xf);
	aml_crs_irq(&mouse, 12);
	aml_name_crs(a, &mouse);
	aml_end(a, mark);
}

static void dsdt_virtio(struct aml *a, const struct acpi_config *config)
{
	static const char *const name[VIRTIO_MMIO_MAX] = { "VIR0", "VIR1", "VIR2" };

	for (unsigned i = 0; i < MIN(config->nmmio, (unsigned)VIRTIO_MMIO_MAX); i++) {
		struct aml_crs crs = { 0 };
		unsigned mark = aml_device(a, name[i]);

		aml_byte(a, 0x08); /* Name (_HID, ...) */
		aml_name(a, "_HID");
		aml_string(a, "LNRO0005");
		aml_name_integer(a, "_UID", i);
		aml_crs_memory(&crs, VIRTIO_MMIO_BASE + i * VIRTIO_MMIO_STEP, VIRTIO_MMIO_STEP);
		aml_crs_irq(&crs, VIRTIO_MMIO_IRQ(i));
		aml_name_crs(a, &crs);
		aml_end(a, mark);
	}
}

static void dsdt_board(struct aml *a, const struct acpi_config *config)
{
	struct aml_crs rtc = { 0 }, taken = { 0 }, hpet = { 0 };
	unsigned mark = aml_device(a, "RTC_");

	aml_name_eisaid(a, "_HID", "PNP0B00");
	aml_crs_io(&rtc, 0x70, 2);
	aml_crs_irq(&rtc, 8);
	aml_name_crs(a, &rtc);
	aml_end(a, mark);

	if (config->hpet) {
		mark = aml_device(a, "HPET");
		aml_name_eisaid(a, "_HID", "PNP0103");
		aml_name_integer(a, "_UID", 0);
		aml_name_integer(a, "_STA", 0xf);
		aml_crs_memory(&hpet, HPET_BASE, HPET_WINDOW);
		aml_name_crs(a, &hpet);
		aml_end(a, mark);
	}

	mark = aml_device(a, "MBRD");
	aml_name_eisaid(a, "_HID", "PNP0C02");
	aml_name_integer(a, "_UID", 1);
	aml_crs_io(&taken, 0x4d0, 2);
	aml_crs_io(&taken, config->pm_base, 0x40);
	aml_crs_io(&taken, 0xb2, 2);
	aml_name_crs(a, &taken);
	aml_end(a, mark);
}

static uint32_t build_dsdt(struct builder *b, const struct acpi_config *config)
{
	struct aml a = { .len = 0 };
	unsigned mark;
	uint32_t at;
	uint8_t *p;

	dsdt_sleep(&a);
	dsdt_pci(&a, config);
	mark = aml_scope(&a, "\\_SB_");
	dsdt_processors(&a, config->cpus);
	dsdt_board(&a, config);
	dsdt_keyboard(&a);
	dsdt_serial(&a, config);
	dsdt_virtio(&a, config);
	aml_end(&a, mark);
	b->full |= a.overflow;
	p = take(b, HEADER_SIZE + a.len, 16, &at);
	if (b->full)
		return 0;
	memcpy(p + HEADER_SIZE, a.data, a.len);
	header(p, "DSDT", 2, HEADER_SIZE + a.len);
	finish(p);
	return at;
}

/* ---- the fixed tables ---- */

static uint32_t build_facs(struct builder *b)
{
	uint32_t at;
	uint8_t *p = take(b, FACS_SIZE, 64, &at);

	if (b->full)
		return 0;
	memcpy(p, "FACS", 4);
	put32(p + 4, FACS_SIZE);
	p[32] = 2;
	return at;
}

/* A generic address structure in I/O space. */
static void gas(uint8_t *p, uint8_t bits_wide, uint8_t access, unsigned port)
{
	p[0] = 1;
	p[1] = bits_wide;
	p[3] = access;
	put64(p + 4, port);
}

static void build_fadt(struct builder *b, const struct acpi_config *config, uint32_t facs, uint32_t dsdt)
{
	uint16_t pm = config->pm_base;
	uint32_t at;
	uint8_t *p = take(b, FADT_SIZE, 16, &at);

	if (b->full)
		return;
	put32(p + 36, facs);
	put32(p + 40, dsdt);
	p[45] = 4; /* profile: enterprise server */
	put16(p + 46, SCI_IRQ);
	put32(p + 56, pm + PM_EVENT);
	put32(p + 64, pm + PM_CONTROL);
	put32(p + 76, pm + PM_TIMER);
	put32(p + 80, pm + PM_GPE0);
	p[88] = 4;
	p[89] = 2;
	p[91] = 4;
	p[92] = 4; /* GPE0: two registers of two bytes */
	put16(p + 96, 0xfff); /* no C2 */
	put16(p + 98, 0xfff); /* no C3 */
	p[108] = 0x32; /* century in CMOS */
	put16(p + 109, BIT(0) | BIT(1) | (config->vga ? 0 : BIT(2))); /* legacy devices, 8042, no VGA */
	/* WBINVD, C1, no fixed sleep button, no RTC wake, 32-bit timer, reset register */
	put32(p + 112, BIT(0) | BIT(2) | BIT(5) | BIT(6) | BIT(8) | BIT(10));
	gas(p + 116, 8, 1, 0xcf9);
	p[128] = 0x06;
	p[131] = 1; /* minor revision */
	put64(p + 140, dsdt);
	gas(p + 148, 32, 2, pm + PM_EVENT);
	gas(p + 172, 16, 2, pm + PM_CONTROL);
	gas(p + 208, 32, 3, pm + PM_TIMER);
	gas(p + 220, 32, 1, pm + PM_GPE0);
	header(p, "FACP", 5, FADT_SIZE);
	finish(p);
	link_note(b, p + 36, 4);
	link_note(b, p + 40, 4);
	link_note(b, p + 140, 8);
	sum_note(b, p);
	b->tables[b->ntables++] = at;
}

static uint8_t *madt_override(uint8_t *p, uint8_t irq, uint32_t gsi, uint16_t flags)
{
	p[0] = 2;
	p[1] = 10;
	p[3] = irq;
	put32(p + 4, gsi);
	put16(p + 8, flags);
	return p + 10;
}

static void build_madt(struct builder *b, unsigned cpus)
{
	uint32_t size = 44 + cpus * 8 + 12 + 4 * 10 + 6, at;
	uint8_t *p = take(b, size, 16, &at), *q = p + 44;

	if (b->full)
		return;
	put32(p + 36, (uint32_t)PC_LAPIC);
	put32(p + 40, 1); /* the 8259 pair is there too */
	for (unsigned i = 0; i < cpus; i++, q += 8) {
		q[0] = 0;
		q[1] = 8;
		q[2] = (uint8_t)i;
		q[3] = (uint8_t)i;
		put32(q + 4, 1);
	}
	q[0] = 1;
	q[1] = 12;
	q[2] = 0;
	put32(q + 4, (uint32_t)PC_IOAPIC);
	q += 12;
	q = madt_override(q, 0, 2, 0);
	q = madt_override(q, SCI_IRQ, SCI_IRQ, 0x000d); /* high, level */
	q = madt_override(q, 10, 10, 0x000d); /* where firmware routes PCI's */
	q = madt_override(q, 11, 11, 0x000d);
	q[0] = 4; /* LINT1 of every CPU is NMI */
	q[1] = 6;
	q[2] = 0xff;
	q[5] = 1;
	header(p, "APIC", 3, size);
	finish(p);
	b->tables[b->ntables++] = at;
}

static void build_hpet(struct builder *b)
{
	uint32_t at;
	uint8_t *p = take(b, HPET_SIZE, 16, &at);

	if (b->full)
		return;
	put32(p + 36, HPET_ID);
	p[41] = 64; /* in memory, 64 bits wide */
	put64(p + 44, HPET_BASE);
	put16(p + 53, HPET_MIN_TICK);
	header(p, "HPET", 1, HPET_SIZE);
	finish(p);
	b->tables[b->ntables++] = at;
}

static uint32_t build_root(struct builder *b, const char *signature, unsigned width)
{
	uint32_t size = HEADER_SIZE + b->ntables * width, at;
	uint8_t *p = take(b, size, 16, &at);

	if (b->full)
		return 0;
	for (unsigned i = 0; i < b->ntables; i++) {
		put32(p + HEADER_SIZE + i * width, b->tables[i]);
		link_note(b, p + HEADER_SIZE + i * width, width);
	}
	header(p, signature, 1, size);
	finish(p);
	sum_note(b, p);
	return at;
}

/* What is found by those who search, or are told: it leads to both lists of tables. */
static void build_rsdp(uint8_t *p, uint32_t rsdt, uint32_t xsdt)
{
	memset(p, 0, RSDP_SIZE);
	memcpy(p, "RSD PTR ", 8);
	memcpy(p + 9, "OSPITE", 6);
	p[15] = 2;
	put32(p + 16, rsdt);
	put32(p + 20, RSDP_SIZE);
	put64(p + 24, xsdt);
	checksum(p, 20, 8);
	checksum(p, RSDP_SIZE, 32);
}

static int build_all(struct builder *b, const struct acpi_config *config, uint32_t *rsdt, uint32_t *xsdt, struct err *e)
{
	uint32_t facs = build_facs(b), dsdt = build_dsdt(b, config);

	build_fadt(b, config, facs, dsdt);
	build_madt(b, config->cpus);
	if (config->hpet)
		build_hpet(b);
	*rsdt = build_root(b, "RSDT", 4);
	*xsdt = build_root(b, "XSDT", 8);
	return b->full ? err_set(e, E2BIG, "the ACPI tables of %u CPUs do not fit", config->cpus) : 0;
}

int acpi_build(uint8_t *buf, const struct acpi_config *config, uint64_t *rsdp, struct err *e)
{
	struct builder b = { .buf = buf, .base = (uint32_t)ACPI_BASE };
	uint32_t at, rsdt, xsdt;
	uint8_t *p;
	int r;

	memset(buf, 0, ACPI_SIZE);
	p = take(&b, RSDP_SIZE, 16, &at); /* first: found by those who search from 0xe0000 on */
	r = build_all(&b, config, &rsdt, &xsdt, e);
	if (r)
		return r;
	build_rsdp(p, rsdt, xsdt);
	*rsdp = at;
	return 0;
}

int acpi_build_movable(uint8_t *buf, uint8_t rsdp[RSDP_SIZE], struct acpi_links *links, const struct acpi_config *config,
		       struct err *e)
{
	struct builder b = { .buf = buf, .links = links };
	uint32_t rsdt, xsdt;
	int r;

	memset(buf, 0, ACPI_SIZE);
	memset(links, 0, sizeof(*links));
	r = build_all(&b, config, &rsdt, &xsdt, e);
	if (r)
		return r;
	build_rsdp(rsdp, rsdt, xsdt);
	links->size = b.used;
	return 0;
}
