/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest-physical memory: one address map of RAM, ROM, MMIO and aliases for a machine.
 *
 * RAM is memfd-backed and mapped once, shareable with other processes. The map is a sorted flat view,
 * read by vCPU threads without locks; it changes only while the machine's vCPUs are stopped (start-up, under a
 * pause, env_stopped in dev/device.h), and every change is told to the listeners. Devices' own threads may run
 * meanwhile: mem_dma_* and mem_ram_ptr are safe for them (a lock of 15 ns), the other look-ups are not. Host addresses
 * of RAM stay good for ever.
 *
 * Every byte of RAM has a stable index, its "RAM offset"; per-page flags are kept by RAM page (offset >> 12).
 * What makes a page's writers take the slow way: MEM_CODE or MEM_DECODED (an engine holds translated or decoded
 * code of it; each is kept by its own listener) and, while dirty tracking is on, the absence of MEM_DIRTY. Software TLBs may cache a
 * writable mapping only of pages for which mem_page_plain_write() is true.
 */
#ifndef MEM_MEM_H
#define MEM_MEM_H

#include <stdatomic.h>
#include "base/base.h"

typedef uint64_t gpa_t;
typedef uint64_t gva_t;

#define GUEST_PAGE 4096ull

struct mem;
struct err;
struct trace;
struct io_ops;

/* A write of `size` bytes, `value`, to this offset of a device. Size 0: of any size and value. */
struct io_doorbell {
	uint64_t offset, value;
	unsigned size;
	int fd;
};

/*
 * A device's view of its registers: the map splits and widens accesses to min..max first, so that a device sees
 * no other sizes, and no offset that is not a multiple of min. Written bytes a widened access adds are zero.
 */
struct io_ops {
	uint64_t (*read)(void *opaque, uint64_t offset, unsigned size);
	void (*write)(void *opaque, uint64_t offset, uint64_t value, unsigned size);
	uint8_t min, max; /* sizes the device accepts: 1, 2, 4, 8 (0 means 1 and 8) */
	bool late_writes; /* in their order, but only before the CPU's next access to any device is well enough */
	/*
	 * Writes that only say "look", in place of which somebody may count up an eventfd: fills in at most `max`, gives how many. Called
	 * with the CPUs stopped; the files stay open for as long as the range is mapped. NULL: there are none.
	 */
	unsigned (*doorbells)(void *opaque, struct io_doorbell *out, unsigned max);
	/*
	 * Ports only, may be NULL: `count` accesses of `size` bytes at one offset, each as read and write would do it; how many have been done: fewer
	 * when something may have come of them that a CPU looks for between two, none of an offset or size that only goes one by one.
	 */
	unsigned (*read_many)(void *opaque, uint64_t offset, unsigned size, void *buf, unsigned count);
	unsigned (*write_many)(void *opaque, uint64_t offset, unsigned size, const void *buf, unsigned count);
};

enum mem_kind { MEM_RAM, MEM_ROM, MEM_IO };

/* One entry of the flat view. */
struct mem_range {
	gpa_t start, size;
	enum mem_kind kind;
	uint8_t *host;       /* RAM, ROM: host address of `start` */
	uint64_t ram_offset; /* RAM, ROM: RAM offset of `start` */
	const struct io_ops *ops; /* IO */
	void *opaque;
	uint64_t io_offset; /* IO: offset within the device of `start` */
	const char *name;
};

struct mem *mem_create(uint64_t ram_size, struct err *e); /* reserves all RAM, maps none of it yet */
/* With room for mem_map_file; `huge`: of huge pages that the host keeps in reserve, refused when it has too few. */
struct mem *mem_create_with(uint64_t ram_size, uint64_t files, bool huge, struct err *e);
void mem_destroy(struct mem *m);

/*
 * Building the map. Later additions win over earlier ones where they overlap (higher priority). RAM, ROM and
 * aliases keep to pages, and so do all RAM and ROM ranges of the flat view, whatever IO is put over them. Names are
 * not copied.
 */
int mem_map_ram(struct mem *m, gpa_t at, uint64_t ram_offset, uint64_t size, const char *name,
		struct err *e);
/* Copies data into memory of its own, 0xff up to the page's end; the guest can read and execute but not write it. */
int mem_map_rom(struct mem *m, gpa_t at, const void *data, uint64_t size, const char *name,
		struct err *e);
