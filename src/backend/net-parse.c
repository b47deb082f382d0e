/* SPDX-License-Identifier: Apache-2.0 */
/* What --net and --port say. */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "backend/net.h"
#include "backend/net-member.h"
#include "base/base.h"
#include "base/err.h"

static int parse_mac(uint8_t mac[6], const char *value, struct err *e)
{
	unsigned v[6];
	int end = 0;

	if (sscanf(value, "%2x:%2x:%2x:%2x:%2x:%2x%n", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &end) != 6 || value[end])
		return err_set(e, EINVAL, "is no MAC address: write six bytes, as in 52:54:00:12:34:56");
	for (unsigned i = 0; i < 6; i++)
		mac[i] = (uint8_t)v[i];
	if (mac[0] & 1)
		return err_set(e, EINVAL, "is a group's address: the first byte of a card's is even, as in 52:...");
	if (!(v[0] | v[1] | v[2] | v[3] | v[4] | v[5]))
		return err_set(e, EINVAL, "is no card's address");
	return 0;
}

static int parse_mtu(uint16_t *mtu, const char *value, struct err *e)
{
	char *end = NULL;
	unsigned long v = isdigit((unsigned char)*value) ? strtoul(value, &end, 10) : 0;

	if (!end || *end || v < NET_MTU_LEAST || v > NET_MTU_MOST)
		return err_set(e, EINVAL, "mtu=%.40s is no length of packets: %u to %u", value, NET_MTU_LEAST, NET_MTU_MOST);
	*mtu = (uint16_t)v;
	return 0;
}

static int parse_key(struct net_config *c, const char *key, const char *value, struct err *e)
{
	int r;

	if (!strcmp(key, "mac")) {
		r = parse_mac(c->mac, value, e);
		return r ? err_prefix(e, "mac=%.40s", value) : 0;
	}
	if (!strcmp(key, "model")) {
		if (strcmp(value, "virtio") && strcmp(value, "e1000"))
			return err_set(e, EINVAL, "model=%.40s does not exist; there are virtio and e1000", value);
		c->model = *value == 'e' ? NET_E1000 : NET_VIRTIO;
		return 0;
	}
	if (!strcmp(key, "mtu"))
		return parse_mtu(&c->mtu, value, e);
	if (!strcmp(key, "limit-in") || !strcmp(key, "limit-out")) {
		r = net_parse_rate(value, key[6] == 'i' ? &c->limits.in : &c->limits.out, e);
		return r ? err_prefix(e, "%s=%.40s", key, value) : 0;
	}
	if (!strcmp(key, "id")) {
		static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";

		if (!*value || strlen(value) >= sizeof(c->id) || value[strspn(value, allowed)])
			return err_set(e, EINVAL, "id=%.40s: 1 to %zu letters, digits, '-', '_', '.'", value, sizeof(c->id) - 1);
		strcpy(c->id, value);
		return 0;
	}
	if (!strcmp(key, "slot")) {
		c->slot = (unsigned)atoi(value);
		if (strspn(value, "0123456789") != strlen(value) || strlen(value) > 2 || c->slot < 2 || c->slot > 31)
			return err_set(e, ERANGE, "slot=%.40s: must be from 2 to 31", value);
		return 0;
	}
	r = c->kind == NET_SWITCH ? net_member_option(&c->hello, key, value, e) : -ENOENT;
	if (r == -ENOENT)
		return err_set(e, EINVAL, "%.40s= does not exist here; there are mac=, model=, mtu=, limit-in=, limit-out=, id=, slot=%s", key,
			       c->kind == NET_SWITCH ? ", vlan=, trunk=, address=" : "");
	return r;
}

