/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The socket device (virtio 1.2, 5.10): streams between the guest and UNIX sockets of the host. Queues: to the guest, from the
 * guest, events.
 *
 * All work is the event loop's. A kick posts it there; a reset by the driver only sets `drop`, and the loop ends all connections before
 * it does anything else. A queue's lock is held from pop to push, so a paused machine's memory is left alone.
 *
 * Both sides count what they have sent and may send no more than the other has promised to keep (credit). Answers to
 * packets of no connection wait in a list of VSOCK_RESETS; with that full, the guest's packets wait until it takes its own.
 *
 * A restored machine has lost its connections; the driver is told so by an event and ends them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/un.h>
#include <unistd.h>
#include "backend/chr.h"
#include "base/err.h"
#include "virtio/vsock-private.h"

#define QUEUE_SIZE 128
#define TYPE_STREAM 1
#define EVENT_RESET 0u
#define TURN 256u /* packets before the loop looks after others */

enum { Q_IN, Q_OUT, Q_EVENT, QUEUES };

static void vsock_work(void *opaque);

static void post(struct vsock *s)
{
	if (!atomic_exchange(&s->posted, true))
		evloop_post(s->v.env.loop, vsock_work, s);
}

/* ---- to the guest */

static void header_fill(const struct vsock *s, struct vsock_header *h, uint32_t guest_port, uint32_t host_port,
			enum vsock_op op)
{
	*h = (struct vsock_header){ .src_cid = VSOCK_HOST, .dst_cid = s->cid, .src_port = host_port, .dst_port = guest_port,
				    .type = TYPE_STREAM, .op = (uint16_t)op };
}

/* One packet of a connection whose turn it is, into s->in; its bytes, or 0: it had nothing after all. */
static uint32_t conn_talk(struct vconn *c)
{
	struct vsock *s = c->s;
	struct virtqueue *vq = &s->v.queue[Q_IN];
	struct vsock_header h;
	unsigned op = VSOCK_RW;

	if (c->say) {
		op = (unsigned)__builtin_ctz(c->say);
		c->say &= ~(1u << op);
	}
	header_fill(s, &h, c->guest_port, c->host_port, op);
	if (op == VSOCK_RW) {
		size_t room = MIN(MIN(s->in.in_len - VSOCK_HEADER, (uint64_t)vconn_credit(c)), (uint64_t)VSOCK_CHUNK);

		h.len = vconn_has_data(c) && room ? (uint32_t)vconn_read(c, s->data, room) : 0;
		if (!h.len)
			return 0;
		vq_write(vq, &s->in, VSOCK_HEADER, s->data, h.len);
	}
	if (op == VSOCK_SHUTDOWN)
		h.flags = c->say_shut;
	h.buf_alloc = VSOCK_BUFFER;
	h.fwd_cnt = c->forwarded;
	c->forwarded_told = c->forwarded;
	vq_write(vq, &s->in, 0, &h, VSOCK_HEADER);
	if (op == VSOCK_RST)
		vconn_free(c);
	return VSOCK_HEADER + h.len;
}

static uint32_t reset_talk(struct vsock *s)
{
	struct vsock_header h;

	s->nresets--;
	header_fill(s, &h, s->reset[s->nresets].guest_port, s->reset[s->nresets].host_port, VSOCK_RST);
	vq_write(&s->v.queue[Q_IN], &s->in, 0, &h, VSOCK_HEADER);
	return VSOCK_HEADER;
}

/* Fills the chain popped; 0: nothing to say. */
static uint32_t someone_talk(struct vsock *s)
{
	struct vconn *c;
	uint32_t n;

	if (s->nresets)
		return reset_talk(s);
	while ((c = TAILQ_FIRST(&s->turns))) {
		bool last;

		/* to the end of the line; in it only for as long as it has something */
		TAILQ_REMOVE(&s->turns, c, in_turn);
		c->queued = false;
		last = c->say == 1u << VSOCK_RST;
		n = conn_talk(c);
		if (n) {
			if (!last)
				vconn_wake(c);
			return n;
		}
		vconn_wake(c);
	}
	return 0;
}

