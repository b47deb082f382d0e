/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Firmware configuration device: port 0x510 selects an item, 0x511 reads it byte by byte, and a structure in memory whose
 * address is written to 0x514 asks for a whole transfer at once (all big-endian). Files have keys from 0x20 on, listed
 * in item 0x19. Reading past an item's end gives zeroes; writing is refused.
 *
 * A transfer is done before the write that starts it returns. Its length is the guest's: it is cut to pieces of 4 KiB,
 * and ends at the first that is not RAM, so that the time it takes is bounded by the guest's own memory.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "dev/fw-cfg.h"

#define KEY_SIGNATURE 0x00
#define KEY_ID 0x01
#define KEY_FILES 0x19
#define KEY_FIRST_FILE 0x20
#define KEY_MASK 0xbfff /* all but the write channel */
#define ID_DMA 2u
#define ID_TRADITIONAL 1u
#define ITEMS 96
#define NAME_SIZE 56
#define DIRECTORY_ENTRY 64u

#define DMA_ERROR 1u
#define DMA_READ 2u
#define DMA_SKIP 4u
#define DMA_SELECT 8u
#define DMA_WRITE 16u

struct item {
	uint16_t key;
	char name[NAME_SIZE]; /* empty: no file */
	uint8_t *data;
	uint32_t size;
};

struct fw_hw {
	uint16_t key;
	uint32_t offset;
	uint32_t dma_high;
};

struct fw_cfg {
	struct device device;
	struct fw_hw hw;
	struct mem *mem;
	pthread_mutex_t lock;
	struct item item[ITEMS];
	unsigned nitems, nfiles;
	void (*refresh)(void *opaque, const char *name, uint8_t *data, uint32_t size);
	void *refresh_opaque;
};

static void put32be(uint8_t *p, uint32_t v)
{
	v = __builtin_bswap32(v);
	memcpy(p, &v, 4);
}

static uint32_t get32be(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return __builtin_bswap32(v);
}

static struct item *item_find(struct fw_cfg *f, uint16_t key)
{
	for (unsigned i = 0; i < f->nitems; i++)
		if (f->item[i].key == key)
			return &f->item[i];
	return NULL;
}

static void item_select(struct fw_cfg *f, uint16_t key)
{
	struct item *it;

	f->hw.key = key & KEY_MASK;
	f->hw.offset = 0;
	it = item_find(f, f->hw.key);
	if (it && it->name[0] && f->refresh)
		f->refresh(f->refresh_opaque, it->name, it->data, it->size);
}

/* The next `len` bytes of the selected item; zeroes behind its end. */
static void item_read(struct fw_cfg *f, uint8_t *out, uint32_t len)
{
	const struct item *it = item_find(f, f->hw.key);
	uint32_t n = it && f->hw.offset < it->size ? MIN(len, it->size - f->hw.offset) : 0;

	if (n)
		memcpy(out, it->data + f->hw.offset, n);
	memset(out + n, 0, len - n);
	f->hw.offset += n;
}

/* ---- DMA */

static uint32_t dma_read(struct fw_cfg *f, gpa_t to, uint32_t len)
{
	uint8_t piece[4096];

	while (len) {
		uint32_t n = MIN(len, (uint32_t)sizeof(piece));

		item_read(f, piece, n);
		if (mem_dma_write(f->mem, to, piece, n))
			return DMA_ERROR;
		to += n;
		len -= n;
	}
	return 0;
}

static void dma_run(struct fw_cfg *f, gpa_t at)
{
	uint8_t request[16], answer[4];
	uint32_t control, len, result = 0;
	gpa_t to;

	if (mem_dma_read(f->mem, at, request, sizeof(request)))
		return;
	control = get32be(request);
	len = get32be(request + 4);
	to = (gpa_t)get32be(request + 8) << 32 | get32be(request + 12);
	if (control & DMA_SELECT)
		item_select(f, (uint16_t)(control >> 16));
	if (control & DMA_READ) {
		result = dma_read(f, to, len);
	} else if (control & DMA_WRITE) {
		result = DMA_ERROR;
	} else if (control & DMA_SKIP) {
		f->hw.offset = len > UINT32_MAX - f->hw.offset ? UINT32_MAX : f->hw.offset + len;
	}
	put32be(answer, result);
	mem_dma_write(f->mem, at, answer, sizeof(answer));
}

/* ---- ports */

static uint64_t select_read(void *opaque, uint64_t offset, unsigned size)
{
	struct fw_cfg *f = opaque;
	uint64_t v = 0;

	if (offset != 1)
		return 0;
	pthread_mutex_lock(&f->lock);
	item_read(f, (uint8_t *)&v, 1);
	pthread_mutex_unlock(&f->lock);
	return v;
}

static void select_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct fw_cfg *f = opaque;

	if (offset != 0)
		return;
	pthread_mutex_lock(&f->lock);
	item_select(f, (uint16_t)value);
	pthread_mutex_unlock(&f->lock);
}

static uint64_t dma_port_read(void *opaque, uint64_t offset, unsigned size)
{
	static const char signature[8] = "QEMU CFG";
	uint64_t v = 0;

	memcpy(&v, signature + offset, MIN(size, 8 - offset));
	return v;
}

