/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qcow2, versions 2 and 3, as specified in QEMU's docs/interop/qcow2.txt. Not supported, and refused: encryption, external data
 * files, extended L2 entries. Persistent bitmaps are dropped when the image is written to, as the format provides.
 *
 * Two locks. `slow` serialises everything that changes tables or must wait for metadata; its holder may do I/O. `map` guards
 * the tables in memory: it is held for moments, never across I/O; changing a table needs both. So a holder of `slow` may
 * read tables without `map`.
 *
 * Fast path (qcow2-io.c): a request whose tables are in memory and which changes none goes straight to the store from the
 * caller's thread. All others queue up and one thread of the pool at a time serves them under `slow`.
 *
 * Order of writes (qcow2_commit): refcounts, new tables and data reach the disk before any table or L1 entry that refers to them; what
 * those no longer refer to is free for reuse only once that is on disk too, and no fast request still uses it. So at every
 * instant what is on disk is consistent; a crash loses at most unflushed writes and leaks clusters. With lazy refcounts, and
 * while snapshots are made, the dirty bit is set instead and the next opening rebuilds the refcounts.
 */
#ifndef BACKEND_QCOW2_H
#define BACKEND_QCOW2_H

#include <endian.h>
#include "backend/blk.h"
#include "backend/image.h"

#define QCOW2_MAGIC 0x514649fbu
#define L2_COPIED BIT(63)
#define L2_COMPRESSED BIT(62)
#define L2_ZERO BIT(0)
#define OFFSET_MASK 0x00fffffffffffe00ull
#define INCOMPAT_DIRTY BIT(0)
#define INCOMPAT_CORRUPT BIT(1)
#define INCOMPAT_COMPRESSION BIT(3)
#define COMPAT_LAZY BIT(0)
#define EXT_BACKING_FORMAT 0xe2792acau
#define EXT_FEATURES 0x6803f857u
#define L1_MAX (32u << 20) /* bytes */
#define RT_MAX (8u << 20)
#define SNAPSHOTS_MAX 65536u
#define HEAD_MAX 4096u

/* The header's first 112 bytes; big endian, as in the file. */
struct qcow2_header {
	uint32_t magic, version;
	uint64_t backing_offset;
	uint32_t backing_size, cluster_bits;
	uint64_t size;
	uint32_t crypt, l1_size;
	uint64_t l1_offset, rt_offset;
	uint32_t rt_clusters, nsnapshots;
	uint64_t snapshots_offset;
	/* version 3 */
	uint64_t incompatible, compatible, autoclear;
	uint32_t refcount_order, length;
	uint8_t compression, padding[7];
};
_Static_assert(sizeof(struct qcow2_header) == 112, "as in the file");

/* One cluster of a table in memory: a cache of them, by offset. */
struct table {
	uint64_t offset; /* 0: unused */
	uint64_t used;   /* for choosing what to drop */
	uint8_t *data;
	uint32_t dirty_from, dirty_to; /* bytes; equal: clean */
	bool fresh;                    /* nothing on disk refers to it yet */
	struct table *chain;
};

struct tables {
	struct table *all, **hash;
	unsigned n, ndirty;
	uint64_t clock;
};

struct snapshot {
	uint64_t l1_offset;
	uint32_t l1_size;
	uint32_t seconds, nanoseconds;
	uint64_t clock, vm_state_size, disk_size, icount;
	bool has_disk_size, has_icount;
	char *id, *name;
};

struct range_free {
	uint64_t cluster, count;
};

struct qcow2 {
	struct node n;
	struct node *file, *backing;
	struct blk_spec spec; /* without its backing list */
	unsigned cluster_bits, l2_bits, refcount_order, rb_bits; /* entries of a refcount block, log 2 */
	uint64_t cluster_size;
	bool v2, lazy, dirty, zstd_type;
	char *backing_name, backing_format[16];
	uint8_t head[HEAD_MAX];
	unsigned head_len;

	pthread_mutex_t slow;
	/* under slow */
	uint64_t *rt, rt_entries; /* refcount table */
	struct tables refcounts;
	uint64_t free_hint, high; /* clusters: nothing is free below, nothing was ever used from high on */
	struct range_free *frees; /* waiting for the next commit */
	unsigned nfrees, frees_room;
	struct snapshot *snapshots;
	unsigned nsnapshots;
	bool written; /* the header's dirty and autoclear bits are as they must be for writing */
	bool all_rc;  /* commit writes refcounts even if lazy */
	uint64_t packed; /* compressed data go on here; 0: nowhere */
	uint8_t *plain;  /* the last cluster decompressed, and which */
	uint64_t plain_entry;

	pthread_mutex_t map;
	pthread_cond_t quiet;
	/* under map */
	uint64_t *l1, l1_size;
	uint8_t *l1_dirty; /* a byte per 512 bytes of the table */
	bool any_l1_dirty;
	struct tables l2;
	unsigned epoch;
	unsigned underway[2]; /* fast requests, by the epoch they began in */
	/* requests for the slow path */
	struct block_request *first, **last;
	bool serving;
	struct aio_job job;
};

