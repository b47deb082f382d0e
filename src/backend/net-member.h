/* SPDX-License-Identifier: Apache-2.0 */
/* What a machine may say of its port on a switch: the options after --net switch:NAME. */
#ifndef BACKEND_NET_MEMBER_H
#define BACKEND_NET_MEMBER_H

#include "backend/net-wire.h"

struct err;

#define NET_RATE_LEAST 1000ll /* bytes a second */
#define NET_RATE_MOST 1000000000000ll

/* "100Mbit", "10Gbit", "512kbit", or "12MB" bytes: *rate in bytes a second. */
int net_parse_rate(const char *text, uint64_t *rate, struct err *e);
/*
 * One option into a greeting: vlan=N, trunk=all or trunk=N+N-N+..., address=IP+IP.... -ENOENT: no
 * such option (e is left alone).
 */
int net_member_option(struct net_hello *h, const char *key, const char *value, struct err *e);

#endif
