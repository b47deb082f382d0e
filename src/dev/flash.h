/* SPDX-License-Identifier: Apache-2.0 */
/* A NOR flash in which firmware keeps its variables. */
#ifndef DEV_FLASH_H
#define DEV_FLASH_H

#include "dev/device.h"

struct flash_config {
	const char *path; /* holds the contents from run to run; NULL: they are forgotten */
	const char *initial; /* where they come from when `path` does not exist; NULL: it must */
};
/* The flash ends at `end`; its size is that of the file. */
struct device *flash_create(struct device_env *env, const struct flash_config *config, gpa_t end, struct err *e);

#endif
