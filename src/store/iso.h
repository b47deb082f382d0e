/* SPDX-License-Identifier: Apache-2.0 */
/* A small CD image in memory: ISO 9660 with Joliet names, files in its only folder. */
#ifndef STORE_ISO_H
#define STORE_ISO_H

#include <stddef.h>
#include <stdint.h>
#include "base/err.h"

#define ISO_FILES 16u
#define ISO_NAME 30u /* characters of a name: A-Z a-z 0-9 - _ and one dot */

struct iso_file {
	const char *name;
	const void *data;
	size_t size; /* at most 1 GiB */
};

/* *out is to be freed. The same files give the same bytes. label: at most 16 characters. */
int iso_make(const char *label, const struct iso_file *files, unsigned n, uint8_t **out, size_t *size, struct err *e);

#endif
