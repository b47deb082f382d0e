/* SPDX-License-Identifier: Apache-2.0 */
/* The bus, functions and the chipset's bridges, from the guest's side: ports and memory. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "rig.h"

#define DEVFN PCI_DEVFN(3, 0)

/* ---- a function with everything: registers in ports and memory, a 64-bit BAR with the vectors, plain memory, a ROM */

struct sample {
	struct pci_function f;
	uint8_t regs[64];
	uint8_t *ram;
	unsigned writes, mappings;
};

static uint64_t sample_read(void *opaque, uint64_t offset, unsigned size)
{
	struct sample *s = opaque;
	uint64_t v = 0;

	memcpy(&v, s->regs + (offset & 56), size);
	return v;
}

static void sample_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct sample *s = opaque;

	memcpy(s->regs + (offset & 56), &value, size);
}

static void sample_written(void *opaque, unsigned offset, unsigned size)
{
	((struct sample *)opaque)->writes++;
}

static void sample_mapping(void *opaque)
{
	((struct sample *)opaque)->mappings++;
}

static const struct io_ops sample_io = { sample_read, sample_write, 1, 8 };
static const struct pci_ops sample_ops = { .config_written = sample_written, .mapping = sample_mapping };

static void sample_make(struct rig *r, struct sample *s, int devfn, uint8_t pin)
{
	const struct pci_identity id = { .vendor = 0x1234, .device = 0x5678, .subsystem_vendor = 0x9abc,
					 .subsystem = 0xdef0, .class_code = 0xff0102, .revision = 7, .pin = pin };
	static const uint8_t rom[3000] = { 0x55, 0xaa, 6 };
	struct err e = { 0 };

	memset(s, 0, sizeof(*s));
	pci_function_init(&s->f, &id, &sample_ops, s);
	pci_add_bar(&s->f, 0, PCI_BAR_IO, 64, &sample_io, s, "sample-io");
	pci_add_bar(&s->f, 1, PCI_BAR_MEM32, 4096, &sample_io, s, "sample-mem");
	pci_add_bar(&s->f, 2, PCI_BAR_MEM64, 16384, NULL, NULL, "sample-msix");
	assert_int_equal(pci_add_ram_bar(&s->f, 4, r->env.mem, 65536, "sample-ram", &s->ram, &e), 0);
	assert_int_equal(pci_add_rom(&s->f, r->env.mem, rom, sizeof(rom), "sample-rom", &e), 0);
	assert_int_equal(pci_add_msi(&s->f, 4, &e), 0);
	assert_int_equal(pci_add_msix(&s->f, 5, 2, 4096, &e), 0);
	assert_int_equal(pci_attach(r->bus, &s->f, devfn, &e), 0);
	rig_reset(r);
}

static void sample_end(struct rig *r, struct sample *s)
{
	pci_function_dispose(&s->f);
	rig_close(r);
}

