/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PC board. Devices are made and wired in the order they stand here; the vm tears them down in reverse.
 * The board itself is the first of them and owns what stands behind the others: back-ends, the APIC bus,
 * the boot image.
 *
 * Interrupt wires: an ISA interrupt n goes to input n of the 8259 pair and to pin n of the IOAPIC (the
 * timer to pin 2, as the MADT says). Two serial ports may share one wire, so a wire is the OR of its
 * sources, kept under a lock of its own.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include "board/pc-private.h"
#include "dev/flash.h"
#include "dev/fw-cfg.h"
#include "dev/hpet.h"
#include "dev/i8042.h"
#include "display/vga.h"
#include "pci/chipset.h"
#include "pci/hotplug.h"

/* ---- life ---- */

static void pc_device_destroy(struct device *d)
{
	struct pc *pc = container_of(d, struct pc, device);

	for (unsigned i = 0; i < UARTS; i++) {
		if (pc->serial[i])
			chr_close(pc->serial[i]);
	}
	if (pc->debug)
		chr_close(pc->debug);
	for (unsigned i = 0; i < PC_PORTS; i++) {
		if (pc->virtio.chr[i])
			chr_close(pc->virtio.chr[i]);
	}
	pc_plug_dispose(&pc->plug);
	pc_nets_close(&pc->nets);
	pc_disks_close(&pc->disks);
	if (pc->lapic_bus)
		lapic_bus_destroy(pc->lapic_bus);
	boot_image_close(pc->boot);
	free(pc->font);
	for (unsigned i = 0; i < WIRES; i++)
		pthread_mutex_destroy(&pc->wire[i].lock);
	free(pc);
}

/* The board has no registers of its own: nothing to save, nothing to reset. */
static const struct device_ops pc_ops = { .destroy = pc_device_destroy };

static void power_off(void *opaque)
{
	struct pc *pc = opaque;

	vm_request_end(pc->vm, VM_END_POWER_OFF, 0, "the guest powered off");
}

static void power_reset(void *opaque)
{
	struct pc *pc = opaque;

	vm_request_reset(pc->vm);
}

static void power_exit(void *opaque, int status)
{
	struct pc *pc = opaque;

	vm_request_end(pc->vm, VM_END_EXIT_PORT, status, "the guest wrote the exit port");
}

void pc_console_leave(void *opaque)
{
	struct pc *pc = opaque;

	vm_request_end(pc->vm, VM_END_USER, 0, "left by Ctrl-A X");
}

void pc_power_button(struct pc *pc)
{
	acpi_pm_power_button(pc->acpi_pm);
}

/* ---- wires ---- */

#define WIRE_IRQ(pin) ((pin) & 15)
#define WIRE_SOURCE(pin) ((pin) >> 4)

static void wire_set(void *opaque, unsigned pin, int level)
{
	struct pc_wire *w = &((struct pc *)opaque)->wire[WIRE_IRQ(pin)];
	uint32_t source = (uint32_t)BIT(WIRE_SOURCE(pin));

	pthread_mutex_lock(&w->lock);
	w->sources = level ? w->sources | source : w->sources & ~source;
	irq_set(&w->pic, !!w->sources);
	irq_set(&w->ioapic, !!w->sources);
	pthread_mutex_unlock(&w->lock);
}

static struct irq_line pc_irq(struct pc *pc, unsigned irq, unsigned source)
{
	return (struct irq_line){ .set = wire_set, .opaque = pc, .pin = irq | source << 4 };
}

static void pic_output(void *opaque, unsigned pin, int level)
{
	lapic_bus_pic_changed(opaque, level);
}

/* ---- memory ---- */

static void map_add(struct boot_map *map, uint64_t start, uint64_t size, uint32_t type)
{
	map->range[map->count++] = (struct boot_range){ start, size, type };
}

