/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Networks as folders: ROOT/networks/NAME with
 *
 *	network.json  what the network is (net/serve.h)
 *	lock          locked by the process that is its switch, for as long as it lives
 *	switch        its socket, while it runs
 *	log           what it has to say
 */
#ifndef STORE_NETWORK_H
#define STORE_NETWORK_H

#include "store/store.h"

/* As store_open; store_list and store_close serve both. */
int store_networks_open(struct store *s, const char *root, struct err *e);
/* A folder with this network.json in it, or nothing. */
int store_network_create(struct store *s, const char *name, const char *text, struct err *e);
int store_network_open(struct store *s, const char *name, struct err *e); /* a descriptor to close; -errno */
/* A descriptor to close, which keeps the lock; -EBUSY: its switch runs. */
int store_network_lock(int folder, struct err *e);
int store_network_remove(struct store *s, const char *name, struct err *e);

#endif
