/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket: listening, clients, events. Everything here but ctl_event and the machine's listener happens on the
 * control's own thread (before ctl_start and after it has been joined: on the caller's).
 *
 * What a client can make us keep is bounded: one request, CTL_OUTPUT_MAX of output, CTL_CLIENTS of them. A client that
 * does not read its replies is not served further, and dropped when the events it does not read get too many.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "base/evloop.h"
#include "base/log.h"
#include "board/pc.h"
#include "ctl/private.h"

struct ctl_client {
	struct ctl_client *next;
	struct ctl_session session;
	struct ctl_frame frame;
	struct evsource *source;
	int fd;
	uint32_t wanted; /* epoll events */
	char *out;
	size_t first, used, size; /* of out */
	bool ended; /* nothing more is read; gone when everything is written */
	bool broken;
};

#define NO_NUMBER 65534 /* the uid of those without one; /proc/sys/kernel/overflowuid is hardly ever changed */

static int64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

/* ---- output */

static void client_flush(struct ctl_client *k)
{
	while (k->used && !k->broken) {
		ssize_t n = send(k->fd, k->out + k->first, k->used, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			k->broken = errno != EAGAIN && errno != EWOULDBLOCK;
			return;
		}
		k->first += (size_t)n;
		k->used -= (size_t)n;
	}
	if (!k->used) { /* an idle client keeps nothing */
		free(k->out);
		k->out = NULL;
		k->first = k->size = 0;
	}
}

static char *client_room(struct ctl_client *k, size_t n)
{
	size_t size = MAX(k->size, (size_t)1024);
	char *out;

	if (n > CTL_OUTPUT_MAX || k->used > CTL_OUTPUT_MAX - n)
		return NULL;
	if (k->first) {
		memmove(k->out, k->out + k->first, k->used);
		k->first = 0;
	}
	while (size < k->used + n)
		size *= 2;
	if (size > k->size) {
		out = realloc(k->out, size);
		if (!out)
			return NULL;
		k->out = out;
		k->size = size;
	}
	return k->out + k->used;
}

static int client_append(const char *data, size_t n, void *opaque)
{
	struct ctl_client *k = opaque;
	char *to = k->broken ? NULL : client_room(k, n);

	if (!to) {
		k->broken = true;
		return -1;
	}
	memcpy(to, data, n);
	k->used += n;
	return 0;
}

/* Takes the message over. */
static void client_send(struct ctl_client *k, json_t *message)
{
	if (!message || json_dump_callback(message, client_append, k, 0))
		k->broken = true;
	client_append("\r\n", 2, k);
	json_decref(message);
}

/* ---- events */

/* To the clients' output; leaving is for others. */
static void events_deliver(struct ctl *c)
{
	struct ctl_client *k;
	struct ctl_pending p;

	for (;;) {
		json_t *message;

		pthread_mutex_lock(&c->lock);
		if (!c->count) {
			pthread_mutex_unlock(&c->lock);
			return;
		}
		p = c->events[c->first];
		c->first = (c->first + 1) % CTL_EVENTS;
		c->count--;
		pthread_mutex_unlock(&c->lock);
		message = json_pack("{s:s,s:{s:I,s:I}}", "event", p.name, "timestamp", "seconds",
				    (json_int_t)(p.at_us / 1000000), "microseconds", (json_int_t)(p.at_us % 1000000));
		if (p.data)
			json_object_set_new(message, "data", p.data);
		for (k = c->clients; k; k = k->next) {
			if (k->session.negotiated && !k->broken)
				client_send(k, json_incref(message));
		}
		json_decref(message);
	}
}

/* ---- input */

static void client_free(struct ctl *c, struct ctl_client *k)
{
	struct ctl_client **at = &c->clients;

	while (*at != k)
		at = &(*at)->next;
	*at = k->next;
	c->nclients--;
	evloop_remove(k->source);
	close(k->fd);
	ctl_frame_dispose(&k->frame);
	ctl_brought_dispose(&k->session.brought);
	free(k->out);
	free(k);
}

