/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the switch's process. */
#ifndef NET_SERVE_PRIVATE_H
#define NET_SERVE_PRIVATE_H

#include "base/err.h"
#include "base/evloop.h"
#include "net/private.h"
#include "net/serve.h"

struct conn {
	struct serve *serve;
	int fd;
	struct evsource *source;
	uint8_t kind; /* enum net_hello_kind; 0: has not greeted */
	bool held, blocked;
	struct switch_port *port;
	struct switch_capture *capture;
	uint32_t lost;
	struct conn *next;
};

struct serve {
	struct serve_config config;
	struct evloop *loop;
	struct net_switch *sw;
	int listener, timer, alone, ended;
	struct evsource *source[3];
	struct conn *conns;
	unsigned nconns;
	bool greeted; /* a member has been there, or could have been */
	uint8_t *slots;
	struct uplink *uplink; /* NULL: none */
};

/* uplink.c: before the loop runs, and after. */
struct uplink *uplink_open(struct serve *s, const char *text, struct err *e);
void uplink_close(struct uplink *u);

void serve_end(struct serve *s);
/* False: the connection is to be closed. */
bool control_read(struct conn *c);

#endif