static void test_config(void **state)
{
	struct rig r;
	struct sample s;
	static const uint32_t size[6] = { ~63u | 1, ~4095u, ~16383u | 4, ~0u, ~65535u | 8, 0 };

	rig_open(&r);
	assert_int_equal(cfg_read(&r, DEVFN, 0, 4), 0xffffffff);
	sample_make(&r, &s, DEVFN, 2);
	assert_int_equal(cfg_read(&r, DEVFN, 0, 4), 0x56781234);
	assert_int_equal(cfg_read(&r, DEVFN, 2, 2), 0x5678);
	assert_int_equal(cfg_read(&r, DEVFN, 3, 1), 0x56);
	assert_int_equal(cfg_read(&r, DEVFN, 8, 4), 0xff010207);
	assert_int_equal(cfg_read(&r, DEVFN, 0x2c, 4), 0xdef09abc);
	assert_int_equal(cfg_read(&r, DEVFN, 0x3c, 4), 0x0200);
	cfg_write(&r, DEVFN, 0, 0, 4);
	cfg_write(&r, DEVFN, 0x3c, 0xffffffff, 4);
	assert_int_equal(cfg_read(&r, DEVFN, 0, 4), 0x56781234);
	assert_int_equal(cfg_read(&r, DEVFN, 0x3c, 4), 0x02ff);
	for (unsigned n = 0; n < 6; n++) {
		cfg_write(&r, DEVFN, 0x10 + 4 * n, ~0u, 4);
		assert_int_equal(cfg_read(&r, DEVFN, 0x10 + 4 * n, 4), size[n]);
	}
	cfg_write(&r, DEVFN, 0x30, ~0u, 4);
	assert_int_equal(cfg_read(&r, DEVFN, 0x30, 4), ~4095u | 1);
	/* other buses, other slots, switched off, odd accesses */
	ports_out(r.env.ports, 0xcf8, 0x80010000 | DEVFN << 8, 4);
	assert_int_equal(ports_in(r.env.ports, 0xcfc, 4), 0xffffffff);
	ports_out(r.env.ports, 0xcf8, DEVFN << 8, 4);
	assert_int_equal(ports_in(r.env.ports, 0xcfc, 4), 0xffffffff);
	ports_out(r.env.ports, 0xcf8, ~0u, 4);
	assert_int_equal(ports_in(r.env.ports, 0xcf8, 4), 0x80fffffc);
	ports_out(r.env.ports, 0xcf8, 0x11, 1);
	assert_int_equal(ports_in(r.env.ports, 0xcf8, 4), 0x80fffffc);
	/* capabilities: MSI-X, then MSI */
	assert_true(cfg_read(&r, DEVFN, 6, 2) & 0x10);
	assert_int_equal(cfg_read(&r, DEVFN, 0x34, 1), s.f.msix_cap);
	assert_int_equal(cfg_read(&r, DEVFN, s.f.msix_cap, 2), s.f.msi_cap << 8 | 0x11);
	assert_int_equal(cfg_read(&r, DEVFN, s.f.msi_cap, 2), 5);
	rig_reset(&r);
	assert_int_equal(cfg_read(&r, DEVFN, 0x10, 4), 1);
	rig_roundtrip(&r);
	sample_end(&r, &s);
}

