/* SPDX-License-Identifier: Apache-2.0 */
/* Disk images as things to be made and looked after: what `ospite image` does beyond reading and writing a disk. */
#ifndef BACKEND_IMAGE_H
#define BACKEND_IMAGE_H

#include "backend/block.h"

enum image_preallocation { IMAGE_SPARSE, IMAGE_METADATA, IMAGE_FALLOC, IMAGE_FULL };

struct image_create {
	const char *path, *format; /* raw, qcow2 */
	uint64_t size;             /* 0 with a backing file: its size */
	const char *backing, *backing_format; /* NULL: none */
	uint64_t cluster_size;     /* 0: 64 KiB */
	bool lazy_refcounts, zstd;
	enum image_preallocation preallocation;
	bool replace; /* an existing file */
	void (*progress)(void *opaque, uint64_t done, uint64_t total); /* of a raw image written in full; may be NULL */
	void *opaque;
};
int image_create(const struct image_create *c, struct err *e);

/* The image alone, without its backing files: for looking after it. */
int block_open_alone(struct block **out, const char *spec, bool read_only, struct err *e);

struct image_check {
	uint64_t clusters, allocated, compressed; /* of the guest's disk */
	uint64_t leaks, corruptions, errors;      /* errors: could not be looked at */
	uint64_t leaks_fixed, corruptions_fixed;
	uint64_t end; /* of what is in use in the file, bytes */
	/* of image_check_telling */
	void (*progress)(void *opaque, uint64_t done, uint64_t total);
	void *opaque;
};
/* Only images of which nobody else has anything open. -EOPNOTSUPP: the format has nothing to check. */
int image_check(struct block *b, bool repair, struct image_check *out, struct err *e);
/* The same; out->progress, unless NULL, is called with out->opaque now and then. */
int image_check_telling(struct block *b, bool repair, struct image_check *out, struct err *e);

struct image_snapshot {
	const char *id, *name;
	uint64_t seconds, nanoseconds, size, vm_state;
};
/* The i-th, until the list changes; false: there is none. */
bool image_snapshot_get(struct block *b, unsigned i, struct image_snapshot *out);
int image_snapshot_create(struct block *b, const char *name, struct err *e);
int image_snapshot_apply(struct block *b, const char *name, struct err *e); /* by name or id */
int image_snapshot_delete(struct block *b, const char *name, struct err *e);

struct image_details {
	uint64_t cluster_size;
	unsigned version, refcount_bits;
	bool lazy_refcounts, dirty, corrupt;
	const char *compression;                /* zlib, zstd; NULL: the format has none */
	const char *backing, *backing_format; /* as the header says; NULL: none */
	uint64_t disk_bytes;                    /* what the file takes on the host */
};
void image_get_details(struct block *b, struct image_details *d);
/* A whole cluster, compressed if it gets smaller. For images being made. */
int image_write_compressed(struct block *b, uint64_t offset, const void *data, uint64_t length);
/* The backing file in the header only; nothing is read or written. */
int image_set_backing(struct block *b, const char *backing, const char *format, struct err *e);

#endif