static void client_work(struct ctl_client *k)
{
	enum ctl_frame_result r = FRAME_VALUE;
	const char *text;
	size_t len;

	while (r != FRAME_MORE && !k->ended && !k->broken && k->used < CTL_OUTPUT_BUSY) {
		r = ctl_frame_next(&k->frame, &text, &len);
		if (r == FRAME_VALUE) {
			json_t *reply = ctl_session_handle(&k->session, text, len);

			events_deliver(k->session.ctl); /* what a command brought about comes before its reply */
			client_send(k, reply);
		}
		if (r == FRAME_NONSENSE)
			client_send(k, ctl_session_error("GenericError", "not JSON: a request begins with '{'", NULL));
		else if (r == FRAME_TOO_LONG)
			client_send(k, ctl_session_error("GenericError", "the request is nested too deeply", NULL));
		k->ended |= r == FRAME_TOO_LONG;
		client_flush(k);
	}
}

/* Descriptors that came along belong to the client from here on. */
static ssize_t receive(struct ctl_client *k, char *data, size_t size)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(CTL_FDS_WAITING * sizeof(int))];
	} control;
	struct iovec iov = { data, size };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(k->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	for (struct cmsghdr *c = n < 0 ? NULL : CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
		size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		for (size_t i = 0; c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
			ctl_brought_receive(&k->session.brought, fd);
		}
	}
	return n;
}

static void client_read(struct ctl_client *k)
{
	char data[16384];
	ssize_t n = receive(k, data, sizeof(data));

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		k->ended = true;
		k->broken |= n < 0;
		return;
	}
	if (ctl_frame_add(&k->frame, data, (size_t)n)) {
		client_send(k, ctl_session_error("GenericError", "the request is longer than 256 KiB", NULL));
		k->ended = true;
	}
}

/* What to wait for next; or the end. */
static void client_settle(struct ctl_client *k)
{
	uint32_t wanted = (k->used ? (uint32_t)EPOLLOUT : 0) |
			  (!k->ended && k->used < CTL_OUTPUT_BUSY ? (uint32_t)EPOLLIN : 0);

	if (k->broken || (k->ended && !k->used)) {
		client_free(k->session.ctl, k);
		return;
	}
	if (wanted != k->wanted)
		evloop_modify(k->source, wanted);
	k->wanted = wanted;
}

static void client_ready(void *opaque, uint32_t events)
{
	struct ctl_client *k = opaque;

	client_flush(k);
	client_work(k); /* requests that waited for room */
	if (!k->ended && !k->broken && k->used < CTL_OUTPUT_BUSY && events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
		client_read(k);
		client_work(k);
	}
	if (events & (EPOLLHUP | EPOLLERR)) /* nobody reads what we might still have */
		k->broken |= k->ended || k->used;
	client_settle(k);
}

void ctl_events_now(struct ctl *c)
{
	events_deliver(c);
	for (struct ctl_client *k = c->clients; k; k = k->next)
		client_flush(k);
}

static void events_send(void *opaque)
{
	struct ctl *c = opaque;
	struct ctl_client *k, *next;

	events_deliver(c);
	for (k = c->clients; k; k = next) {
		next = k->next;
		client_flush(k);
		client_settle(k);
	}
}

void ctl_event(struct ctl *c, const char *name, json_t *data)
{
	bool first;

	pthread_mutex_lock(&c->lock);
	first = !c->count;
	if (c->count == CTL_EVENTS) {
		json_decref(c->events[c->first].data);
		c->first = (c->first + 1) % CTL_EVENTS;
		c->count--;
	}
	c->events[(c->first + c->count++) % CTL_EVENTS] = (struct ctl_pending){ name, data, now_us() };
	pthread_mutex_unlock(&c->lock);
	if (first)
		evloop_post(c->loop, events_send, c);
}

