/* SPDX-License-Identifier: Apache-2.0 */
/* How fast KVM was when it was measured last on this host: a file, so that not every start has to look. */
#ifndef VM_VERDICT_H
#define VM_VERDICT_H

#include <stdbool.h>

#define VERDICT_KEY 320

struct verdict {
	int fd;      /* of the file, to be written once measured; -1: nothing is kept */
	double mips; /* remembered, million instructions a second; 0: nothing is */
	char key[VERDICT_KEY];
};

/* What a verdict depends on, of which tests give their own; NULL: the host's. */
struct verdict_host {
	const char *boot_id; /* the file that says which start of the host this is */
	const char *device;  /* /dev/kvm */
};

/*
 * Opens `folder`/kvm-speed, made if need be, and reads it. Never fails: then nothing is remembered, and verdict_keep does nothing.
 * For whoever may write there; verdict_keep works as another user too.
 */
void verdict_open(struct verdict *v, const char *folder, const struct verdict_host *host);
/* `mips` is what was measured now. */
void verdict_keep(struct verdict *v, double mips);
void verdict_close(struct verdict *v);

#endif