static inline struct qcow2 *qcow2_of(struct node *n)
{
	return container_of(n, struct qcow2, n);
}

static inline uint64_t cluster_up(const struct qcow2 *q, uint64_t bytes)
{
	return (bytes + q->cluster_size - 1) & ~(q->cluster_size - 1);
}

/* ---- qcow2-cache.c: under slow; those that change a table take map themselves */
int tables_init(struct tables *t, unsigned n);
void tables_dispose(struct tables *t);
struct table *tables_find(struct tables *t, uint64_t offset); /* map or slow */
/* Read it if need be; `blank`: a new one, all zeroes, nothing to read. Makes room, which may commit. */
int qcow2_table(struct qcow2 *q, struct tables *t, uint64_t offset, bool blank, struct table **out);
void table_drop(struct qcow2 *q, struct tables *t, uint64_t offset);
void table_dirty(struct tables *t, struct table *tab, uint64_t from, uint64_t len);
int tables_write(struct qcow2 *q, struct tables *t, bool fresh_only);
void tables_forget(struct qcow2 *q, struct tables *t); /* all, written or not */

/* ---- qcow2-alloc.c: under slow */
int refcount_get(struct qcow2 *q, uint64_t cluster, uint64_t *count);
int refcount_add(struct qcow2 *q, uint64_t cluster, uint64_t n, int add);
int clusters_alloc(struct qcow2 *q, uint64_t want, uint64_t *cluster, uint64_t *got);
int clusters_alloc_all(struct qcow2 *q, uint64_t want, uint64_t *cluster); /* contiguous or not at all */
int clusters_free_later(struct qcow2 *q, uint64_t cluster, uint64_t n);
int entry_free_later(struct qcow2 *q, uint64_t entry); /* what an L2 entry refers to */
uint64_t entry_compressed(const struct qcow2 *q, uint64_t entry, uint64_t *bytes); /* offset and length at most */
int qcow2_commit(struct qcow2 *q);
int qcow2_begin_write(struct qcow2 *q);       /* before the first change */
int qcow2_set_dirty(struct qcow2 *q, bool on); /* the dirty bit, on disk at once */
int header_write(struct qcow2 *q);
static inline struct qcow2_header *header_of(struct qcow2 *q)
{
	return (struct qcow2_header *)q->head;
}
/* Wait until no fast request uses a mapping from before. */
void qcow2_quiesce(struct qcow2 *q);

/* ---- qcow2-map.c: under slow, except l2_entry which also does under map */
bool l2_entry(struct qcow2 *q, uint64_t guest, uint64_t *entry); /* false: the table is not in memory */
int l2_load(struct qcow2 *q, uint64_t guest);                      /* so that l2_entry finds it */
int l2_writable(struct qcow2 *q, uint64_t guest, struct table **out);
void l2_set(struct qcow2 *q, struct table *t, uint64_t guest, uint64_t entry);
bool entry_is_bad(const struct qcow2 *q, uint64_t entry);
int qcow2_map(struct node *n, uint64_t offset, uint64_t length, struct block_extent *out);
int l1_switch(struct qcow2 *q, const uint64_t *content, uint64_t n, uint64_t new_size, uint64_t disk_size);

/* ---- qcow2-io.c */
void qcow2_submit(struct node *n, struct block_request *r);
void qcow2_serve(struct aio_job *job);
int qcow2_sync(struct node *n, struct block_request *r);
/* Guest bytes as they are now, through the chain; under slow. */
int qcow2_read_slow(struct qcow2 *q, uint64_t offset, uint64_t length, const struct iovec *iov, unsigned n, uint64_t skip);
int qcow2_write_slow(struct qcow2 *q, uint64_t offset, uint64_t length, const struct iovec *iov, unsigned n);
/* Unmap or zero whole clusters. */
int qcow2_unmap_slow(struct qcow2 *q, uint64_t offset, uint64_t length, bool zero, bool keep);

/* ---- qcow2-zip.c */
int zip_read(struct qcow2 *q, uint64_t entry, uint8_t **plain); /* under slow; good until the next */
int zip_write(struct qcow2 *q, uint64_t offset, const void *plain);

/* ---- qcow2-open.c */
int qcow2_open(struct node **out, struct aio *a, struct node *file, const struct blk_spec *s, unsigned depth, struct err *e);

/* ---- qcow2-resize.c */
int qcow2_resize(struct node *n, uint64_t size, struct err *e);
int qcow2_preallocate(struct qcow2 *q, uint64_t offset, uint64_t length, enum image_preallocation how, struct err *e);

/* ---- qcow2-snapshot.c */
int snapshots_load(struct qcow2 *q, struct err *e);
void snapshots_dispose(struct qcow2 *q);
int copied_fix(struct qcow2 *q);

/* ---- qcow2-check.c */
int qcow2_check(struct qcow2 *q, bool repair, struct image_check *out, struct err *e);

#endif
