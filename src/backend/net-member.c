/* SPDX-License-Identifier: Apache-2.0 */
/* The options of a machine's port on a switch. */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "backend/net-member.h"
#include "base/base.h"
#include "base/err.h"

int net_parse_rate(const char *text, uint64_t *rate, struct err *e)
{
	static const struct {
		const char *name;
		double bytes;
	} units[] = { { "bit", 0.125 }, { "kbit", 125 }, { "Mbit", 125e3 }, { "Gbit", 125e6 },
		      { "B", 1 },	{ "kB", 1e3 },	 { "MB", 1e6 },	    { "GB", 1e9 } };
	char *end = NULL;
	double v = isdigit((unsigned char)*text) ? strtod(text, &end) : -1;

	for (unsigned i = 0; end && i < ARRAY_LEN(units); i++) {
		if (strcmp(end, units[i].name))
			continue;
		v *= units[i].bytes;
		if (!(v >= (double)NET_RATE_LEAST && v <= (double)NET_RATE_MOST))
			return err_set(e, ERANGE, "is no rate from 8kbit to 8000Gbit");
		*rate = (uint64_t)v;
		return 0;
	}
	return err_set(e, EINVAL, "is no rate a second: write 100Mbit, 10Gbit or 12MB");
}

static int parse_vlan(const char **text, uint16_t *vlan, struct err *e)
{
	char *end = NULL;
	unsigned long v = isdigit((unsigned char)**text) ? strtoul(*text, &end, 10) : 0;

	if (!v || v >= NET_VLANS)
		return err_set(e, EINVAL, "a VLAN is a number from 1 to %u", NET_VLANS - 1);
	*text = end;
	*vlan = (uint16_t)v;
	return 0;
}

static int option_vlan(struct net_hello *h, const char *value, struct err *e)
{
	int r = parse_vlan(&value, &h->vlan, e);

	return r ? r : *value ? err_set(e, EINVAL, "a VLAN is a number from 1 to %u", NET_VLANS - 1) : 0;
}

static int option_trunk(struct net_hello *h, const char *value, struct err *e)
{
	uint16_t from, to;

	h->trunk = 1;
	if (!strcmp(value, "all")) {
		memset(h->vlans, 0xff, sizeof(h->vlans));
		return 0;
	}
	memset(h->vlans, 0, sizeof(h->vlans));
	for (;; value++) {
		int r = parse_vlan(&value, &from, e);

		to = from;
		if (!r && *value == '-') {
			value++;
			r = parse_vlan(&value, &to, e);
		}
		if (r)
			return r;
		for (unsigned v = from; v <= to; v++)
			h->vlans[v / 8] |= (uint8_t)(1 << (v % 8));
		if (!*value && from <= to)
			return 0;
		if (*value != '+' || from > to)
			return err_set(e, EINVAL, "write trunk=all, or VLANs as in trunk=10+20-29");
	}
}

static int option_address(struct net_hello *h, const char *value, struct err *e)
{
	while (*value) {
		size_t n = strcspn(value, "+");
		char text[INET6_ADDRSTRLEN + 1];
		bool v6;

		if (h->addresses == NET_HELLO_ADDRESSES)
			return err_set(e, E2BIG, "at most %d addresses", NET_HELLO_ADDRESSES);
		memcpy(text, value, MIN(n, sizeof(text) - 1));
		text[MIN(n, sizeof(text) - 1)] = 0;
		v6 = strchr(text, ':');
		if (inet_pton(v6 ? AF_INET6 : AF_INET, text, h->address[h->addresses]) != 1)
			return err_set(e, EINVAL, "'%s' is no IP address: write address=10.0.0.2+fd00::2", text);
		h->v6 = (uint8_t)(h->v6 | v6 << h->addresses);
		h->addresses++;
		value += n + (value[n] == '+');
	}
	return h->addresses ? 0 : err_set(e, EINVAL, "needs an address");
}

int net_member_option(struct net_hello *h, const char *key, const char *value, struct err *e)
{
	int r;

	if (!strcmp(key, "vlan"))
		r = option_vlan(h, value, e);
	else if (!strcmp(key, "trunk"))
		r = option_trunk(h, value, e);
	else if (!strcmp(key, "address"))
		r = option_address(h, value, e);
	else
		return -ENOENT;
	return r ? err_prefix(e, "%s=%.40s", key, value) : 0;
}
