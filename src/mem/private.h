/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the room: what struct mem is made of. */
#ifndef MEM_PRIVATE_H
#define MEM_PRIVATE_H

#include <pthread.h>
#include "mem/mem.h"

#define MEM_LIMIT (1ull << 52)      /* physical addresses end here, as the architecture says */
#define MEM_ROM_SPACE (64ull << 20) /* room for ROMs behind RAM */

#define MEM_FILES 16

enum region_kind { REGION_RAM, REGION_ROM, REGION_IO, REGION_ALIAS };

/* What was mapped, in the order it was. */
struct mem_region {
	gpa_t start, size;
	enum region_kind kind;
	uint64_t ram_offset; /* RAM, ROM */
	gpa_t target;        /* alias */
	const struct io_ops *ops;
	void *opaque;
	const char *name;
};

struct mem_view {
	unsigned count, cap;
	struct mem_range *range;
};

struct mem {
	uint8_t *base;
	uint64_t ram_size;  /* of RAM proper */
	uint64_t used;      /* with ROMs */
	bool huge;          /* RAM is of another file: reserved huge pages; fd is that of the rest */
	uint64_t reserved;  /* mapped: ram_size + MEM_ROM_SPACE + room for files */
	uint64_t files;     /* used of that room, by */
	struct {
		uint64_t ram_offset, length;
	} file[MEM_FILES];
	unsigned nfiles;
	int fd;
	struct lent *lent; /* pages that are a file's instead: lent.c; NULL: none, ever */
	_Atomic uint8_t *flags;
	_Atomic bool tracking;
	struct trace *trace;

	struct mem_region *regions;
	unsigned nregions, cap_regions;
	struct mem_view view;
	pthread_rwlock_t lock; /* written when the view changes; read by who may run meanwhile: devices' own threads */
	struct mem_listener *listeners;
	struct watch *watch; /* NULL but under engine=verify */
};

struct watch {
	void (*io)(void *opaque);
	void *opaque;
	pthread_mutex_t gate;
	_Atomic unsigned count;
	uint32_t *page; /* room for all */
};

/* lent.c */
bool lent_discard(struct mem *m, uint8_t *from, uint64_t len); /* lent or not; false: all of it stays */
void lent_dispose(struct mem *m);
bool lent_any(const struct mem *m, uint64_t ram_offset, uint64_t len); /* are some of these bytes a file's? */

/* Build the flat view of m->regions anew. -ENOMEM leaves the old one in force. */
int view_build(struct mem *m, struct mem_view *out);

#endif