static void guest_fill(struct vsock *s)
{
	struct virtqueue *vq = &s->v.queue[Q_IN];
	unsigned turn = 0;

	pthread_mutex_lock(&vq->lock);
	vq_notify_off(vq);
	while ((s->nresets || !TAILQ_EMPTY(&s->turns)) && !s->v.paused) {
		uint32_t n;

		if (turn++ == TURN) {
			post(s);
			break;
		}
		if (!vq_pop(vq, &s->in)) {
			if (!vq_notify_on(vq))
				break; /* its kick goes on */
			vq_notify_off(vq);
			continue;
		}
		if (s->in.in_len < VSOCK_HEADER) {
			vq_break(vq, "a buffer for socket packets without room for a header");
			break;
		}
		n = someone_talk(s);
		if (n)
			vq_push(vq, &s->in, n);
		else
			vq_unpop(vq, &s->in);
	}
	vq_publish(vq);
	pthread_mutex_unlock(&vq->lock);
}

/* ---- from the guest */

static void refuse(struct vsock *s, const struct vsock_header *h)
{
	if (h->op == VSOCK_RST || s->nresets == VSOCK_RESETS)
		return;
	s->reset[s->nresets].guest_port = h->src_port;
	s->reset[s->nresets].host_port = h->dst_port;
	s->nresets++;
}

static void conn_heard(struct vsock *s, struct vconn *c, const struct vsock_header *h)
{
	c->peer_alloc = h->buf_alloc;
	c->peer_fwd = h->fwd_cnt;
	if (c->state == VCONN_ENDING) /* its RST is on the way */
		return;
	switch (h->op) {
	case VSOCK_RESPONSE:
		if (c->state == VCONN_REQUESTED)
			vconn_opened(c);
		break;
	case VSOCK_RW:
		if (c->state != VCONN_OPEN || c->guest_shut & VSOCK_NO_SEND || h->len > s->out.out_len - VSOCK_HEADER ||
		    !vconn_deliver(c, VSOCK_HEADER, h->len)) {
			vconn_reset(c);
			return;
		}
		break;
	case VSOCK_SHUTDOWN: vconn_shut(c, h->flags); break;
	case VSOCK_CREDIT_UPDATE: break;
	case VSOCK_CREDIT_REQUEST: vconn_say(c, VSOCK_CREDIT_UPDATE); break;
	default: vconn_reset(c); return;
	}
	vconn_wake(c);
}

void vsock_packet(struct vsock *s)
{
	struct vsock_header h;
	struct vconn *c;

	if (vq_read(&s->out, 0, &h, VSOCK_HEADER) != VSOCK_HEADER || h.src_cid != s->cid)
		return;
	if (h.dst_cid != VSOCK_HOST || h.type != TYPE_STREAM) {
		refuse(s, &h);
		return;
	}
	c = vconn_find(s, h.src_port, h.dst_port);
	if (c && h.op == VSOCK_RST) {
		vconn_free(c);
	} else if (c) {
		conn_heard(s, c, &h);
	} else if (h.op == VSOCK_REQUEST) {
		c = vconn_connect(s, h.src_port, h.dst_port);
		if (!c) {
			refuse(s, &h);
			return;
		}
		c->peer_alloc = h.buf_alloc;
		c->peer_fwd = h.fwd_cnt;
		vconn_say(c, VSOCK_RESPONSE);
	} else {
		refuse(s, &h);
	}
}

static void guest_heard(struct vsock *s)
{
	struct virtqueue *vq = &s->v.queue[Q_OUT];
	unsigned turn = 0;

	pthread_mutex_lock(&vq->lock);
	s->stalled = false;
	do {
		vq_notify_off(vq);
		while (!s->v.paused && !s->stalled && turn < TURN && vq_pop(vq, &s->out)) {
			vsock_packet(s);
			vq_push(vq, &s->out, 0);
			s->stalled = s->nresets == VSOCK_RESETS;
			turn++;
		}
		vq_publish(vq);
	} while (!s->v.paused && !s->stalled && turn < TURN && vq_notify_on(vq));
	if (turn == TURN)
		post(s);
	pthread_mutex_unlock(&vq->lock);
}

/* ---- events */

static void event_tell(struct vsock *s)
{
	struct virtqueue *vq = &s->v.queue[Q_EVENT];
	uint32_t event = EVENT_RESET;

	pthread_mutex_lock(&vq->lock);
	if (s->hw.announce && !s->v.paused && vq_pop(vq, &s->in)) {
		vq_push(vq, &s->in, (uint32_t)vq_write(vq, &s->in, 0, &event, sizeof(event)));
		vq_publish(vq);
		s->hw.announce = false;
	}
	pthread_mutex_unlock(&vq->lock);
}

