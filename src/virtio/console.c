/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Console and ports (virtio 1.2, 5.3), each on a character back-end. Queues: 0, 1 are port 0's (to the guest, from the
 * guest), 2, 3 the control messages', then two for each further port.
 *
 * Locking: a direction's state is under its queue's lock; control state (ready, open, what is to be said) under queue 2's. Input the
 * guest has no buffers for waits in `typed`, after that in the back-end. Output the back-end does not take stays in
 * the ring: its chain is kept (`kept`) until the back-end has drained.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "backend/chr.h"
#include "base/err.h"
#include "virtio/devices.h"

#define F_MULTIPORT BIT(1)
#define F_EMERGENCY BIT(2)
#define QUEUE_SIZE 64
#define CONTROL_IN 2
#define TYPED 4096u
#define CHUNK 4096u
#define EMERGENCY_AT 8u

enum { DEVICE_READY, DEVICE_ADD, DEVICE_REMOVE, PORT_READY, CONSOLE_PORT, RESIZE, PORT_OPEN, PORT_NAME };

struct config {
	uint16_t columns, rows;
	uint32_t max_ports, emergency;
};

struct control {
	uint32_t id;
	uint16_t event, value;
};

struct port {
	struct console *c;
	unsigned n;
	struct chr *chr;
	bool console;
	char name[64];
	/* under the queues' locks */
	uint8_t typed[TYPED];
	unsigned ntyped;
	struct vq_chain in, kept;
	bool keeping;
};

struct console_hw {
	uint32_t say[VIRTIO_PORTS]; /* control events still to be told, a bit each */
	uint64_t out_done[VIRTIO_PORTS]; /* bytes of the chain at the head that are out already */
	bool open[VIRTIO_PORTS];
};

struct console {
	struct virtio v;
	struct device own;
	struct console_hw hw;
	struct config config;
	struct port port[VIRTIO_PORTS];
	unsigned nports;
	struct vq_chain control;
};

static struct virtqueue *queue_in(struct console *c, unsigned port)
{
	return &c->v.queue[port ? 2 + 2 * port : 0];
}

static struct virtqueue *queue_out(struct console *c, unsigned port)
{
	return &c->v.queue[port ? 3 + 2 * port : 1];
}

/* ---- to the guest */

/* The queue's lock is held. */
static void port_input(struct port *p)
{
	struct virtqueue *vq = queue_in(p->c, p->n);

	while (p->ntyped && !p->c->v.paused && vq_pop(vq, &p->in)) {
		size_t n = vq_write(vq, &p->in, 0, p->typed, p->ntyped);

		vq_push(vq, &p->in, (uint32_t)n);
		p->ntyped -= (unsigned)n;
		memmove(p->typed, p->typed + n, p->ntyped);
	}
	vq_publish(vq);
}

static size_t front_room(void *opaque)
{
	struct port *p = opaque;
	struct virtqueue *vq = queue_in(p->c, p->n);
	size_t room;

	pthread_mutex_lock(&vq->lock);
	room = TYPED - p->ntyped;
	pthread_mutex_unlock(&vq->lock);
	return room;
}

static void front_input(void *opaque, const uint8_t *data, size_t n)
{
	struct port *p = opaque;
	struct virtqueue *vq = queue_in(p->c, p->n);

	pthread_mutex_lock(&vq->lock);
	n = MIN(n, (size_t)(TYPED - p->ntyped));
	memcpy(p->typed + p->ntyped, data, n);
	p->ntyped += (unsigned)n;
	port_input(p);
	pthread_mutex_unlock(&vq->lock);
}

/* ---- from the guest */

/* One chain; false: the back-end takes no more for now, or nothing is there. The queue's lock is held. */
static bool output_one(struct port *p)
{
	struct virtqueue *vq = queue_out(p->c, p->n);
	uint64_t *done = &p->c->hw.out_done[p->n];
	uint8_t chunk[CHUNK];

	if (p->c->v.paused || (!p->keeping && !vq_pop(vq, &p->kept)))
		return false;
	p->keeping = true;
	while (*done < p->kept.out_len) {
		size_t n = vq_read(&p->kept, *done, chunk, sizeof(chunk)), taken = chr_write(p->chr, chunk, n);

		*done += taken;
		if (taken < n)
			return false; /* front_drained goes on */
	}
	vq_push(vq, &p->kept, 0);
	p->keeping = false;
	*done = 0;
	return true;
}

