/* SPDX-License-Identifier: Apache-2.0 */
/* Requests and replies; whose turn it is. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "base/file.h"
#include "ctl/agent.h"

#define REPLY_MAX (32u << 20) /* what a program wrote comes in one reply: the agent keeps 16 MiB of it, as base64 */
#define REPLY_MS 10000
#define TURN_MS 100 /* then somebody else may */
#define SYNC_AGAIN_MS 1000

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void agent_init(struct agent *a, int folder)
{
	*a = (struct agent){ .folder = folder, .fd = -1, .lock = -1 };
}

void agent_rest(struct agent *a)
{
	cleanup_close(&a->fd);
	cleanup_close(&a->lock);
	a->fd = a->lock = -1;
	a->used = 0;
}

void agent_dispose(struct agent *a)
{
	agent_rest(a);
	free(a->data);
	a->data = NULL;
}

/* ---- lines */

static int send_all(struct agent *a, const char *text, size_t len, int64_t end, struct err *e)
{
	while (len) {
		struct pollfd poller = { .fd = a->fd, .events = POLLOUT };
		ssize_t n = send(a->fd, text, len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EAGAIN) {
			int64_t left = end - now_ms();

			if (left <= 0)
				return err_set(e, ETIMEDOUT, "the guest agent does not answer");
			poll(&poller, 1, (int)left);
			continue;
		}
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_errno(e, "cannot reach the guest agent");
		text += n;
		len -= (size_t)n;
	}
	return 0;
}

static int receive_more(struct agent *a, int64_t end, struct err *e)
{
	struct pollfd poller = { .fd = a->fd, .events = POLLIN };
	int64_t left = end - now_ms();
	ssize_t n;
	int r = poll(&poller, 1, (int)MAX(left, (int64_t)0));

	if (r < 0 && errno != EINTR)
		return err_errno(e, "cannot wait for the guest agent");
	if (r <= 0) /* a signal counts as time: the caller looks at why */
		return left <= 0 ? err_set(e, ETIMEDOUT, "the guest agent does not answer") : 0;
	if (a->size - a->used < 4096) {
		size_t size = a->size ? a->size * 2 : 65536;
		char *data = size <= REPLY_MAX ? realloc(a->data, size) : NULL;

		if (!data)
			return err_set(e, EPROTO, "the guest agent's answer is too long");
		a->data = data;
		a->size = size;
	}
	n = recv(a->fd, a->data + a->used, a->size - a->used, 0);
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	if (n < 0)
		return err_errno(e, "cannot hear the guest agent");
	if (!n)
		return err_set(e, EPIPE, "somebody else talks to the guest agent, or the machine has ended");
	a->used += (size_t)n;
	return 0;
}

static int receive_line(struct agent *a, json_t **reply, int64_t end, struct err *e)
{
	size_t looked = 0, len;
	json_error_t where;
	char *newline;
	int r;

	while (!(newline = a->used > looked ? memchr(a->data + looked, '\n', a->used - looked) : NULL)) {
		looked = a->used;
		r = receive_more(a, end, e);
		if (r)
			return r;
	}
	len = (size_t)(newline - a->data);
	*reply = json_loadb(a->data, len, 0, &where);
	a->used -= len + 1;
	memmove(a->data, newline + 1, a->used);
	return json_is_object(*reply) ? 0 : (json_decref(*reply), err_set(e, EPROTO, "the guest agent's answer is no JSON object"));
}

/* ---- in step: what is left of requests of others comes before the reply to our number */

bool agent_synced(char *data, size_t *used, uint64_t id)
{
	bool found = false;
	char *newline;

	while (!found && *used && (newline = memchr(data, '\n', *used))) {
		char *start = memrchr(data, 0xff, (size_t)(newline - data));
		size_t len = (size_t)(newline - data) + 1;
		json_t *reply;

		start = start ? start + 1 : data;
		reply = json_loadb(start, (size_t)(newline - start), 0, NULL);
		found = json_is_integer(json_object_get(reply, "return")) &&
			(uint64_t)json_integer_value(json_object_get(reply, "return")) == id;
		json_decref(reply);
		*used -= len;
		memmove(data, data + len, *used);
	}
	return found;
}

static int sync_send(struct agent *a, int64_t end, struct err *e)
{
	char text[128];
	int n = snprintf(text, sizeof(text), "\xff{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":%llu}}\n",
			 (unsigned long long)a->id);

	return send_all(a, text, (size_t)n, end, e);
}

