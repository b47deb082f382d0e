/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ospite image convert, compare, bench, serve: several requests underway at once. A slot is a buffer with a request; the back-end's
 * threads mark it done, this thread goes on with it.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/clock.h"
#include "backend/nbd.h"
#include "cli/image.h"

#define PART (1u << 20)
#define GRAIN 65536u /* zeroes are left out by these; clusters are compressed by the image's */
#define SLOTS 8u

enum stage { FREE, UNDERWAY, DONE };

struct crew;
struct slot {
	struct crew *crew;
	struct block_request r;
	struct iovec iov;
	uint8_t *buf;
	enum stage stage;
	int result;
	uint64_t at, length;
	bool writing;
};

struct crew {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct slot *slots;
	unsigned n;
};

static int crew_init(struct crew *c, unsigned n, size_t size)
{
	*c = (struct crew){ .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
	c->slots = calloc(n, sizeof(*c->slots));
	for (c->n = 0; c->slots && c->n < n; c->n++) {
		c->slots[c->n].crew = c;
		c->slots[c->n].buf = aligned_alloc(4096, size);
		if (!c->slots[c->n].buf)
			break;
	}
	return c->n == n ? 0 : -ENOMEM;
}

static void crew_dispose(struct crew *c)
{
	for (unsigned i = 0; i < c->n; i++)
		free(c->slots[i].buf);
	free(c->slots);
}

static void slot_done(struct block_request *r, int result)
{
	struct slot *s = r->opaque;

	pthread_mutex_lock(&s->crew->lock);
	s->result = result;
	s->stage = DONE;
	pthread_cond_signal(&s->crew->changed);
	pthread_mutex_unlock(&s->crew->lock);
}

static void slot_submit(struct slot *s, struct block *b, enum block_op op, uint64_t at, void *buf, uint64_t length)
{
	s->iov = (struct iovec){ buf, length };
	s->r = (struct block_request){ .op = op, .offset = at, .length = length, .iov = &s->iov, .iovcnt = 1, .now = true,
				       .unmap = true, .done = slot_done, .opaque = s };
	s->stage = UNDERWAY;
	block_submit(b, &s->r);
}

/* A slot that is free or done; waits. `all`: until none is underway, then NULL. */
static struct slot *crew_next(struct crew *c, bool all)
{
	struct slot *found = NULL;

	pthread_mutex_lock(&c->lock);
	for (;;) {
		bool underway = false;

		for (unsigned i = 0; i < c->n && !found; i++) {
			underway |= c->slots[i].stage == UNDERWAY;
			if (c->slots[i].stage == DONE || (!all && c->slots[i].stage == FREE))
				found = &c->slots[i];
		}
		if (found || (all && !underway))
			break;
		pthread_cond_wait(&c->changed, &c->lock);
	}
	pthread_mutex_unlock(&c->lock);
	return found;
}

static bool is_zero(const uint8_t *p, size_t n)
{
	return !p[0] && !memcmp(p, p + 1, n - 1);
}

/* ---- convert */

struct convert {
	struct block *from, *to;
	struct crew crew;
	uint64_t at, end, done, cluster;
	bool compress, must_zero;
	int error;
	const char *what;
	struct progress bar;
};

/* The next part with something to copy; false at the end. */
static bool convert_find(struct convert *c, uint64_t *at, uint64_t *length)
{
	while (c->at < c->end) {
		struct block_extent x;
		int r = block_map(c->from, c->at, c->end - c->at, &x);

		if (r || !x.length)
			x = (struct block_extent){ .length = MIN(c->end - c->at, PART), .allocated = true };
		if (!x.zero || c->must_zero) {
			/* whole parts, so that pieces of the target are written at once */
			*at = c->at;
			*length = MIN(PART - c->at % PART, c->end - c->at);
			c->at += *length;
			return true;
		}
		x.length = MIN(x.length, c->end - c->at);
		c->done += x.length;
		c->at += x.length;
		/* not into the middle of a part that was begun */
		if (c->at < c->end && c->at % GRAIN) {
			c->done -= c->at % GRAIN;
			c->at -= c->at % GRAIN;
			*at = c->at;
			*length = MIN(PART - c->at % PART, c->end - c->at);
			c->at += *length;
			return true;
		}
	}
	return false;
}

/* From s->at on: the next run of grains that are not zero. False: there is none. */
static bool convert_write(struct convert *c, struct slot *s, uint64_t from)
{
	uint64_t at = from, to;

	if (c->must_zero) {
		if (from >= s->length)
			return false;
		slot_submit(s, c->to, BLOCK_WRITE, s->at, s->buf, s->length);
		return true;
	}
	while (at < s->length && is_zero(s->buf + at, MIN(GRAIN, s->length - at)))
		at += GRAIN;
	if (at >= s->length)
		return false;
	for (to = at; to < s->length && !is_zero(s->buf + to, MIN(GRAIN, s->length - to));)
		to += GRAIN;
	slot_submit(s, c->to, BLOCK_WRITE, s->at + at, s->buf + at, MIN(to, s->length) - at);
	return true;
}

static void convert_compressed(struct convert *c, struct slot *s)
{
	for (uint64_t at = 0; !c->error && at < s->length; at += c->cluster) {
		uint64_t n = MIN(c->cluster, s->length - at);

		if (is_zero(s->buf + at, n))
			continue;
		c->error = image_write_compressed(c->to, s->at + at, s->buf + at, n);
		c->what = "write";
	}
	s->stage = FREE;
	c->done += s->length;
}

static void convert_step(struct convert *c, struct slot *s)
{
	uint64_t from = s->writing ? s->r.offset + s->r.length - s->at : 0;

	if (s->result && !c->error) {
		c->error = s->result;
		c->what = s->writing ? "write" : "read";
	}
	s->stage = FREE;
	if (c->error)
		return;
	if (c->compress) {
		convert_compressed(c, s);
		return;
	}
	s->writing = true;
	if (!convert_write(c, s, from))
		c->done += s->length;
}

static int convert_run(struct convert *c)
{
	struct slot *s;

	while (!c->error && c->at < c->end) {
		s = crew_next(&c->crew, false);
		if (s->stage == DONE) {
			convert_step(c, s);
			progress_show(&c->bar, c->done);
			continue;
		}
		if (!convert_find(c, &s->at, &s->length))
			break;
		s->writing = false;
		slot_submit(s, c->from, BLOCK_READ, s->at, s->buf, s->length);
	}
	while ((s = crew_next(&c->crew, true)))
		convert_step(c, s);
	if (!c->error) {
		c->error = block_sync(c->to, BLOCK_FLUSH, 0, NULL, 0);
		c->what = "flush";
	}
	progress_show(&c->bar, c->done);
	return c->error;
}

static struct block *convert_target(const struct image_args *a, uint64_t size, bool *device)
{
	struct image_create make = { .path = a->file[1], .format = image_format(a->file[1], a->to_format), .size = size,
				     .cluster_size = a->cluster_size, .lazy_refcounts = a->lazy, .zstd = a->zstd,
				     .preallocation = a->preallocation, .replace = a->force };
	struct block_info i;
	struct block *b;
	struct err e = { 0 };
	struct stat st;

	if (!make.format)
		return NULL;
	*device = !strncmp(a->file[1], "nbd:", 4) || (!stat(a->file[1], &st) && S_ISBLK(st.st_mode));
	if ((!*device || strcmp(make.format, "raw")) && image_create(&make, &e)) {
		cli_fail("%s", e.text);
		return NULL;
	}
	b = image_open_file(a, a->file[1], make.format, false, true, "");
	if (!b)
		return NULL;
	block_get_info(b, &i);
	if (i.size >= size)
		return b;
	cli_fail("%s has %llu bytes, the disk has %llu", a->file[1], (unsigned long long)i.size, (unsigned long long)size);
	block_close(b);
	return NULL;
}

int image_convert(const struct image_args *a)
{
	struct convert c = { .compress = a->compress };
	struct image_details d;
	struct block_info i;
	bool device = false;

	c.from = image_open_file(a, a->file[0], a->format, true, false, "");
	if (!c.from)
		return EXIT_OURS;
	block_get_info(c.from, &i);
	c.end = i.size;
	c.to = convert_target(a, c.end, &device);
	if (!c.to) {
		block_close(c.from);
		return EXIT_OURS;
	}
	image_get_details(c.to, &d);
	c.cluster = d.cluster_size;
	block_get_info(c.to, &i);
	c.must_zero = device && !strcmp(i.format, "raw");
	progress_start(&c.bar, "converting", c.end, a->quiet);
	if (!device)
		progress_unfinished(a->file[1]);
	if (c.compress && !d.cluster_size) {
		c.error = -EOPNOTSUPP;
		c.what = "compress";
	} else if (crew_init(&c.crew, SLOTS, MAX(PART, c.cluster))) {
		c.error = -ENOMEM;
		c.what = "copy";
	} else {
		convert_run(&c);
	}
	crew_dispose(&c.crew);
	block_close(c.from);
	block_close(c.to);
	progress_end(&c.bar);
	if (c.error)
		return cli_fail("cannot %s %s: %s", c.what, !strcmp(c.what, "read") ? a->file[0] : a->file[1], strerrordesc_np(-c.error));
	return 0;
}

/* ---- compare */

static bool same_part(struct block *const b[2], const uint64_t size[2], uint64_t at, uint64_t n, uint8_t *const buf[2], int *error)
{
	for (unsigned i = 0; i < 2; i++) {
		uint64_t have = at < size[i] ? MIN(n, size[i] - at) : 0;

		memset(buf[i] + have, 0, n - have);
		*error = have ? block_sync(b[i], BLOCK_READ, at, buf[i], have) : 0;
		if (*error)
			return false;
	}
	return !memcmp(buf[0], buf[1], n);
}

int image_compare(const struct image_args *a)
{
	struct block *b[2] = { image_open_file(a, a->file[0], a->format, true, false, ""), NULL };
	uint8_t *buf[2] = { malloc(PART), malloc(PART) };
	uint64_t size[2] = { 0 }, at = 0, end;
	struct progress bar;
	struct block_info i;
	int error = 0, status = EXIT_OURS;

	if (b[0])
		b[1] = image_open_file(a, a->file[1], a->to_format ? a->to_format : NULL, true, false, "");
	if (!b[0] || !b[1] || !buf[0] || !buf[1])
		goto out;
	for (unsigned k = 0; k < 2; k++) {
		block_get_info(b[k], &i);
		size[k] = i.size;
	}
	end = MAX(size[0], size[1]);
	progress_start(&bar, "comparing", end, a->quiet);
	for (; at < end; at += PART) {
		if (!same_part(b, size, at, MIN(PART, end - at), buf, &error))
			break;
		progress_show(&bar, at);
	}
	progress_end(&bar);
	status = at >= end ? 0 : 1;
	if (error)
		status = cli_fail("cannot read at %llu: %s", (unsigned long long)at, strerrordesc_np(-error));
	else if (a->quiet)
		;
	else if (status)
		printf("they differ in the MiB at %llu\n", (unsigned long long)at);
	else
		puts(size[0] == size[1] ? "the same" : "the same, but one is longer by zeroes");
out:
	block_close(b[0]);
	block_close(b[1]);
	free(buf[0]);
	free(buf[1]);
	return status;
}

/* ---- bench */

int image_bench(const struct image_args *a)
{
	uint64_t block = a->block ? a->block : 4096, count = a->count ? a->count : 50000, started, ns, places, sent = 0;
	struct block *b = image_open_file(a, a->file[0], a->format, !a->write, false, "");
	struct crew crew = { 0 };
	struct block_info i;
	uint64_t seed = 88172645463325252ull;
	int error = 0;

	if (!b)
		return EXIT_OURS;
	block_get_info(b, &i);
	places = i.size / block;
	if (!places || crew_init(&crew, a->depth ? (unsigned)a->depth : 16, (block + 4095) & ~4095ull)) {
		crew_dispose(&crew);
		block_close(b);
		return cli_fail("%s is too small to measure", a->file[0]);
	}
	for (unsigned k = 0; k < crew.n; k++)
		memset(crew.slots[k].buf, 0x5a + (int)k, block);
	started = clock_host_now();
	for (uint64_t finished = 0; finished < count && !error;) {
		struct slot *s = crew_next(&crew, sent == count);

		if (s->stage == DONE) {
			error = s->result;
			finished++;
			s->stage = FREE;
		}
		if (sent == count)
			continue;
		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		slot_submit(s, b, a->write ? BLOCK_WRITE : BLOCK_READ, (a->random ? seed : sent) % places * block, s->buf, block);
		sent++;
	}
	block_drain(b);
	if (!error && a->write)
		error = block_sync(b, BLOCK_FLUSH, 0, NULL, 0);
	ns = clock_host_now() - started;
	crew_dispose(&crew);
	block_close(b);
	if (error)
		return cli_fail("%s: %s", a->file[0], strerrordesc_np(-error));
	printf(a->json ? "{\"requests\": %llu, \"bytes\": %llu, \"seconds\": %.6f, \"iops\": %.0f, \"MBps\": %.1f}\n" :
			 "%llu requests of %llu bytes in %.3f s: %.0f a second, %.1f MB/s\n",
	       (unsigned long long)count, (unsigned long long)block, (double)ns / 1e9, (double)count * 1e9 / (double)ns,
	       (double)(count * block) * 1e3 / (double)ns);
	return 0;
}

/* ---- serve */

int image_serve(const struct image_args *a)
{
	struct nbd_server *server;
	struct err e = { 0 };
	struct block *b;
	sigset_t set;
	int sig;

	if (!a->listen)
		return cli_fail("where do clients connect? --listen unix:PATH or --listen tcp:HOST:PORT");
	/* before any thread: they inherit it */
	ends_set(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	b = image_open_file(a, a->file[0], a->format, a->read_only, false, "");
	if (!b)
		return EXIT_OURS;
	server = nbd_server_create(b, a->listen, a->name ? a->name : "", a->read_only, &e);
	if (!server) {
		block_close(b);
		return cli_fail("%s", e.text);
	}
	printf("serving %s on %s\n", a->file[0], a->listen);
	fflush(stdout);
	sigwait(&set, &sig);
	nbd_server_destroy(server);
	block_close(b);
	return 0;
}
