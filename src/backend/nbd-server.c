/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk offered to NBD clients. Two threads a connection: one reads requests and submits them, the other writes replies, so that
 * a client that does not read its replies only stops itself. What a connection may have underway is bounded in number
 * and bytes; then it is read no further.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/mask.h"
#include "backend/nbd.h"

#define CONNECTIONS 64u
#define REST_MS 100
#define UNDERWAY 64u
#define BYTES (64u << 20)

struct nbd_server {
	struct block *b;
	struct block_info info;
	bool read_only, accepting, stopping;
	char name[256];
	int fd, stop_fd;
	struct nbd_address at;
	pthread_t thread;
	pthread_mutex_t lock; /* the list */
	pthread_cond_t gone;
	struct peer *peers;
	unsigned npeers;
};

struct work {
	struct block_request r;
	struct iovec iov;
	struct peer *peer;
	struct work *next;
	uint64_t cookie;
	uint32_t skip, length; /* of the buffer: what the client asked for */
	int result;
	uint8_t *buf;
};

struct peer {
	struct nbd_server *s;
	struct peer *next;
	int fd;
	bool no_zeroes;
	pthread_t writer;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct work *replies, **last;
	unsigned underway; /* submitted, or waiting to be replied to */
	uint64_t bytes;
	bool end;
};

/* ---- the handshake */

static int option_reply(struct peer *p, uint32_t option, uint32_t type, const void *data, uint32_t length)
{
	struct nbd_option_reply h = { htobe64(NBD_REPLY_OPTS), htobe32(option), htobe32(type), htobe32(length) };
	struct iovec iov[2] = { { &h, sizeof(h) }, { (void *)data, length } };

	return nbd_write(p->fd, iov, 2);
}

static uint16_t export_flags(const struct nbd_server *s)
{
	uint16_t f = NBD_HAS_FLAGS | NBD_FLUSH | NBD_FUA | NBD_TRIM | NBD_ZEROES | NBD_MULTI;

	return s->read_only ? f | NBD_READ_ONLY : f;
}

static int send_info(struct peer *p, uint32_t option)
{
	struct {
		uint16_t type;
		uint64_t size;
		uint16_t flags;
	} __attribute__((packed)) x = { htobe16(NBD_INFO_EXPORT), htobe64(p->s->info.size), htobe16(export_flags(p->s)) };
	struct {
		uint16_t type;
		uint32_t min, good, max;
	} __attribute__((packed)) b = { htobe16(NBD_INFO_BLOCK), htobe32(p->s->info.logical_sector), htobe32(4096), htobe32(NBD_DATA_MAX) };
	int r = option_reply(p, option, NBD_REP_INFO, &x, sizeof(x));

	if (!r)
		r = option_reply(p, option, NBD_REP_INFO, &b, sizeof(b));
	return r ? r : option_reply(p, option, NBD_REP_ACK, NULL, 0);
}

/* INFO and GO: a name, then what else is asked for. 1: on to requests. */
static int option_go(struct peer *p, uint32_t option, const uint8_t *data, uint32_t len)
{
	uint32_t name;
	int r;

	if (len < 6)
		return option_reply(p, option, NBD_REP_ERR | NBD_ERR_INVALID, NULL, 0);
	memcpy(&name, data, 4);
	name = be32toh(name);
	if (name > len - 6)
		return option_reply(p, option, NBD_REP_ERR | NBD_ERR_INVALID, NULL, 0);
	if (name != strlen(p->s->name) || memcmp(data + 4, p->s->name, name))
		return option_reply(p, option, NBD_REP_ERR | NBD_ERR_UNKNOWN, NULL, 0);
	r = send_info(p, option);
	return r || option == NBD_OPT_INFO ? r : 1;
}

