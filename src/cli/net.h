/* SPDX-License-Identifier: Apache-2.0 */
/* ospite net, and what starting a machine needs of it. */
#ifndef CLI_NET_H
#define CLI_NET_H

#include <jansson.h>
#include "backend/net-wire.h"
#include "cli/cli.h"
#include "store/network.h"

/*
 * A connection for questions to the network's switch, which is started if it does not run. As long as it is open the switch does
 * not end. Gives the descriptor, or -errno.
 */
int network_start(struct store *networks, const char *name, struct err *e);
/* The same for one that runs; -ECONNREFUSED or -ENOENT: it does not. folder: the network's. */
int network_connect(int folder, struct err *e);
/* The network's description with all its ports, to be released; NULL with e. */
json_t *network_show(int fd, struct err *e);

/* A connection to a switch that runs, nothing said on it yet; -errno. */
int network_dial(struct store *networks, const char *network, struct err *e);

int net_capture(int folder, const char *port, const char *file, uint64_t count, bool quiet, struct err *e);

#endif
