/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk at an NBD server. One thread sends, one receives, so that a submitter never waits for the network; up to SLOTS
 * requests are underway, the cookie is the slot's number. When the connection breaks, what is underway fails with EIO (which the
 * error policy may hold), and the next request makes a new one; the server must then offer the same size.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "base/mask.h"
#include "backend/nbd.h"

#define SLOTS 64u

struct nbd {
	struct node n;
	struct nbd_address at;
	uint16_t flags;
	pthread_t sender, receiver;
	pthread_mutex_t lock; /* all below */
	pthread_cond_t changed;
	int fd; /* -1: not connected */
	bool sending, stop;
	unsigned sending_slot;
	struct block_request *slot[SLOTS];
	struct block_request *first, **last; /* not sent yet */
	unsigned underway;
};

static int option_send(int fd, const char *name)
{
	uint16_t info[2] = { htobe16(1), htobe16(NBD_INFO_BLOCK) };
	uint32_t len = htobe32((uint32_t)strlen(name));
	struct nbd_option o = { htobe64(NBD_OPTS), htobe32(NBD_OPT_GO), htobe32((uint32_t)(4 + strlen(name) + 4)) };
	struct iovec iov[] = { { &o, sizeof(o) }, { &len, 4 }, { (void *)name, strlen(name) }, { info, 4 } };

	return nbd_write(fd, iov, 4);
}

static int bad_server(struct err *e, const char *what)
{
	return err_set(e, EPROTO, "the NBD server %s", what);
}

/* One reply to the option: 1 when there are more to come. */
static int option_reply(int fd, const char *name, uint64_t *size, uint16_t *flags, bool *known, struct err *e)
{
	struct nbd_option_reply h;
	uint8_t data[256];
	uint32_t type, len;

	if (nbd_read(fd, &h, sizeof(h)))
		return bad_server(e, "hung up");
	type = be32toh(h.type);
	len = be32toh(h.length);
	if (be64toh(h.magic) != NBD_REPLY_OPTS || be32toh(h.option) != NBD_OPT_GO || len > 65536)
		return bad_server(e, "does not keep to the protocol");
	if (nbd_read(fd, data, MIN(len, sizeof(data))) || nbd_skip(fd, len - MIN(len, sizeof(data))))
		return bad_server(e, "hung up");
	if (type == NBD_REP_ACK)
		return *known ? 0 : bad_server(e, "does not say how large the disk is");
	if (type == (NBD_REP_ERR | NBD_ERR_UNKNOWN))
		return err_set(e, ENOENT, "the NBD server has no export '%.100s'", name);
	if (type == (NBD_REP_ERR | NBD_ERR_TLS))
		return bad_server(e, "wants TLS, which is not supported");
	if (type & NBD_REP_ERR)
		return err_set(e, EPROTO, "the NBD server refuses the export '%.100s' (error %u)", name, type & ~NBD_REP_ERR);
	if (type == NBD_REP_INFO && len >= 12 && !data[0] && data[1] == NBD_INFO_EXPORT) {
		memcpy(size, data + 2, 8);
		memcpy(flags, data + 10, 2);
		*size = be64toh(*size);
		*flags = be16toh(*flags);
		*known = true;
	}
	return 1;
}

int nbd_negotiate(int fd, const char *name, uint64_t *size, uint16_t *flags, struct err *e)
{
	struct timeval limit = { .tv_sec = 10 }, none = { 0 };
	struct {
		uint64_t magic, opts;
		uint16_t flags;
	} __attribute__((packed)) hello;
	uint32_t mine = htobe32(NBD_FIXED | NBD_NO_ZEROES);
	struct iovec iov = { &mine, 4 };
	bool known = false;
	int r = 1;

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (nbd_read(fd, &hello, sizeof(hello)))
		return bad_server(e, "hung up");
	if (be64toh(hello.magic) != NBD_MAGIC || be64toh(hello.opts) != NBD_OPTS || !(be16toh(hello.flags) & NBD_FIXED))
		return bad_server(e, "is none, or one before 2011");
	if (!(be16toh(hello.flags) & NBD_NO_ZEROES))
		mine = htobe32(NBD_FIXED);
	if (nbd_write(fd, &iov, 1) || option_send(fd, name))
		return bad_server(e, "hung up");
	for (unsigned i = 0; r == 1 && i < 64; i++)
		r = option_reply(fd, name, size, flags, &known, e);
	if (r == 1)
		return bad_server(e, "does not come to an end");
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof(none));
	if (!r && *size > INT64_MAX)
		return bad_server(e, "offers an impossible size");
	return r;
}