static int option_export(struct peer *p, const uint8_t *data, uint32_t len)
{
	struct {
		uint64_t size;
		uint16_t flags;
		uint8_t zeroes[124];
	} __attribute__((packed)) x = { htobe64(p->s->info.size), htobe16(export_flags(p->s)), { 0 } };
	struct iovec iov = { &x, p->no_zeroes ? 10 : sizeof(x) };
	int r;

	if (len != strlen(p->s->name) || memcmp(data, p->s->name, len))
		return -ENOENT; /* the protocol has no other answer here than to hang up */
	r = nbd_write(p->fd, &iov, 1);
	return r ? r : 1;
}

static int option_list(struct peer *p)
{
	uint8_t data[4 + sizeof(p->s->name)];
	uint32_t n = (uint32_t)strlen(p->s->name), be = htobe32(n);
	int r;

	memcpy(data, &be, 4);
	memcpy(data + 4, p->s->name, n);
	r = option_reply(p, NBD_OPT_LIST, NBD_REP_SERVER, data, 4 + n);
	return r ? r : option_reply(p, NBD_OPT_LIST, NBD_REP_ACK, NULL, 0);
}

static int option_one(struct peer *p)
{
	struct nbd_option o;
	uint8_t data[NBD_NAME_MAX + 64];
	uint32_t option, len;
	int r = nbd_read(p->fd, &o, sizeof(o));

	if (r)
		return r;
	option = be32toh(o.option);
	len = be32toh(o.length);
	if (be64toh(o.magic) != NBD_OPTS)
		return -EPROTO;
	if (len > sizeof(data)) {
		if (option == NBD_OPT_EXPORT || len > 1u << 20)
			return -EPROTO;
		r = nbd_skip(p->fd, len);
		return r ? r : option_reply(p, option, NBD_REP_ERR | NBD_ERR_TOO_BIG, NULL, 0);
	}
	r = nbd_read(p->fd, data, len);
	if (r)
		return r;
	switch (option) {
	case NBD_OPT_EXPORT:
		return option_export(p, data, len);
	case NBD_OPT_ABORT:
		(void)option_reply(p, option, NBD_REP_ACK, NULL, 0);
		return -ECONNABORTED;
	case NBD_OPT_LIST:
		return len ? option_reply(p, option, NBD_REP_ERR | NBD_ERR_INVALID, NULL, 0) : option_list(p);
	case NBD_OPT_INFO:
	case NBD_OPT_GO:
		return option_go(p, option, data, len);
	default:
		return option_reply(p, option, NBD_REP_ERR | NBD_ERR_UNSUP, NULL, 0);
	}
}