static int sync_up(struct agent *a, int ms, struct err *e)
{
	int64_t end = now_ms() + ms, again = SYNC_AGAIN_MS;
	int r = 0;

	if (getrandom(&a->id, sizeof(a->id), 0) != sizeof(a->id))
		a->id = (uint64_t)now_ms();
	do {
		int64_t part = MIN(end, now_ms() + again);

		a->id = (a->id + 1) & INT32_MAX; /* a slow one answers each: only after the last answer are we in step */
		again *= 2;
		r = sync_send(a, part, e);
		while (!r && !agent_synced(a->data, &a->used, a->id)) {
			if (a->used > 65536) /* whatever this is, it is no agent's */
				a->used = 0;
			r = receive_more(a, part, e);
		}
	} while (r == -ETIMEDOUT && now_ms() < end);
	return r;
}

static int connect_socket(struct agent *a, struct err *e)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };

	snprintf(at.sun_path, sizeof(at.sun_path), "/proc/self/fd/%d/agent", a->folder);
	a->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (a->fd < 0)
		return err_errno(e, "cannot make a socket");
	if (!connect(a->fd, (struct sockaddr *)&at, sizeof(at)))
		return 0;
	return errno == ENOENT ? err_set(e, ENOENT, "it has no port for a guest agent") : err_errno(e, "cannot connect to the agent's port");
}

static int turn_begin(struct agent *a, int ms, struct err *e)
{
	int64_t end = now_ms() + ms;
	int r;

	a->lock = file_open_or_make(a->folder, "agent.lock", O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (a->lock < 0)
		return err_errno(e, "cannot open agent.lock");
	while (flock(a->lock, LOCK_EX | LOCK_NB)) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return err_errno(e, "cannot lock agent.lock");
		if (now_ms() >= end)
			return err_set(e, ETIMEDOUT, "somebody else talks to the guest agent");
		usleep(2000);
	}
	/* one whose end the machine has not noticed yet may still have the port: hung up on, try again */
	for (;;) {
		r = connect_socket(a, e);
		if (!r)
			r = sync_up(a, (int)MAX(end - now_ms(), (int64_t)1), e);
		if ((r != -EPIPE && r != -ECONNRESET) || now_ms() >= end)
			break;
		cleanup_close(&a->fd);
		a->fd = -1;
		a->used = 0;
		usleep(20000);
	}
	a->since = now_ms();
	return r;
}

static int turn_take(struct agent *a, int ms, struct err *e)
{
	int r;

	if (a->fd >= 0 && now_ms() - a->since < TURN_MS)
		return 0;
	if (a->fd >= 0) {
		agent_rest(a);
		sched_yield();
	}
	r = turn_begin(a, ms, e);
	if (r)
		agent_rest(a);
	return r;
}

int agent_ready(struct agent *a, int ms, struct err *e)
{
	int r = turn_take(a, ms, e);

	return r == -ETIMEDOUT || r == -EPIPE || r == -ECONNRESET ?
		       err_set(e, -r, "no guest agent has answered: the package qemu-guest-agent must run in the guest") : r;
}

int agent_call(struct agent *a, const char *command, json_t *arguments, json_t **result, struct err *e)
{
	json_t *request = json_pack("{s:s}", "execute", command), *reply = NULL, *returned;
	const char *why;
	int64_t end;
	char *text;
	int r;

	if (arguments)
		json_object_set_new(request, "arguments", arguments);
	text = json_dumps(request, JSON_COMPACT);
	json_decref(request);
	r = text ? turn_take(a, REPLY_MS, e) : err_set(e, EINVAL, "what is to be told is not UTF-8");
	end = now_ms() + REPLY_MS;
	if (!r)
		r = send_all(a, text, strlen(text), end, e);
	if (!r)
		r = send_all(a, "\n", 1, end, e);
	if (!r)
		r = receive_line(a, &reply, end, e);
	free(text);
	if (r) {
		agent_rest(a); /* the reply may still come: whoever is next gets in step first */
		return r;
	}
	returned = json_object_get(reply, "return");
	why = json_string_value(json_object_get(json_object_get(reply, "error"), "desc"));
	if (!returned)
		r = err_set(e, EREMOTEIO, "the guest agent says: %.300s", why ? why : "something else than asked for");
	else if (result)
		*result = json_incref(returned);
	json_decref(reply);
	return r;
}
