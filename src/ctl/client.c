/* SPDX-License-Identifier: Apache-2.0 */
/* Blocking, with time limits. The machine's side may be of any age or mood: nothing it sends is trusted to be well-formed. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "ctl/client.h"
#include "ctl/private.h"

#define REPLY_MAX (8u << 20)

struct ctl_peer {
	int fd;
	char *data; /* what has been received */
	size_t used, size;
};

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int receive_more(struct ctl_peer *p, int64_t end, struct err *e)
{
	struct pollfd poller = { .fd = p->fd, .events = POLLIN };
	int64_t left = end == INT64_MAX ? -1 : MAX(end - now_ms(), (int64_t)0);
	ssize_t n;
	int r = poll(&poller, 1, (int)MIN(left, (int64_t)1 << 30));

	if (r < 0)
		return errno == EINTR ? err_set(e, EINTR, "interrupted") : err_errno(e, "cannot wait for the machine");
	if (!r)
		return err_set(e, ETIMEDOUT, "the machine does not answer");
	if (p->size - p->used < 16384) {
		size_t size = p->size ? p->size * 2 : 65536;
		char *data = size <= REPLY_MAX ? realloc(p->data, size) : NULL;

		if (!data)
			return err_set(e, EPROTO, "the machine's answer is too long");
		p->data = data;
		p->size = size;
	}
	n = recv(p->fd, p->data + p->used, p->size - p->used, 0);
	if (n < 0 && errno == EINTR)
		return 0;
	if (n <= 0)
		return err_set(e, EPIPE, "the machine has ended");
	p->used += (size_t)n;
	return 0;
}

/* One message is one line. */
static int receive(struct ctl_peer *p, json_t **message, int64_t end, struct err *e)
{
	json_error_t where;
	char *line_end;
	size_t len;
	int r;

	while (!(line_end = p->used ? memchr(p->data, '\n', p->used) : NULL)) {
		r = receive_more(p, end, e);
		if (r)
			return r;
	}
	len = (size_t)(line_end - p->data) + 1;
	*message = json_loadb(p->data, len, 0, &where);
	p->used -= len;
	memmove(p->data, p->data + len, p->used);
	if (!json_is_object(*message)) {
		json_decref(*message);
		return err_set(e, EPROTO, "the machine's answer makes no sense: %s", where.text);
	}
	return 0;
}

int ctl_connect(struct ctl_peer **out, int folder, const char *path, int ms, struct err *e)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	struct ctl_peer *p = calloc(1, sizeof(*p));
	json_t *greeting = NULL;
	int r, n;

	if (!p)
		return err_set(e, ENOMEM, "no memory");
	n = folder >= 0 ? snprintf(at.sun_path, sizeof(at.sun_path), "/proc/self/fd/%d/%s", folder, path)
			: snprintf(at.sun_path, sizeof(at.sun_path), "%s", path);
	p->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (p->fd >= 0) /* connecting, too, waits for ever where many wait already */
		setsockopt(p->fd, SOL_SOCKET, SO_SNDTIMEO, &(struct timeval){ ms / 1000, ms % 1000 * 1000 }, sizeof(struct timeval));
	if (n >= (int)sizeof(at.sun_path))
		r = err_set(e, ENAMETOOLONG, "the path of a socket has at most %zu characters", sizeof(at.sun_path) - 1);
	else if (p->fd < 0 || connect(p->fd, (struct sockaddr *)&at, sizeof(at)))
		r = errno == EAGAIN ? err_set(e, ETIMEDOUT, "the machine does not answer") :
				      err_errno(e, "cannot connect to the control socket");
	else
		r = receive(p, &greeting, now_ms() + ms, e);
	if (!r && !json_object_get(greeting, "QMP"))
		r = err_set(e, EPROTO, "what answers on the control socket is no machine");
	json_decref(greeting);
	if (!r)
		r = ctl_call_command(p, "qmp_capabilities", NULL, NULL, ms, e);
	if (r) {
		ctl_disconnect(p);
		return r;
	}
	*out = p;
	return 0;
}

