/* SPDX-License-Identifier: Apache-2.0 */
/* Options as a whole: what they are without being given, what no single one can tell, and what they hold. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cli/run.h"

/* The firmware Debian's packages install; the first that is there. */
static const char *usual_firmware(void)
{
	static const char *const path[] = { "/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/bios-256k.bin" };

	for (unsigned i = 0; i < ARRAY_LEN(path); i++)
		if (!access(path[i], R_OK))
			return path[i];
	return NULL;
}

/* The display adapter's BIOS, from the same package; "" when there is none: a display without text modes. */
static const char *usual_vga_bios(void)
{
	static const char *const path[] = { "/usr/share/seabios/vgabios-stdvga.bin", "/usr/share/qemu/vgabios-stdvga.bin" };

	for (unsigned i = 0; i < ARRAY_LEN(path); i++)
		if (!access(path[i], R_OK))
			return path[i];
	return "";
}

#define UEFI_VARS "/usr/share/OVMF/OVMF_VARS_4M.fd"

/* "bios" and "uefi" are what Debian's packages install. */
static int firmware_find(struct pc_config *pc, struct err *e)
{
	if (pc->firmware && !strcmp(pc->firmware, "uefi")) {
		pc->firmware = "/usr/share/OVMF/OVMF_CODE_4M.fd";
		pc->firmware_vars_initial = UEFI_VARS;
		if (access(pc->firmware, R_OK) || access(UEFI_VARS, R_OK))
			return err_set(e, ENOENT, "--firmware uefi: install the package ovmf, or give a file");
	} else if (pc->firmware && !strcmp(pc->firmware, "bios")) {
		pc->firmware = usual_firmware();
		if (!pc->firmware)
			return err_set(e, ENOENT, "--firmware bios: install the package seabios, or give a file");
	} else if (pc->firmware_vars && !access(UEFI_VARS, R_OK)) {
		pc->firmware_vars_initial = UEFI_VARS;
	}
	if (pc->firmware_vars && !pc->firmware)
		return err_set(e, EINVAL, "--firmware-vars is for --firmware");
	return 0;
}

static bool has_user_net(const struct run_options *o)
{
	for (unsigned i = 0; i < o->pc.nnets; i++)
		if (o->pc.net[i].kind == NET_USER || o->pc.net[i].removed)
			return true;
	return false;
}

/* What no single option can tell. */
int run_options_check(struct run_options *o, const char *console, struct err *e)
{
	if (o->restore && (o->sized || o->pc.nmodules))
		return err_set(e, EINVAL, "--restore takes memory, CPUs and CPU model from the file; leave these options out");
	if (!o->pc.kernel && !o->pc.firmware && !o->restore) {
		if (!o->pc.ndisks && !o->pc.boot_menu)
			return err_set(e, EINVAL,
				       "nothing to start: give --kernel, --disk, --cdrom or --firmware FILE, see 'ospite run --help'");
		o->pc.firmware = usual_firmware();
		if (!o->pc.firmware)
			return err_set(e, ENOENT,
				       "no firmware to start from disk: install the package seabios, or give --firmware FILE");
	}
	if (o->net_none && o->pc.nnets)
		return err_set(e, EINVAL, "--net none and other networks exclude each other");
	if (!o->net_none && !o->pc.nnets && net_config_parse(&o->pc.net[o->pc.nnets++], "user", e))
		return -1;
	if (o->pc.nforwards && !has_user_net(o))
		return err_set(e, EINVAL, "--port forwards through a user network: add --net user");
	if (firmware_find(&o->pc, e))
		return -1;
	if (o->pc.kernel && o->pc.firmware)
		return err_set(e, EINVAL, "--kernel and --firmware exclude each other: give one");
	if (o->pc.firmware && (o->pc.initrd || o->pc.append || o->pc.nmodules))
		return err_set(e, EINVAL, "--initrd, --append and --module are for --kernel, not for --firmware");
	if (o->pc.firmware || o->vga || (o->pc.display && strcmp(o->pc.display, "none")))
		o->pc.vga_bios = usual_vga_bios();
	if (!o->pc.nserial) /* a screen takes the terminal */
		o->pc.serial[o->pc.nserial++] = o->pc.display && !strcmp(o->pc.display, "text") ? "null" : console;
	return 0;
}

void run_options_init(struct run_options *o)
{
	*o = (struct run_options){
		.vm = { .name = "vm", .cpus = 1, .memory = 1ull << 30, .engine = "auto", .cpu_model = "host", .born = clock_look() },
		.pc = { .exit_port = -1, .boot_wait_ms = 60000 },
	};
}

void run_options_dispose(struct run_options *o)
{
	for (unsigned i = 0; i < o->pc.nmodules; i++)
		free(o->module_text[i]);
	for (unsigned i = 0; i < PC_DISKS; i++)
		free(o->disk_text[i]);
	for (unsigned i = 0; i < PC_PORTS; i++)
		free(o->port_text[i]);
	for (unsigned i = 0; i < PC_SHARES; i++)
		free(o->share_text[i]);
	free(o->vsock_text);
	for (unsigned i = 0; i < o->nowned; i++)
		free(o->owned[i]);
	free(o->owned);
}
