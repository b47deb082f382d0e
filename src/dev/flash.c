/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NOR flash with the Intel command set (common flash interface, 8 bits wide, blocks of 4 KiB): what OVMF keeps its variables
 * in. Programming clears bits, erasing a block sets them.
 *
 * The contents are guest memory that shows nowhere by itself (so they are saved with it); every change also goes to the file
 * at once. A host error there is logged, and told to the guest as a failed program or erase operation.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/err.h"
#include "base/log.h"
#include "dev/flash.h"

#define BLOCK 4096u
#define SIZE_MAX_ (8u << 20)

#define STATUS_READY 0x80
#define STATUS_ERASE_FAILED 0x20
#define STATUS_PROGRAM_FAILED 0x10

enum flash_mode {
	MODE_ARRAY,
	MODE_STATUS,
	MODE_ID,
	MODE_PROGRAM, /* the next write is the byte */
	MODE_ERASE,   /* the next write confirms */
	MODE_COUNT,   /* the next write is a number of bytes, less one */
	MODE_BUFFER,  /* bytes, then the confirmation */
	MODE_LOCK,
	MODE_LAST,
};

struct flash_hw {
	uint8_t mode, status;
	uint16_t left; /* bytes of a buffered write */
};

struct flash {
	struct device device;
	struct flash_hw hw;
	struct mem *mem;
	uint64_t size, offset; /* RAM offset of the contents */
	int fd;		       /* -1: forgotten */
	bool all_changed;      /* the file is behind: a machine was loaded */
	pthread_mutex_t lock;
};

static uint8_t *contents(const struct flash *f)
{
	return mem_ram_base(f->mem) + f->offset;
}

static bool store(struct flash *f, uint64_t at, uint64_t len)
{
	if (f->all_changed)
		at = 0, len = f->size;
	mem_written(f->mem, f->offset + at, len);
	while (f->fd >= 0 && len) {
		ssize_t n = pwrite(f->fd, contents(f) + at, len, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			log_guest("flash", "the firmware's variables cannot be written: %s", strerror(errno));
			return false;
		}
		at += (uint64_t)n;
		len -= (uint64_t)n;
	}
	f->all_changed = false;
	return true;
}

static void program(struct flash *f, uint64_t at, uint8_t v)
{
	contents(f)[at] &= v;
	f->hw.status |= STATUS_READY;
	if (!store(f, at, 1))
		f->hw.status |= STATUS_PROGRAM_FAILED;
}

static void erase(struct flash *f, uint64_t at)
{
	at &= ~(uint64_t)(BLOCK - 1);
	memset(contents(f) + at, 0xff, BLOCK);
	f->hw.status |= STATUS_READY;
	if (!store(f, at, BLOCK))
		f->hw.status |= STATUS_ERASE_FAILED;
}

static void command(struct flash *f, uint8_t v)
{
	switch (v) {
	case 0x10:
	case 0x40:
		f->hw.mode = MODE_PROGRAM;
		break;
	case 0x20:
	case 0x28:
		f->hw.mode = MODE_ERASE;
		break;
	case 0x50: /* clears it altogether: that is how firmware tells flash from RAM and ROM */
		f->hw.status = 0;
		f->hw.mode = MODE_ARRAY;
		break;
	case 0x60:
		f->hw.mode = MODE_LOCK;
		break;
	case 0x70:
		f->hw.mode = MODE_STATUS;
		break;
	case 0x90:
	case 0x98:
		f->hw.mode = MODE_ID;
		break;
	case 0xe8:
		f->hw.status |= STATUS_READY;
		f->hw.mode = MODE_COUNT;
		break;
	default:
		f->hw.mode = MODE_ARRAY;
		break;
	}
}

static void write_byte(struct flash *f, uint64_t at, uint8_t v)
{
	switch (f->hw.mode) {
	case MODE_PROGRAM:
		program(f, at, v);
		f->hw.mode = MODE_STATUS;
		break;
	case MODE_ERASE:
		if (v == 0xd0)
			erase(f, at);
		f->hw.mode = v == 0xff ? MODE_ARRAY : MODE_STATUS;
		break;
	case MODE_LOCK: /* blocks are never locked */
		f->hw.status |= STATUS_READY;
		f->hw.mode = v == 0xff ? MODE_ARRAY : MODE_STATUS;
		break;
	case MODE_COUNT:
		f->hw.left = v + 1u;
		f->hw.mode = MODE_BUFFER;
		break;
	case MODE_BUFFER:
		if (f->hw.left) {
			program(f, at, v);
			f->hw.left--;
		} else {
			f->hw.mode = v == 0xff ? MODE_ARRAY : MODE_STATUS;
		}
		break;
	default:
		command(f, v);
		break;
	}
}