/*
 * Memory of its own like a ROM's, for what is written from the host side: a flash, a frame buffer. Gives its RAM offset;
 * it shows nowhere until mem_map_ram or mem_map_read_only puts it somewhere.
 */
int mem_alloc(struct mem *m, uint64_t size, uint64_t *ram_offset, struct err *e);
/*
 * A file's bytes, read-only and shared with whoever else has it mapped; what is behind its end in [at, +size) is zero. The file must not
 * become shorter. It is no part of what mem_ram_size counts, and so of what is saved.
 */
int mem_map_file(struct mem *m, gpa_t at, int fd, uint64_t length, uint64_t size, const char *name, struct err *e);
/* What a SIGBUS means that nobody has an answer to. */
#define MEM_LOST \
	"ospite: guest memory is gone: a file that it is mapped from (of a saved machine, or a kernel) was made shorter, or its disk or the host's memory failed\r\n"
/*
 * RAM from here on shows a file's bytes, [at, +len) of it, until something is written there; the file sees no writes. Pages all of
 * them. While no CPU runs. -ENOTSUP for memory of huge pages. The file must not become shorter.
 */
uint64_t mem_lend_limit(const struct mem *m); /* RAM that can be */
int mem_lend(struct mem *m, uint64_t ram_offset, int fd, uint64_t at, uint64_t len, struct err *e);
/* RAM offsets of the next page that may hold anything but zeroes, and of the next behind `at` that holds none; at most mem_ram_size. */
uint64_t mem_next_data(struct mem *m, uint64_t at);
uint64_t mem_data_end(struct mem *m, uint64_t at);
/* Any memory with a RAM offset, which the guest can read and execute here but not write. */
int mem_map_read_only(struct mem *m, gpa_t at, uint64_t ram_offset, uint64_t size, const char *name, struct err *e);
int mem_map_io(struct mem *m, gpa_t at, uint64_t size, const struct io_ops *ops, void *opaque,
	       const char *name, struct err *e);
/* [at, at+size) shows what lies at `target`, aliases left out. */
int mem_map_alias(struct mem *m, gpa_t at, gpa_t target, uint64_t size, const char *name,
		  struct err *e);
int mem_unmap(struct mem *m, gpa_t at, const char *name); /* by its start and name; uncovers what is below */

/* Look-ups; valid until the map changes. NULL: nothing there (reads give all ones, writes vanish). */
const struct mem_range *mem_find(const struct mem *m, gpa_t at); /* vCPU threads, or all of them stopped */
const struct mem_range *mem_ranges(const struct mem *m, unsigned *count);
/* Host address of a RAM byte, or NULL when `at` is not plain RAM. For one page at most. */
uint8_t *mem_ram_ptr(const struct mem *m, gpa_t at);

/*
 * Accesses by anything but the CPU fast path. Whole range or nothing for RAM; MMIO is split as the
 * device wants it. mem_read/mem_write are for 1..8 byte CPU accesses that may hit MMIO;
 * mem_dma_* are for devices (RAM only, any length, -EFAULT when any byte is not RAM).
 * Writes mark pages dirty and tell the listeners about written code. Aligned accesses of 1, 2, 4 and 8 bytes are
 * single loads and stores.
 */
uint64_t mem_read(struct mem *m, gpa_t at, unsigned size);
void mem_write(struct mem *m, gpa_t at, uint64_t value, unsigned size);
int mem_dma_read(struct mem *m, gpa_t at, void *buf, uint64_t len);
int mem_dma_write(struct mem *m, gpa_t at, const void *buf, uint64_t len);
/*
 * For devices that move data themselves: the host addresses of [at, +len), all of it RAM, as pieces in iov. The number of
 * pieces, -EFAULT, or -E2BIG for more than max. Reading there is always fine. What writes there (a read from a disk) asks
 * mem_dma_direct first and calls mem_dma_done for every byte afterwards; mem_dma_store does all of that. Addresses given once
 * stay RAM of this machine for ever, whatever the map says later. Any thread.
 */
struct iovec;
int mem_dma_map(struct mem *m, gpa_t at, uint64_t len, struct iovec *iov, unsigned max);
bool mem_dma_direct(const struct mem *m);
void mem_dma_done(struct mem *m, const void *host, uint64_t len);
void mem_dma_store(struct mem *m, void *host, const void *data, uint64_t len);
/* The guest has no use for these bytes: whole pages among them go back to the host and read as zeroes, or stay as they are. */
void mem_dma_discard(struct mem *m, void *host, uint64_t len);
/* Like mem_dma_write, but may also fill ROM: loaders and firmware set-up only. */
int mem_load(struct mem *m, gpa_t at, const void *buf, uint64_t len);
/* The same in two steps, CPUs stopped: several threads put bytes in place, one of them tells the listeners about all of it then. */
int mem_place(struct mem *m, gpa_t at, const void *buf, uint64_t len);
void mem_placed(struct mem *m, gpa_t at, uint64_t len);

