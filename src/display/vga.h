/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The display adapter: a standard VGA with the Bochs VBE extension, as PCI function 1234:1111. Text modes, planar and
 * packed graphics, linear frame buffer of 16 MiB. What it shows is read through a `struct screen` (display/screen.h).
 */
#ifndef DISPLAY_VGA_H
#define DISPLAY_VGA_H

#include "pci/pci.h"
#include "display/screen.h"

struct vga_config {
	struct device_env *env;
	struct pci_bus *bus;
	const void *rom; /* the adapter's BIOS, NULL: none */
	uint64_t rom_size;
};

struct device *vga_create(const struct vga_config *config, struct err *e);
const struct screen *vga_screen(struct device *d);

#define VGA_FONT_SIZE 4096u
/* The font of 8 x 16 dots in an adapter's BIOS, VGA_FONT_SIZE bytes; NULL: it has none. */
const uint8_t *vga_find_font(const uint8_t *rom, uint64_t size);
/* As the BIOS leaves it after mode 3, screen blank. CPUs stopped. font: from above; NULL: pictures stay black, text is text. */
void vga_text_mode(struct device *d, const uint8_t *font);

#endif