void ctl_disconnect(struct ctl_peer *p)
{
	if (!p)
		return;
	cleanup_close(&p->fd);
	free(p->data);
	free(p);
}

int ctl_peer_fd(const struct ctl_peer *p)
{
	return p->fd;
}

/* `fd` goes with the first bytes; -1: none does. */
static ssize_t send_some(struct ctl_peer *p, const char *text, size_t len, int fd)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { .align = { .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int)) } };
	struct iovec iov = { (void *)(uintptr_t)text, len };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd >= 0) {
		memcpy(CMSG_DATA(&control.align), &fd, sizeof(fd));
		m.msg_control = &control;
		m.msg_controllen = sizeof(control);
	}
	return sendmsg(p->fd, &m, MSG_NOSIGNAL);
}

static int send_all(struct ctl_peer *p, const char *text, int fd, struct err *e)
{
	size_t len = strlen(text);

	while (len) {
		ssize_t n = send_some(p, text, len, fd);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return err_set(e, ETIMEDOUT, "the machine does not answer");
		if (n < 0)
			return errno == EPIPE ? err_set(e, EPIPE, "the machine has ended") : err_errno(e, "cannot reach the machine");
		fd = -1;
		text += n;
		len -= (size_t)n;
	}
	return 0;
}

static int take_reply(json_t *reply, json_t **result, struct err *e)
{
	json_t *returned = json_object_get(reply, "return");
	const char *why = json_string_value(json_object_get(json_object_get(reply, "error"), "desc"));

	if (!returned)
		return err_set(e, EREMOTEIO, "%s", why ? why : "the machine's answer makes no sense");
	if (result)
		*result = json_incref(returned);
	return 0;
}

struct watcher {
	void (*fn)(void *opaque, const json_t *event);
	void *opaque;
};

static int call_with(struct ctl_peer *p, int fd, const struct watcher *w, const char *name, json_t *arguments, json_t **result, int ms,
		     struct err *e)
{
	json_t *request = json_pack("{s:s}", "execute", name), *reply = NULL;
	int64_t end = ms < 0 ? INT64_MAX : now_ms() + ms;
	char *text;
	int r;

	if (arguments)
		json_object_set_new(request, "arguments", arguments);
	text = json_dumps(request, JSON_COMPACT);
	json_decref(request);
	r = text ? send_all(p, text, fd, e) : err_set(e, EINVAL, "the arguments are not UTF-8");
	free(text);
	while (!r) {
		r = receive(p, &reply, end, e);
		if (r || !json_object_get(reply, "event"))
			break;
		if (w)
			w->fn(w->opaque, reply);
		json_decref(reply);
	}
	if (r)
		return r;
	r = take_reply(reply, result, e);
	json_decref(reply);
	return r;
}

int ctl_call_command(struct ctl_peer *p, const char *name, json_t *arguments, json_t **result, int ms, struct err *e)
{
	return call_with(p, -1, NULL, name, arguments, result, ms, e);
}

int ctl_call_watching(struct ctl_peer *p, const char *name, json_t *arguments, void (*fn)(void *opaque, const json_t *event), void *opaque, int ms, struct err *e)
{
	return call_with(p, -1, &(struct watcher){ fn, opaque }, name, arguments, NULL, ms, e);
}

int ctl_bring(struct ctl_peer *p, const char *name, int fd, int ms, struct err *e)
{
	int r = call_with(p, fd, NULL, "add-fd", json_pack("{s:s}", "opaque", name), NULL, ms, e);

	return r == -EPIPE || r == -ETIMEDOUT ? r : 0;
}

int ctl_next_event(struct ctl_peer *p, json_t **event, int ms, struct err *e)
{
	int64_t end = ms < 0 ? INT64_MAX : now_ms() + ms;
	int r;

	while (!(r = receive(p, event, end, e))) {
		if (json_object_get(*event, "event"))
			return 0;
		json_decref(*event);
	}
	return r;
}