/* RAM pages */
#define MEM_CODE 1u
#define MEM_DIRTY 2u
#define MEM_DECODED 4u
#define MEM_HAS_CODE (MEM_CODE | MEM_DECODED)
uint8_t *mem_ram_base(const struct mem *m); /* host address of RAM offset 0 */
uint64_t mem_ram_size(const struct mem *m); /* all of RAM and ROM that has a RAM offset */
uint64_t mem_ram_limit(const struct mem *m); /* what it can grow to */
_Atomic uint8_t *mem_page_flags(const struct mem *m); /* indexed by RAM page */
static inline bool mem_page_plain_write(uint8_t flags, bool tracking)
{
	return !(flags & MEM_HAS_CODE) && (!tracking || (flags & MEM_DIRTY));
}
/* The page now holds code an engine keeps a copy of. True when it had not been marked before. */
bool mem_mark_code(struct mem *m, uint64_t ram_page);
void mem_unmark_code(struct mem *m, uint64_t ram_page);
bool mem_mark_decoded(struct mem *m, uint64_t ram_page); /* the same for MEM_DECODED */
void mem_unmark_decoded(struct mem *m, uint64_t ram_page);
/* To be called for every write of [ram_offset, +len) that did not go through a plain-write mapping. */
void mem_written(struct mem *m, uint64_t ram_offset, uint64_t len);

/* Dirty tracking: pages written since the last fetch. Listeners drop their writable mappings. */
void mem_dirty_start(struct mem *m);
void mem_dirty_stop(struct mem *m);
bool mem_dirty_tracking(const struct mem *m);
/* bitmap of mem_ram_size()/4096 bits; clears what it returns. Gives the number of dirty pages. */
uint64_t mem_dirty_fetch(struct mem *m, uint64_t *bitmap);

/* To be called by whoever lets a write pass while tracking is on and the page has no MEM_DIRTY yet. */
void mem_mark_dirty(struct mem *m, uint64_t ram_page);

/*
 * For engine=verify, which compares two machines after every stretch of code; see shadow.c. Tracking is on from watch to
 * unwatch. `io` is called before an access to a device, or to nothing, is carried out. While the gate is closed nobody
 * but its owner writes to RAM: mem_dma_write waits.
 */
int mem_watch(struct mem *m, void (*io)(void *opaque), void *opaque, struct err *e);
void mem_unwatch(struct mem *m);
void mem_gate(struct mem *m, bool closed); /* owner's thread */
/* The pages written since the last clear, in no order; no page twice. */
const uint32_t *mem_watch_pages(const struct mem *m, unsigned *count);
void mem_watch_clear(struct mem *m); /* write tags have to be revoked by the caller */
/* A machine's memory once more: the same RAM offsets and map, contents copied, devices replaced by one. */
struct mem *mem_shadow_create(struct mem *of, const struct io_ops *ops, void *opaque, struct err *e);
int mem_shadow_map(struct mem *shadow, const struct mem *of, const struct io_ops *ops, void *opaque);
void mem_shadow_copy(struct mem *shadow, struct mem *of); /* all of it, what is no hole */

/* All called on the thread that caused the event. */
struct mem_listener {
	void (*map_changed)(void *opaque);
	/* [ram_offset, +len) within one page flagged MEM_CODE or MEM_DECODED has just been written */
	void (*code_written)(void *opaque, uint64_t ram_offset, uint64_t len);
	void (*writes_revoked)(void *opaque); /* drop all writable mappings (dirty tracking) */
	void *opaque;
	struct mem_listener *next;
	/* For who writes to RAM without our seeing it (hardware): log from now on, or no longer; mem_mark_dirty what was logged. */
	void (*dirty_log)(void *opaque, bool on);
	void (*dirty_collect)(void *opaque);
};
void mem_listen(struct mem *m, struct mem_listener *l);
void mem_unlisten(struct mem *m, struct mem_listener *l);
void mem_set_trace(struct mem *m, struct trace *t); /* before the machine runs */

#endif