static uint64_t flash_read(void *opaque, uint64_t offset, unsigned size)
{
	struct flash *f = opaque;
	uint64_t v = 0;

	pthread_mutex_lock(&f->lock);
	if (f->hw.mode == MODE_ARRAY) {
		memcpy(&v, contents(f) + offset, size);
	} else {
		for (unsigned i = 0; i < size; i++)
			v |= (uint64_t)(f->hw.mode == MODE_ID ? 0x89 : f->hw.status) << 8 * i;
	}
	pthread_mutex_unlock(&f->lock);
	return v;
}

static void flash_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct flash *f = opaque;

	pthread_mutex_lock(&f->lock);
	for (unsigned i = 0; i < size; i++)
		write_byte(f, offset + i, (uint8_t)(value >> 8 * i));
	pthread_mutex_unlock(&f->lock);
}

static const struct io_ops flash_io = { flash_read, flash_write, 1, 8 };

/* ---- the device */

static int flash_check(const void *opaque, struct err *e)
{
	const struct flash_hw *hw = opaque;

	return hw->mode >= MODE_LAST || hw->left > 256 ? err_set(e, EINVAL, "flash: an impossible state") : 0;
}

static const struct state_field fields[] = {
	STATE_INT(struct flash_hw, mode),
	STATE_INT(struct flash_hw, status),
	STATE_INT(struct flash_hw, left),
};

static const struct state_desc flash_state = {
	.name = "flash", .version = 1, .size = sizeof(struct flash_hw),
	.fields = fields, .nfields = ARRAY_LEN(fields), .check = flash_check,
};

static void flash_reset(struct device *d, enum reset_kind kind)
{
	container_of(d, struct flash, device)->hw = (struct flash_hw){ 0 };
}

static void flash_loaded(struct device *d)
{
	container_of(d, struct flash, device)->all_changed = true;
}

static void flash_destroy(struct device *d)
{
	struct flash *f = container_of(d, struct flash, device);

	if (f->fd >= 0) {
		fsync(f->fd);
		close(f->fd);
	}
	pthread_mutex_destroy(&f->lock);
	free(f);
}

static const struct device_ops flash_ops = {
	.state = &flash_state,
	.reset = flash_reset,
	.loaded = flash_loaded,
	.destroy = flash_destroy,
};

/* All of an open file into the flash's memory, which is made for it. */
static int flash_fill(struct flash *f, int fd, const char *path, struct err *e)
{
	struct stat st;
	uint64_t done = 0;
	int r;

	if (fstat(fd, &st))
		return err_errno(e, "%s", path);
	if (!S_ISREG(st.st_mode) || st.st_size <= 0 || st.st_size > SIZE_MAX_ || st.st_size % BLOCK)
		return err_set(e, EINVAL, "%s: holds no variables of a firmware (whole blocks of 4 KiB, 8 MiB at most)", path);
	f->size = (uint64_t)st.st_size;
	r = mem_alloc(f->mem, f->size, &f->offset, e);
	while (!r && done < f->size) {
		ssize_t n = pread(fd, contents(f) + done, f->size - done, (off_t)done);

		if (n <= 0)
			return err_errno(e, "%s: cannot be read", path);
		done += (uint64_t)n;
	}
	return r;
}

/* The file, or its first contents and then the file. */
static int flash_open(struct flash *f, const struct flash_config *c, struct err *e)
{
	int fd = -1, r;

	if (c->path) {
		f->fd = open(c->path, O_RDWR | O_CLOEXEC);
		if (f->fd < 0 && (errno != ENOENT || !c->initial))
			return err_errno(e, "%s: cannot be opened", c->path);
		if (f->fd >= 0 && flock(f->fd, LOCK_EX | LOCK_NB))
			return err_set(e, EBUSY, "%s: is another machine's at the moment", c->path);
		if (f->fd >= 0)
			return flash_fill(f, f->fd, c->path, e);
	}
	fd = open(c->initial, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_errno(e, "%s: cannot be opened", c->initial);
	r = flash_fill(f, fd, c->initial, e);
	close(fd);
	if (r || !c->path)
		return r;
	f->fd = open(c->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (f->fd < 0 || flock(f->fd, LOCK_EX | LOCK_NB) || !store(f, 0, f->size))
		return err_errno(e, "%s: cannot be made", c->path);
	return 0;
}

struct device *flash_create(struct device_env *env, const struct flash_config *config, gpa_t end, struct err *e)
{
	struct flash *f = calloc(1, sizeof(*f));

	if (!f) {
		err_set(e, ENOMEM, "no memory for the flash");
		return NULL;
	}
	f->device = (struct device){ .ops = &flash_ops, .hw = &f->hw };
	f->mem = env->mem;
	f->fd = -1;
	pthread_mutex_init(&f->lock, NULL);
	if (flash_open(f, config, e) || mem_map_io(env->mem, end - f->size, f->size, &flash_io, f, "flash", e)) {
		flash_destroy(&f->device);
		return NULL;
	}
	return &f->device;
}
