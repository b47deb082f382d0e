/* SPDX-License-Identifier: Apache-2.0 */
/* Random requests, several at once, on a disk of SIZE bytes, against a model in memory. For tests of block back-ends. */
#ifndef TESTS_EXERCISE_H
#define TESTS_EXERCISE_H

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "backend/blk.h"
#include "base/clock.h"

#define SIZE (4u << 20)
#define QUEUE 16u

struct dir {
	char dir[64], path[96];
};

/* `memory`: where fsync is free, if there is such a place. */
__attribute__((unused)) static void dir_make_in(struct dir *d, bool memory)
{
	strcpy(d->dir, memory && !access("/dev/shm", W_OK) ? "/dev/shm/test-block-XXXXXX" : "/tmp/test-block-XXXXXX");
	assert_non_null(mkdtemp(d->dir));
	snprintf(d->path, sizeof(d->path), "%s/disk", d->dir);
}

__attribute__((unused)) static void dir_make(struct dir *d)
{
	dir_make_in(d, false);
}

__attribute__((unused)) static void dir_remove(struct dir *d)
{
	unlink(d->path);
	rmdir(d->dir);
}

__attribute__((unused)) static void file_make(const char *path, off_t size)
{
	int fd = open(path, O_CREAT | O_TRUNC | O_RDWR, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, size), 0);
	close(fd);
}

__attribute__((unused)) static struct block *open_spec(const char *fmt, const char *path)
{
	struct err e = { 0 };
	struct block *b;
	char spec[256];

	snprintf(spec, sizeof(spec), fmt, path);
	if (block_open(&b, &(struct block_config){ .spec = spec }, &e))
		fail_msg("%s: %s", spec, e.text);
	return b;
}

/* ---- many requests at once, none overlapping another that is underway */

struct slot {
	struct block_request r;
	struct iovec iov[3];
	uint8_t *buf;
	_Atomic int state; /* 0 free, 1 underway, 2 done */
	int result;
	int held;
};

static void slot_done(struct block_request *r, int result)
{
	struct slot *s = r->opaque;

	s->result = result;
	atomic_store(&s->state, 2);
}

static bool overlaps(const struct slot *slots, uint64_t at, uint64_t len)
{
	for (unsigned i = 0; i < QUEUE; i++)
		if (slots[i].state && at < slots[i].r.offset + slots[i].r.length && slots[i].r.offset < at + len)
			return true;
	return false;
}

static void slot_finish(struct slot *s, const uint8_t *model)
{
	while (s->state == 1)
		sched_yield();
	if (s->state != 2)
		return;
	assert_int_equal(s->result, 0);
	if (s->r.op == BLOCK_READ)
		assert_memory_equal(s->buf, model + s->r.offset, s->r.length);
	s->state = 0;
}

static void slot_start(struct block *b, struct slot *s, uint8_t *model, unsigned *seed, uint64_t grain)
{
	uint64_t third = s->r.length / 512 / 3 * 512 + (rand_r(seed) % 3 ? 0 : 100);

	s->r.fua = rand_r(seed) % 8 == 0;
	s->r.now = rand_r(seed) % 2;
	s->r.unmap = rand_r(seed) % 2;
	s->r.iov = s->iov;
	s->r.iovcnt = s->r.length >= 2048 ? 3 : 1;
	s->r.done = slot_done;
	s->r.opaque = s;
	s->iov[0] = (struct iovec){ s->buf, s->r.iovcnt == 1 ? s->r.length : third };
	s->iov[1] = (struct iovec){ s->buf + third, third };
	s->iov[2] = (struct iovec){ s->buf + 2 * third, s->r.length - 2 * third };
	if (s->r.op == BLOCK_WRITE) {
		for (unsigned i = 0; i < s->r.length; i++)
			s->buf[i] = (uint8_t)((i >> 9) + (unsigned)rand_r(seed));
		memcpy(model + s->r.offset, s->buf, s->r.length);
	} else if (s->r.op == BLOCK_READ) {
		memset(s->buf, 0xee, s->r.length);
	} else if (s->r.op == BLOCK_WRITE_ZEROES || (s->r.op == BLOCK_DISCARD && grain)) {
		memset(model + s->r.offset, 0, s->r.length);
	}
	s->state = 1;
	block_submit(b, &s->r);
}

/* `given` NULL: whatever is there; else SIZE bytes, kept up to date. `grain`: of discards, which zero; 0: they do nothing. */
__attribute__((unused)) static void exercise_model(struct block *b, unsigned rounds, unsigned seed, uint8_t *given, uint64_t grain)
{
	struct slot *slots = calloc(QUEUE, sizeof(*slots));
	uint8_t *model = given ? given : malloc(SIZE), *back = malloc(SIZE);

	for (unsigned i = 0; i < QUEUE; i++)
		slots[i].buf = aligned_alloc(4096, 65536);
	if (!given)
		assert_int_equal(block_sync(b, BLOCK_READ, 0, model, SIZE), 0);
	for (unsigned i = 0; i < rounds; i++) {
		struct slot *s = &slots[rand_r(&seed) % QUEUE];
		uint64_t len = (1 + (unsigned)rand_r(&seed) % 100) * 512;
		uint64_t at = (unsigned)rand_r(&seed) % (SIZE / 512) * 512;
		unsigned what = (unsigned)rand_r(&seed) % 20;

		slot_finish(s, model);
		if (at + len > SIZE || overlaps(slots, at, len))
			continue;
		s->r = (struct block_request){ .offset = at, .length = len };
		s->r.op = what < 8 ? BLOCK_WRITE : what < 16 ? BLOCK_READ : what == 16 ? BLOCK_WRITE_ZEROES :
			  what == 17				    ? BLOCK_DISCARD :
								      BLOCK_FLUSH;
		if (s->r.op == BLOCK_DISCARD && grain) {
			/* only whole pieces are discarded */
			s->r.offset -= at % grain;
			s->r.length = (len / grain + 1) * grain;
			if (s->r.offset + s->r.length > SIZE || overlaps(slots, s->r.offset, s->r.length))
				continue;
		}
		slot_start(b, s, model, &seed, grain);
	}
	for (unsigned i = 0; i < QUEUE; i++) {
		slot_finish(&slots[i], model);
		free(slots[i].buf);
	}
	block_drain(b);
	assert_int_equal(block_sync(b, BLOCK_READ, 0, back, SIZE), 0);
	assert_memory_equal(back, model, SIZE);
	free(slots);
	if (!given)
		free(model);
	free(back);
}

#endif
