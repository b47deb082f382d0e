/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest-physical memory: RAM itself and the building of the map. RAM and, behind it, the ROMs are one
 * memfd, mapped once; a RAM offset is an offset into it. See view.c for the flat view and access.c for
 * accesses.
 */
#include <errno.h>
#include <linux/memfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/err.h"
#include "mem/private.h"

#define MIB (1ull << 20)
#define HUGE_PAGE (2 * MIB)

/* RAM of the host's reserved huge pages, behind it a file as ever. The host sets them aside here and now, or refuses. */
static int map_huge(struct mem *m, struct err *e)
{
	uint64_t room = m->reserved + HUGE_PAGE, lead;
	int fd _close_ = -1;
	uint8_t *at;

	if (m->ram_size % HUGE_PAGE)
		return err_set(e, EINVAL, "memory of %llu KiB is not made of pages of 2M; give a multiple of 2M",
			       (unsigned long long)(m->ram_size / 1024));
	fd = memfd_create("guest-memory-huge", MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB);
	if (fd < 0 || ftruncate(fd, (off_t)m->ram_size))
		return err_errno(e, "this host has no huge pages of 2M");
	at = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (at == MAP_FAILED)
		return err_errno(e, "cannot map guest memory");
	lead = -(uintptr_t)at & (HUGE_PAGE - 1);
	m->base = at + lead;
	if (lead)
		munmap(at, lead);
	munmap(m->base + m->reserved, HUGE_PAGE - lead);
	if (mmap(m->base, m->ram_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
		return err_set(e, ENOMEM, "the host has not %llu huge pages of 2M free; reserve them: sysctl vm.nr_hugepages=%llu",
			       (unsigned long long)(m->ram_size / HUGE_PAGE), (unsigned long long)(m->ram_size / HUGE_PAGE));
	if (mmap(m->base + m->ram_size, m->reserved - m->ram_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, m->fd,
		 (off_t)m->ram_size) == MAP_FAILED)
		return err_errno(e, "cannot map guest memory");
	m->huge = true;
	return 0;
}

static int mem_reserve(struct mem *m, uint64_t files, bool huge, struct err *e)
{
	uint64_t host = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);

	if (!m->ram_size || m->ram_size % GUEST_PAGE)
		return err_set(e, EINVAL, "memory size %llu is not a multiple of 4096",
			       (unsigned long long)m->ram_size);
	if (m->ram_size > host)
		return err_set(e, ENOMEM, "%llu MiB of guest memory asked for, the host has %llu MiB",
			       (unsigned long long)(m->ram_size / MIB), (unsigned long long)(host / MIB));
	if (files > MEM_LIMIT || files % GUEST_PAGE)
		return err_set(e, EINVAL, "files of %llu bytes cannot be mapped", (unsigned long long)files);
	m->reserved = m->ram_size + MEM_ROM_SPACE + files;
	m->used = m->ram_size;
	m->fd = memfd_create("guest-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (m->fd < 0)
		return err_errno(e, "cannot create guest memory");
	if (ftruncate(m->fd, (off_t)m->reserved))
		return err_errno(e, "cannot size guest memory to %llu MiB%s", (unsigned long long)(m->ram_size / MIB),
				 errno == EFBIG ? " (ulimit -f counts here too)" : "");
	if (!huge)
		m->base = mmap(NULL, m->reserved, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, m->fd, 0);
	if (m->base == MAP_FAILED) {
		m->base = NULL;
		return err_errno(e, "cannot map %llu MiB of guest memory",
				 (unsigned long long)(m->ram_size / MIB));
	}
	if (huge && map_huge(m, e))
		return e ? -e->code : -ENOMEM;
	/* both are wishes: fewer host TLB misses, and no gigabytes of guest in a core file */
	madvise(m->base, m->reserved, MADV_HUGEPAGE);
	madvise(m->base, m->reserved, MADV_DONTDUMP);
	m->flags = calloc(m->reserved / GUEST_PAGE, 1);
	if (!m->flags)
		return err_set(e, ENOMEM, "no memory for page flags");
	return 0;
}

struct mem *mem_create(uint64_t ram_size, struct err *e)
{
	return mem_create_with(ram_size, 0, false, e);
}

struct mem *mem_create_with(uint64_t ram_size, uint64_t files, bool huge, struct err *e)
{
	struct mem *m = calloc(1, sizeof(*m));
	pthread_rwlockattr_t attr;

	if (!m) {
		err_set(e, ENOMEM, "no memory for the address map");
		return NULL;
	}
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&m->lock, &attr);
	pthread_rwlockattr_destroy(&attr);
	m->fd = -1;
	m->ram_size = ram_size;
	if (mem_reserve(m, files, huge, e)) {
		mem_destroy(m);
		return NULL;
	}
	return m;
}

void mem_destroy(struct mem *m)
{
	if (!m)
		return;
	if (m->base)
		munmap(m->base, m->reserved);
	lent_dispose(m);
	cleanup_close(&m->fd);
	free((void *)m->flags);
	free(m->regions);
	free(m->view.range);
	pthread_rwlock_destroy(&m->lock);
	free(m);
}

/* ---- the map */

static void mem_tell(struct mem *m)
{
	struct mem_listener *l, *next;

	for (l = m->listeners; l; l = next) {
		next = l->next;
		if (l->map_changed)
			l->map_changed(l->opaque);
	}
}

/* Make what m->regions says take effect. */
static int mem_commit(struct mem *m, struct err *e)
{
	struct mem_view v;

	if (view_build(m, &v))
		return err_set(e, ENOMEM, "no memory for the address map");
	pthread_rwlock_wrlock(&m->lock);
	free(m->view.range);
	m->view = v;
	pthread_rwlock_unlock(&m->lock);
	mem_tell(m);
	return 0;
}

static int mem_add(struct mem *m, const struct mem_region *g, struct err *e)
{
	int r;

	if (!g->size || !range_fits(g->start, g->size, MEM_LIMIT))
		return err_set(e, EINVAL, "%s: [%#llx, +%#llx) is no range of physical addresses", g->name,
			       (unsigned long long)g->start, (unsigned long long)g->size);
	if (g->kind != REGION_IO && ((g->start | g->size) & (GUEST_PAGE - 1)))
		return err_set(e, EINVAL, "%s: [%#llx, +%#llx) does not keep to pages", g->name,
			       (unsigned long long)g->start, (unsigned long long)g->size);
	if (m->nregions == m->cap_regions) {
		unsigned cap = m->cap_regions ? m->cap_regions * 2 : 32;
		struct mem_region *regions = reallocarray(m->regions, cap, sizeof(*regions));

		if (!regions)
			return err_set(e, ENOMEM, "no memory for the address map");
		m->regions = regions;
		m->cap_regions = cap;
	}
	m->regions[m->nregions++] = *g;
	r = mem_commit(m, e);
	if (r)
		m->nregions--;
	return r;
}

static int mem_check(const struct mem *m, uint64_t ram_offset, uint64_t size, const char *name, struct err *e)
{
	if (ram_offset % GUEST_PAGE == 0 && range_fits(ram_offset, size, m->used))
		return 0;
	return err_set(e, EINVAL, "%s: [%#llx, +%#llx) is not within the %#llx bytes of RAM", name,
		       (unsigned long long)ram_offset, (unsigned long long)size, (unsigned long long)m->used);
}

int mem_map_ram(struct mem *m, gpa_t at, uint64_t ram_offset, uint64_t size, const char *name,
		struct err *e)
{
	struct mem_region g = { .start = at, .size = size, .kind = REGION_RAM, .ram_offset = ram_offset,
				.name = name };

	return mem_check(m, ram_offset, size, name, e) ? -EINVAL : mem_add(m, &g, e);
}

int mem_map_read_only(struct mem *m, gpa_t at, uint64_t ram_offset, uint64_t size, const char *name, struct err *e)
{
	struct mem_region g = { .start = at, .size = size, .kind = REGION_ROM, .ram_offset = ram_offset,
				.name = name };

	return mem_check(m, ram_offset, size, name, e) ? -EINVAL : mem_add(m, &g, e);
}

/* Bytes left for ROMs and devices. */
static uint64_t rom_room(const struct mem *m)
{
	return m->ram_size + MEM_ROM_SPACE - m->used;
}

int mem_map_file(struct mem *m, gpa_t at, int fd, uint64_t length, uint64_t size, const char *name, struct err *e)
{
	uint64_t first = m->ram_size + MEM_ROM_SPACE;
	struct mem_region g = { .start = at, .size = size, .kind = REGION_ROM, .ram_offset = first + m->files, .name = name };

	if (m->nfiles == MEM_FILES || !length || length > size || size % GUEST_PAGE || size > m->reserved - g.ram_offset)
		return err_set(e, EINVAL, "%s: a file of %llu bytes does not fit", name, (unsigned long long)length);
	if (mmap(m->base + g.ram_offset, length, PROT_READ, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd, 0) == MAP_FAILED)
		return err_errno(e, "%s: cannot be mapped", name);
	m->file[m->nfiles].ram_offset = g.ram_offset;
	m->file[m->nfiles++].length = length;
	m->files += size;
	return mem_add(m, &g, e);
}

int mem_alloc(struct mem *m, uint64_t size, uint64_t *ram_offset, struct err *e)
{
	uint64_t padded = (size + GUEST_PAGE - 1) & -GUEST_PAGE;

	if (!size || size > rom_room(m) || padded > rom_room(m))
		return err_set(e, ENOMEM, "there is no room for %llu KiB of device memory",
			       (unsigned long long)(size >> 10));
	*ram_offset = m->used;
	m->used += padded;
	return 0;
}

int mem_map_rom(struct mem *m, gpa_t at, const void *data, uint64_t size, const char *name,
		struct err *e)
{
	uint64_t padded;
	struct mem_region g = { .start = at, .kind = REGION_ROM, .ram_offset = m->used, .name = name };
	int r;

	if (!size || size > rom_room(m))
		return err_set(e, EINVAL, "%s: a ROM of %llu bytes does not fit", name,
			       (unsigned long long)size);
	padded = (size + GUEST_PAGE - 1) & -GUEST_PAGE;
	g.size = padded;
	memcpy(m->base + m->used, data, size);
	memset(m->base + m->used + size, 0xff, padded - size);
	m->used += padded; /* listeners may look */
	r = mem_add(m, &g, e);
	if (r)
		m->used -= padded;
	return r;
}

int mem_map_io(struct mem *m, gpa_t at, uint64_t size, const struct io_ops *ops, void *opaque,
	       const char *name, struct err *e)
{
	struct mem_region g = { .start = at, .size = size, .kind = REGION_IO, .ops = ops,
				.opaque = opaque, .name = name };

	return mem_add(m, &g, e);
}

int mem_map_alias(struct mem *m, gpa_t at, gpa_t target, uint64_t size, const char *name,
		  struct err *e)
{
	struct mem_region g = { .start = at, .size = size, .kind = REGION_ALIAS, .target = target,
				.name = name };

	if (target % GUEST_PAGE || !range_fits(target, size, MEM_LIMIT))
		return err_set(e, EINVAL, "%s: no alias can lead to [%#llx, +%#llx)", name,
			       (unsigned long long)target, (unsigned long long)size);
	return mem_add(m, &g, e);
}

int mem_unmap(struct mem *m, gpa_t at, const char *name)
{
	struct mem_region old;
	unsigned i;
	int r;

	for (i = m->nregions; i-- > 0;)
		if (m->regions[i].start == at && !strcmp(m->regions[i].name, name))
			break;
	if (i >= m->nregions)
		return -ENOENT;
	old = m->regions[i];
	m->nregions--;
	memmove(&m->regions[i], &m->regions[i + 1], (m->nregions - i) * sizeof(old));
	r = mem_commit(m, NULL);
	if (r) {
		memmove(&m->regions[i + 1], &m->regions[i], (m->nregions - i) * sizeof(old));
		m->regions[i] = old;
		m->nregions++;
	}
	return r;
}

const struct mem_range *mem_ranges(const struct mem *m, unsigned *count)
{
	*count = m->view.count;
	return m->view.range;
}

/* ---- RAM */

uint8_t *mem_ram_base(const struct mem *m)
{
	return m->base;
}

uint64_t mem_ram_size(const struct mem *m)
{
	return m->used;
}

uint64_t mem_ram_limit(const struct mem *m)
{
	return m->reserved;
}

_Atomic uint8_t *mem_page_flags(const struct mem *m)
{
	return m->flags;
}

void mem_set_trace(struct mem *m, struct trace *t)
{
	m->trace = t;
}

/* ---- listeners */

void mem_listen(struct mem *m, struct mem_listener *l)
{
	pthread_rwlock_wrlock(&m->lock); /* devices' threads may be walking the list, see mem_dma_write */
	l->next = m->listeners;
	m->listeners = l;
	pthread_rwlock_unlock(&m->lock);
}

void mem_unlisten(struct mem *m, struct mem_listener *l)
{
	struct mem_listener **at;

	pthread_rwlock_wrlock(&m->lock);
	for (at = &m->listeners; *at && *at != l; at = &(*at)->next)
		;
	if (*at)
		*at = l->next;
	pthread_rwlock_unlock(&m->lock);
}
