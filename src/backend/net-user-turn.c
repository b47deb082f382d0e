/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The user network's sockets and timers. libslirp says after each turn what it wants watched and when it wants to be called; sockets are
 * in an epoll of ours that is brought in line with that, timers are one timerfd.
 *
 * TCP's timers run every 200 or 500 ms while there are connections, until nothing has happened for QUIET_MS; so an idle network
 * wakes nobody but for router advertisements, every 200 s and more.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include "backend/net-user.h"
#include "base/base.h"
#include "base/err.h"
#include "base/evloop.h"
#include "base/log.h"

#define QUIET_MS 30000u
#define IDLE_MS 1000u
#define EVENTS 64
#define MS 1000000u

/* ---- what libslirp calls; the lock is held */

static ssize_t user_output(const void *data, size_t len, void *opaque)
{
	struct user *u = opaque;

	net_flows_look(&u->flows, data, len, false);
	if (!net_merge_add(&u->merge, data, len))
		net_dropped(&u->link, true);
	return (ssize_t)len;
}

static void user_complaint(const char *text, void *opaque)
{
	log_guest("net", "%s: %.200s", ((struct user *)opaque)->link.name, text);
}

static int64_t user_clock(void *opaque)
{
	return (int64_t)clock_host_now();
}

static void *timer_new(SlirpTimerCb fn, void *arg, void *opaque)
{
	struct user *u = opaque;
	struct user_timer *t = calloc(1, sizeof(*t));

	CHECK(t);
	*t = (struct user_timer){ .u = u, .fn = fn, .opaque = arg, .at = USER_NEVER, .next = u->timers };
	u->timers = t;
	return t;
}

static void timer_free(void *timer, void *opaque)
{
	struct user *u = opaque;
	struct user_timer **at = &u->timers;

	while (*at && *at != timer)
		at = &(*at)->next;
	if (*at)
		*at = (*at)->next;
	free(timer);
}

static void timer_mod(void *timer, int64_t ms, void *opaque)
{
	((struct user_timer *)timer)->at = ms < 0 ? 0 : (uint64_t)ms;
}

static struct watched *watched(struct user *u, int fd)
{
	if (fd < 0)
		return NULL;
	if ((unsigned)fd >= u->nfd) {
		unsigned n = MAX(64u, ((unsigned)fd + 1) * 2);
		struct watched *w = realloc(u->fd, n * sizeof(*w));

		if (!w)
			return NULL;
		memset(w + u->nfd, 0, (n - u->nfd) * sizeof(*w));
		u->fd = w;
		u->nfd = n;
	}
	return &u->fd[fd];
}

static void fd_new(int fd, void *opaque)
{
	struct user *u = opaque;
	struct watched *w = watched(u, fd);

	if (!w)
		return;
	u->sockets += !w->known;
	*w = (struct watched){ .known = true };
}

/* It is about to be closed, which takes it out of the epoll as well. */
static void fd_gone(int fd, void *opaque)
{
	struct user *u = opaque;
	struct watched *w = watched(u, fd);

	if (u->resetting) /* the other end is to see a failure, not the end of what was sent */
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){ .l_onoff = 1 }, sizeof(struct linger));
	if (!w)
		return;
	if (w->now)
		epoll_ctl(u->epoll, EPOLL_CTL_DEL, fd, NULL);
	u->sockets -= w->known;
	*w = (struct watched){ 0 };
}

static void user_notify(void *opaque)
{
	/* whoever calls libslirp looks for work afterwards */
}

const SlirpCb user_callbacks = {
	.send_packet = user_output, .guest_error = user_complaint, .clock_get_ns = user_clock, .timer_new = timer_new,
	.timer_free = timer_free, .timer_mod = timer_mod, .register_poll_fd = fd_new, .unregister_poll_fd = fd_gone,
	.notify = user_notify,
};

/* ---- a turn */

static const struct {
	int slirp;
	uint32_t epoll;
} event_map[] = { { SLIRP_POLL_IN, EPOLLIN }, { SLIRP_POLL_OUT, EPOLLOUT }, { SLIRP_POLL_PRI, EPOLLPRI },
		  { SLIRP_POLL_ERR, EPOLLERR }, { SLIRP_POLL_HUP, EPOLLHUP } };

/* A forward's, which libslirp does not tell of. It lets one caller wait: of several at once the others would try again after a second. */
static bool listens(struct watched *w, int fd)
{
	socklen_t len = sizeof(int);
	int yes = 0;

	if (w->listens == LISTENS_UNKNOWN && !w->known) {
		w->listens = !getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &yes, &len) && yes ? LISTENS : LISTENS_NOT;
		if (yes)
			listen(fd, SOMAXCONN);
	}
	return w->listens == LISTENS;
}

static int poll_want(int fd, int events, void *opaque)
{
	struct user *u = opaque;
	struct watched *w = watched(u, fd);

	if (!w)
		return -1;
	/* with all sockets in use those who call by a forward wait: accepting would fail, and be tried again at once */
	if (listens(w, fd) && u->sockets >= u->sockets_max)
		return fd;
	for (unsigned i = 0; i < ARRAY_LEN(event_map); i++)
		if (events & event_map[i].slirp)
			w->wanted |= event_map[i].epoll;
	return fd;
}