static void test_bars(void **state)
{
	struct rig r;
	struct sample s;

	rig_open(&r);
	sample_make(&r, &s, -1, 1);
	assert_int_equal(s.f.devfn, PCI_DEVFN(2, 0));
	memcpy(s.regs, "\x11\x22\x33\x44", 4);
	cfg_write(&r, s.f.devfn, 0x10, 0xc000, 4);
	cfg_write(&r, s.f.devfn, 0x14, 0xd0000000, 4);
	cfg_write(&r, s.f.devfn, 0x18, 0x10000000, 4);
	cfg_write(&r, s.f.devfn, 0x1c, 0x8, 4);
	cfg_write(&r, s.f.devfn, 0x20, 0xd0100000, 4);
	cfg_write(&r, s.f.devfn, 0x30, 0xd0200001, 4);
	assert_int_equal(ports_in(r.env.ports, 0xc000, 4), 0xffffffff);
	assert_int_equal(mem_read(r.env.mem, 0xd0000000, 4), 0xffffffff);
	cfg_write(&r, s.f.devfn, 4, 1, 2);
	assert_int_equal(ports_in(r.env.ports, 0xc000, 4), 0x44332211);
	assert_int_equal(mem_read(r.env.mem, 0xd0000000, 4), 0xffffffff);
	cfg_write(&r, s.f.devfn, 4, 3, 2);
	assert_int_equal(mem_read(r.env.mem, 0xd0000000, 4), 0x44332211);
	assert_int_equal(mem_read(r.env.mem, 0xd0200000, 4), 0x06aa55);
	mem_write(r.env.mem, 0xd0200000, 0, 4);
	assert_int_equal(mem_read(r.env.mem, 0xd0200000, 4), 0x06aa55);
	mem_write(r.env.mem, 0xd0100ffc, 0x12345678, 4);
	assert_int_equal(s.ram[0xffc], 0x78);
	assert_int_equal(mem_dma_write(r.env.mem, 0xd0100000, "dma", 3), 0);
	assert_memory_equal(s.ram, "dma", 3);
	assert_int_equal(mem_read(r.env.mem, 0x810000000, 4), 0); /* the rest of the vectors' BAR */
	assert_int_equal(mem_read(r.env.mem, 0x810001000 + 12, 4), 1); /* masked */
	/* moved, with the vectors */
	cfg_write(&r, s.f.devfn, 0x1c, 0x9, 4);
	assert_int_equal(mem_read(r.env.mem, 0x81000100c, 4), 0xffffffff);
	assert_int_equal(mem_read(r.env.mem, 0x91000100c, 4), 1);
	rig_roundtrip(&r);
	assert_int_equal(mem_read(r.env.mem, 0x91000100c, 4), 1);
	/* RAM, interrupt controllers and the end of the address space win */
	cfg_write(&r, s.f.devfn, 0x14, 0x1000, 4);
	mem_write(r.env.mem, 0x1000, 0x5555, 4);
	assert_int_equal(mem_read(r.env.mem, 0x1000, 4), 0x5555);
	cfg_write(&r, s.f.devfn, 0x14, 0xfec00000, 4);
	assert_null(mem_find(r.env.mem, 0xfec00000));
	cfg_write(&r, s.f.devfn, 0x14, 0xfffff000, 4);
	assert_null(mem_find(r.env.mem, 0xfffff000));
	cfg_write(&r, s.f.devfn, 0x1c, 0xffffffff, 4);
	cfg_write(&r, s.f.devfn, 0x10, 0xffffffc0, 4);
	assert_int_equal(ports_in(r.env.ports, 0xffc0, 4), 0xffffffff);
	rig_reset(&r);
	assert_null(mem_find(r.env.mem, 0xd0100000));
	/* what firmware does */
	pci_bus_assign(r.bus, (const uint8_t[4]){ 10, 10, 11, 11 });
	assert_int_equal(cfg_read(&r, s.f.devfn, 0x10, 4), 0xc001);
	assert_int_equal(ports_in(r.env.ports, 0xc000, 4), 0x44332211);
	assert_int_equal(cfg_read(&r, s.f.devfn, 0x3c, 1), 10);
	assert_int_equal(mem_read(r.env.mem, cfg_read(&r, s.f.devfn, 0x14, 4), 4), 0x44332211);
	sample_end(&r, &s);
}

static void test_wires(void **state)
{
	struct rig r;
	struct sample s;
	unsigned n = pci_pirq(3, 2);

	rig_open(&r);
	sample_make(&r, &s, DEVFN, 2);
	pci_set_intx(&s.f, 1);
	assert_int_equal(r.level[n], 1);
	assert_true(cfg_read(&r, DEVFN, 6, 2) & 8);
	cfg_write(&r, DEVFN, 4, 0x400, 2); /* disabled */
	assert_int_equal(r.level[n], 0);
	assert_true(cfg_read(&r, DEVFN, 6, 2) & 8);
	cfg_write(&r, DEVFN, 4, 0, 2);
	assert_int_equal(r.level[n], 1);
	cfg_write(&r, DEVFN, s.f.msi_cap + 2, 1, 2); /* messages instead */
	assert_int_equal(r.level[n], 0);
	cfg_write(&r, DEVFN, s.f.msi_cap + 2, 0, 2);
	assert_int_equal(r.level[n], 1);
	rig_roundtrip(&r);
	assert_int_equal(r.level[n], 1);
	rig_reset(&r);
	assert_int_equal(r.level[n], 0);
	sample_end(&r, &s);
}