static void port_output(struct port *p)
{
	struct virtqueue *vq = queue_out(p->c, p->n);

	do {
		vq_notify_off(vq);
		while (output_one(p))
			;
		vq_publish(vq);
	} while (vq_notify_on(vq) && !p->keeping && !p->c->v.paused);
}

static void front_drained(void *opaque)
{
	struct port *p = opaque;
	struct virtqueue *vq = queue_out(p->c, p->n);

	pthread_mutex_lock(&vq->lock);
	port_output(p);
	pthread_mutex_unlock(&vq->lock);
}

/* ---- control messages; queue 2's lock is held */

static bool control_tell(struct console *c, unsigned port, uint16_t event)
{
	struct virtqueue *vq = &c->v.queue[CONTROL_IN];
	struct control m = { port, event, event == DEVICE_ADD ? 0 : 1 };
	size_t n;

	if (!vq_pop(vq, &c->control))
		return false;
	n = vq_write(vq, &c->control, 0, &m, sizeof(m));
	if (event == PORT_NAME)
		n += vq_write(vq, &c->control, sizeof(m), c->port[port].name, strlen(c->port[port].name));
	vq_push(vq, &c->control, (uint32_t)n);
	return true;
}

static void control_tell_all(struct console *c)
{
	for (unsigned i = 0; i < c->nports; i++)
		for (unsigned event = 0; event <= PORT_NAME; event++)
			if (c->hw.say[i] & BIT(event)) {
				if (c->v.paused || !control_tell(c, i, (uint16_t)event))
					goto out;
				c->hw.say[i] &= ~(uint32_t)BIT(event);
			}
out:
	vq_publish(&c->v.queue[CONTROL_IN]);
}

static void control_heard(struct console *c, const struct control *m)
{
	if (m->event == DEVICE_READY) {
		for (unsigned i = 0; i < c->nports && m->value; i++)
			c->hw.say[i] |= BIT(DEVICE_ADD);
		return;
	}
	if (m->id >= c->nports)
		return;
	if (m->event == PORT_READY && m->value) {
		const struct port *p = &c->port[m->id];

		c->hw.say[m->id] |= BIT(PORT_OPEN) | (p->console ? BIT(CONSOLE_PORT) : 0) | (p->name[0] ? BIT(PORT_NAME) : 0);
	} else if (m->event == PORT_OPEN) {
		c->hw.open[m->id] = m->value;
	}
}

static void control_kick(struct console *c)
{
	struct virtqueue *in = &c->v.queue[CONTROL_IN], *out = &c->v.queue[CONTROL_IN + 1];
	struct control m;

	pthread_mutex_lock(&out->lock);
	pthread_mutex_lock(&in->lock);
	do {
		vq_notify_off(out);
		while (!c->v.paused && vq_pop(out, &c->control)) {
			if (vq_read(&c->control, 0, &m, sizeof(m)) == sizeof(m))
				control_heard(c, &m);
			vq_push(out, &c->control, 0);
		}
		vq_publish(out);
	} while (vq_notify_on(out) && !c->v.paused);
	control_tell_all(c);
	pthread_mutex_unlock(&in->lock);
	pthread_mutex_unlock(&out->lock);
}

static void console_kick(struct virtio *v, struct virtqueue *vq)
{
	struct console *c = container_of(v, struct console, v);
	unsigned pair = vq->index / 2, port = pair ? pair - 1 : 0;

	if (pair == 1) {
		control_kick(c);
		return;
	}
	pthread_mutex_lock(&vq->lock);
	vq->kicks++;
	if (vq->index % 2)
		port_output(&c->port[port]);
	else
		port_input(&c->port[port]);
	pthread_mutex_unlock(&vq->lock);
	if (vq->index % 2 == 0)
		chr_room_changed(c->port[port].chr);
}

/* ---- life */

static void console_config_written(struct virtio *v, unsigned offset, unsigned size)
{
	struct console *c = container_of(v, struct console, v);
	uint8_t byte = (uint8_t)c->config.emergency;

	if (offset == EMERGENCY_AT)
		chr_write(c->port[0].chr, &byte, 1);
	/* nothing else can be written */
	c->config = (struct config){ .max_ports = c->nports };
}