/* ---- sending */

static const uint16_t commands[] = { [BLOCK_READ] = NBD_CMD_READ, [BLOCK_WRITE] = NBD_CMD_WRITE, [BLOCK_FLUSH] = NBD_CMD_FLUSH,
				     [BLOCK_DISCARD] = NBD_CMD_TRIM, [BLOCK_WRITE_ZEROES] = NBD_CMD_ZEROES };

static int request_send(int fd, unsigned slot, const struct block_request *r, bool fua)
{
	struct nbd_request q = { htobe32(NBD_REQUEST), 0, htobe16(commands[r->op]), slot, htobe64(r->offset), htobe32((uint32_t)r->length) };
	struct iovec head = { &q, sizeof(q) };
	uint16_t flags = 0;
	int e;

	if (r->op == BLOCK_FLUSH)
		q.offset = q.length = 0;
	if (r->fua && fua && (r->op == BLOCK_WRITE || r->op == BLOCK_WRITE_ZEROES))
		flags |= NBD_CMD_FUA;
	if (r->op == BLOCK_WRITE_ZEROES && !r->unmap)
		flags |= NBD_CMD_NO_HOLE;
	q.flags = htobe16(flags);
	e = nbd_write(fd, &head, 1);
	return e || r->op != BLOCK_WRITE ? e : nbd_write(fd, r->iov, r->iovcnt);
}

/* Under the lock, which it lets go meanwhile. */
static bool reconnect(struct nbd *d)
{
	uint64_t size = 0;
	uint16_t flags = 0;
	int fd, r = -1;

	pthread_mutex_unlock(&d->lock);
	fd = nbd_connect(&d->at, NULL);
	if (fd >= 0)
		r = nbd_negotiate(fd, d->at.name, &size, &flags, NULL);
	pthread_mutex_lock(&d->lock);
	if (r || size / BLOCK_SECTOR * BLOCK_SECTOR != d->n.size || flags != d->flags || d->stop) {
		if (fd >= 0)
			close(fd);
		return false;
	}
	d->fd = fd;
	pthread_cond_broadcast(&d->changed);
	return true;
}

static void *send_main(void *opaque)
{
	struct nbd *d = opaque;

	pthread_setname_np(pthread_self(), "nbd-send");
	pthread_mutex_lock(&d->lock);
	for (;;) {
		struct block_request *r;
		unsigned slot = 0;
		int fd;

		while (!d->stop && (!d->first || d->underway == SLOTS))
			pthread_cond_wait(&d->changed, &d->lock);
		if (!d->first)
			break;
		r = d->first;
		d->first = r->next;
		if (!d->first)
			d->last = &d->first;
		if (d->fd < 0 && !reconnect(d)) {
			pthread_mutex_unlock(&d->lock);
			r->done(r, -EIO);
			pthread_mutex_lock(&d->lock);
			continue;
		}
		while (d->slot[slot])
			slot++;
		d->slot[slot] = r;
		d->underway++;
		d->sending = true;
		d->sending_slot = slot;
		fd = d->fd;
		pthread_mutex_unlock(&d->lock);
		/* from the first byte on the reply may come, and the request be gone; after an error it is the receiver's */
		if (request_send(fd, slot, r, d->flags & NBD_FUA))
			shutdown(fd, SHUT_RDWR);
		pthread_mutex_lock(&d->lock);
		d->sending = false;
		pthread_cond_broadcast(&d->changed);
	}
	pthread_mutex_unlock(&d->lock);
	return NULL;
}

/* ---- receiving */

