/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop: one epoll instance served by one thread.
 *
 * l->lock covers the lists and the flags of all sources; callbacks run without it. A removed source is out of
 * epoll at once, but an event of it may already have been fetched: it therefore stays on the `dead` list until
 * the batch in progress is through, and its `removed` flag keeps the callback from being called. `current` names
 * the source whose callback is running, so that evloop_remove can wait for it. Do not hold a lock over
 * evloop_remove that the callback takes.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/base.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/evloop.h"

#define BATCH 32
#define REST_NS 100000000u

struct evsource {
	struct evloop *loop;
	int fd;
	evloop_fd_fn fn;
	void *opaque;
	uint32_t events;
	uint64_t rests; /* until when; 0: it does not */
	bool removed;
	struct evsource *next, **link;
};

struct evwork {
	evloop_work_fn fn;
	void *opaque;
	uint64_t turn; /* when it was posted */
	struct evwork *next;
};

struct evloop {
	int epoll, wake;
	pthread_mutex_t lock;
	pthread_cond_t idle; /* `current` or `doing` has changed */
	pthread_t thread;
	_Atomic bool running; /* thread is valid */
	bool stopping;
	unsigned resting; /* sources */
	struct evsource *sources, *dead, *current;
	struct evwork *work, **work_end, *doing;
	uint64_t turn;
};

static void evloop_wake(struct evloop *l)
{
	uint64_t one = 1;

	/* fails only when the counter is full, and then the loop is about to wake anyway */
	if (write(l->wake, &one, sizeof(one)) < 0)
		return;
}

struct evloop *evloop_create(struct err *e)
{
	struct epoll_event ev = { .events = EPOLLIN };
	struct evloop *l = calloc(1, sizeof(*l));

	if (!l) {
		err_set(e, ENOMEM, "no memory for an event loop");
		return NULL;
	}
	l->epoll = epoll_create1(EPOLL_CLOEXEC);
	l->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (l->epoll < 0 || l->wake < 0 || epoll_ctl(l->epoll, EPOLL_CTL_ADD, l->wake, &ev)) {
		err_errno(e, "cannot create an event loop");
		cleanup_close(&l->epoll);
		cleanup_close(&l->wake);
		free(l);
		return NULL;
	}
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->idle, NULL);
	l->work_end = &l->work;
	return l;
}

static void evloop_bury(struct evloop *l)
{
	struct evsource *s;

	while ((s = l->dead)) {
		l->dead = s->next;
		free(s);
	}
}

void evloop_destroy(struct evloop *l)
{
	struct evsource *s;
	struct evwork *w;

	if (!l)
		return;
	evloop_stop(l);
	while ((s = l->sources)) {
		l->sources = s->next;
		free(s);
	}
	evloop_bury(l);
	while ((w = l->work)) {
		l->work = w->next;
		free(w);
	}
	close(l->epoll);
	close(l->wake);
	pthread_cond_destroy(&l->idle);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

/* Lock held on entry and exit. */
static void evloop_call(struct evloop *l, struct evsource *s, uint32_t events)
{
	l->current = s;
	pthread_mutex_unlock(&l->lock);
	s->fn(s->opaque, events);
	pthread_mutex_lock(&l->lock);
	l->current = NULL;
	pthread_cond_broadcast(&l->idle);
}

/* What was posted before we started; what is posted meanwhile waits for the next turn. Lock held. */
static void evloop_work(struct evloop *l)
{
	uint64_t turn = l->turn++;
	struct evwork *w;

	while ((w = l->work) && w->turn <= turn) {
		l->work = w->next;
		if (!l->work)
			l->work_end = &l->work;
		l->doing = w;
		pthread_mutex_unlock(&l->lock);
		w->fn(w->opaque);
		pthread_mutex_lock(&l->lock);
		l->doing = NULL;
		free(w);
		pthread_cond_broadcast(&l->idle);
	}
	if (l->work)
		evloop_wake(l);
}

/* Lock held, as in the next two. */
static void evloop_watch(struct evsource *s)
{
	struct epoll_event ev = { .events = s->rests ? 0 : s->events, .data.ptr = s };

	epoll_ctl(s->loop->epoll, EPOLL_CTL_MOD, s->fd, &ev);
}

static void evloop_rested(struct evsource *s)
{
	s->loop->resting -= s->rests != 0;
	s->rests = 0;
}

/* Who has rested enough goes on; milliseconds until the next does, or -1. */
static int evloop_wait_ms(struct evloop *l)
{
	uint64_t now, first = UINT64_MAX;

	if (likely(!l->resting))
		return -1;
	now = clock_host_now();
	for (struct evsource *s = l->sources; s; s = s->next) {
		if (s->rests && s->rests <= now) {
			evloop_rested(s);
			evloop_watch(s);
		}
		if (s->rests)
			first = MIN(first, s->rests);
	}
	return first == UINT64_MAX ? -1 : (int)((first - now) / 1000000) + 1;
}

static void *evloop_thread(void *opaque)
{
	struct evloop *l = opaque;
	struct epoll_event ev[BATCH];
	uint64_t drop;
	int n, i;

	pthread_setname_np(pthread_self(), "ospite-loop");
	pthread_mutex_lock(&l->lock);
	while (!l->stopping) {
		int ms = evloop_wait_ms(l);

		pthread_mutex_unlock(&l->lock);
		n = epoll_wait(l->epoll, ev, BATCH, ms);
		pthread_mutex_lock(&l->lock);
		for (i = 0; i < n; i++) {
			struct evsource *s = ev[i].data.ptr;

			if (!s) {
				if (read(l->wake, &drop, sizeof(drop)) < 0)
					continue;
				evloop_work(l);
			} else if (!s->removed) {
				evloop_call(l, s, ev[i].events);
			}
		}
		evloop_bury(l);
	}
	pthread_mutex_unlock(&l->lock);
	return NULL;
}

int evloop_start(struct evloop *l, struct err *e)
{
	int r;

	CHECK(!l->running);
	l->stopping = false;
	l->running = true;
	pthread_mutex_lock(&l->lock); /* l->thread is written before the thread looks at it */
	r = pthread_create(&l->thread, NULL, evloop_thread, l);
	pthread_mutex_unlock(&l->lock);
	if (r) {
		l->running = false;
		errno = r;
		return err_errno(e, "cannot create the event-loop thread");
	}
	return 0;
}

void evloop_stop(struct evloop *l)
{
	if (!l->running)
		return;
	CHECK(!evloop_is_current(l));
	pthread_mutex_lock(&l->lock);
	l->stopping = true;
	pthread_mutex_unlock(&l->lock);
	evloop_wake(l);
	pthread_join(l->thread, NULL);
	l->running = false;
}

bool evloop_is_current(const struct evloop *l)
{
	return l->running && pthread_equal(l->thread, pthread_self());
}

struct evsource *evloop_add(struct evloop *l, int fd, uint32_t epoll_events, evloop_fd_fn fn,
			    void *opaque, struct err *e)
{
	struct evsource *s = calloc(1, sizeof(*s));
	struct epoll_event ev = { .events = epoll_events, .data.ptr = s };

	if (!s) {
		err_set(e, ENOMEM, "no memory for an event source");
		return NULL;
	}
	s->loop = l;
	s->fd = fd;
	s->fn = fn;
	s->opaque = opaque;
	s->events = epoll_events;
	pthread_mutex_lock(&l->lock);
	if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, fd, &ev)) {
		pthread_mutex_unlock(&l->lock);
		err_errno(e, "cannot watch a file descriptor");
		free(s);
		return NULL;
	}
	s->next = l->sources;
	s->link = &l->sources;
	if (s->next)
		s->next->link = &s->next;
	l->sources = s;
	pthread_mutex_unlock(&l->lock);
	return s;
}

