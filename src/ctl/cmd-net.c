/* SPDX-License-Identifier: Apache-2.0 */
/* Commands about network cards. */
#include <errno.h>
#include <stdio.h>
#include "backend/net-member.h"
#include "board/pc.h"
#include "ctl/private.h"

int ctl_ospite_query_networks(struct ctl_call *call, struct err *e)
{
	struct pc *pc = call->ctl->config.pc;
	struct pc_net_view v;

	call->result = json_array();
	for (unsigned i = 0; pc && pc_net_view(pc, i, &v); i++) {
		const struct net_stats *s = &v.stats;
		char mac[18];

		if (!v.present)
			continue;
		snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", v.mac[0], v.mac[1], v.mac[2], v.mac[3], v.mac[4], v.mac[5]);
		json_array_append_new(call->result,
				      json_pack("{s:s,s:s,s:s,s:s,s:b,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "name", v.name, "kind", v.kind,
						"model", v.model, "mac", mac, "up", v.up, "addresses", v.addresses,
						"sent-frames", (json_int_t)s->tx_frames, "sent-bytes", (json_int_t)s->tx_bytes,
						"sent-dropped", (json_int_t)s->tx_drops, "received-frames",
						(json_int_t)s->rx_frames, "received-bytes", (json_int_t)s->rx_bytes,
						"received-dropped", (json_int_t)s->rx_drops, "limit-in",
						(json_int_t)v.limits.in, "limit-out", (json_int_t)v.limits.out));
	}
	return 0;
}

static struct net_link *card_named(struct ctl_call *call, struct err *e)
{
	if (call->ctl->config.pc)
		return pc_net_named(call->ctl->config.pc, json_string_value(json_object_get(call->arguments, "name")), e);
	err_set(e, ENODEV, "the machine has no network card");
	return NULL;
}

int ctl_set_link(struct ctl_call *call, struct err *e)
{
	struct net_link *l = card_named(call, e);

	if (!l)
		return -e->code;
	net_set_up(l, json_is_true(json_object_get(call->arguments, "up")));
	return 0;
}

int ctl_ospite_net_set_limits(struct ctl_call *call, struct err *e)
{
	static const char *const names[] = { "in", "out" };
	struct net_link *l = card_named(call, e);
	struct net_limits limits;
	uint64_t *const value[] = { &limits.in, &limits.out };

	if (!l)
		return -e->code;
	limits = net_get_limits(l);
	for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
		const json_t *given = json_object_get(call->arguments, names[i]);
		json_int_t rate = json_integer_value(given);

		if (!given)
			continue;
		if (rate && (rate < NET_RATE_LEAST || rate > NET_RATE_MOST))
			return err_set(e, ERANGE, "%s: 0 (no limit), or %lld to %lld bytes a second", names[i], NET_RATE_LEAST, NET_RATE_MOST);
		*value[i] = (uint64_t)rate;
	}
	return net_set_limits(l, &limits, e);
}