/* What was half out is not said again. */
static void port_forget(struct console *c, unsigned port)
{
	struct virtqueue *vq = queue_out(c, port);

	pthread_mutex_lock(&vq->lock);
	c->port[port].keeping = false;
	c->hw.out_done[port] = 0;
	pthread_mutex_unlock(&vq->lock);
}

static void console_queue_reset(struct virtio *v, struct virtqueue *vq)
{
	unsigned pair = vq->index / 2;

	if (pair != 1 && vq->index % 2)
		port_forget(container_of(v, struct console, v), pair ? pair - 1 : 0);
}

static void console_reset(struct virtio *v)
{
	struct console *c = container_of(v, struct console, v);

	for (unsigned i = 0; i < c->nports; i++)
		port_forget(c, i);
	pthread_mutex_lock(&v->queue[CONTROL_IN].lock);
	memset(c->hw.say, 0, sizeof(c->hw.say));
	memset(c->hw.open, 0, sizeof(c->hw.open));
	pthread_mutex_unlock(&v->queue[CONTROL_IN].lock);
}

/* A chain that is half out goes back to the ring; out_done says how far it was. */
static void console_pause(struct virtio *v)
{
	struct console *c = container_of(v, struct console, v);

	for (unsigned i = 0; i < c->nports; i++) {
		struct virtqueue *vq = queue_out(c, i);

		pthread_mutex_lock(&vq->lock);
		if (c->port[i].keeping)
			vq_unpop(vq, &c->port[i].kept);
		c->port[i].keeping = false;
		pthread_mutex_unlock(&vq->lock);
	}
}

static void console_destroy(struct virtio *v)
{
	struct console *c = container_of(v, struct console, v);

	for (unsigned i = 0; i < c->nports; i++)
		chr_attach(c->port[i].chr, NULL);
	virtio_dispose(v);
	free(c);
}

static const struct virtio_ops ops = {
	.kick = console_kick, .reset = console_reset, .config_written = console_config_written, .pause = console_pause,
	.queue_reset = console_queue_reset,
	.destroy = console_destroy,
};

static const struct state_field fields[] = {
	STATE_INTS(struct console_hw, say), STATE_INTS(struct console_hw, out_done), STATE_INTS(struct console_hw, open),
};

static const struct state_desc console_state = {
	.name = "virtio-console", .version = 1, .size = sizeof(struct console_hw), .fields = fields,
	.nfields = ARRAY_LEN(fields),
};

static void own_destroy(struct device *d)
{
}

static const struct device_ops own_ops = { .state = &console_state, .destroy = own_destroy };

bool virtio_console_is_open(struct virtio *v, const char *name)
{
	struct console *c = container_of(v, struct console, v);
	struct virtqueue *vq = &v->queue[CONTROL_IN];
	bool open = false;

	pthread_mutex_lock(&vq->lock);
	for (unsigned i = 0; i < c->nports; i++)
		open |= !strcmp(c->port[i].name, name) && c->hw.open[i];
	pthread_mutex_unlock(&vq->lock);
	return open;
}

struct virtio *virtio_console_create(const struct device_env *env, unsigned instance, const struct virtio_port_config *ports,
				     unsigned n, struct err *e)
{
	struct virtio_setup setup = { .ops = &ops, .name = "virtio-console", .id = VIRTIO_CONSOLE,
				      .features = F_MULTIPORT | F_EMERGENCY, .nqueues = 2 + 2 * n,
				      .queue_size = QUEUE_SIZE };
	struct console *c = calloc(1, sizeof(*c));

	if (!c || !n || n > VIRTIO_PORTS) {
		free(c);
		err_set(e, c ? E2BIG : ENOMEM, "virtio-console: 1 to %d ports are possible", VIRTIO_PORTS);
		return NULL;
	}
	c->nports = n;
	c->config.max_ports = n;
	setup.config = &c->config;
	setup.config_len = sizeof(c->config);
	virtio_init(&c->v, env, instance, &setup);
	c->own = (struct device){ .ops = &own_ops, .instance = instance, .hw = &c->hw };
	c->v.own = &c->own;
	for (unsigned i = 0; i < n; i++) {
		struct port *p = &c->port[i];
		const struct chr_front front = { front_room, front_input, front_drained, p };

		p->c = c;
		p->n = i;
		p->chr = ports[i].chr;
		p->console = ports[i].console;
		if (ports[i].name)
			strncpy(p->name, ports[i].name, sizeof(p->name) - 1);
		chr_attach(p->chr, &front);
	}
	return &c->v;
}