void evloop_modify(struct evsource *s, uint32_t epoll_events)
{
	pthread_mutex_lock(&s->loop->lock);
	s->events = epoll_events;
	if (!s->removed)
		evloop_watch(s);
	pthread_mutex_unlock(&s->loop->lock);
}

int evloop_accept(struct evloop *l, int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), code = errno;

	if (fd >= 0 || (code != EMFILE && code != ENFILE && code != ENOMEM && code != ENOBUFS))
		return fd;
	pthread_mutex_lock(&l->lock);
	if (evloop_is_current(l) && l->current && !l->current->removed) {
		l->resting += !l->current->rests;
		l->current->rests = clock_host_now() + REST_NS;
		evloop_watch(l->current);
	}
	pthread_mutex_unlock(&l->lock);
	errno = code;
	return -1;
}

void evloop_remove(struct evsource *s)
{
	struct evloop *l;

	if (!s)
		return;
	l = s->loop;
	pthread_mutex_lock(&l->lock);
	s->removed = true;
	evloop_rested(s);
	epoll_ctl(l->epoll, EPOLL_CTL_DEL, s->fd, NULL);
	while (l->current == s && !evloop_is_current(l))
		pthread_cond_wait(&l->idle, &l->lock);
	*s->link = s->next;
	if (s->next)
		s->next->link = s->link;
	s->next = l->dead;
	l->dead = s;
	if (!l->running)
		evloop_bury(l);
	pthread_mutex_unlock(&l->lock);
	if (l->running && !evloop_is_current(l))
		evloop_wake(l); /* so that the dead are buried soon */
}

int evloop_post(struct evloop *l, evloop_work_fn fn, void *opaque)
{
	struct evwork *w = malloc(sizeof(*w));
	bool first;

	if (!w)
		return -ENOMEM;
	*w = (struct evwork){ .fn = fn, .opaque = opaque };
	pthread_mutex_lock(&l->lock);
	w->turn = l->turn;
	first = !l->work;
	*l->work_end = w;
	l->work_end = &w->next;
	pthread_mutex_unlock(&l->lock);
	if (first)
		evloop_wake(l);
	return 0;
}

void evloop_cancel(struct evloop *l, evloop_work_fn fn, const void *opaque)
{
	struct evwork **at = &l->work, *w;

	pthread_mutex_lock(&l->lock);
	while ((w = *at)) {
		if (w->fn != fn || w->opaque != opaque) {
			at = &w->next;
			continue;
		}
		*at = w->next;
		free(w);
	}
	l->work_end = at;
	while (l->doing && l->doing->fn == fn && l->doing->opaque == opaque && !evloop_is_current(l))
		pthread_cond_wait(&l->idle, &l->lock);
	pthread_mutex_unlock(&l->lock);
}