/* One reply, completed. Not 0: the connection is no good any more. */
static int receive(struct nbd *d, int fd)
{
	struct nbd_reply h;
	struct block_request *r = NULL;
	int e = nbd_read(fd, &h, sizeof(h)), result;

	if (e)
		return e;
	if (be32toh(h.magic) != NBD_REPLY || h.cookie >= SLOTS)
		return -EPROTO;
	pthread_mutex_lock(&d->lock);
	/*
	 * Its data may still be on their way if the server answers early: then its buffers are in use. Never wait for
	 * another's: a server with one thread may not read that before we have read this reply.
	 */
	r = d->slot[h.cookie];
	while (r && d->sending && d->sending_slot == h.cookie)
		pthread_cond_wait(&d->changed, &d->lock);
	pthread_mutex_unlock(&d->lock);
	if (!r)
		return -EPROTO;
	result = nbd_error_to_host(be32toh(h.error));
	for (unsigned i = 0; !e && !result && r->op == BLOCK_READ && i < r->iovcnt; i++)
		e = nbd_read(fd, r->iov[i].iov_base, r->iov[i].iov_len);
	if (e)
		return e;
	pthread_mutex_lock(&d->lock);
	d->slot[h.cookie] = NULL;
	d->underway--;
	pthread_cond_broadcast(&d->changed);
	pthread_mutex_unlock(&d->lock);
	r->done(r, result);
	return 0;
}

/* The connection is gone: so are all requests sent over it. */
static void disconnect(struct nbd *d)
{
	struct block_request *lost[SLOTS];
	unsigned n = 0;

	shutdown(d->fd, SHUT_RDWR);
	pthread_mutex_lock(&d->lock);
	while (d->sending)
		pthread_cond_wait(&d->changed, &d->lock);
	for (unsigned i = 0; i < SLOTS; i++) {
		if (d->slot[i])
			lost[n++] = d->slot[i];
		d->slot[i] = NULL;
	}
	d->underway = 0;
	close(d->fd);
	d->fd = -1;
	pthread_cond_broadcast(&d->changed);
	pthread_mutex_unlock(&d->lock);
	for (unsigned i = 0; i < n; i++)
		lost[i]->done(lost[i], -EIO);
}

static void *receive_main(void *opaque)
{
	struct nbd *d = opaque;

	pthread_setname_np(pthread_self(), "nbd-receive");
	for (;;) {
		int fd;

		pthread_mutex_lock(&d->lock);
		while (d->fd < 0 && !d->stop)
			pthread_cond_wait(&d->changed, &d->lock);
		fd = d->fd;
		pthread_mutex_unlock(&d->lock);
		if (fd < 0)
			return NULL;
		while (!receive(d, fd))
			;
		disconnect(d);
	}
}

/* ---- the node */

static void enqueue(struct nbd *d, struct block_request *r)
{
	pthread_mutex_lock(&d->lock);
	r->next = NULL;
	*d->last = r;
	d->last = &r->next;
	pthread_cond_broadcast(&d->changed);
	pthread_mutex_unlock(&d->lock);
}

static void nbd_submit(struct node *n, struct block_request *r)
{
	struct nbd *d = container_of(n, struct nbd, n);

	if ((r->op == BLOCK_FLUSH && !(d->flags & NBD_FLUSH)) || (r->op == BLOCK_DISCARD && !(d->flags & NBD_TRIM))) {
		r->done(r, 0);
		return;
	}
	if (r->length > NBD_DATA_MAX || (r->op == BLOCK_WRITE_ZEROES && !(d->flags & NBD_ZEROES)) || (r->fua && !(d->flags & NBD_FUA)))
		node_submit_by_sync(n, r);
	else
		enqueue(d, r);
}