static int pc_memory(struct pc *pc, uint64_t size, struct err *e)
{
	struct mem *mem = pc->vm->machine.mem;
	uint64_t low = MIN(size, PC_LOW_RAM_END);
	int r = mem_map_ram(mem, 0, 0, PC_BASE_RAM_END, "ram-base", e);

	if (!r)
		r = mem_map_ram(mem, PC_BIOS_AREA, PC_BIOS_AREA, low - PC_BIOS_AREA, "ram-low", e);
	if (!r && size > low)
		r = mem_map_ram(mem, PC_HIGH_RAM, low, size - low, "ram-high", e);
	map_add(&pc->map, 0, 0x9fc00, E820_RAM);
	map_add(&pc->map, 0x9fc00, 0x400, E820_RESERVED);
	map_add(&pc->map, ACPI_BASE, 0x20000, E820_RESERVED);
	map_add(&pc->map, 0x100000, low - 0x100000, E820_RAM);
	if (size > low)
		map_add(&pc->map, PC_HIGH_RAM, size - low, E820_RAM);
	return r;
}

/* What firmware finds in CMOS about memory and processors; kernels without firmware do not look. */
static void pc_cmos(struct pc *pc, uint64_t size, unsigned cpus)
{
	uint64_t low = MIN(size, PC_LOW_RAM_END), high = size - low;
	uint64_t ext_kib = MIN((low >> 10) - 1024, (uint64_t)0xffff);
	uint64_t above_16m = low > (16 << 20) ? (low - (16 << 20)) >> 16 : 0;
	const struct {
		uint8_t at;
		uint64_t value;
	} cmos[] = {
		{ 0x14, 0x00 }, { 0x15, 640 & 0xff }, { 0x16, 640 >> 8 },
		{ 0x17, ext_kib }, { 0x18, ext_kib >> 8 }, { 0x30, ext_kib }, { 0x31, ext_kib >> 8 },
		{ 0x34, above_16m }, { 0x35, above_16m >> 8 },
		{ 0x5b, high >> 16 }, { 0x5c, high >> 24 }, { 0x5d, high >> 32 }, { 0x5f, cpus - 1 },
		{ 0x3d, 0x32 }, { 0x38, 0x40 }, /* the boot order's default: disk, CD-ROM, network */
	};

	for (unsigned i = 0; i < ARRAY_LEN(cmos); i++)
		rtc_cmos_set(pc->rtc, cmos[i].at, (uint8_t)cmos[i].value);
}

/* ---- devices ---- */

int pc_add(struct pc *pc, struct device *d)
{
	if (!d)
		return -1;
	vm_add_device(pc->vm, d);
	return 0;
}

static int pc_interrupts(struct pc *pc, struct device_env *env, struct err *e)
{
	struct vm *vm = pc->vm;

	pc->lapic_bus = lapic_bus_create(&vm->machine, vm->clock);
	if (!pc->lapic_bus)
		return err_set(e, ENOMEM, "out of memory");
	for (unsigned i = 0; i < vm->machine.ncpus; i++) {
		struct vcpu *v = &vm->vcpus[i];

		v->lapic = lapic_create(pc->lapic_bus, &v->cpu, e);
		if (!v->lapic)
			return -1;
		v->cpu.bus = &lapic_cpu_bus;
		v->cpu.ctx = v->lapic;
		vm_add_device(vm, lapic_device(v->lapic));
	}
	pc->pic = pic_create(env, e);
	if (pc_add(pc, pc->pic))
		return -1;
	pic_set_output(pc->pic, (struct irq_line){ .set = pic_output, .opaque = pc->lapic_bus });
	lapic_bus_set_pic(pc->lapic_bus, pic_pending, pic_take, pc->pic);

	pc->ioapic = ioapic_create(env, pc->lapic_bus, e);
	if (pc_add(pc, pc->ioapic))
		return -1;
	lapic_bus_set_eoi(pc->lapic_bus, ioapic_eoi, pc->ioapic);

	for (unsigned i = 0; i < WIRES; i++) {
		if (i != 2)
			pc->wire[i].pic = pic_input(pc->pic, i);
		pc->wire[i].ioapic = ioapic_input(pc->ioapic, i == 0 ? 2 : i);
	}
	pc->wire[2].ioapic = (struct irq_line){ 0 };
	return 0;
}

