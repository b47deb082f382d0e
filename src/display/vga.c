/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VGA registers: ports 0x3b0-0x3df, those of the Bochs extension at 0x1ce, and both again in the second BAR. One lock for
 * all of them. Retrace is computed from the machine's clock: 70 frames a second of 449 lines.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "display/vga-private.h"
#include "pci/regs.h"

#define WINDOW 0xa0000u
#define WINDOW_SIZE 0x20000u
#define FRAME_NS 14268000u
#define FRAME_LINES 449u
#define MMIO_SIZE 4096u
#define MMIO_PORTS 0x400u /* 0x3c0.. */
#define MMIO_VBE 0x500u

static const uint8_t seq_writable[SEQ_COUNT] = { 3, 0x3d, 0x0f, 0x3f, 0x0e, 0, 0, 0xff };
static const uint8_t gfx_writable[GFX_COUNT] = { 15, 15, 15, 31, 3, 0x7b, 15, 15, 0xff };

/* ---- single registers; lock held */

static uint8_t status(struct vga *v)
{
	uint64_t t = clock_now(v->env.clock) % FRAME_NS, line_ns = FRAME_NS / FRAME_LINES;
	unsigned line = (unsigned)(t / line_ns);

	v->hw.attr_data = 0;
	if (line >= 412 && line < 414)
		return 9;
	return line >= 400 || t % line_ns > line_ns * 4 / 5;
}

static bool monochrome(const struct vga *v)
{
	return !(v->hw.misc & 1);
}

static void attr_write(struct vga_hw *hw, uint8_t value)
{
	unsigned index = hw->attr_index & 31;

	hw->attr_data ^= 1;
	if (hw->attr_data) {
		hw->attr_index = value & 0x3f;
		return;
	}
	if (index < 16)
		hw->attr[index] = value & 0x3f;
	else if (index < ATTR_COUNT)
		hw->attr[index] = value;
}

static void crtc_write(struct vga_hw *hw, uint8_t value)
{
	unsigned i = hw->crtc_index;

	if (i >= CRTC_COUNT)
		return;
	if (i <= CRTC_OVERFLOW && hw->crtc[CRTC_V_SYNC_END] & 0x80) {
		/* protected: of these only the line compare's bit can be written */
		if (i == CRTC_OVERFLOW)
			hw->crtc[i] = (uint8_t)((hw->crtc[i] & ~0x10) | (value & 0x10));
		return;
	}
	hw->crtc[i] = value;
}

static void dac_write(struct vga *v, uint8_t value)
{
	struct vga_hw *hw = &v->hw;

	hw->dac_latch[hw->dac_part] = v->hw.vbe[VBE_ENABLE] & VBE_DAC_8 ? value : value & 63;
	if (++hw->dac_part < 3)
		return;
	memcpy(&hw->dac[hw->dac_index * 3], hw->dac_latch, 3);
	hw->dac_part = 0;
	hw->dac_index++;
}

static uint8_t dac_read(struct vga_hw *hw)
{
	uint8_t value = hw->dac[hw->dac_index * 3 + hw->dac_part];

	if (++hw->dac_part == 3) {
		hw->dac_part = 0;
		hw->dac_index++;
	}
	return value;
}

static uint8_t port_read(struct vga *v, unsigned port)
{
	struct vga_hw *hw = &v->hw;

	if ((port & 0x3f0) == (monochrome(v) ? 0x3d0 : 0x3b0))
		return 0xff;
	switch (port) {
	case 0x3c0:
		return hw->attr_data ? 0 : hw->attr_index;
	case 0x3c1:
		return (hw->attr_index & 31) < ATTR_COUNT ? hw->attr[hw->attr_index & 31] : 0;
	case 0x3c2:
		return 0x10; /* a colour monitor is there */
	case 0x3c4:
		return hw->seq_index;
	case 0x3c5:
		return hw->seq_index < SEQ_COUNT ? hw->seq[hw->seq_index] : 0;
	case 0x3c6:
		return hw->dac_mask;
	case 0x3c7:
		return hw->dac_reading ? 3 : 0;
	case 0x3c8:
		return hw->dac_index;
	case 0x3c9:
		return dac_read(hw);
	case 0x3ca:
		return hw->feature;
	case 0x3cc:
		return hw->misc;
	case 0x3ce:
		return hw->gfx_index;
	case 0x3cf:
		return hw->gfx_index < GFX_COUNT ? hw->gfx[hw->gfx_index] : 0;
	case 0x3b4:
	case 0x3d4:
		return hw->crtc_index;
	case 0x3b5:
	case 0x3d5:
		return hw->crtc_index < CRTC_COUNT ? hw->crtc[hw->crtc_index] : 0;
	case 0x3ba:
	case 0x3da:
		return status(v);
	default:
		return 0xff;
	}
}

