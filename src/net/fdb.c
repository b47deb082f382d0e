/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where addresses are: sets of eight, found by a seeded hash, the oldest of a set making room. Age is looked at when an entry is, so
 * nothing wakes for it. A declared address is never learnt elsewhere.
 */
#include <string.h>
#include <sys/random.h>
#include "net/private.h"

void fdb_init(struct fdb *f, uint32_t ageing)
{
	f->ageing = ageing ? ageing : 300;
	if (getrandom(&f->seed, sizeof(f->seed), GRND_NONBLOCK) < 0)
		f->seed = (uintptr_t)f;
}

static unsigned fdb_set(const struct fdb *f, uint16_t vlan, const uint8_t mac[6])
{
	uint64_t v = vlan;

	memcpy((uint8_t *)&v + 2, mac, 6);
	v = (v ^ f->seed) * 0x9e3779b97f4a7c15ull;
	v ^= v >> 29;
	v *= 0xbf58476d1ce4e5b9ull;
	return (unsigned)(v >> 40) % FDB_SETS;
}

int fdb_owner(const struct fdb *f, const uint8_t mac[6])
{
	for (unsigned i = 0; i < SWITCH_PORTS; i++)
		if (f->fixed[i].used && !memcmp(f->fixed[i].mac, mac, 6))
			return (int)i;
	return -1;
}

int fdb_find(const struct fdb *f, uint16_t vlan, const uint8_t mac[6], uint32_t now)
{
	const struct fdb_entry *set = f->entry[fdb_set(f, vlan, mac)];

	for (unsigned i = 0; i < FDB_WAYS; i++) {
		if (set[i].used && set[i].vlan == vlan && !memcmp(set[i].mac, mac, 6))
			return now - set[i].seen > f->ageing ? -1 : set[i].port;
	}
	return -1;
}

void fdb_learn(struct fdb *f, uint16_t vlan, const uint8_t mac[6], unsigned port, uint32_t now)
{
	struct fdb_entry *set = f->entry[fdb_set(f, vlan, mac)], *to = &set[0];

	for (unsigned i = 0; i < FDB_WAYS; i++) {
		if (set[i].used && set[i].vlan == vlan && !memcmp(set[i].mac, mac, 6)) {
			to = &set[i];
			break;
		}
		if (to->used && (!set[i].used || now - set[i].seen > now - to->seen))
			to = &set[i];
	}
	*to = (struct fdb_entry){ .vlan = vlan, .port = (uint8_t)port, .used = true, .seen = now };
	memcpy(to->mac, mac, 6);
}

void fdb_declare(struct fdb *f, const uint8_t mac[6], unsigned port)
{
	f->fixed[port].used = true;
	memcpy(f->fixed[port].mac, mac, 6);
	for (unsigned i = 0; i < FDB_SETS * FDB_WAYS; i++)
		if (!memcmp((&f->entry[0][0])[i].mac, mac, 6))
			(&f->entry[0][0])[i].used = false;
}

void fdb_forget(struct fdb *f, unsigned port)
{
	f->fixed[port].used = false;
	for (unsigned i = 0; i < FDB_SETS * FDB_WAYS; i++)
		if ((&f->entry[0][0])[i].port == port)
			(&f->entry[0][0])[i].used = false;
}
