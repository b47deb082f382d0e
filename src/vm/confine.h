/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the process of a machine may not do: see docs/security.md. Two steps: who it is, before it opens anything and while it has one
 * thread (capabilities are a thread's own); what it may ask the kernel for, when all is built.
 */
#ifndef VM_CONFINE_H
#define VM_CONFINE_H

#include <stdbool.h>
#include <sys/types.h>
#include "base/err.h"

struct confine {
	uid_t uid; /* to become; 0: stay who we are */
	gid_t gid;
	char name[64];
	bool nothing; /* root keeps no capability at all */
	bool shares; /* folders are shared with the guest: their files' owners and modes are its to set */
};

/* The ids of a user's name, as this host has it; elsewhere: or a service it asks. */
int confine_user(struct confine *c, const char *name, bool elsewhere, struct err *e);
/* Before there are threads: the other user; or, as root, without the capabilities that neither building nor running needs. */
int confine_early(const struct confine *c, struct err *e);
/* Before the guest runs: no new privileges, system calls on the list alone; all threads. */
int confine_late(struct err *e);

#endif