static void port_write(struct vga *v, unsigned port, uint8_t value)
{
	struct vga_hw *hw = &v->hw;

	if ((port & 0x3f0) == (monochrome(v) ? 0x3d0 : 0x3b0))
		return;
	switch (port) {
	case 0x3c0:
		attr_write(hw, value);
		break;
	case 0x3c2:
		hw->misc = value & 0xef;
		break;
	case 0x3c4:
		hw->seq_index = value;
		break;
	case 0x3c5:
		if (hw->seq_index < SEQ_COUNT)
			hw->seq[hw->seq_index] = value & seq_writable[hw->seq_index];
		break;
	case 0x3c6:
		hw->dac_mask = value;
		break;
	case 0x3c7:
	case 0x3c8:
		hw->dac_index = value;
		hw->dac_part = 0;
		hw->dac_reading = port == 0x3c7;
		break;
	case 0x3c9:
		dac_write(v, value);
		break;
	case 0x3ce:
		hw->gfx_index = value;
		break;
	case 0x3cf:
		if (hw->gfx_index < GFX_COUNT)
			hw->gfx[hw->gfx_index] = value & gfx_writable[hw->gfx_index];
		break;
	case 0x3b4:
	case 0x3d4:
		hw->crtc_index = value;
		break;
	case 0x3b5:
	case 0x3d5:
		crtc_write(hw, value);
		break;
	case 0x3ba:
	case 0x3da:
		hw->feature = value & 0x10;
		break;
	default:
		break;
	}
}

/* ---- where they are reached */

static uint64_t ports_read(void *opaque, uint64_t offset, unsigned size)
{
	struct vga *v = opaque;
	uint8_t value;

	pthread_mutex_lock(&v->lock);
	value = port_read(v, 0x3b0 + (unsigned)offset);
	pthread_mutex_unlock(&v->lock);
	return value;
}

static void ports_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct vga *v = opaque;

	pthread_mutex_lock(&v->lock);
	port_write(v, 0x3b0 + (unsigned)offset, (uint8_t)value);
	pthread_mutex_unlock(&v->lock);
}

static const struct io_ops ports_ops = { .read = ports_read, .write = ports_write, .min = 1, .max = 1 };

/* The index at 0x1ce; the data at 0x1cf, odd as that is, and at 0x1d0. Whole words only, so one mapping holds them all. */
static uint64_t vbe_read(void *opaque, uint64_t offset, unsigned size)
{
	struct vga *v = opaque;
	uint64_t value;

	pthread_mutex_lock(&v->lock);
	value = offset ? vga_vbe_read(v, v->hw.vbe_index) : v->hw.vbe_index;
	pthread_mutex_unlock(&v->lock);
	return value;
}

static void vbe_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct vga *v = opaque;

	if (size != 2)
		return;
	pthread_mutex_lock(&v->lock);
	if (offset)
		vga_vbe_write(v, v->hw.vbe_index, (uint16_t)value);
	else
		v->hw.vbe_index = (uint16_t)value;
	pthread_mutex_unlock(&v->lock);
}

static const struct io_ops vbe_ops = { .read = vbe_read, .write = vbe_write, .min = 1, .max = 2 };

static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size)
{
	struct vga *v = opaque;
	uint64_t value = 0;

	pthread_mutex_lock(&v->lock);
	if (offset >= MMIO_PORTS && offset < MMIO_PORTS + 0x20)
		for (unsigned i = 0; i < size; i++)
			value |= (uint64_t)port_read(v, 0x3c0 + (unsigned)(offset - MMIO_PORTS) + i) << 8 * i;
	else if (offset >= MMIO_VBE && offset < MMIO_VBE + 2 * VBE_COUNT && !(offset & 1))
		value = vga_vbe_read(v, (unsigned)(offset - MMIO_VBE) / 2);
	pthread_mutex_unlock(&v->lock);
	return value;
}

static void mmio_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct vga *v = opaque;

	pthread_mutex_lock(&v->lock);
	if (offset >= MMIO_PORTS && offset < MMIO_PORTS + 0x20)
		for (unsigned i = 0; i < size; i++)
			port_write(v, 0x3c0 + (unsigned)(offset - MMIO_PORTS) + i, (uint8_t)(value >> 8 * i));
	else if (offset >= MMIO_VBE && offset < MMIO_VBE + 2 * VBE_COUNT && !(offset & 1) && size == 2)
		vga_vbe_write(v, (unsigned)(offset - MMIO_VBE) / 2, (uint16_t)value);
	pthread_mutex_unlock(&v->lock);
}

static const struct io_ops mmio_ops = { .read = mmio_read, .write = mmio_write, .min = 1, .max = 2 };

/* ---- life */

