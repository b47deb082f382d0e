/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop of a machine's process: epoll, timerfd, eventfd, on a thread of its own. Callbacks run
 * on that thread; evloop_post hands it work from any other.
 */
#ifndef BASE_EVLOOP_H
#define BASE_EVLOOP_H

#include <stdbool.h>
#include <stdint.h>

struct err;
struct evloop;
struct evsource;

typedef void (*evloop_fd_fn)(void *opaque, uint32_t epoll_events);
typedef void (*evloop_work_fn)(void *opaque);

struct evloop *evloop_create(struct err *e);
void evloop_destroy(struct evloop *l);
int evloop_start(struct evloop *l, struct err *e); /* creates the thread */
void evloop_stop(struct evloop *l);                /* joins it */
/* Watch fd (not owned). Level-triggered. Change the events or remove from any thread; after
 * evloop_remove returns the callback is neither running (unless called from it) nor called again. */
struct evsource *evloop_add(struct evloop *l, int fd, uint32_t epoll_events, evloop_fd_fn fn,
			    void *opaque, struct err *e);
void evloop_modify(struct evsource *s, uint32_t epoll_events);
void evloop_remove(struct evsource *s);
/*
 * For the callback of a listening socket: accept4 with CLOEXEC and NONBLOCK. Where the process or the host has no descriptors or memory
 * left, a connection that waits would wake the loop again and again: the socket is then left alone for a tenth of a second.
 */
int evloop_accept(struct evloop *l, int listener);
/* Work not yet done when the loop stops is done after the next start, or dropped by evloop_destroy. */
int evloop_post(struct evloop *l, evloop_work_fn fn, void *opaque);
/* What was posted so is not done any more, nor is it underway (unless called from it): before opaque is freed. */
void evloop_cancel(struct evloop *l, evloop_work_fn fn, const void *opaque);
bool evloop_is_current(const struct evloop *l); /* are we on its thread? */

#endif
