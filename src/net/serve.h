/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The switch as a process: a listening socket in the network's folder, members, captures, questions. It holds the folder's
 * lock for as long as it lives, and ends with its last member unless it is to be kept.
 */
#ifndef NET_SERVE_H
#define NET_SERVE_H

#include "net/switch.h"

struct evloop;

struct serve_config {
	char name[64];
	struct switch_config sw;
	bool keep;
	uint64_t limit_in, limit_out; /* most for each member, bytes a second; 0: none */
	char uplink[64];              /* "": none; user, tap:IF, bridge:IF */
};

struct serve;

/* listener: a listening socket of SOCK_SEQPACKET, the server's from now on. Nothing runs before evloop_start. */
struct serve *serve_create(const struct serve_config *c, struct evloop *loop, int listener, struct err *e);
void serve_destroy(struct serve *s); /* the loop is stopped */
/* Readable when the server has nothing left to do: its last member has gone, or it was told to stop. */
int serve_ended(const struct serve *s);

struct net_config;
/* user, tap:INTERFACE, bridge:BRIDGE */
int uplink_parse(const char *text, struct net_config *c, struct err *e);

/* JSON text of one network; and back. */
int serve_config_parse(const char *text, struct serve_config *c, struct err *e);
char *serve_config_text(const struct serve_config *c); /* to be freed; NULL: no memory */

#define SERVE_SOCKET "switch"
/* The socket in the network's folder. */
int serve_listen(int folder, struct err *e);

#endif
