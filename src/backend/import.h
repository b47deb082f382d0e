/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Other programs' images, for reading: a table says where each block of the disk lies. Read on threads of the pool, one
 * request at a time under the lock; meant for converting, not for running from.
 */
#ifndef BACKEND_IMPORT_H
#define BACKEND_IMPORT_H

#include <endian.h>
#include "backend/blk.h"

#define IMPORT_TABLE_MAX (64u << 20) /* bytes of tables kept */
#define IMPORT_ZERO UINT64_MAX       /* the block reads as zeroes */

struct import {
	struct node n;
	struct node *file;
	uint64_t block; /* bytes */
	/* Where the block lies in the file: 0 with *at set, or -errno. */
	int (*find)(struct import *i, uint64_t index, uint64_t *at);
	/* The whole block into plain, for compressed ones; NULL: as it is in the file. */
	int (*unpack)(struct import *i, uint64_t at, uint8_t *plain);
	uint8_t *plain;
	uint64_t plain_at; /* 0: none */
	pthread_mutex_t lock;
	/* the formats' */
	uint32_t *table32;
	uint64_t *table64;
	uint64_t entries, data, cached_at;
	unsigned per; /* vmdk: entries of a grain table; vhdx: payload entries between bitmap entries */
	uint32_t *cached;
	bool zero_grain;
};

int import_open(struct node **out, struct aio *a, struct node *file, const struct blk_spec *s, struct err *e);
int import_bad(struct import *i, struct err *e, const char *what);

/* Each parses the header, and sets n.size, block and find. */
int vdi_parse(struct import *i, struct err *e);
int vmdk_parse(struct import *i, struct err *e);
int vhdx_parse(struct import *i, struct err *e);

#endif
