/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input (virtio 1.2, 5.8): a keyboard, and a tablet, which is a pointer that says where it is instead of how it moves. What
 * happens is kept in a bounded list until the driver has given buffers for it; a report (all that happens at one instant,
 * and its end mark) goes as a whole or not at all. The list is under the event queue's lock and is not saved: a machine that goes
 * on later has nobody's fingers on its keys.
 */
#include <errno.h>
#include <linux/input-event-codes.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "virtio/devices.h"

#define QUEUE_SIZE 64
#define EVENTS_MAX 512u /* a power of two */
#define KEYS_LAST KEY_MICMUTE
#define STRING_MAX 128u

enum { Q_EVENT, Q_STATUS, QUEUES };
enum { CFG_NONE, CFG_NAME, CFG_SERIAL, CFG_IDS, CFG_PROPERTIES = 0x10, CFG_EVENTS, CFG_AXES };

struct config {
	uint8_t select, subsel, size, reserved[5];
	uint8_t data[STRING_MAX];
};

struct event {
	uint16_t type, code;
	uint32_t value;
};

struct input_hw {
	uint8_t select, subsel;
};

struct input {
	struct virtio v;
	struct device own;
	struct input_hw hw;
	enum virtio_input_kind kind;
	struct config config;
	/* under the event queue's lock */
	struct event list[EVENTS_MAX];
	unsigned first, count;
	unsigned buttons; /* as last told */
	struct vq_chain chain;
	struct vq_chain status; /* under the status queue's */
};

/* ---- what it is */

static void bit_set(struct config *c, unsigned n)
{
	c->data[n / 8] |= (uint8_t)BIT(n % 8);
	c->size = (uint8_t)MAX(c->size, n / 8 + 1);
}

static void text_set(struct config *c, const char *text)
{
	c->size = (uint8_t)strlen(text);
	memcpy(c->data, text, c->size);
}

static void events_describe(struct input *in)
{
	struct config *c = &in->config;
	bool tablet = in->kind == VIRTIO_TABLET;

	switch (c->subsel) {
	case EV_KEY:
		for (unsigned k = tablet ? BTN_LEFT : KEY_ESC; k <= (unsigned)(tablet ? BTN_EXTRA : KEYS_LAST); k++)
			bit_set(c, k);
		break;
	case EV_ABS:
		if (tablet) {
			bit_set(c, ABS_X);
			bit_set(c, ABS_Y);
		}
		break;
	case EV_REL:
		if (tablet)
			bit_set(c, REL_WHEEL);
		break;
	case EV_REP:
		if (!tablet) {
			bit_set(c, REP_DELAY);
			bit_set(c, REP_PERIOD);
		}
		break;
	case EV_LED:
		for (unsigned n = LED_NUML; !tablet && n <= LED_SCROLLL; n++)
			bit_set(c, n);
		break;
	default:
		break;
	}
}

/* The driver has asked about something: the answer. */
static void describe(struct input *in)
{
	static const uint8_t ids[8] = { 6 /* BUS_VIRTUAL */, 0, 0x27, 0x06, 0, 0, 1, 0 };
	struct config *c = &in->config;
	uint32_t most = VIRTIO_INPUT_RANGE;

	c->size = 0;
	memset(c->reserved, 0, sizeof(c->reserved));
	memset(c->data, 0, sizeof(c->data));
	in->hw = (struct input_hw){ c->select, c->subsel };
	switch (c->select) {
	case CFG_NAME:
		if (!c->subsel)
			text_set(c, in->kind == VIRTIO_TABLET ? "ospite tablet" : "ospite keyboard");
		break;
	case CFG_IDS:
		if (c->subsel)
			break;
		memcpy(c->data, ids, sizeof(ids));
		c->data[4] = (uint8_t)(in->kind + 1);
		c->size = sizeof(ids);
		break;
	case CFG_EVENTS:
		events_describe(in);
		break;
	case CFG_AXES:
		if (in->kind != VIRTIO_TABLET || c->subsel > ABS_Y)
			break;
		memcpy(c->data + 4, &most, 4); /* from 0; no noise, no flat, no resolution */
		c->size = 20;
		break;
	default:
		break;
	}
}

static void config_written(struct virtio *v, unsigned offset, unsigned size)
{
	describe(container_of(v, struct input, v));
}

/* ---- what happens */

/* The event queue's lock is held. */
static void list_send(struct input *in)
{
	struct virtqueue *vq = &in->v.queue[Q_EVENT];
	bool any = false;

	while (in->count && vq_pop(vq, &in->chain)) {
		const struct event *e = &in->list[in->first];
		size_t n = vq_write(vq, &in->chain, 0, e, sizeof(*e));

		vq_push(vq, &in->chain, (uint32_t)n);
		in->first = (in->first + 1) % EVENTS_MAX;
		in->count--;
		any = true;
	}
	if (any)
		vq_publish(vq);
}

static bool report(struct input *in, const struct event *events, unsigned n)
{
	bool room = n && n < EVENTS_MAX - in->count;

	for (unsigned i = 0; room && i < n; i++)
		in->list[(in->first + in->count++) % EVENTS_MAX] = events[i];
	if (room)
		in->list[(in->first + in->count++) % EVENTS_MAX] = (struct event){ EV_SYN, SYN_REPORT, 0 };
	if (!in->v.paused)
		list_send(in);
	return room;
}