static const char *end_reason(const struct vm *vm, bool host_reset)
{
	switch (vm->end) {
	case VM_END_RESET:
		return host_reset ? "host-qmp-system-reset" : "guest-reset";
	case VM_END_CRASH:
		return "guest-panic";
	case VM_END_ENGINE:
		return "host-error";
	case VM_END_USER:
		return strcmp(vm->end_reason, "quit") && strcmp(vm->end_reason, "suspended") ? "host-signal" : "host-qmp-quit";
	default:
		return "guest-shutdown";
	}
}

/* On any thread, with the machine's lock held. */
static void machine_changed(void *opaque, enum vm_event what)
{
	struct ctl *c = opaque;
	const struct vm *vm = c->config.vm;
	bool host, guest_end = vm->end != VM_END_USER && vm->end != VM_END_ENGINE;

	switch (what) {
	case VM_EVENT_PAUSED:
		ctl_event(c, "STOP", NULL);
		break;
	case VM_EVENT_RESUMED:
		c->io_error = false;
		ctl_event(c, "RESUME", NULL);
		break;
	case VM_EVENT_RESET:
		pthread_mutex_lock(&c->lock);
		host = c->host_reset;
		c->host_reset = false;
		pthread_mutex_unlock(&c->lock);
		ctl_event(c, "RESET", json_pack("{s:b,s:s}", "guest", !host, "reason",
						host ? "host-qmp-system-reset" : "guest-reset"));
		break;
	case VM_EVENT_ENDED:
		pthread_mutex_lock(&c->lock);
		host = c->host_reset;
		pthread_mutex_unlock(&c->lock);
		if (vm->end == VM_END_CRASH)
			ctl_event(c, "GUEST_PANICKED", json_pack("{s:s,s:{s:s}}", "action", "poweroff", "info",
								 "ospite-reason", vm->end_reason));
		ctl_event(c, "SHUTDOWN", json_pack("{s:b,s:s}", "guest", guest_end && !host, "reason",
						   end_reason(vm, host)));
		break;
	}
}

/* ---- the socket */

/* In a user namespace root has no number, as everybody else: there the socket's mode alone decides, 0600. */
static bool peer_allowed(const struct ctl *c, int fd)
{
	struct ucred who;
	socklen_t n = sizeof(who);

	return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n) &&
	       (who.uid == geteuid() || who.uid == 0 || (c->config.mapped && who.uid == NO_NUMBER));
}

static void client_accept(void *opaque, uint32_t events)
{
	struct ctl *c = opaque;
	int fd = evloop_accept(c->loop, c->listener);
	struct ctl_client *k;
	struct err e;

	if (fd < 0)
		return;
	k = peer_allowed(c, fd) && c->nclients < CTL_CLIENTS ? calloc(1, sizeof(*k)) : NULL;
	if (!k) {
		close(fd);
		return;
	}
	k->fd = fd;
	k->session.ctl = c;
	k->wanted = EPOLLIN;
	k->source = evloop_add(c->loop, fd, EPOLLIN, client_ready, k, &e);
	if (!k->source) {
		close(fd);
		free(k);
		return;
	}
	k->next = c->clients;
	c->clients = k;
	c->nclients++;
	client_send(k, ctl_session_greeting(&k->session));
	client_flush(k);
	client_settle(k);
}

/* A path relative to an open folder goes through /proc: a socket's address has only 108 bytes. */
static int socket_address(const struct ctl_config *config, struct sockaddr_un *at, struct err *e)
{
	int n;

	*at = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (config->folder >= 0)
		n = snprintf(at->sun_path, sizeof(at->sun_path), "/proc/self/fd/%d/%s", config->folder, config->path);
	else
		n = snprintf(at->sun_path, sizeof(at->sun_path), "%s", config->path);
	if (n >= (int)sizeof(at->sun_path))
		return err_set(e, ENAMETOOLONG, "%s: the path of a socket has at most %zu characters", config->path,
			       sizeof(at->sun_path) - 1);
	return 0;
}