static void test_messages(void **state)
{
	struct rig r;
	struct sample s;
	gpa_t table = 0xd0001000;

	rig_open(&r);
	sample_make(&r, &s, DEVFN, 1);
	pci_msi_notify(&s.f, 0);
	pci_msix_notify(&s.f, 0);
	assert_int_equal(r.msis, 0);
	/* MSI: vectors take the data's low bits, as many as the guest has allowed */
	cfg_write(&r, DEVFN, s.f.msi_cap + 4, 0xfee01000, 4);
	cfg_write(&r, DEVFN, s.f.msi_cap + 12, 0x4041, 2);
	cfg_write(&r, DEVFN, s.f.msi_cap + 2, 1 | 1 << 4, 2);
	pci_msi_notify(&s.f, 1);
	assert_int_equal(r.msis, 0); /* no bus mastering */
	cfg_write(&r, DEVFN, 4, 6, 2);
	pci_msi_notify(&s.f, 2);
	assert_int_equal(r.msis, 1);
	assert_int_equal(r.msi_address, 0xfee01000);
	assert_int_equal(r.msi_data, 0x4040);
	cfg_write(&r, DEVFN, s.f.msi_cap + 2, 0, 2);
	/* MSI-X: masked interrupts are remembered */
	cfg_write(&r, DEVFN, 0x18, 0xd0000000, 4);
	for (unsigned v = 0; v < 5; v++) {
		mem_write(r.env.mem, table + v * 16, 0xfee02000, 4);
		mem_write(r.env.mem, table + v * 16 + 8, 0x30 + v, 4);
	}
	cfg_write(&r, DEVFN, s.f.msix_cap + 2, 0x8000, 2);
	pci_msix_notify(&s.f, 3);
	assert_int_equal(r.msis, 1);
	assert_int_equal(mem_read(r.env.mem, table + 80, 4), 8);
	mem_write(r.env.mem, table + 80, 0, 8); /* read-only */
	mem_write(r.env.mem, table + 3 * 16 + 12, 0, 4);
	assert_int_equal(r.msis, 2);
	assert_int_equal(r.msi_data, 0x33);
	assert_int_equal(mem_read(r.env.mem, table + 80, 4), 0);
	cfg_write(&r, DEVFN, s.f.msix_cap + 2, 0xc000, 2);
	pci_msix_notify(&s.f, 3);
	rig_roundtrip(&r);
	assert_int_equal(r.msis, 2);
	cfg_write(&r, DEVFN, s.f.msix_cap + 2, 0x8000, 2);
	assert_int_equal(r.msis, 3);
	pci_msix_notify(&s.f, 5); /* there is none */
	pci_msix_notify(&s.f, 1000);
	assert_int_equal(r.msis, 3);
	sample_end(&r, &s);
}

static void test_dma(void **state)
{
	struct rig r;
	struct sample s;
	char text[8] = "";

	rig_open(&r);
	sample_make(&r, &s, DEVFN, 1);
	assert_int_equal(pci_dma_write(&s.f, 0x1000, "hello", 6), -EFAULT);
	cfg_write(&r, DEVFN, 4, 4, 2);
	assert_int_equal(pci_dma_write(&s.f, 0x1000, "hello", 6), 0);
	assert_int_equal(pci_dma_read(&s.f, 0x1000, text, 6), 0);
	assert_string_equal(text, "hello");
	assert_int_equal(pci_dma_read(&s.f, RIG_RAM - 2, text, 6), -EFAULT);
	assert_int_equal(pci_dma_read(&s.f, ~0ull - 2, text, 6), -EFAULT);
	sample_end(&r, &s);
}

/* ---- bridges */

static void isa_set(void *opaque, unsigned irq, unsigned n, int level)
{
	rig_wire(opaque, 32 + irq, level);
}

static void pm_moved(void *opaque, uint16_t base)
{
	((struct rig *)opaque)->edges[63] = base;
}

static struct device *make_piix(struct rig *r)
{
	struct piix_config c = { .isa = isa_set, .opaque = r, .pm_moved = pm_moved, .pm_base = 0x600 };

	for (unsigned n = 0; n < 4; n++)
		c.direct[n] = rig_line(r, 16 + n);
	return piix_create(r->bus, &r->env, &c, NULL);
}