#define F(member) STATE_INT(struct vga_hw, member)
#define FS(member) STATE_INTS(struct vga_hw, member)
static const struct state_field vga_fields[] = {
	F(misc), F(feature), F(seq_index), FS(seq), F(gfx_index), FS(gfx), F(crtc_index), FS(crtc), F(attr_index), F(attr_data),
	FS(attr), F(dac_mask), F(dac_reading), F(dac_index), F(dac_part), FS(dac), FS(dac_latch), FS(latch), F(vbe_index), FS(vbe),
};

static int vga_check(const void *opaque, struct err *e)
{
	const struct vga_hw *hw = opaque;

	return hw->dac_part > 2 ? err_set(e, EINVAL, "a colour register of more than three parts") : 0;
}

static const struct state_desc vga_state = {
	.name = "vga", .version = 1, .size = sizeof(struct vga_hw), .fields = vga_fields, .nfields = ARRAY_LEN(vga_fields),
	.check = vga_check,
};

static void vga_reset(struct device *d, enum reset_kind kind)
{
	struct vga *v = container_of(d, struct vga, device);

	pthread_mutex_lock(&v->lock);
	memset(&v->hw, 0, sizeof(v->hw));
	v->hw.dac_mask = 0xff;
	v->hw.vbe[VBE_ID] = 0xb0c5;
	v->hw.seq[SEQ_CLOCKING] = SEQ_SCREEN_OFF; /* nothing to see until the BIOS sets a mode */
	pthread_mutex_unlock(&v->lock);
}

/* Registers from a stream may say what no guest could have written; writing them anew makes them fit. */
static void vga_loaded(struct device *d)
{
	struct vga *v = container_of(d, struct vga, device);

	pthread_mutex_lock(&v->lock);
	for (unsigned i = 0; i < SEQ_COUNT; i++)
		v->hw.seq[i] &= seq_writable[i];
	for (unsigned i = 0; i < GFX_COUNT; i++)
		v->hw.gfx[i] &= gfx_writable[i];
	vga_vbe_write(v, VBE_BANK, v->hw.vbe[VBE_BANK]);
	vga_vbe_write(v, VBE_WIDTH, v->hw.vbe[VBE_WIDTH]);
	pthread_mutex_unlock(&v->lock);
}

static void vga_destroy(struct device *d)
{
	struct vga *v = container_of(d, struct vga, device);

	pci_function_dispose(&v->pci);
	pthread_mutex_destroy(&v->lock);
	free(v);
}

static const struct device_ops vga_ops = {
	.state = &vga_state,
	.reset = vga_reset,
	.loaded = vga_loaded,
	.destroy = vga_destroy,
};

static int vga_attach(struct vga *v, const struct vga_config *c, struct err *e)
{
	const struct pci_identity id = { .vendor = 0x1234, .device = 0x1111, .subsystem_vendor = 0x1af4, .subsystem = 0x1100,
					 .class_code = 0x030000, .revision = 2 };
	struct ports *ports = c->env->ports;

	pci_function_init(&v->pci, &id, NULL, NULL);
	if (pci_add_ram_bar(&v->pci, 0, c->env->mem, VGA_MEMORY, "vga memory", &v->memory, e))
		return -1;
	pci_add_bar(&v->pci, 2, PCI_BAR_MEM32, MMIO_SIZE, &mmio_ops, v, "vga registers");
	if (c->rom && pci_add_rom(&v->pci, c->env->mem, c->rom, c->rom_size, "vga bios", e))
		return -1;
	/*
	 * Firmware takes an adapter whose ports and memory are both enabled for the one that shows. The old ports and the window are
	 * decoded whatever it says: nothing else claims them.
	 */
	v->pci.writable[PCI_COMMAND] |= PCI_COMMAND_IO | PCI_COMMAND_MEMORY;
	if (ports_map(ports, 0x3b0, 0x30, &ports_ops, v, "vga", e) ||
	    ports_map(ports, 0x1ce, 4, &vbe_ops, v, "vga extension", e) ||
	    mem_map_io(c->env->mem, WINDOW, WINDOW_SIZE, &vga_window_ops, v, "vga window", e))
		return -1;
	return pci_attach(c->bus, &v->pci, -1, e);
}

struct device *vga_create(const struct vga_config *config, struct err *e)
{
	struct vga *v = calloc(1, sizeof(*v));

	if (!v) {
		err_set(e, ENOMEM, "no memory for the display adapter");
		return NULL;
	}
	v->device = (struct device){ .ops = &vga_ops, .hw = &v->hw };
	v->env = *config->env;
	v->screen = (struct screen){ .picture = vga_picture, .text = vga_text, .opaque = v };
	pthread_mutex_init(&v->lock, NULL);
	vga_reset(&v->device, RESET_COLD);
	if (vga_attach(v, config, e)) {
		vga_destroy(&v->device);
		return NULL;
	}
	return &v->device;
}

const struct screen *vga_screen(struct device *d)
{
	return &container_of(d, struct vga, device)->screen;
}
