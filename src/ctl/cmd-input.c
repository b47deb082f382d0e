/* SPDX-License-Identifier: Apache-2.0 */
/* Commands that strike keys and move the pointer. */
#include <errno.h>
#include <string.h>
#include "board/pc.h"
#include "ctl/private.h"
#include "display/keys.h"

#define KEYS_AT_ONCE 16
#define EVENTS_AT_ONCE 64
#define POINTER_MAX 0x7fff

/* {"type": "qcode", "data": NAME}, or "number" with what an XT's keyboard sent. */
static int key_of(json_t *key, unsigned *code, struct err *e)
{
	const char *type = json_string_value(json_object_get(key, "type"));
	json_t *data = json_object_get(key, "data");

	*code = 0;
	if (type && !strcmp(type, "qcode") && json_is_string(data)) {
		*code = key_of_name(json_string_value(data));
		return *code ? 0 : err_set(e, EINVAL, "there is no key '%.32s'", json_string_value(data));
	}
	if (type && !strcmp(type, "number") && json_is_integer(data)) {
		json_int_t n = json_integer_value(data);

		*code = n > 0 && n <= 0xff ? key_of_xt((uint32_t)n) : 0;
		return *code ? 0 : err_set(e, EINVAL, "there is no key with number %lld", (long long)n);
	}
	return err_set(e, EINVAL, "a key is written {\"type\": \"qcode\", \"data\": NAME}");
}

/* Several are struck all or not at all, so that none is lost in silence. */
static int strike(struct ctl_call *call, const struct key_event *stroke, unsigned n, struct err *e)
{
	int r = pc_keys(call->ctl->config.pc, stroke, n);

	switch (-r) {
	case 0:
		return 0;
	case EAGAIN:
		return err_set(e, EAGAIN, CTL_KEYS_FULL "; try again");
	case ENODEV:
		return err_set(e, ENODEV, "the guest has switched its keyboard off");
	case E2BIG:
		return err_set(e, E2BIG, "so many keys at once are more than a keyboard holds");
	default:
		return err_set(e, EINVAL, "the machine's keyboard has no such key");
	}
}

/* All down in order, then all up in the opposite one; hold-time is accepted and of no use to a keyboard that queues. */
int ctl_send_key(struct ctl_call *call, struct err *e)
{
	json_t *keys = json_object_get(call->arguments, "keys"), *key;
	struct key_event stroke[2 * KEYS_AT_ONCE];
	unsigned n = 0;
	size_t i;

	if (!call->ctl->config.pc)
		return err_set(e, ENOTSUP, "this machine has no keyboard");
	if (!json_is_array(keys) || !json_array_size(keys) || json_array_size(keys) > KEYS_AT_ONCE)
		return err_set(e, EINVAL, "'keys' is a list of 1 to %d keys", KEYS_AT_ONCE);
	json_array_foreach(keys, i, key)
	{
		int r = key_of(key, &stroke[n].code, e);

		if (r)
			return r;
		stroke[n++].down = true;
	}
	for (unsigned k = 0; k < n; k++)
		stroke[n + k] = (struct key_event){ stroke[n - 1 - k].code, false };
	return strike(call, stroke, 2 * n, e);
}

/* ---- input-send-event */

/* What a list of events comes to; applied when all of it has been understood. */
struct input_batch {
	struct key_event key[EVENTS_AT_ONCE];
	unsigned nkeys, x, y, buttons;
	int dx, dy, wheel;
	bool position, pointer;
};

static int button_event(struct input_batch *b, json_t *data, struct err *e)
{
	static const char *const names[] = { "left", "right", "middle", "side", "extra", "wheel-up", "wheel-down" };
	const char *name = json_string_value(json_object_get(data, "button")) ?: "";
	bool down = json_is_true(json_object_get(data, "down"));
	unsigned k = 0;

	while (k < ARRAY_LEN(names) && strcmp(name, names[k]))
		k++;
	if (k == ARRAY_LEN(names))
		return err_set(e, EINVAL, "there is no button '%.20s'; left, right, middle, side, extra, wheel-up, wheel-down", name);
	b->pointer = true;
	if (k > 4)
		b->wheel += !down ? 0 : k == 5 ? -1 : 1;
	else
		b->buttons = down ? b->buttons | 1u << k : b->buttons & ~(1u << k);
	return 0;
}

static int axis_event(struct input_batch *b, json_t *data, bool absolute, struct err *e)
{
	const char *axis = json_string_value(json_object_get(data, "axis"));
	json_t *value = json_object_get(data, "value");
	json_int_t v = json_integer_value(value);

	if (!axis || (strcmp(axis, "x") && strcmp(axis, "y")) || !json_is_integer(value))
		return err_set(e, EINVAL, "motion is written {\"axis\": \"x\" or \"y\", \"value\": NUMBER}");
	if (absolute ? v < 0 || v > POINTER_MAX : v < -POINTER_MAX || v > POINTER_MAX)
		return err_set(e, ERANGE, "the value of axis %s must be from %d to %d", axis, absolute ? 0 : -POINTER_MAX, POINTER_MAX);
	b->pointer = true;
	if (absolute) {
		b->position = true;
		*(*axis == 'x' ? &b->x : &b->y) = (unsigned)v;
	} else {
		*(*axis == 'x' ? &b->dx : &b->dy) += (int)v;
	}
	return 0;
}

static int one_event(struct input_batch *b, json_t *event, struct err *e)
{
	const char *type = json_string_value(json_object_get(event, "type")) ?: "";
	json_t *data = json_object_get(event, "data");

	if (!strcmp(type, "key")) {
		b->key[b->nkeys].down = json_is_true(json_object_get(data, "down"));
		return key_of(json_object_get(data, "key"), &b->key[b->nkeys++].code, e);
	}
	if (!strcmp(type, "btn"))
		return button_event(b, data, e);
	if (!strcmp(type, "rel") || !strcmp(type, "abs"))
		return axis_event(b, data, *type == 'a', e);
	return err_set(e, EINVAL, "an event's type is key, btn, rel or abs");
}

int ctl_input_send_event(struct ctl_call *call, struct err *e)
{
	struct ctl *c = call->ctl;
	struct input_batch b = { .x = c->pointer_x, .y = c->pointer_y, .buttons = c->pointer_buttons };
	json_t *events = json_object_get(call->arguments, "events"), *event;
	size_t i;

	if (!c->config.pc)
		return err_set(e, ENOTSUP, "this machine has no keyboard");
	if (!json_is_array(events) || json_array_size(events) > EVENTS_AT_ONCE)
		return err_set(e, EINVAL, "'events' is a list of %d events at most", EVENTS_AT_ONCE);
	json_array_foreach(events, i, event)
	{
		int r = one_event(&b, event, e);

		if (r)
			return r;
	}
	if (b.nkeys && strike(call, b.key, b.nkeys, e))
		return -1;
	/* buttons go to the tablet where there is one, motion always to the mouse */
	if (b.pointer && (b.dx || b.dy || !pc_pointer_at(c->config.pc, b.x, b.y, b.wheel, b.buttons))) {
		if (b.position)
			return err_set(e, ENODEV, "the machine has no tablet (--input tablet), or its guest no driver for it");
		pc_pointer_moved(c->config.pc, b.dx, b.dy, b.wheel, b.buttons);
	}
	c->pointer_x = b.x;
	c->pointer_y = b.y;
	c->pointer_buttons = b.buttons;
	return 0;
}