int virtio_input_keys(struct virtio *v, const struct key_event *stroke, unsigned n)
{
	struct input *in = container_of(v, struct input, v);
	struct virtqueue *vq = &v->queue[Q_EVENT];
	int r = 0;

	if (in->kind != VIRTIO_KEYBOARD || !virtio_running(v))
		return -ENODEV;
	for (unsigned i = 0; i < n; i++)
		if (!stroke[i].code || stroke[i].code > KEYS_LAST)
			return -EINVAL;
	if (2 * n >= EVENTS_MAX)
		return -E2BIG;
	pthread_mutex_lock(&vq->lock);
	if (2 * n >= EVENTS_MAX - in->count) /* each with an EV_SYN */
		r = -EAGAIN;
	for (unsigned i = 0; !r && i < n; i++)
		report(in, &(struct event){ EV_KEY, (uint16_t)stroke[i].code, stroke[i].down }, 1);
	pthread_mutex_unlock(&vq->lock);
	return r;
}

bool virtio_input_key(struct virtio *v, unsigned code, bool down)
{
	int r = virtio_input_keys(v, &(struct key_event){ code, down }, 1);

	return r != -ENODEV && r != -EINVAL;
}

bool virtio_input_position(struct virtio *v, unsigned x, unsigned y, int wheel, unsigned buttons)
{
	static const uint16_t button[] = { BTN_LEFT, BTN_RIGHT, BTN_MIDDLE, BTN_SIDE, BTN_EXTRA };
	struct input *in = container_of(v, struct input, v);
	struct virtqueue *vq = &v->queue[Q_EVENT];
	struct event e[3 + ARRAY_LEN(button)];
	unsigned n = 0;

	if (in->kind != VIRTIO_TABLET || !virtio_running(v))
		return false;
	e[n++] = (struct event){ EV_ABS, ABS_X, MIN(x, VIRTIO_INPUT_RANGE) };
	e[n++] = (struct event){ EV_ABS, ABS_Y, MIN(y, VIRTIO_INPUT_RANGE) };
	pthread_mutex_lock(&vq->lock);
	for (unsigned i = 0; i < ARRAY_LEN(button); i++)
		if ((buttons ^ in->buttons) >> i & 1)
			e[n++] = (struct event){ EV_KEY, button[i], buttons >> i & 1 };
	if (wheel)
		e[n++] = (struct event){ EV_REL, REL_WHEEL, (uint32_t)-wheel };
	if (report(in, e, n))
		in->buttons = buttons;
	pthread_mutex_unlock(&vq->lock);
	return true;
}

static void input_kick(struct virtio *v, struct virtqueue *vq)
{
	struct input *in = container_of(v, struct input, v);

	pthread_mutex_lock(&vq->lock);
	vq->kicks++;
	if (vq->index == Q_EVENT) {
		list_send(in);
	} else { /* lamps: nobody looks at them */
		do {
			vq_notify_off(vq);
			while (vq_pop(vq, &in->status))
				vq_push(vq, &in->status, 0);
			vq_publish(vq);
		} while (vq_notify_on(vq));
	}
	pthread_mutex_unlock(&vq->lock);
}

/* ---- life */

static void input_reset(struct virtio *v)
{
	struct input *in = container_of(v, struct input, v);
	struct virtqueue *vq = &v->queue[Q_EVENT];

	pthread_mutex_lock(&vq->lock);
	in->first = in->count = in->buttons = 0;
	pthread_mutex_unlock(&vq->lock);
	in->config.select = in->config.subsel = 0;
	describe(in);
}

static void input_destroy(struct virtio *v)
{
	struct input *in = container_of(v, struct input, v);

	virtio_dispose(v);
	free(in);
}

static const struct virtio_ops ops = {
	.kick = input_kick, .reset = input_reset, .config_written = config_written,
	.queue_reset = virtio_queue_reset_plain, .destroy = input_destroy,
};

static const struct state_field fields[] = { STATE_INT(struct input_hw, select), STATE_INT(struct input_hw, subsel) };

static const struct state_desc input_state = {
	.name = "virtio-input-own", .version = 1, .size = sizeof(struct input_hw), .fields = fields, .nfields = ARRAY_LEN(fields),
};

static void own_loaded(struct device *d)
{
	struct input *in = container_of(d, struct input, own);

	in->config.select = in->hw.select;
	in->config.subsel = in->hw.subsel;
	describe(in);
}

static void own_destroy(struct device *d)
{
}

static const struct device_ops own_ops = { .state = &input_state, .loaded = own_loaded, .destroy = own_destroy };

struct virtio *virtio_input_create(const struct device_env *env, unsigned instance, enum virtio_input_kind kind, struct err *e)
{
	struct virtio_setup setup = { .ops = &ops, .name = "virtio-input", .id = VIRTIO_INPUT, .nqueues = QUEUES,
				      .queue_size = QUEUE_SIZE };
	struct input *in = calloc(1, sizeof(*in));

	if (!in) {
		err_set(e, ENOMEM, "no memory for an input device");
		return NULL;
	}
	in->kind = kind;
	setup.config = &in->config;
	setup.config_len = sizeof(in->config);
	virtio_init(&in->v, env, instance, &setup);
	in->own = (struct device){ .ops = &own_ops, .instance = instance, .hw = &in->hw };
	in->v.own = &in->own;
	return &in->v;
}
