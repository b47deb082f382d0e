/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest agent's protocol (qemu-guest-agent, one JSON object a line) over the socket of its port. What answers is in the hands
 * of the guest: replies are bounded in size and time, and nothing in them is trusted to be there.
 *
 * Several commands of the host may talk to one agent: they take turns by a lock, held for a fraction of a second and not while
 * they wait.
 */
#ifndef CTL_AGENT_H
#define CTL_AGENT_H

#include <jansson.h>
#include "base/base.h"
#include "base/err.h"

#define AGENT_PORT "org.qemu.guest_agent.0"
#define AGENT_CHUNK (48u << 10) /* of a file, in one message: a multiple of 3 */

struct agent {
	int folder;     /* of the machine: its socket "agent" and its lock are there */
	int fd, lock;   /* -1: not our turn */
	int64_t since;  /* our turn began, ms */
	char *data;
	size_t used, size;
	uint64_t id;    /* of the last sync */
};

void agent_init(struct agent *a, int folder);
void agent_dispose(struct agent *a);
/* Before waiting for anything: others have their turn. */
void agent_rest(struct agent *a);
/* Is there an agent? Waits for it for `ms`. -ETIMEDOUT: none has answered. */
int agent_ready(struct agent *a, int ms, struct err *e);
/* `arguments` is taken over, *result (may be NULL) is the caller's. */
int agent_call(struct agent *a, const char *command, json_t *arguments, json_t **result, struct err *e);

/* Files in the guest; handles are the agent's. */
int agent_open(struct agent *a, const char *path, const char *mode, int64_t *handle, struct err *e);
int agent_close(struct agent *a, int64_t handle, struct err *e);
int agent_write(struct agent *a, int64_t handle, const void *data, size_t n, struct err *e);
/* Bytes read, at most AGENT_CHUNK, 0 at the file's end; or -errno. */
ssize_t agent_read(struct agent *a, int64_t handle, void *data, struct err *e);

/* Programs in the guest. `argv` ends with NULL. */
int agent_exec(struct agent *a, const char *const *argv, bool capture, int64_t *pid, struct err *e);
struct agent_status {
	bool exited;
	int status; /* as a shell has it: 128 + N for signal N */
	char *out, *err; /* if captured, to be freed; NULL: nothing */
	size_t out_len, err_len;
};
int agent_status(struct agent *a, int64_t pid, struct agent_status *st, struct err *e);
/* Until it ends, within ms. */
int agent_run(struct agent *a, const char *const *argv, int ms, int *status, struct err *e);

/* base64 as the protocol has it. The text (to be freed), or NULL without memory. */
char *agent_encode(const void *data, size_t n);
/* The number of bytes in out (room for 3/4 of the text), or -1: it is no base64. */
ssize_t agent_decode(const char *text, size_t len, void *out);
/*
 * A reply to a sync with this id among `*used` bytes (which may hold anything, from before it too)? What was looked at is
 * removed.
 */
bool agent_synced(char *data, size_t *used, uint64_t id);

#endif