static int pc_serial(struct pc *pc, struct device_env *env, struct err *e)
{
	static const struct {
		uint16_t port;
		uint8_t irq;
	} com[UARTS] = { { 0x3f8, 4 }, { 0x2f8, 3 }, { 0x3e8, 4 }, { 0x2e8, 3 } };

	for (unsigned i = 0; i < MIN(pc->config->nserial, (unsigned)UARTS); i++) {
		struct chr_config chr = { .spec = pc->config->serial[i], .leave = pc_console_leave,
					  .opaque = pc, .save = pc->config->save,
					  .save_opaque = pc->config->save_opaque, .goes_on = pc->config->restoring };

		if (!chr.spec)
			continue;
		pc->serial[i] = chr_open(env->loop, &chr, e);
		if (!pc->serial[i])
			return err_prefix(e, "--serial %s", chr.spec);
		if (pc_add(pc, uart_create(env, i, com[i].port, pc_irq(pc, com[i].irq, i), pc->serial[i], e)))
			return -1;
	}
	return 0;
}

/* ---- PCI */

static void pci_msi(void *opaque, uint64_t address, uint32_t data)
{
	lapic_deliver_msi(((struct pc *)opaque)->lapic_bus, address, data);
}

static void pci_add(void *opaque, struct device *d)
{
	vm_add_device(((struct pc *)opaque)->vm, d);
}

static void pci_remove(void *opaque, struct device *d)
{
	vm_remove_device(((struct pc *)opaque)->vm, d);
}

/* An ISA interrupt as PIRQ n drives it: a source of the wire like any other. */
static void pci_isa(void *opaque, unsigned irq, unsigned n, int level)
{
	struct irq_line line = pc_irq(opaque, irq, PIRQ_SOURCE + n);

	irq_set(&line, level);
}

static void pm_moved(void *opaque, uint16_t base)
{
	acpi_pm_move(((struct pc *)opaque)->acpi_pm, base);
}

/* Files shown as memory lie behind RAM. */
static uint64_t pmem_start(const struct pc *pc)
{
	uint64_t size = pc->vm->config->memory, top = PC_HIGH_RAM + (size - MIN(size, PC_LOW_RAM_END));

	return (top + PC_PMEM_ALIGN - 1) & -PC_PMEM_ALIGN;
}

/*
 * 64-bit BARs go above RAM; 32 GiB of room there do for a guest without firmware to choose from. Firmware has all there is: OVMF puts
 * them in the last eighth of the addresses that the processor has.
 */
static void pci_windows(struct pc *pc, struct pci_bus_config *c)
{
	uint64_t size = pc->vm->config->memory, low = MIN(size, PC_LOW_RAM_END);

	c->low_start = low;
	c->low_end = PC_IOAPIC;
	c->assign_start = PC_LOW_RAM_END;
	c->high_start = (pmem_start(pc) + pc->vm->config->files + PCI_HIGH_ALIGN - 1) & ~(PCI_HIGH_ALIGN - 1);
	c->high_end = BIT(pc->vm->cpuid.phys_bits);
	if (!pc->config->firmware)
		c->high_end = MIN(c->high_start + PCI_HIGH_SIZE, c->high_end);
	c->high_end = MAX(c->high_end, c->high_start);
}

static void plug_event(void *opaque)
{
	acpi_pm_event(((struct pc *)opaque)->acpi_pm, 1); /* _E01 */
}

static void plug_gone(void *opaque, unsigned slot)
{
	struct pc *pc = opaque;

	pc_plug_gone(&pc->plug, &pc->disks, &pc->nets, pc->vm, pc->pci, slot);
}

static int plug_controller(struct pc *pc, struct device_env *env, struct err *e)
{
	struct pci_hotplug_config c = { .event = plug_event, .gone = plug_gone, .opaque = pc };

	pc->plug.controller = pci_hotplug_create(env, &c, e);
	return pc_add(pc, pc->plug.controller);
}