static void dma_port_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct fw_cfg *f = opaque;
	uint32_t v = __builtin_bswap32((uint32_t)value);

	if (size != 4)
		return;
	pthread_mutex_lock(&f->lock);
	if (offset == 0) {
		f->hw.dma_high = v;
	} else if (offset == 4) {
		gpa_t at = (gpa_t)f->hw.dma_high << 32 | v;

		f->hw.dma_high = 0;
		dma_run(f, at);
	}
	pthread_mutex_unlock(&f->lock);
}

static const struct io_ops select_io = { select_read, select_write, 1, 2 };
static const struct io_ops dma_io = { dma_port_read, dma_port_write, 1, 4 };

/* ---- contents */

/* Name and place of every file, anew. */
static int directory_build(struct fw_cfg *f, struct err *e)
{
	struct item *dir = item_find(f, KEY_FILES);
	uint32_t size = 4 + f->nfiles * DIRECTORY_ENTRY, n = 0;
	uint8_t *data = calloc(1, size);

	if (!data)
		return err_set(e, ENOMEM, "no memory for the firmware's configuration");
	put32be(data, f->nfiles);
	for (unsigned i = 0; i < f->nitems; i++) {
		const struct item *it = &f->item[i];
		uint8_t *entry = data + 4 + n * DIRECTORY_ENTRY;

		if (!it->name[0])
			continue;
		put32be(entry, it->size);
		entry[4] = (uint8_t)(it->key >> 8);
		entry[5] = (uint8_t)it->key;
		memcpy(entry + 8, it->name, NAME_SIZE);
		n++;
	}
	free(dir->data);
	dir->data = data;
	dir->size = size;
	return 0;
}

int fw_cfg_add(struct device *d, uint16_t key, const void *data, uint32_t size, struct err *e)
{
	struct fw_cfg *f = container_of(d, struct fw_cfg, device);
	struct item *it = &f->item[f->nitems];

	if (f->nitems == ITEMS)
		return err_set(e, ENOSPC, "too much configuration for the firmware");
	it->data = malloc(size ? size : 1);
	if (!it->data)
		return err_set(e, ENOMEM, "no memory for the firmware's configuration");
	memcpy(it->data, data, size);
	it->size = size;
	it->key = key;
	f->nitems++;
	return 0;
}

int fw_cfg_add_file(struct device *d, const char *name, const void *data, uint32_t size, struct err *e)
{
	struct fw_cfg *f = container_of(d, struct fw_cfg, device);
	int r = fw_cfg_add(d, (uint16_t)(KEY_FIRST_FILE + f->nfiles), data, size, e);

	CHECK(strlen(name) < NAME_SIZE);
	if (r)
		return r;
	memcpy(f->item[f->nitems - 1].name, name, strlen(name));
	f->nfiles++;
	return directory_build(f, e);
}

void fw_cfg_set_refresh(struct device *d, void (*refresh)(void *opaque, const char *name, uint8_t *data, uint32_t size),
			void *opaque)
{
	struct fw_cfg *f = container_of(d, struct fw_cfg, device);

	f->refresh = refresh;
	f->refresh_opaque = opaque;
}

/* ---- the device */

static int fw_check(const void *opaque, struct err *e)
{
	return ((const struct fw_hw *)opaque)->key & ~KEY_MASK ? err_set(e, EINVAL, "fw-cfg: no such key") : 0;
}

static const struct state_field fields[] = {
	STATE_INT(struct fw_hw, key),
	STATE_INT(struct fw_hw, offset),
	STATE_INT(struct fw_hw, dma_high),
};

static const struct state_desc fw_state = {
	.name = "fw-cfg", .version = 1, .size = sizeof(struct fw_hw),
	.fields = fields, .nfields = ARRAY_LEN(fields), .check = fw_check,
};

static void fw_reset(struct device *d, enum reset_kind kind)
{
	struct fw_cfg *f = container_of(d, struct fw_cfg, device);

	pthread_mutex_lock(&f->lock);
	f->hw = (struct fw_hw){ 0 };
	pthread_mutex_unlock(&f->lock);
}

static void fw_destroy(struct device *d)
{
	struct fw_cfg *f = container_of(d, struct fw_cfg, device);

	for (unsigned i = 0; i < f->nitems; i++)
		free(f->item[i].data);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

static const struct device_ops fw_ops = { .state = &fw_state, .reset = fw_reset, .destroy = fw_destroy };

struct device *fw_cfg_create(struct device_env *env, struct err *e)
{
	const uint32_t id = ID_TRADITIONAL | ID_DMA, none = 0;
	struct fw_cfg *f = calloc(1, sizeof(*f));

	if (!f) {
		err_set(e, ENOMEM, "no memory for the firmware's configuration");
		return NULL;
	}
	f->device = (struct device){ .ops = &fw_ops, .hw = &f->hw };
	f->mem = env->mem;
	pthread_mutex_init(&f->lock, NULL);
	if (fw_cfg_add(&f->device, KEY_SIGNATURE, "QEMU", 4, e) || fw_cfg_add(&f->device, KEY_ID, &id, 4, e) ||
	    fw_cfg_add(&f->device, KEY_FILES, &none, 4, e) ||
	    ports_map(env->ports, 0x510, 2, &select_io, f, "fw-cfg", e) ||
	    ports_map(env->ports, 0x514, 8, &dma_io, f, "fw-cfg-dma", e)) {
		fw_destroy(&f->device);
		return NULL;
	}
	return &f->device;
}
