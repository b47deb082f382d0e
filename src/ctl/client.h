/* SPDX-License-Identifier: Apache-2.0 */
/* The other side of the control socket: what commands use to talk to a machine. */
#ifndef CTL_CLIENT_H
#define CTL_CLIENT_H

#include <jansson.h>
#include "base/err.h"

struct ctl_peer;

/* Connects and negotiates, within ms. -ECONNREFUSED, -ENOENT: nobody is there. */
int ctl_connect(struct ctl_peer **out, int folder, const char *path, int ms, struct err *e);
void ctl_disconnect(struct ctl_peer *p);
/* `arguments` (may be NULL) is taken over; *result (may be NULL) is the caller's. Events that come first are dropped. */
int ctl_call_command(struct ctl_peer *p, const char *name, json_t *arguments, json_t **result, int ms, struct err *e);
/*
 * Bring a file along, for the commands that name it as `name`: a machine's process does not see the files of its host. One that
 * does not know how, being older, opens it itself. -errno only when the connection is broken.
 */
int ctl_bring(struct ctl_peer *p, const char *name, int fd, int ms, struct err *e);
/* ctl_call_command without a result; events that come before the reply go to fn. */
int ctl_call_watching(struct ctl_peer *p, const char *name, json_t *arguments, void (*fn)(void *opaque, const json_t *event), void *opaque,
		      int ms, struct err *e);
/* The next event; -EPIPE: the machine has ended; -ETIMEDOUT. ms < 0: for ever. */
int ctl_next_event(struct ctl_peer *p, json_t **event, int ms, struct err *e);
int ctl_peer_fd(const struct ctl_peer *p);

#endif