static int pc_pci(struct pc *pc, struct device_env *env, struct err *e)
{
	struct pci_bus_config bus = { .env = *env, .msi = pci_msi, .add = pci_add, .remove = pci_remove,
				      .opaque = pc, .reserved = pc_plug_reserved(pc->config) };
	struct irq_line ide_irq[2] = { pc_irq(pc, 14, 0), pc_irq(pc, 15, 0) };
	struct piix_config piix = { .isa = pci_isa, .opaque = pc, .pm_moved = pm_moved, .pm_base = ACPI_PM_PORT };

	pci_windows(pc, &bus);
	reset_port_cf9(pc->reset_port, &bus.other_ops, &bus.other_opaque);
	pc->pci = pci_bus_create(&bus, e);
	if (!pc->pci)
		return -1;
	vm_add_device(pc->vm, pci_bus_device(pc->pci));
	pc->host = i440fx_create(pc->pci, env->mem, pc->rom_offset, e);
	if (pc_add(pc, pc->host))
		return -1;
	for (unsigned n = 0; n < 4; n++)
		piix.direct[n] = ioapic_input(pc->ioapic, 16 + n);
	pc->piix = piix_create(pc->pci, env, &piix, e);
	if (pc_add(pc, pc->piix) || pc_disks_ide(&pc->disks, pc->pci, env, ide_irq, e))
		return -1;
	if ((pc->disks.ide && pc_add(pc, pc->disks.ide)) || pc_disks_ahci(&pc->disks, pc->pci, env, e) ||
	    (pc->disks.ahci && pc_add(pc, pc->disks.ahci)))
		return -1;
	if (plug_controller(pc, env, e))
		return -1;
	pc->nets.machine = pc->vm->config->name;
	pc->virtio = (struct virtio_board){ .pci = pc->pci, .env = env, .add = pci_add, .leave = pc_console_leave, .opaque = pc,
					    .nets = &pc->nets, .plug = &pc->plug, .cpus = pc->vm->machine.ncpus, .pmem_start = pmem_start(pc) };
	if (pc->config->npmems && bus.high_start > BIT(pc->vm->cpuid.phys_bits))
		return err_set(e, E2BIG, "the guest's CPU has no addresses for files of %llu MiB",
			       (unsigned long long)(pc->vm->config->files >> 20));
	for (unsigned n = 0; n < VIRTIO_MMIO_MAX; n++)
		pc->virtio.irq[n] = pc_irq(pc, VIRTIO_MMIO_IRQ(n), 0);
	return pc_virtio(&pc->disks, &pc->virtio, e);
}

struct device *pc_keyboard(struct pc *pc)
{
	return pc->i8042;
}

/* ---- timers */

/* The PIT's and the clock's own interrupts, as long as the HPET does not replace them. */
static void timer_set(void *opaque, unsigned irq, int level)
{
	struct pc *pc = opaque;

	if (!level || !pc->hpet || !hpet_legacy(pc->hpet))
		wire_set(pc, irq, level);
}

static int pc_timers(struct pc *pc, struct device_env *env, struct err *e)
{
	struct irq_line pit = { .set = timer_set, .opaque = pc, .pin = 0 };
	struct irq_line clock = { .set = timer_set, .opaque = pc, .pin = 8 };
	struct hpet_wires wires = { .pit = pc_irq(pc, 0, 1), .clock = pc_irq(pc, 8, 1) };

	if (pc_add(pc, pit_create(env, pit, e)))
		return -1;
	pc->rtc = rtc_create(env, clock, e);
	if (pc_add(pc, pc->rtc))
		return -1;
	for (unsigned n = 0; n < 4; n++)
		wires.pin[n] = ioapic_input(pc->ioapic, 20 + n);
	pc->hpet = hpet_create(env, &wires, e);
	return pc_add(pc, pc->hpet);
}

/* ---- firmware */

static int pc_debug(struct pc *pc, struct device_env *env, struct err *e)
{
	struct chr_config chr = { .spec = pc->config->debug_console };

	if (chr.spec) {
		pc->debug = chr_open(env->loop, &chr, e);
		if (!pc->debug)
			return err_prefix(e, "--debug-console %s", chr.spec);
	}
	return pc_add(pc, debug_port_create(env, pc->debug, e));
}

/* What the firmware has set up by the time it asks for the tables. */
static void acpi_update(void *opaque, struct acpi_config *acpi)
{
	struct pc *pc = opaque;

	piix_routing(pc->piix, acpi->pirq);
	acpi->pm_base = piix_pm_base(pc->piix);
}

