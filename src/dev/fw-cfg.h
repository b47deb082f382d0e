/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The firmware configuration device: what firmware asks about its machine, as numbered items and named files. Filled by the
 * board before the machine runs; read-only for the guest.
 */
#ifndef DEV_FW_CFG_H
#define DEV_FW_CFG_H

#include "dev/device.h"

#define FW_CFG_CPUS 0x05
#define FW_CFG_BOOT_MENU 0x0e
#define FW_CFG_MAX_CPUS 0x0f
#define FW_CFG_RAM 0x03
#define FW_CFG_NO_GRAPHIC 0x04

struct device *fw_cfg_create(struct device_env *env, struct err *e);
/* Data is copied. */
int fw_cfg_add(struct device *d, uint16_t key, const void *data, uint32_t size, struct err *e);
int fw_cfg_add_file(struct device *d, const char *name, const void *data, uint32_t size, struct err *e);
/* Called with the contents (`size` as added) on a vCPU's thread each time one of the files is about to be read. */
void fw_cfg_set_refresh(struct device *d, void (*refresh)(void *opaque, const char *name, uint8_t *data, uint32_t size),
			void *opaque);

#endif
