/* SPDX-License-Identifier: Apache-2.0 */
/* TAP interfaces of the host. */
#ifndef BACKEND_NET_TAP_H
#define BACKEND_NET_TAP_H

#include <net/if.h>
#include "backend/net.h"

/* A non-blocking descriptor with virtio's headers of 10 bytes, and the interface's name; -errno. "x%d": the kernel numbers it. */
int tap_open(const char *name, char made[IFNAMSIZ], struct err *e);
/* A new interface in the bridge that `argument` names; it goes with its link. */
struct net_link *net_bridge_open(struct evloop *loop, const struct net_config *c, struct err *e);

#endif