static void test_piix(void **state)
{
	struct rig r;
	struct sample s;
	unsigned n = pci_pirq(3, 1);
	struct device *d;
	uint8_t irq[4];

	rig_open(&r);
	d = make_piix(&r);
	assert_non_null(d);
	rig_add(&r, d);
	sample_make(&r, &s, DEVFN, 1);
	assert_int_equal(cfg_read(&r, PCI_DEVFN(1, 0), 0x0e, 1), 0x80);
	pci_set_intx(&s.f, 1);
	assert_int_equal(r.level[16 + n], 1);
	cfg_write(&r, PCI_DEVFN(1, 0), 0x60 + n, 11, 1);
	assert_int_equal(r.level[32 + 11], 1);
	cfg_write(&r, PCI_DEVFN(1, 0), 0x60 + n, 5, 1);
	assert_int_equal(r.level[32 + 11], 0);
	assert_int_equal(r.level[32 + 5], 1);
	piix_routing(d, irq);
	assert_int_equal(irq[n], 5);
	cfg_write(&r, PCI_DEVFN(1, 0), 0x60 + n, 8, 1); /* the clock's cannot be had */
	assert_int_equal(r.level[32 + 5] + r.level[32 + 8], 0);
	cfg_write(&r, PCI_DEVFN(1, 0), 0x60 + n, 10, 1);
	rig_roundtrip(&r);
	assert_int_equal(r.level[32 + 10], 1);
	pci_set_intx(&s.f, 0);
	assert_int_equal(r.level[32 + 10] + r.level[16 + n], 0);
	/* power management moves */
	assert_int_equal(piix_pm_base(d), 0x600);
	cfg_write(&r, PCI_DEVFN(1, 3), 0x40, 0xb000, 4);
	assert_int_equal(r.edges[63], 0xb000);
	cfg_write(&r, PCI_DEVFN(1, 3), 0x80, 0, 1);
	assert_int_equal(r.edges[63], 0);
	rig_reset(&r);
	assert_int_equal(r.edges[63], 0x600);
	ports_out(r.env.ports, 0xb2, 0xf1, 1);
	assert_int_equal(ports_in(r.env.ports, 0xb2, 1), 0xf1);
	sample_end(&r, &s);
}

static void test_shadow(void **state)
{
	static uint8_t rom[0x20000];
	struct rig r;
	struct device *d;
	uint64_t offset;
	struct mem *m;

	rig_open(&r);
	m = r.env.mem;
	memset(rom, 0xbb, sizeof(rom));
	assert_int_equal(mem_alloc(m, sizeof(rom), &offset, NULL), 0);
	memcpy(mem_ram_base(m) + offset, rom, sizeof(rom));
	d = i440fx_create(r.bus, m, offset, NULL);
	assert_non_null(d);
	rig_add(&r, d);
	rig_reset(&r);
	/* closed: ROM, or nothing */
	mem_write(m, 0xf0000, 0x11, 1);
	mem_write(m, 0xc0000, 0x22, 1);
	assert_int_equal(mem_read(m, 0xf0000, 1), 0xbb);
	assert_int_equal(mem_read(m, 0xc0000, 1), 0xff);
	/* writing alone goes to RAM, reading still not */
	cfg_write(&r, 0, 0x59, 0x20, 1);
	cfg_write(&r, 0, 0x5a, 0x02, 1);
	mem_write(m, 0xf0000, 0x33, 1);
	mem_write(m, 0xc0000, 0x44, 1);
	mem_write(m, 0xc4000, 0x55, 1); /* the other piece of that register */
	assert_int_equal(mem_read(m, 0xf0000, 1), 0xbb);
	assert_int_equal(mem_read(m, 0xc0000, 1), 0xff);
	/* reading alone */
	cfg_write(&r, 0, 0x59, 0x10, 1);
	cfg_write(&r, 0, 0x5a, 0x31, 1);
	assert_int_equal(mem_read(m, 0xf0000, 1), 0x33);
	assert_int_equal(mem_read(m, 0xc0000, 1), 0x44);
	assert_int_equal(mem_read(m, 0xc4000, 1), 0);
	mem_write(m, 0xf0000, 0x66, 1);
	mem_write(m, 0xc4000, 0x77, 1);
	assert_int_equal(mem_read(m, 0xf0000, 1), 0x33);
	assert_int_equal(mem_read(m, 0xc4000, 1), 0x77);
	rig_roundtrip(&r);
	assert_int_equal(mem_read(m, 0xc4000, 1), 0x77);
	assert_int_equal(mem_read(m, 0xe0000, 1), 0xbb);
	i440fx_open_shadow(d);
	mem_write(m, 0xe0000, 0x88, 1);
	assert_int_equal(mem_read(m, 0xe0000, 1), 0x88);
	assert_int_equal(mem_read(m, 0xf0000, 1), 0x33);
	rig_close(&r);
}