static int pc_firmware(struct pc *pc, struct device_env *env, struct err *e)
{
	struct firmware_config *f = &pc->firmware;
	struct flash_config flash = { .path = pc->config->firmware_vars, .initial = pc->config->firmware_vars_initial };

	if (!pc->config->firmware)
		return 0;
	if ((flash.path || flash.initial) && pc_add(pc, flash_create(env, &flash, pc->rom_start, e)))
		return err_prefix(e, "--firmware-vars");
	pc->fw_cfg = fw_cfg_create(env, e);
	if (pc_add(pc, pc->fw_cfg))
		return -1;
	f->device = pc->fw_cfg;
	f->acpi = &pc->acpi_config;
	f->smbios = &pc->smbios_config;
	f->update = acpi_update;
	f->opaque = pc;
	f->memory = pc->vm->config->memory;
	f->menu = pc->config->boot_menu;
	f->menu_wait_ms = pc->config->boot_wait_ms;
	pc_disks_boot_order(&pc->disks, f->boot_order, sizeof(f->boot_order));
	return firmware_config_fill(f, e);
}

static int pc_devices(struct pc *pc, struct device_env *env, struct err *e)
{
	if (pc_interrupts(pc, env, e) || pc_timers(pc, env, e) || pc_serial(pc, env, e))
		return -1;
	pc->acpi_pm = acpi_pm_create(env, pc_irq(pc, 9, 0), &pc->power, e);
	pc->reset_port = reset_port_create(env, &pc->power, e);
	if (pc_add(pc, pc->acpi_pm) || pc_add(pc, pc->reset_port) || pc_pci(pc, env, e) ||
	    pc_display(pc, env, e))
		return -1;
	pc->i8042 = i8042_create(env, pc_irq(pc, 1, 0), pc_irq(pc, 12, 0), &pc->power, e);
	if (pc_add(pc, pc->i8042) || pc_debug(pc, env, e) || pc_firmware(pc, env, e))
		return -1;
	if (pc->config->exit_port >= 0 &&
	    pc_add(pc, exit_port_create(env, (uint16_t)pc->config->exit_port, &pc->power, e)))
		return -1;
	return pc_show(pc, env, e);
}

/* ---- boot ---- */

/*
 * What a firmware would have left behind on every CPU: memory is write-back except the VGA window and the
 * I/O hole below 4 GiB. Linux leaves PAT off when it finds the MTRRs disabled.
 */
static void cpu_mtrrs(struct x86_state *s, unsigned phys_bits)
{
	s->mtrr_def_type = 0xc06;
	for (unsigned i = 0; i < 11; i++)
		s->mtrr_fixed[i] = 0x0606060606060606ull;
	s->mtrr_fixed[2] = 0; /* 0xa0000-0xbffff */
	s->mtrr_base[0] = PC_LOW_RAM_END;
	s->mtrr_mask[0] = ((BIT(phys_bits) - 1) & ~(PC_HIGH_RAM - PC_LOW_RAM_END - 1)) | BIT(11);
}

/* As SeaBIOS has them. */
static const uint8_t pirq_irq[4] = { 10, 10, 11, 11 };

static void pc_reset(void *opaque)
{
	struct pc *pc = opaque;
	struct vm *vm = pc->vm;
	struct err e = { 0 };
	int r;

	pci_hotplug_machine_reset(pc->plug.controller);
	if (!pc->boot && pc->config->restoring && !pc->config->firmware)
		vm_request_end(vm, VM_END_RESET, 0, "the guest reset, and there is no --kernel to start again");
	if (!pc->boot)
		return; /* firmware: the reset vector */
	for (unsigned i = 0; i < vm->machine.ncpus; i++)
		cpu_mtrrs(&vm->vcpus[i].cpu.s, vm->cpuid.phys_bits);
	i440fx_open_shadow(pc->host);
	piix_set_routing(pc->piix, pirq_irq);
	pci_bus_assign(pc->pci, pirq_irq);
	if (pc->vga)
		vga_text_mode(pc->vga, pc->font);
	r = mem_load(vm->machine.mem, ACPI_BASE, pc->acpi, ACPI_SIZE);
	if (!r)
		r = mem_load(vm->machine.mem, SMBIOS_BASE, pc->smbios, sizeof(pc->smbios));
	if (!r)
		r = boot_image_load(pc->boot, vm->machine.mem, pc->rsdp, &vm->vcpus[0].cpu.s, &e);
	if (r)
		vm_request_end(vm, VM_END_CRASH, 0, e.text[0] ? e.text : "cannot place the boot image");
}

