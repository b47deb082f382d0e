/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does a frame come from whom its port belongs to? The Ethernet source and ARP's sender are always looked at; where the port
 * has addresses, so are the sources of IPv4, IPv6, ARP and neighbour advertisements, and nothing else passes. Let through:
 * 0.0.0.0 and :: (asking for an address), and the link-local address made of the MAC (RFC 4291, appendix A).
 */
#include <string.h>
#include "net/private.h"

#define ETHER_IP4 0x0800
#define ETHER_ARP 0x0806
#define ETHER_IP6 0x86dd
#define IP6_HEADER 40u

static bool owns(const struct net_hello *h, const uint8_t *address, bool v6)
{
	static const uint8_t none[16];
	uint8_t local[16] = { 0xfe, 0x80 };

	if (!memcmp(address, none, v6 ? 16 : 4))
		return true;
	for (unsigned i = 0; i < h->addresses; i++)
		if ((h->v6 >> i & 1) == v6 && !memcmp(h->address[i], address, v6 ? 16 : 4))
			return true;
	if (!v6)
		return false;
	memcpy(local + 8, h->mac, 3);
	local[8] ^= 2;
	local[11] = 0xff;
	local[12] = 0xfe;
	memcpy(local + 13, h->mac + 3, 3);
	return !memcmp(address, local, 16);
}

uint32_t ip6_payload(const struct frame *f, uint8_t *next)
{
	uint32_t at = ETH_HEADER + IP6_HEADER;

	if (f->len < at)
		return 0;
	*next = f->data[ETH_HEADER + 6];
	for (unsigned i = 0; i < 8; i++) {
		if (*next != 0 && *next != 43 && *next != 60) /* hop by hop, routing, destination */
			return *next == 44 ? 0 : at;
		if (!range_fits(at, 8, f->len))
			return 0;
		*next = f->data[at];
		at += 8 + 8u * f->data[at + 1];
		if (at > f->len)
			return 0;
	}
	return 0;
}

static bool ip6_source(const struct net_hello *h, const struct frame *f)
{
	uint8_t next = 0;
	uint32_t at = ip6_payload(f, &next);

	if (f->len < ETH_HEADER + IP6_HEADER || !owns(h, f->data + ETH_HEADER + 8, true))
		return false;
	if (!at) /* a fragment cannot be a neighbour advertisement anybody heeds (RFC 6980) */
		return next == 44;
	if (next == 58 && range_fits(at, 24, f->len) && f->data[at] == 136)
		return owns(h, f->data + at + 8, true);
	return true;
}

bool filter_source(const struct net_hello *h, const struct frame *f)
{
	uint16_t type = be16_at(f->data + 12);

	if (memcmp(f->data + 6, h->mac, 6))
		return false;
	if (type == ETHER_ARP) {
		if (f->len < ETH_HEADER + 28 || memcmp(f->data + ETH_HEADER + 8, h->mac, 6))
			return false;
		return !h->addresses || owns(h, f->data + ETH_HEADER + 14, false);
	}
	if (!h->addresses)
		return true;
	if (type == ETHER_IP4)
		return f->len >= ETH_HEADER + 20 && owns(h, f->data + ETH_HEADER + 12, false);
	return type == ETHER_IP6 && ip6_source(h, f);
}