/* ---- anything at all */

static void test_random(void **state)
{
	struct rig r;
	struct sample s;
	uint32_t seed = 20240601;

	rig_open(&r);
	rig_add(&r, i440fx_create(r.bus, r.env.mem, ~0ull, NULL));
	rig_add(&r, make_piix(&r));
	sample_make(&r, &s, DEVFN, 4);
	for (unsigned i = 0; i < 30000; i++) {
		static const uint8_t devfn[] = { PCI_DEVFN(0, 0), PCI_DEVFN(1, 0), PCI_DEVFN(1, 3), DEVFN, 0xff };
		uint32_t a = rig_random(&seed), v = rig_random(&seed), kind = rig_random(&seed);
		unsigned d = devfn[a % 5], at = a >> 8 & 0xff, size = 1u << (a >> 16 & 1) << (a >> 17 & 1);

		at &= ~(size - 1);
		if (kind % 8 == 0) {
			pci_set_intx(&s.f, v & 1);
			pci_msix_notify(&s.f, v >> 1 & 7);
			pci_msi_notify(&s.f, v);
		} else if (kind % 8 == 1) {
			struct pci_bar *b = &s.f.bar[(a >> 20) % 5];
			uint64_t place = b->size && b->mapped_at != ~0ull ? b->mapped_at + v % b->size : v;

			if (b->kind == PCI_BAR_IO)
				ports_out(r.env.ports, (uint16_t)place, a, 1);
			else
				mem_write(r.env.mem, place, a * 0x100000001ull, 8);
			mem_read(r.env.mem, place, 8);
		} else if (kind % 8 == 2) {
			assert_int_equal(cfg_read(&r, DEVFN, 0, 4), 0x56781234);
		} else {
			cfg_write(&r, d, at, kind & 0x100 ? v | 0xd0000000 : v, size);
		}
		if (i % 6000 == 0)
			rig_roundtrip(&r);
	}
	rig_reset(&r);
	for (unsigned n = 0; n < 20; n++)
		assert_int_equal(r.level[n], 0);
	sample_end(&r, &s);
}

static void test_full(void **state)
{
	static struct sample s[40];
	struct rig r;
	struct err e;
	unsigned n = 0;

	rig_open(&r);
	for (; n < 40; n++) {
		const struct pci_identity id = { .vendor = 1 };

		pci_function_init(&s[n].f, &id, NULL, NULL);
		if (pci_attach(r.bus, &s[n].f, -1, &e))
			break;
	}
	assert_int_equal(n, 30); /* slots 2 to 31 */
	assert_int_equal(pci_attach(r.bus, &s[n].f, PCI_DEVFN(2, 0), &e), -EBUSY);
	for (unsigned i = 0; i <= n; i++)
		pci_function_dispose(&s[i].f);
	rig_close(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_config), cmocka_unit_test(test_bars),   cmocka_unit_test(test_wires),
		cmocka_unit_test(test_messages), cmocka_unit_test(test_dma), cmocka_unit_test(test_piix),
		cmocka_unit_test(test_shadow), cmocka_unit_test(test_random), cmocka_unit_test(test_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
