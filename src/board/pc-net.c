/* SPDX-License-Identifier: Apache-2.0 */
/* The board's network cards, and what is asked of them while the machine runs. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "board/private.h"
#include "pci/e1000.h"
#include "virtio/devices.h"

#define PAIRS_USUAL 4u /* of queues; more CPUs than that share */

/* Machines nobody has named would all have the same addresses where they meet others. */
static const char *address_name(const char *machine, enum net_kind kind, char *text, size_t size)
{
	if (strcmp(machine, "vm") || kind == NET_USER)
		return machine;
	snprintf(text, size, "vm %d", (int)getpid());
	return text;
}

struct net_link *pc_net_open(struct pc_nets *nets, const struct pc_config *config, const struct net_config *card, unsigned n,
			     struct evloop *loop, struct err *e)
{
	struct net_config c = *card;
	bool first_user = c.kind == NET_USER;
	char name[32];

	for (unsigned i = 0; i < n; i++)
		first_user &= !nets->user[i];
	c.index = n;
	c.machine = address_name(nets->machine, c.kind, name, sizeof(name));
	c.join = config->net_join;
	c.join_opaque = config->net_join_opaque;
	if (first_user) {
		c.forward = config->forward;
		c.nforwards = config->nforwards;
	}
	nets->model[n] = c.model;
	nets->user[n] = c.kind == NET_USER;
	nets->slot[n] = c.slot;
	snprintf(nets->id[n], sizeof(nets->id[n]), "%.31s", c.id);
	nets->count = MAX(nets->count, n + 1);
	nets->link[n] = c.removed ? NULL : net_open(loop, &c, e);
	return nets->link[n];
}

void pc_nets_close(struct pc_nets *nets)
{
	for (unsigned i = 0; i < nets->count; i++)
		net_close(nets->link[i]); /* NULL: removed */
	nets->count = 0;
}

struct virtio *pc_net_virtio(struct pc_nets *nets, const struct virtio_board *b, unsigned n, unsigned number, struct err *e)
{
	struct virtio_net_config c = { .link = nets->link[n], .pairs = MIN(b->cpus, PAIRS_USUAL) };

	return virtio_net_create(b->env, number, &c, e);
}

struct device *pc_net_e1000(struct pc_nets *nets, struct virtio_board *b, unsigned number, unsigned n, int devfn, struct err *e)
{
	struct device *d = e1000_create(b->pci, b->env, number, devfn, nets->link[n], e);

	if (d)
		b->add(b->opaque, d);
	return d;
}
