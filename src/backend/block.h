/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Block back-ends: what stands behind a disk. A front end (virtio-blk, IDE, AHCI, an NBD server, `ospite image`) submits
 * requests and is told when each is done; formats (raw, qcow2) and protocols (file, NBD) are the back-end's business.
 *
 * Any thread may submit; never blocks. `done` is called on the back-end's own thread (or, for requests refused at once, before
 * block_submit returns), in any order; a request and its buffers stay the caller's until then. A FLUSH covers every write
 * that was done before it was submitted.
 */
#ifndef BACKEND_BLOCK_H
#define BACKEND_BLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct err;
struct block;

#define BLOCK_SECTOR 512u

enum block_op { BLOCK_READ, BLOCK_WRITE, BLOCK_FLUSH, BLOCK_DISCARD, BLOCK_WRITE_ZEROES };

struct block_request {
	enum block_op op;
	bool fua;    /* WRITE, WRITE_ZEROES: done means on stable storage */
	bool unmap;  /* WRITE_ZEROES: space may be given back */
	uint64_t offset, length; /* bytes; multiples of 512 within the disk */
	const struct iovec *iov; /* READ, WRITE: exactly `length` bytes */
	unsigned iovcnt;
	void (*done)(struct block_request *r, int result); /* 0 or -errno */
	void *opaque;
	/* the back-end's, while the request is underway */
	struct block_request *next;
	void *backend[4];
};

/*
 * "[format=raw|qcow2,]file=PATH[,readonly][,cache=writeback|writethrough|none|unsafe][,discard=on|off]..." or a plain PATH, which
 * is raw: formats are never probed. docs/storage.md lists all keys.
 */
struct block_config {
	const char *spec;
	bool read_only; /* the front end cannot write (a CD) */
};

struct block_info {
	uint64_t size; /* bytes */
	bool read_only;
	unsigned logical_sector, physical_sector; /* bytes */
	uint64_t discard_granularity; /* 0: no discard */
	const char *format, *path;
};

int block_open(struct block **out, const struct block_config *config, struct err *e);
void block_close(struct block *b); /* waits for what is underway; flushes */
void block_get_info(struct block *b, struct block_info *info);
void block_submit(struct block *b, struct block_request *r);
/* Waits until nothing is underway; nothing new must be submitted meanwhile. */
void block_drain(struct block *b);
/* The same, one request at a time and waiting for it: tools and firmware paths. */
int block_sync(struct block *b, enum block_op op, uint64_t offset, void *buf, uint64_t length);

#endif
