/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Questions to a switch, JSON both ways, a message each. {"command": "show", "from": N} is answered by the network and by ports from
 * index N on; "next", if there, is where to go on. {"command": "stop"} ends the switch. Also the network's file.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <sys/socket.h>
#include "net/serve-private.h"

#define QUESTION 4096u
#define PORTS_AT_ONCE 32u /* about 700 bytes each */

static void describe_addresses(json_t *port, const struct net_hello *h)
{
	json_t *list;

	if (!h->addresses)
		return;
	list = json_array();
	for (unsigned i = 0; i < h->addresses; i++) {
		char text[INET6_ADDRSTRLEN];

		if (inet_ntop(h->v6 >> i & 1 ? AF_INET6 : AF_INET, h->address[i], text, sizeof(text)))
			json_array_append_new(list, json_string(text));
	}
	json_object_set_new(port, "addresses", list);
}

static json_t *describe_port(unsigned index, const struct switch_port_info *info)
{
	const struct net_hello *h = &info->hello;
	json_t *o = json_object();
	char mac[20];

	snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", h->mac[0], h->mac[1], h->mac[2], h->mac[3], h->mac[4], h->mac[5]);
	json_object_set_new(o, "port", json_integer(index));
	/* a machine's name is its own word: what is no text becomes none */
	json_object_set_new(o, "name", json_string(h->name) ?: json_string("?"));
	json_object_set_new(o, "kind", json_string(info->uplink ? "uplink" : "member"));
	json_object_set_new(o, "mac", info->uplink ? json_null() : json_string(mac));
	json_object_set_new(o, "vlan", h->vlan ? json_integer(h->vlan) : json_null());
	json_object_set_new(o, "trunk", json_boolean(h->trunk));
	json_object_set_new(o, "limit-in", json_integer((json_int_t)h->limit_in));
	json_object_set_new(o, "limit-out", json_integer((json_int_t)h->limit_out));
	describe_addresses(o, h);
	for (unsigned i = 0; i < SWITCH_COUNTERS; i++)
		json_object_set_new(o, switch_counter_names[i], json_integer((json_int_t)info->counter[i]));
	json_object_set_new(o, "queued-frames", json_integer(info->queued_frames));
	json_object_set_new(o, "queued-bytes", json_integer((json_int_t)info->queued_bytes));
	return o;
}

static json_t *show(struct serve *s, const json_t *question)
{
	json_t *answer = json_object(), *ports = json_array();
	json_int_t from = json_integer_value(json_object_get(question, "from"));
	struct switch_port_info info;
	int at = from >= 0 && from < (json_int_t)SWITCH_PORTS ? (int)from : (int)SWITCH_PORTS;

	json_object_set_new(answer, "network", json_string(s->config.name));
	json_object_set_new(answer, "members", json_integer(switch_members(s->sw)));
	json_object_set_new(answer, "uplink", s->config.uplink[0] ? json_string(s->config.uplink) : json_null());
	for (unsigned n = 0; (at = switch_port_info(s->sw, (unsigned)at, &info)) >= 0; n++, at++) {
		if (n == PORTS_AT_ONCE) {
			json_object_set_new(answer, "next", json_integer(at));
			break;
		}
		json_array_append_new(ports, describe_port((unsigned)at, &info));
	}
	json_object_set_new(answer, "ports", ports);
	return answer;
}

bool control_read(struct conn *c)
{
	char text[QUESTION], *out;
	json_t *question, *answer = NULL;
	const char *command;
	ssize_t n = recv(c->fd, text, sizeof(text), MSG_DONTWAIT), sent = -1;

	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	if (!n)
		return false;
	question = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, NULL);
	command = json_string_value(json_object_get(question, "command"));
	if (command && !strcmp(command, "show")) {
		answer = show(c->serve, question);
	} else if (command && !strcmp(command, "stop")) {
		answer = json_object();
		serve_end(c->serve);
	} else {
		answer = json_pack("{ss}", "error", "no such command; there are show and stop");
	}
	out = json_dumps(answer, JSON_COMPACT);
	if (out)
		sent = send(c->fd, out, strlen(out), MSG_DONTWAIT | MSG_NOSIGNAL);
	free(out);
	json_decref(answer);
	json_decref(question);
	return sent >= 0; /* whoever does not read its answers is not kept */
}

