/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket of a machine: QMP's framing, names and shapes where it has the command, commands of our own as
 * ospite-*. docs/control.md is the user's view of it.
 *
 * It has an event loop and a thread of its own: a command may take its time and may wait for the CPUs (vm_pause) or
 * for the machine's event loop, and nothing a client does or leaves undone holds the machine up. Commands are
 * executed one after another, in the order they arrive.
 *
 * To add a command: a row in commands.def, a function in a file cmd-*.c.
 */
#ifndef CTL_CTL_H
#define CTL_CTL_H

#include "base/err.h"
#include "vm/vm.h"

struct ctl;
struct pc;
struct json_t;

#define CTL_KEYS_FULL "the guest has not taken the keys struck before" /* in the error's text: worth trying again */
#define CTL_API 1 /* of the commands of our own; raised when one changes incompatibly */

struct ctl_config {
	struct vm *vm;
	struct pc *pc;        /* may be NULL: no power button then */
	const char *version;  /* of the program, "1.2.3" */
	int folder;           /* an open folder the path is relative to; AT_FDCWD: none. Not owned. */
	const char *path;     /* of the socket */
	bool mapped;          /* we are in a user namespace (vm/view.h) */
	bool own_files;       /* of the host's files the process has its own only (vm/view.h, vm/landlock.h) */
	const char *save_path; /* where ospite-suspend saves to; NULL: it cannot */
};

/* Listens from here on, executes commands from ctl_start on. */
struct ctl *ctl_create(const struct ctl_config *config, struct err *e);
int ctl_start(struct ctl *c, struct err *e);
/* Sends what is still to be sent, as far as clients take it at once; removes the socket. Before the machine goes. */
void ctl_destroy(struct ctl *c);
/* Any thread; never blocks. `data` (may be NULL) is taken over. */
void ctl_event(struct ctl *c, const char *name, struct json_t *data);

#endif
