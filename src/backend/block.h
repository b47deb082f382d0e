/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Block back-ends: what stands behind a disk. A front end (virtio-blk, IDE, AHCI, an NBD server, `ospite image`) submits
 * requests and is told when each is done; formats (raw, qcow2) and protocols (file, NBD) are the back-end's business.
 *
 * Any thread may submit; never blocks. `done` is called on the back-end's own thread (or, for requests refused at once and for
 * those that allow it by `now`, before block_submit returns), in any order; a request and its buffers stay the caller's
 * until then. A FLUSH covers every write that was done before it was submitted.
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
#define BLOCK_OPS 5

struct block_request {
	enum block_op op;
	bool fua;    /* WRITE, WRITE_ZEROES: done means on stable storage */
	bool unmap;  /* WRITE_ZEROES: space may be given back */
	bool now;    /* done may be called by block_submit itself, for what is a copy from or to the host's page cache: saves two thread switches */
	uint64_t offset, length; /* bytes; multiples of 512 within the disk */
	const struct iovec *iov; /* READ, WRITE: exactly `length` bytes */
	unsigned iovcnt;
	void (*done)(struct block_request *r, int result); /* 0 or -errno */
	void *opaque;
	/* The error policy keeps the request until block_retry, or does so no more; a lock is held. May be NULL. `opaque` is not yours here. */
	void (*held)(struct block_request *r, bool held);
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
	const struct block_files *files; /* looked at before the host's; may be NULL */
};

/* Files that somebody has opened for us: a new descriptor, or -1 with errno; ENOENT: not one of them. */
struct block_files {
	int (*open)(void *opaque, const char *path, bool write);
	void *opaque;
};

/* The files a description names, with those of its chain as far as it names them; `write`: it is written to. */
int block_spec_files(const char *spec, bool read_only, int (*each)(void *opaque, const char *path, bool write, struct err *e), void *opaque,
		     struct err *e);

struct block_info {
	uint64_t size; /* bytes */
	bool read_only;
	unsigned logical_sector, physical_sector; /* bytes */
	uint64_t discard_granularity; /* 0: no discard */
	const char *format, *path;
	bool holds; /* its error policy may stop the machine */
};

int block_open(struct block **out, const struct block_config *config, struct err *e);
void block_close(struct block *b); /* waits for what is underway; flushes */
void block_get_info(struct block *b, struct block_info *info);
void block_submit(struct block *b, struct block_request *r);
/* Waits until nothing is underway; nothing new must be submitted meanwhile. */
void block_drain(struct block *b);
/* The same, one request at a time and waiting for it: tools and firmware paths. */
int block_sync(struct block *b, enum block_op op, uint64_t offset, void *buf, uint64_t length);
/* Grow or shrink. Front ends must not have requests underway behind the new end. */
int block_resize(struct block *b, uint64_t size, struct err *e);

/* What was done since the disk was opened; any thread. */
struct block_stats {
	struct {
		uint64_t requests, bytes, errors, ns; /* ns: summed from submission to completion */
	} op[BLOCK_OPS];
	uint64_t underway;  /* now */
	uint64_t throttled; /* requests that had to wait for a limit */
	uint64_t held;      /* waiting for block_retry, now */
};
void block_get_stats(struct block *b, struct block_stats *stats);

/*
 * Error policy "stop" (rerror=, werror=): the request is held, `stopped` is called (on any thread, once until the next
 * block_retry, with a lock held: it tells another thread), and the owner pauses the machine; block_retry submits what is held
 * again. Without a callback errors go to the guest.
 */
void block_set_stopped(struct block *b, void (*stopped)(void *opaque, int error, bool write), void *opaque);
void block_retry(struct block *b);
/* Off: what is held fails, and nothing more is held: for a front end that must get everything back. */
void block_set_holding(struct block *b, bool on);

/* Limits, at any time: all requests, reads, writes. A second; bucket size; one time; 0: none. */
struct blk_limit {
	uint64_t rate, burst, once;
};
struct block_limits {
	struct blk_limit iops[3], bps[3];
};
int block_set_limits(struct block *b, const struct block_limits *limits, struct err *e); /* one thread at a time */
void block_get_limits(struct block *b, struct block_limits *limits);

/* How `length` bytes at `offset` are stored. */
struct block_extent {
	uint64_t length; /* of equal bytes from offset on; at least one sector */
	bool allocated;  /* in the image itself, not in a backing file */
	bool zero;       /* reads as zeroes, known without reading */
	bool compressed;
	bool has_host;   /* data lies as it is at `host` of the image's file */
	uint64_t host;
	unsigned depth;  /* 0: this image, 1: its backing file, ... */
};
int block_map(struct block *b, uint64_t offset, uint64_t length, struct block_extent *out);

#endif
