/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the bytes of a machine's start come from while they are not in memory: a file, or an LZ4 payload in one. Both come in pieces
 * that know nothing of each other, so that threads share them and only a piece for each is in memory at a time.
 */
#ifndef BOARD_BOOT_SOURCE_H
#define BOARD_BOOT_SOURCE_H

#include <time.h>
#include "board/private.h"

#define LZ4_BLOCK (8u << 20)
#define LZ4_BLOCKS 128 /* of a kernel of 1 GiB, more than boot-bzimage.c asks for */

/*
 * The legacy frame: magic, then blocks of (packed size, data), each unpacking to 8 MiB but the last. Blocks know nothing of each
 * other.
 */
struct lz4_frame {
	struct boot_bytes *packed; /* the file it is in, which outlives it */
	unsigned blocks;
	struct {
		uint64_t at; /* in the file */
		uint32_t packed;
		uint32_t there; /* so much of it is unpacked, in its place */
	} block[LZ4_BLOCKS];
};

struct boot_source {
	int fd; /* -1: none */
	const char *what, *path; /* for messages */
	struct timespec written;
	uint64_t have; /* bytes of it that are in place, from its start on */
	struct lz4_frame *frame; /* NULL: a file */
	bool lend; /* a file that nobody writes to: guest memory may show it (boot-cache.c) */
};

/* What is about to be filled gets its memory at once: 0.3 us a page, where a fault for each takes 1.7 under some hypervisors. */
void boot_bytes_populate(void *at, uint64_t len);
/* All or an error. */
int boot_file_read(const struct boot_source *s, uint8_t *to, uint64_t at, uint64_t len, struct err *e);

/* An LZ4 payload of the file `packed` as the source of `out`, whose size is told: 1: it is none, or one we cannot take apart. */
int lz4_open(struct boot_bytes *out, struct boot_bytes *packed, uint64_t payload, uint64_t payload_size, struct err *e);
int lz4_need(struct boot_bytes *b, uint64_t at, uint64_t len, struct err *e);
/* All of it, from memory. 0, -EINVAL or 1 as above. */
int lz4_unpack(struct boot_bytes *packed, uint8_t *out, uint64_t out_size);
void lz4_drop(struct lz4_frame *f);

/* The unpacked payload of `kernel`, whose size `out` has, from the folder `path`: false: it is not there. */
bool boot_cache_find(struct boot_bytes *out, const struct boot_bytes *kernel, const char *path);
/* Put it there; `out` is of that file then, or what it was. */
void boot_cache_keep(struct boot_bytes *out, const struct boot_bytes *kernel, const char *path);

/* A thread's room for a piece, made when it is first wanted. */
struct boot_scratch {
	struct boot_bytes in, out;
};
/* One piece of what is not in place: [*at, +*len) of b's bytes. False: there are no more. */
bool boot_piece(const struct boot_bytes *b, unsigned n, uint64_t *at, uint64_t *len);
int boot_piece_get(const struct boot_bytes *b, unsigned n, struct boot_scratch *s, const uint8_t **data, struct err *e);

/* All chunks of a plan into memory, those of `sources` (file and unpacked bytes alike) piece by piece by two threads. */
int boot_chunks_load(const struct boot_plan *p, struct boot_bytes *const *sources, unsigned n, struct mem *mem, struct err *e);

#endif
