/* SPDX-License-Identifier: Apache-2.0 */
/* The way to a network's switch: connecting and greeting. */
#ifndef BACKEND_NET_CLIENT_H
#define BACKEND_NET_CLIENT_H

#include <sys/types.h>
#include "backend/net-wire.h"

struct err;
struct sockaddr_un;

#define NET_CLIENT_SOCKET "switch" /* in the network's folder */
#define NET_CLIENT_MS 5000         /* how long a switch may take to answer */

/* However long the folder's path is; valid while `folder` is open. */
void net_client_address(int folder, struct sockaddr_un *at);
/*
 * A socket on which the switch has accepted the greeting, non-blocking; or -1. -ENOENT and -ECONNREFUSED in e->code: no
 * switch is there. folder: open descriptor of the network's folder.
 */
int net_client_connect(int folder, const struct net_hello *hello, struct err *e);
/* The same in two steps: a connection, which the switch takes for its maker's whoever greets on it; then the greeting. */
int net_client_dial(int folder, struct err *e);
int net_client_greet(int fd, const struct net_hello *hello, struct err *e); /* 0 or -errno; fd stays open */
/* One question, one answer (NUL-terminated); -errno. */
ssize_t net_client_ask(int fd, const char *question, char *answer, size_t size, struct err *e);

#endif
