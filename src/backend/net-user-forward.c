/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Forwards of the user network: ports of the host that lead to the guest. Those of IPv6 lead to the address the guest shows in its frames, until
 * then to the one most systems make of the card's; when it shows another one for a while they are closed and opened anew.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "backend/net-user.h"
#include "base/base.h"
#include "base/err.h"
#include "base/log.h"

#define TARGET_MS 30000u

static socklen_t forward_host(const struct net_forward *f, struct sockaddr_storage *at)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(f->port) };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons(f->port) };

	memcpy(&in.sin_addr, f->host, sizeof(in.sin_addr));
	memcpy(&in6.sin6_addr, f->host, sizeof(in6.sin6_addr));
	memcpy(at, f->v6 ? (void *)&in6 : (void *)&in, f->v6 ? sizeof(in6) : sizeof(in));
	return f->v6 ? sizeof(in6) : sizeof(in);
}

static int forward_flags(const struct net_forward *f)
{
	return (f->udp ? SLIRP_HOSTFWD_UDP : 0) | (f->v6 ? SLIRP_HOSTFWD_V6ONLY : 0);
}

static void forward6_close(struct user *u, const struct net_forward *f)
{
	struct sockaddr_storage host;
	socklen_t len = forward_host(f, &host);

	slirp_remove_hostxfwd(u->slirp, (struct sockaddr *)&host, len, forward_flags(f));
}

static int forward_open(struct user *u, const struct net_forward *f, struct err *e)
{
	struct sockaddr_in guest = { .sin_family = AF_INET, .sin_port = htons(f->guest_port) };
	struct sockaddr_in6 guest6 = { .sin6_family = AF_INET6, .sin6_port = htons(f->guest_port) };
	struct sockaddr_storage host;
	socklen_t len = forward_host(f, &host);
	char text[INET6_ADDRSTRLEN];

	guest.sin_addr.s_addr = htonl(u->network.s_addr + 15);
	memcpy(&guest6.sin6_addr, u->target6, 16);
	errno = 0;
	if (!slirp_add_hostxfwd(u->slirp, (struct sockaddr *)&host, len, f->v6 ? (struct sockaddr *)&guest6 : (struct sockaddr *)&guest,
				f->v6 ? sizeof(guest6) : sizeof(guest), forward_flags(f)))
		return 0;
	inet_ntop(f->v6 ? AF_INET6 : AF_INET, f->host, text, sizeof(text));
	if (errno == EADDRINUSE)
		return err_set(e, EADDRINUSE, "--port: another program has port %u of %s already; choose another one", f->port, text);
	if (errno == EACCES)
		return err_set(e, EACCES, "--port: port %u needs privileges; choose one from 1024 on", f->port);
	return err_errno(e, "--port: cannot listen on port %u of %s", f->port, text);
}

/* Until the guest has shown another one: the address most systems make of the card's (RFC 4291, appendix A). */
static void target6_guess(struct user *u)
{
	const uint8_t *mac = u->link.mac;
	const uint8_t low[8] = { mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5] };

	memcpy(u->target6, u->prefix, 8);
	memcpy(u->target6 + 8, low, 8);
}

int user_forwards_open(struct user *u, const struct net_forward *f, unsigned n, struct err *e)
{
	target6_guess(u);
	u->forward6 = calloc(n ? n : 1, sizeof(*f));
	if (!u->forward6)
		return err_set(e, ENOMEM, "no memory for forwards");
	for (unsigned i = 0; i < n; i++) {
		if (f[i].v6)
			u->forward6[u->nforward6++] = f[i];
		if (forward_open(u, &f[i], e))
			return -e->code;
	}
	return 0;
}

void user_seen6(struct user *u, const uint8_t address[16])
{
	uint64_t now = user_now_ms();
	struct err e;

	if (!memcmp(address, u->target6, 16)) {
		u->target6_seen = now;
		return;
	}
	if (u->target6_seen && now - u->target6_seen < TARGET_MS)
		return;
	for (unsigned i = 0; i < u->nforward6; i++)
		forward6_close(u, &u->forward6[i]);
	memcpy(u->target6, address, 16);
	u->target6_seen = now;
	for (unsigned i = 0; i < u->nforward6; i++)
		if (forward_open(u, &u->forward6[i], &e))
			log_msg(LOG_WARN, "net", "%s: %s", u->link.name, e.text);
}
