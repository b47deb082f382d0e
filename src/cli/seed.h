/* SPDX-License-Identifier: Apache-2.0 */
/*
 * First-boot data for a guest in cloud-init's NoCloud form: a read-only disk with the label "cidata" and the files meta-data and
 * user-data. And the way back in: a key of ours among the keys of the guest, a port of the host that leads to its ssh.
 */
#ifndef CLI_SEED_H
#define CLI_SEED_H

#include "cli/run.h"

#define SEED_PORT "ssh-port" /* a file of the machine's folder: which port */
#define SEED_SERIAL "ospite-seed"

/* Is one wanted? */
bool seed_wanted(const struct run_options *o);
/* With a folder: to be called before each start, with the machine's lock. Adds the disk and the forward to the options. */
int seed_prepare(struct run_options *o, struct store *s, struct store_vm *m, struct err *e);
/* Without: the disk is memory. */
int seed_prepare_alone(struct run_options *o, struct err *e);
/* ROOT's key; made when it is not there. The path of the private one. -ENOENT: there is no ssh-keygen. */
int seed_key(const char *root, char path[PATH_MAX], struct err *e);

#endif