/* ---- the loop */

static void drop_all(struct vsock *s)
{
	if (atomic_exchange(&s->drop, false)) {
		vconn_free_all(s);
		s->nresets = 0;
	}
}

void vsock_talk(struct vsock *s)
{
	drop_all(s);
	guest_fill(s);
	if (s->stalled && !s->nresets)
		post(s);
}

static void vsock_work(void *opaque)
{
	struct vsock *s = opaque;

	atomic_store(&s->posted, false);
	drop_all(s);
	event_tell(s);
	guest_heard(s);
	vsock_talk(s);
}

static void vsock_kick(struct virtio *v, struct virtqueue *vq)
{
	post(container_of(v, struct vsock, v));
}

/* ---- life */

static void vsock_reset(struct virtio *v)
{
	struct vsock *s = container_of(v, struct vsock, v);
	struct virtqueue *vq = &v->queue[Q_EVENT];

	pthread_mutex_lock(&vq->lock);
	s->hw.announce = false;
	pthread_mutex_unlock(&vq->lock);
	atomic_store(&s->drop, true);
	post(s);
}

/* The loop has stopped. */
static void vsock_destroy(struct virtio *v)
{
	struct vsock *s = container_of(v, struct vsock, v);

	vconn_free_all(s);
	evloop_remove(s->listening);
	if (s->listener >= 0) {
		close(s->listener);
		unlink(s->path);
	}
	virtio_dispose(v);
	free(s->path);
	free(s);
}

static const struct virtio_ops ops = { .doorbells = true, .kick = vsock_kick, .reset = vsock_reset, .destroy = vsock_destroy };

static const struct state_field fields[] = { STATE_INT(struct vsock_hw, announce) };

static const struct state_desc vsock_state = {
	.name = "virtio-vsock", .version = 1, .size = sizeof(struct vsock_hw), .fields = fields, .nfields = ARRAY_LEN(fields),
};

static void own_loaded(struct device *d)
{
	struct vsock *s = container_of(d, struct vsock, own);

	s->hw.announce = true;
}

static void own_destroy(struct device *d)
{
}

static const struct device_ops own_ops = { .state = &vsock_state, .loaded = own_loaded, .destroy = own_destroy };

static int vsock_listen(struct vsock *s, const struct virtio_vsock_config *c, struct err *e)
{
	if (strlen(c->path) + sizeof("_4294967295") > sizeof(((struct sockaddr_un *)0)->sun_path))
		return err_set(e, ENAMETOOLONG, "%.60s...: a path for sockets has at most %zu characters", c->path,
			       sizeof(((struct sockaddr_un *)0)->sun_path) - sizeof("_4294967295"));
	s->path = strdup(c->path);
	if (!s->path)
		return err_set(e, ENOMEM, "no memory for the socket device");
	s->listener = chr_listen(c->path, e);
	if (s->listener < 0)
		return -1;
	s->listening = evloop_add(s->v.env.loop, s->listener, EPOLLIN, vconn_accept, s, e);
	return s->listening ? 0 : -1;
}

struct virtio *virtio_vsock_create(const struct device_env *env, unsigned instance, const struct virtio_vsock_config *c,
				   struct err *e)
{
	struct virtio_setup setup = { .ops = &ops, .name = "virtio-vsock", .id = VIRTIO_VSOCK, .nqueues = QUEUES,
				      .queue_size = QUEUE_SIZE, .config_len = sizeof(uint64_t) };
	struct vsock *s = calloc(1, sizeof(*s));

	if (!s) {
		err_set(e, ENOMEM, "no memory for the socket device");
		return NULL;
	}
	s->listener = -1;
	s->cid = c->cid;
	TAILQ_INIT(&s->turns);
	setup.config = &s->cid;
	virtio_init(&s->v, env, instance, &setup);
	s->own = (struct device){ .ops = &own_ops, .instance = instance, .hw = &s->hw };
	s->v.own = &s->own;
	if (c->cid <= VSOCK_HOST || c->cid == UINT32_MAX) {
		err_set(e, EINVAL, "cid=%u is taken: a guest's is 3 or more", c->cid);
	} else if (!vsock_listen(s, c, e)) {
		return &s->v;
	}
	vsock_destroy(&s->v);
	return NULL;
}
