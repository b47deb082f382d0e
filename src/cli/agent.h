/* SPDX-License-Identifier: Apache-2.0 */
/* What exec and cp share: the way to a running machine's guest agent. */
#ifndef CLI_AGENT_H
#define CLI_AGENT_H

#include "cli/life.h"
#include "ctl/agent.h"

#define AGENT_MS 5000 /* for an agent to answer, unless --time says otherwise */
#define STEP_MS 30000 /* what a step in the guest may take that has to be quick */

struct agent_link {
	struct store_vm vm;
	struct agent agent;
};
/* Errors name the machine. agent_link_close is right in any case. */
int agent_link_open(struct agent_link *l, struct store *s, const char *name, const struct life_args *a, struct err *e);
void agent_link_close(struct agent_link *l);
/* A shell's script in the guest with these arguments ("$1", ...); ends with NULL. */
int agent_shell(struct agent *a, const char *script, const char *const *args, int ms, int *status, struct err *e);
/* All of a file of ours into one of the guest's, and the other way. *done counts bytes. */
int agent_upload(struct agent *a, int from, const char *path, uint64_t *done, struct err *e);
int agent_download(struct agent *a, const char *path, int to, uint64_t *done, struct err *e);

#endif