static int poll_happened(int fd, void *opaque)
{
	struct user *u = opaque;
	int events = 0;

	if (fd < 0 || (unsigned)fd >= u->nfd)
		return 0;
	for (unsigned i = 0; i < ARRAY_LEN(event_map); i++)
		if (u->fd[fd].happened & event_map[i].epoll)
			events |= event_map[i].slirp;
	return events;
}

static void watch(struct user *u, int fd, struct watched *w)
{
	struct epoll_event ev = { .events = w->wanted, .data.fd = fd };

	if (w->wanted == w->now)
		return;
	if (!w->wanted)
		epoll_ctl(u->epoll, EPOLL_CTL_DEL, fd, NULL);
	else if (epoll_ctl(u->epoll, w->now ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &ev) && errno == ENOENT)
		epoll_ctl(u->epoll, EPOLL_CTL_ADD, fd, &ev);
	w->now = w->wanted;
}

/* Earlier than it is set to, or it has just fired. */
static void user_arm(struct user *u, uint64_t at)
{
	struct itimerspec t = { 0 };

	if (at >= u->armed)
		return;
	u->armed = at;
	at = MAX(at, 1ull);
	t.it_value.tv_sec = (time_t)(at / 1000);
	t.it_value.tv_nsec = (long)(at % 1000 * MS);
	timerfd_settime(u->timer, TFD_TIMER_ABSTIME, &t, NULL);
}

/* What the guest answers to these libslirp, knowing no such connections, answers with a reset. */
static void user_probe(struct user *u)
{
	const uint8_t gateway[6] = { 0x52, 0x55, 10, 0, (uint8_t)(u->network.s_addr >> 8), 2 }; /* libslirp's */
	uint8_t frame[NET_PROBE];

	while (u->nover && !net_merge_full(&u->merge)) {
		size_t len = net_flow_probe(&u->over[--u->nover], u->over_mac, gateway, frame);

		if (len)
			net_merge_add(&u->merge, frame, len);
	}
}

void user_settle(struct user *u)
{
	uint32_t timeout = UINT32_MAX;
	uint64_t now = user_now_ms();
	bool deaf;

	user_probe(u);
	net_merge_deliver(&u->merge, &u->link);
	slirp_pollfds_fill(u->slirp, &timeout, poll_want, u);
	for (unsigned fd = 0; fd < u->nfd; fd++) {
		struct watched *w = &u->fd[fd];

		if (w->wanted != w->now)
			watch(u, (int)fd, w);
		w->wanted = 0;
	}
	deaf = net_merge_full(&u->merge);
	if (deaf != u->deaf) {
		u->deaf = deaf;
		evloop_modify(u->sockets_source, deaf ? 0 : EPOLLIN);
	}
	/* libslirp asks for a turn every second also when no timer of TCP's or of fragments runs: for nothing */
	if (timeout < IDLE_MS && now - u->active < QUIET_MS)
		user_arm(u, now + timeout + 1);
	for (struct user_timer *t = u->timers; t; t = t->next)
		user_arm(u, t->at);
}

/* libslirp notes what it asked for last, so it asks first. */
static void user_poll_after(struct user *u, const struct epoll_event *ev, int n)
{
	uint32_t timeout = UINT32_MAX;

	slirp_pollfds_fill(u->slirp, &timeout, poll_want, u);
	for (int i = 0; i < n; i++)
		u->fd[ev[i].data.fd].happened = ev[i].events;
	slirp_pollfds_poll(u->slirp, 0, poll_happened, u);
	for (int i = 0; i < n; i++)
		u->fd[ev[i].data.fd].happened = 0;
	for (unsigned fd = 0; fd < u->nfd; fd++)
		u->fd[fd].wanted = 0;
}

void user_poll(struct user *u)
{
	user_poll_after(u, NULL, 0);
}

void user_turn(struct user *u)
{
	struct epoll_event ev[EVENTS];
	int n = u->deaf ? 0 : epoll_wait(u->epoll, ev, EVENTS, 0);

	if (n <= 0)
		return;
	u->active = user_now_ms();
	user_poll_after(u, ev, n);
	user_settle(u);
}

void user_sockets(void *opaque, uint32_t events)
{
	struct user *u = opaque;

	pthread_mutex_lock(&u->lock);
	user_turn(u);
	pthread_mutex_unlock(&u->lock);
}

void user_tick(void *opaque, uint32_t events)
{
	struct user *u = opaque;
	uint64_t drop, now;

	pthread_mutex_lock(&u->lock);
	if (read(u->timer, &drop, sizeof(drop)) == sizeof(drop)) {
		u->armed = USER_NEVER;
		now = user_now_ms();
		for (struct user_timer *t = u->timers, *next; t; t = next) {
			next = t->next;
			if (t->at <= now) {
				t->at = USER_NEVER;
				t->fn(t->opaque);
			}
		}
		user_poll(u);
		user_settle(u);
	}
	pthread_mutex_unlock(&u->lock);
}