int net_config_parse(struct net_config *c, const char *text, struct err *e)
{
	static const struct {
		const char *name;
		enum net_kind kind;
		bool argument;
	} kinds[] = { { "user", NET_USER, false }, { "tap", NET_TAP, true }, { "switch", NET_SWITCH, true } };
	size_t len = strcspn(text, ":,"), i = 0;
	char *copy _free_ = NULL, *at, *word;
	int r = 0;

	*c = (struct net_config){ 0 };
	if (!strncmp(text, "removed", 7) && (!text[7] || !strcmp(text + 7, ",model=e1000"))) {
		c->removed = true;
		c->kind = NET_TAP; /* not the user network that forwards belong to */
		c->model = text[7] ? NET_E1000 : NET_VIRTIO;
		return 0;
	}
	while (i < ARRAY_LEN(kinds) && (strlen(kinds[i].name) != len || strncmp(kinds[i].name, text, len)))
		i++;
	if (i == ARRAY_LEN(kinds))
		return err_set(e, EINVAL, "does not exist; write user, tap:INTERFACE, switch:NETWORK or none");
	c->kind = kinds[i].kind;
	text += len;
	if ((*text == ':') != kinds[i].argument)
		return err_set(e, EINVAL, kinds[i].argument ? "needs a name: %s:NAME" : "has no name after it: write %s", kinds[i].name);
	if (*text == ':') {
		len = strcspn(++text, ",");
		if (!len || len >= sizeof(c->argument))
			return err_set(e, EINVAL, "needs a name of 1 to %zu characters", sizeof(c->argument) - 1);
		memcpy(c->argument, text, len);
		text += len;
	}
	copy = strdup(text);
	if (!copy)
		return err_set(e, ENOMEM, "out of memory");
	for (at = copy; !r && (word = strsep(&at, ","));) {
		char *value = strchr(word, '=');

		if (!*word)
			continue;
		if (!value)
			return err_set(e, EINVAL, "'%.40s' is no KEY=VALUE", word);
		*value++ = 0;
		r = parse_key(c, word, value, e);
	}
	if (!r && c->model == NET_E1000 && c->mtu > NET_MTU_MOST_E1000)
		r = err_set(e, EINVAL, "mtu=%u: an e1000 has at most %u", c->mtu, NET_MTU_MOST_E1000);
	return r;
}

static bool parse_port(const char *text, size_t len, uint16_t *out)
{
	unsigned long v = 0;

	if (!len || len > 5)
		return false;
	for (size_t i = 0; i < len; i++) {
		if (!isdigit((unsigned char)text[i]))
			return false;
		v = v * 10 + (unsigned)(text[i] - '0');
	}
	*out = (uint16_t)v;
	return v && v <= UINT16_MAX;
}

int net_parse_forward(struct net_forward *f, const char *text, struct err *e)
{
	static const char usage[] = "is no forward: write HOST:GUEST, as in 8080:80, ADDRESS:HOST:GUEST, and /udp behind for UDP";
	char address[64] = "127.0.0.1";
	const char *end = strchrnul(text, '/'), *colon;
	size_t len;

	*f = (struct net_forward){ .udp = !strcmp(end, "/udp") };
	if (*end && !f->udp && strcmp(end, "/tcp"))
		return err_set(e, EINVAL, usage);
	colon = memrchr(text, ':', (size_t)(end - text));
	if (!colon || !parse_port(colon + 1, (size_t)(end - colon - 1), &f->guest_port))
		return err_set(e, EINVAL, usage);
	end = colon;
	colon = memrchr(text, ':', (size_t)(end - text));
	if (!parse_port(colon ? colon + 1 : text, (size_t)(end - (colon ? colon + 1 : text)), &f->port))
		return err_set(e, EINVAL, usage);
	if (colon) {
		f->v6 = *text == '[' && colon[-1] == ']';
		text += f->v6;
		len = (size_t)(colon - text) - f->v6;
		if (len >= sizeof(address))
			return err_set(e, EINVAL, usage);
		memcpy(address, text, len);
		address[len] = 0;
	}
	if (inet_pton(f->v6 ? AF_INET6 : AF_INET, address, f->host) != 1)
		return err_set(e, EINVAL, "'%s' is no address of this host: write %s", address, f->v6 ? "[::1] or [::]" : "127.0.0.1 or 0.0.0.0");
	return 0;
}