/* What does not go over the wire as it is: in parts, zeroes as data, FUA as a flush after it. */
static int nbd_sync(struct node *n, struct block_request *r)
{
	struct nbd *d = container_of(n, struct nbd, n);
	bool zeroes = r->op == BLOCK_WRITE_ZEROES && !(d->flags & NBD_ZEROES);
	uint64_t most = zeroes ? 1u << 20 : NBD_DATA_MAX;
	struct iovec *iov = NULL, zero = { 0 };
	int e = 0;

	if (r->length <= NBD_DATA_MAX && !zeroes && !(r->fua && !(d->flags & NBD_FUA)))
		return node_sync_by_submit(n, r);
	if (zeroes)
		zero.iov_base = calloc(1, most);
	iov = malloc(MAX(r->iovcnt, 1u) * sizeof(*iov));
	if (!iov || (zeroes && !zero.iov_base))
		e = -ENOMEM;
	for (uint64_t done = 0; !e && done < r->length;) {
		struct block_request part = *r;

		part.offset += done;
		part.length = MIN(most, r->length - done);
		part.fua = false;
		part.iov = iov;
		if (zeroes) {
			part.op = BLOCK_WRITE;
			zero.iov_len = part.length;
			part.iov = &zero;
			part.iovcnt = 1;
		} else if (r->op == BLOCK_READ || r->op == BLOCK_WRITE) {
			part.iovcnt = (unsigned)iov_slice(r->iov, r->iovcnt, done, part.length, iov, r->iovcnt);
		}
		e = node_sync_by_submit(n, &part);
		done += part.length;
	}
	free(iov);
	free(zero.iov_base);
	return e || !r->fua ? e : node_flush(n);
}

static void nbd_close(struct node *n)
{
	struct nbd *d = container_of(n, struct nbd, n);
	struct nbd_request bye = { htobe32(NBD_REQUEST), 0, htobe16(NBD_CMD_DISC), 0, 0, 0 };
	struct iovec iov = { &bye, sizeof(bye) };

	pthread_mutex_lock(&d->lock);
	d->stop = true;
	if (d->fd >= 0) {
		(void)nbd_write(d->fd, &iov, 1);
		shutdown(d->fd, SHUT_RDWR);
	}
	pthread_cond_broadcast(&d->changed);
	pthread_mutex_unlock(&d->lock);
	pthread_join(d->sender, NULL);
	pthread_join(d->receiver, NULL);
	pthread_mutex_destroy(&d->lock);
	pthread_cond_destroy(&d->changed);
	free(n->path);
	free(d);
}

static const struct node_ops nbd_ops = { .name = "nbd", .submit = nbd_submit, .sync = nbd_sync, .close = nbd_close };

static int threads_start(struct nbd *d, struct err *e)
{
	sigset_t all, old;
	int r;

	mask_fill(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&d->sender, NULL, send_main, d);
	if (!r) {
		r = pthread_create(&d->receiver, NULL, receive_main, d);
		if (r) {
			pthread_mutex_lock(&d->lock);
			d->stop = true;
			pthread_cond_broadcast(&d->changed);
			pthread_mutex_unlock(&d->lock);
			pthread_join(d->sender, NULL);
		}
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return r ? err_set(e, r, "cannot create a thread for a disk: %s", strerrordesc_np(r)) : 0;
}

int nbd_open(struct node **out, struct aio *a, const struct blk_spec *s, struct err *e)
{
	struct nbd *d = calloc(1, sizeof(*d));
	uint64_t size = 0;
	int r;

	if (!d)
		return err_set(e, ENOMEM, "no memory for a disk");
	d->fd = -1;
	d->last = &d->first;
	pthread_mutex_init(&d->lock, NULL);
	pthread_cond_init(&d->changed, NULL);
	r = nbd_address_parse(&d->at, s->path, e);
	if (!r)
		r = d->fd = nbd_connect(&d->at, e);
	if (r >= 0)
		r = nbd_negotiate(d->fd, d->at.name, &size, &d->flags, e);
	if (r >= 0 && !s->read_only && d->flags & NBD_READ_ONLY)
		r = err_set(e, EROFS, "the NBD server offers '%s' for reading only (readonly would do)", s->path);
	d->n = (struct node){ .ops = &nbd_ops, .aio = a, .size = size / BLOCK_SECTOR * BLOCK_SECTOR, .read_only = s->read_only, .align = 1,
			      .physical = 4096, .discard_granularity = s->discard && d->flags & NBD_TRIM ? 4096 : 0, .path = strdup(s->path) };
	if (r >= 0 && !d->n.path)
		r = err_set(e, ENOMEM, "no memory for a disk");
	if (r >= 0)
		r = threads_start(d, e);
	if (r < 0) {
		if (d->fd >= 0)
			close(d->fd);
		free(d->n.path);
		free(d);
		return r;
	}
	*out = &d->n;
	return 0;
}
