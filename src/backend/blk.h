/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the block back-ends. A disk is a chain of nodes: a format (raw, qcow2) over a store (file, NBD), a qcow2
 * node with perhaps another chain as its backing file. `struct block` (block.c) is the front: it checks requests, keeps
 * limits, statistics and the error policy, and hands on to the top node.
 *
 * A node takes requests that are known to lie within its size, from any thread, and completes each exactly once. Of
 * block_request.backend the front uses 0 to 2, the node that has the request 3 and `next`.
 *
 * struct aio is what does I/O for all nodes of a disk: an io_uring with a thread that reaps it, and a pool of threads for
 * what must block. Where the host forbids io_uring the pool does all.
 */
#ifndef BACKEND_BLK_H
#define BACKEND_BLK_H

#include <pthread.h>
#include <stdatomic.h>
#include "backend/block.h"
#include "base/base.h"
#include "base/err.h"

#define BLK_PATH 1024u
#define BLK_CHAIN 32u /* images in a backing chain */

enum blk_cache { BLK_WRITEBACK, BLK_WRITETHROUGH, BLK_DIRECT, BLK_UNSAFE };

/* ---- aio.c, aio-ring.c ---- */

struct aio;
struct aio_job {
	struct aio_job *next;
	void (*run)(struct aio_job *job);
};
struct aio *aio_create(bool use_ring, struct err *e);
void aio_destroy(struct aio *a); /* nothing may be underway */
void aio_run(struct aio *a, struct aio_job *job); /* on a thread of the pool, which may block */

struct aio_ring;
struct aio_ring *aio_get_ring(struct aio *a); /* NULL: there is none */
struct aio_ring *ring_create(void);           /* NULL: the host does not let us */
void ring_destroy(struct aio_ring *ring);
/*
 * Start a READ, WRITE (`dsync`: to stable storage) or FLUSH on fd; `r->done` is not called: `complete` is, with the
 * number of bytes or -errno, on the ring's thread. False: not taken, do it another way.
 */
bool ring_submit(struct aio_ring *ring, int fd, struct block_request *r, bool dsync,
		 void (*complete)(struct block_request *r, int result));

/* ---- nodes ---- */

struct node;
struct node_ops {
	const char *name;
	void (*submit)(struct node *n, struct block_request *r);
	/* The same, waiting: for metadata and tools; may be called from threads of the pool. */
	int (*sync)(struct node *n, struct block_request *r);
	int (*resize)(struct node *n, uint64_t size, struct err *e); /* NULL: cannot */
	int (*map)(struct node *n, uint64_t offset, uint64_t length, struct block_extent *out); /* NULL: all data */
	void (*close)(struct node *n);
};

struct node {
	const struct node_ops *ops;
	struct aio *aio;
	uint64_t size;
	bool read_only;
	bool grows;        /* writing behind the end makes it longer, what is between reads as zeroes */
	unsigned align;    /* offsets and lengths must be multiples (O_DIRECT on a disk with large sectors); 1, 512 or more */
	unsigned physical; /* good size of a write */
	uint64_t discard_granularity;
	char *path; /* for messages */
};

void node_close(struct node *n); /* NULL is fine */
int node_read(struct node *n, uint64_t offset, void *buf, uint64_t length);
int node_write(struct node *n, uint64_t offset, const void *buf, uint64_t length);
int node_flush(struct node *n);
int node_op(struct node *n, enum block_op op, uint64_t offset, uint64_t length, bool unmap);
/* For nodes that only can submit: sync by waiting. */
int node_sync_by_submit(struct node *n, struct block_request *r);
/* For nodes that only can wait: submit by a thread of the pool. The node's size bounds what is underway. */
void node_submit_by_sync(struct node *n, struct block_request *r);

/* ---- iovecs (blk-iov.c) ---- */

void iov_fill(const struct iovec *iov, unsigned n, uint64_t skip, uint64_t length, int byte);
void iov_to_buf(const struct iovec *iov, unsigned n, uint64_t skip, void *buf, uint64_t length);
void iov_from_buf(const struct iovec *iov, unsigned n, uint64_t skip, const void *buf, uint64_t length);
uint64_t iov_length(const struct iovec *iov, unsigned n);
/* The part [skip, skip + length) as iovecs of its own in out (max entries). The count, or -E2BIG. */
int iov_slice(const struct iovec *iov, unsigned n, uint64_t skip, uint64_t length, struct iovec *out, unsigned max);

/* ---- specs (blk-spec.c) ---- */

enum blk_on_error { BLK_REPORT, BLK_STOP, BLK_ENOSPC };

struct blk_backing {
	char path[BLK_PATH];
	char format[16];
};

struct blk_spec {
	char path[BLK_PATH];
	char format[16];
	bool assumed; /* raw because nothing was said and the name says nothing else */
	bool nbd;
	bool read_only, no_lock, no_ring;
	bool discard;
	enum blk_cache cache;
	enum blk_on_error on_read_error, on_write_error;
	struct block_limits limits;
	bool backing_header; /* follow what the images' headers say */
	bool no_backing;     /* ignore what the header says: for tools that look at one image alone */
	unsigned nbacking;
	struct blk_backing *backing; /* BLK_CHAIN entries when nbacking */
	uint64_t table_cache; /* bytes of qcow2 metadata kept; 0: default */
	const struct block_files *files; /* see block_config */
	bool check_only;      /* open without repair, even if dirty */
};

int blk_spec_parse(struct blk_spec *s, const char *text, struct err *e);
void blk_spec_dispose(struct blk_spec *s);

/* ---- opening ---- */

/* A path or "nbd:..." as a node without format. */
int blk_open_store(struct node **out, struct aio *a, const struct blk_spec *s, struct err *e);
/* The format over it; depth counts backing files. */
int blk_open_node(struct node **out, struct aio *a, const struct blk_spec *s, unsigned depth, struct err *e);
/* Somebody else has it open as a disk. Locks it otherwise, with this descriptor. */
bool file_in_use(int fd);
int file_open(struct node **out, struct aio *a, const struct blk_spec *s, struct err *e);

struct node *block_node(struct block *b);
/* A front over a node somebody made (tests, tools); takes both. */
int block_wrap(struct block **out, struct aio *a, struct node *top, const struct blk_spec *s, struct err *e);

/* ---- limits (blk-limit.c) ---- */

struct limiter;
struct limiter *limiter_create(const struct block_limits *s, void (*go)(void *opaque, struct block_request *r), void *opaque,
			       struct err *e);
bool limiter_wanted(const struct block_limits *s);
void limiter_set(struct limiter *l, const struct block_limits *s); /* what waits is looked at anew */
void limiter_destroy(struct limiter *l);
/* True: go ahead now. False: kept, `go` is called with it later, in order. */
bool limiter_take(struct limiter *l, struct block_request *r);

#endif