/* ---- the network's file */

char *serve_config_text(const struct serve_config *c)
{
	json_t *o = json_object();
	char *text;

	if (c->uplink[0])
		json_object_set_new(o, "uplink", json_string(c->uplink));
	json_object_set_new(o, "keep", json_boolean(c->keep));
	json_object_set_new(o, "isolate", json_boolean(c->sw.isolate));
	json_object_set_new(o, "spoofing", json_boolean(c->sw.spoofing));
	if (c->limit_in)
		json_object_set_new(o, "limit-in", json_integer((json_int_t)c->limit_in));
	if (c->limit_out)
		json_object_set_new(o, "limit-out", json_integer((json_int_t)c->limit_out));
	if (c->sw.ageing)
		json_object_set_new(o, "ageing", json_integer(c->sw.ageing));
	text = json_dumps(o, JSON_INDENT(1));
	json_decref(o);
	return text;
}

static int config_number(const json_t *o, const char *key, uint64_t max, uint64_t *to, struct err *e)
{
	const json_t *v = json_object_get(o, key);

	if (!v)
		return 0;
	if (!json_is_integer(v) || json_integer_value(v) < 0 || (uint64_t)json_integer_value(v) > max)
		return err_set(e, EINVAL, "network.json: \"%s\" must be a number from 0 to %llu", key, (unsigned long long)max);
	*to = (uint64_t)json_integer_value(v);
	return 0;
}

static int config_truth(const json_t *o, const char *key, bool *to, struct err *e)
{
	const json_t *v = json_object_get(o, key);

	if (v && !json_is_boolean(v))
		return err_set(e, EINVAL, "network.json: \"%s\" must be true or false", key);
	*to = json_is_true(v);
	return 0;
}

static int config_read(const json_t *o, struct serve_config *c, struct err *e)
{
	static const char *const known[] = { "uplink", "keep", "isolate", "spoofing", "limit-in", "limit-out", "ageing" };
	const json_t *uplink = json_object_get(o, "uplink");
	uint64_t ageing = 0;
	const char *key;
	json_t *v;
	int r;

	json_object_foreach((json_t *)o, key, v) {
		unsigned i = 0;

		while (i < ARRAY_LEN(known) && strcmp(key, known[i]))
			i++;
		if (i == ARRAY_LEN(known))
			return err_set(e, EINVAL, "network.json: unknown key \"%.40s\"", key);
	}
	if (uplink && (!json_is_string(uplink) || json_string_length(uplink) >= sizeof(c->uplink)))
		return err_set(e, EINVAL, "network.json: \"uplink\" must be user, tap:IF or bridge:IF");
	if (uplink)
		snprintf(c->uplink, sizeof(c->uplink), "%s", json_string_value(uplink));
	r = config_number(o, "ageing", 86400, &ageing, e);
	c->sw.ageing = (uint32_t)ageing;
	r = r ?: config_number(o, "limit-in", 1ull << 50, &c->limit_in, e);
	r = r ?: config_number(o, "limit-out", 1ull << 50, &c->limit_out, e);
	r = r ?: config_truth(o, "keep", &c->keep, e);
	r = r ?: config_truth(o, "isolate", &c->sw.isolate, e);
	return r ?: config_truth(o, "spoofing", &c->sw.spoofing, e);
}

int serve_config_parse(const char *text, struct serve_config *c, struct err *e)
{
	json_error_t where;
	json_t *o = json_loads(text, JSON_REJECT_DUPLICATES, &where);
	int r;

	memset(c, 0, sizeof(*c));
	if (!json_is_object(o)) {
		json_decref(o);
		return err_set(e, EINVAL, "network.json, line %d: %s", where.line, o ? "not an object" : where.text);
	}
	r = config_read(o, c, e);
	json_decref(o);
	return r;
}