static int handshake(struct peer *p)
{
	struct {
		uint64_t magic, opts;
		uint16_t flags;
	} __attribute__((packed)) hello = { htobe64(NBD_MAGIC), htobe64(NBD_OPTS), htobe16(NBD_FIXED | NBD_NO_ZEROES) };
	struct timeval limit = { .tv_sec = 30 }, none = { 0 };
	struct iovec iov = { &hello, sizeof(hello) };
	uint32_t flags;
	int r;

	setsockopt(p->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	r = nbd_write(p->fd, &iov, 1);
	if (!r)
		r = nbd_read(p->fd, &flags, 4);
	if (r)
		return r;
	flags = be32toh(flags);
	if (flags & ~(uint32_t)(NBD_FIXED | NBD_NO_ZEROES))
		return -EPROTO;
	p->no_zeroes = flags & NBD_NO_ZEROES;
	for (unsigned i = 0; i < 256; i++) {
		r = option_one(p);
		if (r) {
			setsockopt(p->fd, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof(none));
			return r == 1 ? 0 : r;
		}
	}
	return -EPROTO;
}

/* ---- replies */

static void work_done(struct block_request *r, int result)
{
	struct work *w = r->opaque;
	struct peer *p = w->peer;

	pthread_mutex_lock(&p->lock);
	w->result = result;
	w->next = NULL;
	*p->last = w;
	p->last = &w->next;
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
}

static void *writer_main(void *opaque)
{
	struct peer *p = opaque;
	int r = 0;

	pthread_mutex_lock(&p->lock);
	for (;;) {
		struct work *w;
		struct nbd_reply h;
		struct iovec iov[2];

		while (!p->replies && !(p->end && !p->underway))
			pthread_cond_wait(&p->changed, &p->lock);
		w = p->replies;
		if (!w)
			break;
		p->replies = w->next;
		if (!p->replies)
			p->last = &p->replies;
		pthread_mutex_unlock(&p->lock);
		h = (struct nbd_reply){ htobe32(NBD_REPLY), htobe32(nbd_error_from_host(w->result)), w->cookie };
		iov[0] = (struct iovec){ &h, sizeof(h) };
		iov[1] = (struct iovec){ w->buf ? w->buf + w->skip : NULL, w->r.op == BLOCK_READ && !w->result ? w->length : 0 };
		if (!r)
			r = nbd_write(p->fd, iov, 2);
		if (r)
			shutdown(p->fd, SHUT_RDWR);
		pthread_mutex_lock(&p->lock);
		p->underway--;
		p->bytes -= w->r.length;
		pthread_cond_broadcast(&p->changed);
		free(w->buf);
		free(w);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

/* ---- requests */

static void wait_for_room(struct peer *p, uint64_t bytes)
{
	pthread_mutex_lock(&p->lock);
	while (p->underway && (p->underway >= UNDERWAY || p->bytes + bytes > BYTES))
		pthread_cond_wait(&p->changed, &p->lock);
	p->underway++;
	p->bytes += bytes;
	pthread_mutex_unlock(&p->lock);
}

/* A write that is no whole sectors: with nothing else of this client underway, through a copy of the sectors. */
static int write_unaligned(struct peer *p, struct work *w, uint64_t offset)
{
	uint8_t *data = malloc(w->length);
	int r = data ? 0 : -ENOMEM;

	pthread_mutex_lock(&p->lock);
	while (p->underway > 1)
		pthread_cond_wait(&p->changed, &p->lock);
	pthread_mutex_unlock(&p->lock);
	if (!r) {
		memcpy(data, w->buf + w->skip, w->length);
		r = block_sync(p->s->b, BLOCK_READ, w->r.offset, w->buf, w->r.length);
	}
	if (!r) {
		memcpy(w->buf + w->skip, data, w->length);
		r = block_sync(p->s->b, BLOCK_WRITE, w->r.offset, w->buf, w->r.length);
	}
	if (!r && w->r.fua)
		r = block_sync(p->s->b, BLOCK_FLUSH, 0, NULL, 0);
	free(data);
	return r;
}

static int request_start(struct peer *p, struct work *w, const struct nbd_request *q, enum block_op op)
{
	uint64_t offset = be64toh(q->offset), length = be32toh(q->length), sector = p->s->info.logical_sector;
	uint16_t flags = be16toh(q->flags);
	bool data = op == BLOCK_READ || op == BLOCK_WRITE, bad;
	int r = 0;

	*w = (struct work){ .peer = p, .cookie = q->cookie, .length = (uint32_t)length };
	bad = op != BLOCK_FLUSH && !range_fits(offset, length, p->s->info.size);
	w->r = (struct block_request){ .op = op, .done = work_done, .opaque = w, .fua = flags & NBD_CMD_FUA,
				       .unmap = !(flags & NBD_CMD_NO_HOLE), .now = true };
	if (op != BLOCK_FLUSH && !bad) {
		w->r.offset = offset & ~(sector - 1);
		w->r.length = ((offset + length + sector - 1) & ~(sector - 1)) - w->r.offset;
		w->skip = (uint32_t)(offset - w->r.offset);
	}
	if (data && length > NBD_DATA_MAX)
		return -EPROTO; /* more than was offered: what follows cannot be trusted */
	wait_for_room(p, w->r.length);
	if (data) {
		w->buf = aligned_alloc(4096, (MAX(w->r.length, length) + 4095) & ~4095ull);
		w->iov = (struct iovec){ w->buf, w->r.length };
		w->r.iov = &w->iov;
		w->r.iovcnt = 1;
		if (op == BLOCK_WRITE)
			r = w->buf ? nbd_read(p->fd, w->buf + w->skip, length) : nbd_skip(p->fd, length);
	}
	if (r || bad || (data && length && !w->buf) || (p->s->read_only && op != BLOCK_READ && op != BLOCK_FLUSH)) {
		work_done(&w->r, r ? r : bad ? (op == BLOCK_WRITE ? -ENOSPC : -EINVAL) : p->s->read_only ? -EPERM : -ENOMEM);
		return r;
	}
	if (w->r.length == length || op == BLOCK_READ || op == BLOCK_FLUSH)
		block_submit(p->s->b, &w->r);
	else if (op == BLOCK_WRITE)
		work_done(&w->r, write_unaligned(p, w, offset));
	else
		work_done(&w->r, op == BLOCK_DISCARD ? 0 : -EINVAL);
	return 0;
}

static int requests(struct peer *p)
{
	static const enum block_op ops[] = { [NBD_CMD_READ] = BLOCK_READ, [NBD_CMD_WRITE] = BLOCK_WRITE, [NBD_CMD_FLUSH] = BLOCK_FLUSH,
					     [NBD_CMD_TRIM] = BLOCK_DISCARD, [NBD_CMD_ZEROES] = BLOCK_WRITE_ZEROES };

	for (;;) {
		struct nbd_request q;
		struct work *w;
		unsigned type;
		int r = nbd_read(p->fd, &q, sizeof(q));

		if (r)
			return r;
		type = be16toh(q.type);
		if (be32toh(q.magic) != NBD_REQUEST || type == NBD_CMD_DISC)
			return -EPIPE;
		w = malloc(sizeof(*w));
		if (!w)
			return -ENOMEM;
		if (type > NBD_CMD_ZEROES || type == NBD_CMD_CACHE) {
			*w = (struct work){ .peer = p, .cookie = q.cookie, .r = { .op = BLOCK_FLUSH, .opaque = w } };
			wait_for_room(p, 0);
			work_done(&w->r, -EINVAL);
			continue;
		}
		r = request_start(p, w, &q, ops[type]);
		if (r == -EPROTO)
			free(w);
		if (r)
			return r;
	}
}

void nbd_serve(struct nbd_server *s, int fd)
{
	struct peer p = { .s = s, .fd = fd, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

	p.last = &p.replies;
	pthread_mutex_lock(&s->lock);
	p.next = s->peers;
	s->peers = &p;
	if (s->stopping)
		shutdown(fd, SHUT_RDWR);
	pthread_mutex_unlock(&s->lock);
	if (!handshake(&p) && !pthread_create(&p.writer, NULL, writer_main, &p)) {
		(void)requests(&p);
		pthread_mutex_lock(&p.lock);
		p.end = true;
		pthread_cond_broadcast(&p.changed);
		pthread_mutex_unlock(&p.lock);
		pthread_join(p.writer, NULL);
	}
	pthread_mutex_lock(&s->lock);
	for (struct peer **at = &s->peers; *at; at = &(*at)->next) {
		if (*at == &p) {
			*at = p.next;
			break;
		}
	}
	pthread_mutex_unlock(&s->lock);
	close(fd);
}

/* ---- listening */

struct arrival {
	struct nbd_server *s;
	int fd;
};

static void *peer_main(void *opaque)
{
	struct arrival a = *(struct arrival *)opaque;

	free(opaque);
	pthread_setname_np(pthread_self(), "nbd-peer");
	nbd_serve(a.s, a.fd);
	pthread_mutex_lock(&a.s->lock);
	a.s->npeers--;
	pthread_cond_broadcast(&a.s->gone);
	pthread_mutex_unlock(&a.s->lock);
	return NULL;
}

/* False: one that waits stays there for want of descriptors or memory. */
static bool accept_one(struct nbd_server *s)
{
	int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC);
	struct arrival *a = fd >= 0 ? malloc(sizeof(*a)) : NULL;
	pthread_t thread;

	if (fd < 0)
		return errno != EMFILE && errno != ENFILE && errno != ENOMEM && errno != ENOBUFS;
	pthread_mutex_lock(&s->lock);
	if (a && s->npeers < CONNECTIONS) {
		*a = (struct arrival){ s, fd };
		if (!pthread_create(&thread, NULL, peer_main, a)) {
			pthread_detach(thread);
			s->npeers++;
			a = NULL;
			fd = -1;
		}
	}
	pthread_mutex_unlock(&s->lock);
	free(a);
	if (fd >= 0)
		close(fd);
	return true;
}

static void *accept_main(void *opaque)
{
	struct nbd_server *s = opaque;
	struct pollfd p[2] = { { .fd = s->fd, .events = POLLIN }, { .fd = s->stop_fd, .events = POLLIN } };

	pthread_setname_np(pthread_self(), "nbd-accept");
	while (poll(p, 2, -1) >= 0 || errno == EINTR) {
		if (p[1].revents)
			break;
		if (p[0].revents && !accept_one(s))
			poll(&p[1], 1, REST_MS); /* it would be reported again at once */
	}
	return NULL;
}

struct nbd_server *nbd_server_create_quiet(struct block *b, const char *name, bool read_only)
{
	struct nbd_server *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->b = b;
	block_get_info(b, &s->info);
	s->read_only = read_only || s->info.read_only;
	strncpy(s->name, name, sizeof(s->name) - 1);
	s->fd = s->stop_fd = -1;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->gone, NULL);
	return s;
}

struct nbd_server *nbd_server_create(struct block *b, const char *listen, const char *name, bool read_only, struct err *e)
{
	struct nbd_server *s = nbd_server_create_quiet(b, name, read_only);
	sigset_t all, old;
	int r;

	if (!s) {
		err_set(e, ENOMEM, "no memory for a server");
		return NULL;
	}
	r = nbd_address_parse(&s->at, listen, e);
	if (!r)
		r = s->fd = nbd_listen(&s->at, e);
	if (r >= 0) {
		s->stop_fd = eventfd(0, EFD_CLOEXEC);
		mask_fill(&all);
		pthread_sigmask(SIG_SETMASK, &all, &old);
		r = s->stop_fd < 0 ? errno : pthread_create(&s->thread, NULL, accept_main, s);
		pthread_sigmask(SIG_SETMASK, &old, NULL);
		s->accepting = !r;
		if (r)
			r = err_set(e, r, "cannot start a server: %s", strerrordesc_np(r));
	}
	if (r >= 0)
		return s;
	nbd_server_destroy(s);
	return NULL;
}

void nbd_server_destroy(struct nbd_server *s)
{
	uint64_t one = 1;

	if (s->accepting) {
		if (write(s->stop_fd, &one, 8) != 8)
			CHECK(!"an eventfd takes 8 bytes");
		pthread_join(s->thread, NULL);
	}
	pthread_mutex_lock(&s->lock);
	s->stopping = true;
	while (s->npeers) {
		for (struct peer *p = s->peers; p; p = p->next)
			shutdown(p->fd, SHUT_RDWR);
		pthread_cond_wait(&s->gone, &s->lock);
	}
	pthread_mutex_unlock(&s->lock);
	if (s->fd >= 0) {
		close(s->fd);
		if (!s->at.tcp)
			unlink(s->at.path);
	}
	if (s->stop_fd >= 0)
		close(s->stop_fd);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->gone);
	free(s);
}
