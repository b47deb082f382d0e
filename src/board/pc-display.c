/* SPDX-License-Identifier: Apache-2.0 */
/* The display adapter of the PC board, where it is shown, and what its keyboard and pointer do. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "board/pc-private.h"
#include "base/log.h"
#include "dev/i8042.h"
#include "display/terminal.h"
#include "display/vga.h"
#include "display/vnc.h"
#include "virtio/devices.h"

#define VGA_BIOS_MAX (256u << 10)

/* For pc_reset: the BIOS itself does not run. */
static void keep_font(struct pc *pc, const struct boot_bytes *rom)
{
	const uint8_t *font = vga_find_font(rom->data, rom->size);

	pc->font = font ? malloc(VGA_FONT_SIZE) : NULL;
	if (pc->font)
		memcpy(pc->font, font, VGA_FONT_SIZE);
	else
		log_msg(LOG_WARN, "display", "no font for pictures of the text screen: install the package seabios");
}

int pc_display(struct pc *pc, struct device_env *env, struct err *e)
{
	struct vga_config vga = { .env = env, .bus = pc->pci };
	struct boot_bytes rom = { 0 };
	int r = 0;

	if (!pc->config->vga_bios)
		return 0;
	if (*pc->config->vga_bios)
		r = boot_bytes_read(&rom, "VGA BIOS", pc->config->vga_bios, VGA_BIOS_MAX, e);
	if (r)
		return r;
	if (rom.size)
		vga.rom = rom.data, vga.rom_size = rom.size;
	if (!pc->config->firmware)
		keep_font(pc, &rom);
	pc->vga = vga_create(&vga, e);
	boot_bytes_dispose(&rom);
	return pc_add(pc, pc->vga);
}

const struct screen *pc_screen(struct pc *pc)
{
	return pc->vga ? vga_screen(pc->vga) : NULL;
}

void pc_key(struct pc *pc, unsigned code, bool down)
{
	if (!pc->virtio.keyboard || !virtio_input_key(pc->virtio.keyboard, code, down))
		i8042_key(pc->i8042, code, down);
}

int pc_keys(struct pc *pc, const struct key_event *stroke, unsigned n)
{
	int r = pc->virtio.keyboard ? virtio_input_keys(pc->virtio.keyboard, stroke, n) : -ENODEV;

	return r == -ENODEV || r == -EINVAL ? i8042_keys(pc->i8042, stroke, n) : r;
}

bool pc_pointer_at(struct pc *pc, unsigned x, unsigned y, int wheel, unsigned buttons)
{
	return pc->virtio.tablet && virtio_input_position(pc->virtio.tablet, x, y, wheel, buttons);
}

void pc_pointer_moved(struct pc *pc, int dx, int dy, int wheel, unsigned buttons)
{
	i8042_mouse(pc->i8042, dx, dy, wheel, buttons & 7);
}

static void keyboard_key(void *opaque, unsigned code, bool down)
{
	pc_key(opaque, code, down);
}

static void terminal_save(void *opaque)
{
	struct pc *pc = opaque;

	pc->config->save(pc->config->save_opaque);
}

static void pointer_moved(void *opaque, int dx, int dy, int wheel, unsigned buttons)
{
	pc_pointer_moved(opaque, dx, dy, wheel, buttons);
}

static bool pointer_at(void *opaque, unsigned x, unsigned y, int wheel, unsigned buttons)
{
	return pc_pointer_at(opaque, x, y, wheel, buttons);
}

static int show_vnc(struct pc *pc, struct err *e)
{
	char address[VNC_ADDRESS];
	struct vnc_config v = { .password = pc->config->vnc_password, .tls = pc->config->vnc_tls, .layout = pc->config->layout, .name = pc->vm->config->name, .screen = vga_screen(pc->vga), .keyboard = { keyboard_key, pc },
				.mouse = pointer_moved, .tablet = pointer_at, .opaque = pc };

	if (!vnc_parse(pc->config->display, address, &v.port))
		return err_set(e, EINVAL, "does not exist; write none, text, vnc, vnc:PORT or vnc:ADDRESS:PORT");
	v.address = *address ? address : NULL;
	pc->vnc = vnc_open(&v, e);
	return pc->vnc ? 0 : -1;
}

static int show_terminal(struct pc *pc, struct device_env *env, struct err *e)
{
	struct terminal_config t = { .loop = env->loop, .screen = vga_screen(pc->vga), .keyboard = { keyboard_key, pc },
				     .leave = pc_console_leave, .save = pc->config->save ? terminal_save : NULL, .opaque = pc };

	pc->terminal = terminal_open(&t, e);
	return pc->terminal ? 0 : -1;
}

static void shown_destroy(struct device *d)
{
	struct pc *pc = container_of(d, struct pc, shown);

	terminal_close(pc->terminal);
	vnc_close(pc->vnc);
}

static const struct device_ops shown_ops = { .destroy = shown_destroy };

/* Where the screen is shown; after the devices it shows and types to. */
int pc_show(struct pc *pc, struct device_env *env, struct err *e)
{
	const char *where = pc->config->display;
	int r;

	if (pc->config->layout && (!where || strncmp(where, "vnc", 3)))
		return err_set(e, EINVAL, "--keyboard is for --display vnc");
	if ((pc->config->vnc_password || pc->config->vnc_tls) && (!where || strncmp(where, "vnc", 3)))
		return err_set(e, EINVAL, "--vnc-password and --vnc-tls are for --display vnc");
	if (pc->config->vnc_tls && !pc->config->vnc_password)
		return err_set(e, EINVAL, "--vnc-tls is for use with --vnc-password");
	if (!where || !strcmp(where, "none"))
		return 0;
	pc->shown.ops = &shown_ops;
	vm_add_device(pc->vm, &pc->shown);
	if (!pc->vga)
		r = err_set(e, EINVAL, "this machine has no display adapter");
	else
		r = strcmp(where, "text") ? show_vnc(pc, e) : show_terminal(pc, env, e);
	return r ? err_prefix(e, "--display %s", where) : 0;
}