/* A socket left by a process that died goes; one somebody listens on, or another kind of file, does not. */
static int remove_stale(const struct sockaddr_un *at, const char *path, struct err *e)
{
	int fd _close_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct stat st;

	if (lstat(at->sun_path, &st))
		return 0;
	if (!S_ISSOCK(st.st_mode))
		return err_set(e, EEXIST, "%s exists and is not a socket", path);
	if (fd < 0)
		return err_errno(e, "cannot create a socket");
	if (!connect(fd, (const struct sockaddr *)at, sizeof(*at)) || errno != ECONNREFUSED)
		return err_set(e, EADDRINUSE, "%s is in use", path);
	if (unlink(at->sun_path) && errno != ENOENT)
		return err_errno(e, "cannot replace %s", path);
	return 0;
}

static int ctl_listen(struct ctl *c, struct err *e)
{
	struct sockaddr_un at;
	int r = socket_address(&c->config, &at, e);

	if (!r)
		r = remove_stale(&at, c->config.path, e);
	if (r)
		return r;
	c->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->listener < 0)
		return err_errno(e, "cannot create a socket");
	/* the descriptor's mode is that of the file bind makes: it is never open to others */
	if (fchmod(c->listener, 0600) || bind(c->listener, (struct sockaddr *)&at, sizeof(at)))
		return err_errno(e, "cannot listen on %s", c->config.path);
	c->bound = true;
	if (listen(c->listener, 16))
		return err_errno(e, "cannot listen on %s", c->config.path);
	c->listening = evloop_add(c->loop, c->listener, EPOLLIN, client_accept, c, e);
	return c->listening ? 0 : -EIO;
}

struct ctl *ctl_create(const struct ctl_config *config, struct err *e)
{
	struct ctl *c = calloc(1, sizeof(*c));

	if (!c) {
		err_set(e, ENOMEM, "no memory for the control socket");
		return NULL;
	}
	c->config = *config;
	c->listener = -1;
	c->born_us = now_us();
	pthread_mutex_init(&c->lock, NULL);
	c->loop = evloop_create(e);
	if (!c->loop || ctl_listen(c, e)) {
		ctl_destroy(c);
		return NULL;
	}
	c->listener_hook = (struct vm_listener){ .fn = machine_changed, .opaque = c };
	if (config->vm)
		vm_listen(config->vm, &c->listener_hook);
	return c;
}

int ctl_start(struct ctl *c, struct err *e)
{
	int r = evloop_start(c->loop, e);

	c->started = !r;
	if (!r && c->config.pc) {
		pc_disks_on_error(c->config.pc, ctl_disk_error, c);
		pc_balloon_on_change(c->config.pc, ctl_balloon_changed, c);
		pc_on_gone(c->config.pc, ctl_device_gone, c);
	}
	return r;
}

void ctl_destroy(struct ctl *c)
{
	struct sockaddr_un at;

	if (!c)
		return;
	if (c->listener_hook.fn && c->config.vm)
		vm_unlisten(c->config.vm, &c->listener_hook);
	if (c->started && c->config.pc) {
		pc_disks_on_error(c->config.pc, NULL, NULL);
		pc_balloon_on_change(c->config.pc, NULL, NULL);
		pc_on_gone(c->config.pc, NULL, NULL);
	}
	if (c->started)
		evloop_stop(c->loop);
	if (c->loop)
		events_send(c); /* SHUTDOWN, most of all */
	while (c->clients)
		client_free(c, c->clients);
	if (c->listening)
		evloop_remove(c->listening);
	if (c->bound && !socket_address(&c->config, &at, NULL))
		unlink(at.sun_path);
	cleanup_close(&c->listener);
	evloop_destroy(c->loop);
	pthread_mutex_destroy(&c->lock);
	free(c);
}