static void pc_acpi_config(struct pc *pc)
{
	struct acpi_config *acpi = &pc->acpi_config;
	struct pci_bus_config bus = { 0 };

	*acpi = (struct acpi_config){ .cpus = pc->vm->machine.ncpus, .serial = pc->config->serial,
				      .nserial = pc->config->nserial, .pm_base = ACPI_PM_PORT, .hpet = true,
				      .vga = pc->config->vga_bios };
	pci_windows(pc, &bus);
	acpi->nmmio = pc_disks_mmio(pc->config);
	memcpy(acpi->pirq, pirq_irq, sizeof(acpi->pirq));
	acpi->pci_low = pc->config->firmware ? bus.low_start : bus.assign_start;
	acpi->pci_low_end = bus.low_end;
	acpi->pci_high = bus.high_start;
	acpi->pci_high_end = bus.high_end;
}

/* The machine's own identity: given, or new. */
static void pc_smbios_config(struct pc *pc)
{
	static const uint8_t none[16];
	struct smbios_config *c = &pc->smbios_config;

	*c = (struct smbios_config){ .cpus = pc->vm->machine.ncpus, .memory = pc->vm->config->memory };
	c->uefi = pc->config->firmware_vars || pc->config->firmware_vars_initial;
	cpuid_get_topology(&pc->vm->cpuid, &c->cores, &c->threads);
	memcpy(c->uuid, pc->config->uuid, sizeof(c->uuid));
	if (memcmp(c->uuid, none, sizeof(none)) || getrandom(c->uuid, sizeof(c->uuid), GRND_NONBLOCK) < 0)
		return;
	c->uuid[7] = (uint8_t)((c->uuid[7] & 0x0f) | 0x40); /* random, by the bytes' order in these tables */
	c->uuid[8] = (uint8_t)((c->uuid[8] & 0x3f) | 0x80);
}

static int pc_boot(struct pc *pc, struct err *e)
{
	const struct pc_config *config = pc->config;
	uint32_t size;
	int r;

	pc_acpi_config(pc);
	pc_smbios_config(pc);
	r = pc_disks_open(&pc->disks, config, e);
	if (r)
		return r;
	if (config->firmware)
		return boot_firmware_map(pc->vm->machine.mem, config->firmware, &pc->rom_offset, &pc->rom_start, e);
	if (config->restoring && !config->kernel)
		return 0;
	r = acpi_build(pc->acpi, &pc->acpi_config, &pc->rsdp, e);
	if (!r)
		r = smbios_build(pc->smbios + 32, pc->smbios, &size, SMBIOS_BASE + 32, &pc->smbios_config, e);
	if (!r)
		r = boot_image_open(&pc->boot, config, &pc->map, e);
	return r;
}

int pc_create(struct pc **out, struct vm *vm, const struct pc_config *config, struct err *e)
{
	struct device_env env = vm_device_env(vm);
	struct pc *pc = calloc(1, sizeof(*pc));
	int r;

	if (!pc)
		return err_set(e, ENOMEM, "out of memory");
	pc->device.ops = &pc_ops;
	pc->vm = vm;
	pc->config = config;
	pc->rom_offset = ~0ull;
	pc->power = (struct power_ops){ power_off, power_reset, power_exit, pc };
	for (unsigned i = 0; i < WIRES; i++) {
		pc->wire[i].pc = pc;
		pthread_mutex_init(&pc->wire[i].lock, NULL);
	}
	pthread_mutex_init(&pc->plug.lock, NULL);
	vm_add_device(vm, &pc->device);
	r = pc_memory(pc, vm->config->memory, e);
	if (!r) /* before anything visible happens (a terminal in raw mode): the files may be no good */
		r = pc_boot(pc, e);
	if (!r)
		r = pc_devices(pc, &env, e);
	if (r)
		return r;
	pc_cmos(pc, vm->config->memory, vm->machine.ncpus);
	vm->reset_hook = pc_reset;
	vm->reset_opaque = pc;
	*out = pc;
	return 0;
}
