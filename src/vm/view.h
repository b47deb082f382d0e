/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the process of a machine sees of the host's files: a mount namespace of its own, whose root holds the folders the machine
 * needs while it runs and nothing else. In two steps, as everything is still opened by its usual name in between:
 *
 *	view_begin   before there are threads: the name space (with a user namespace for those who are not root), in which every folder
 *	             that stays becomes a mount, so that what is opened below it belongs to that mount and leads nowhere else by "..";
 *	             and the keeper
 *	view_enter   when all is open: an empty root, the folders moved into it, everything else let go of
 *
 * Mounts are made by the keeper, a process forked by view_begin, so that the process that reads kernels and images has no
 * right to. It ends after view_enter, unless it is asked to stay until the machine has ended: for a terminal that must be put
 * right even if the machine's process is killed, for a folder that goes with the machine.
 */
#ifndef VM_VIEW_H
#define VM_VIEW_H

#include <stdbool.h>
#include <sys/types.h>
#include "base/err.h"

#define VIEW_PATHS 64

struct view_path {
	char *path; /* absolute, without links */
	bool write;
};

struct view {
	struct view_path folder[VIEW_PATHS];
	unsigned nfolders;
	char *file[VIEW_PATHS]; /* only to be read */
	unsigned nfiles;
	bool wanted, on;
	bool mapped;   /* in a user namespace: other users, root too, have no number in it */
	char why[200]; /* not on: what the host refuses */
	bool stay;     /* the keeper stays until the end */
	bool full_screen; /* of that terminal */
	int terminal;  /* to be put right at the end, -1: none */
	/* In the keeper, after a machine's end that view_dispose was told of; may be NULL. */
	void (*after)(void *opaque);
	void *opaque;
	int keep[3]; /* descriptors `after` needs, -1 for none */
	/* ours */
	int fd; /* to the keeper */
	pid_t keeper;
};

void view_init(struct view *v);
/* A folder that stays, or for a file or socket the folder it is in. What is not there (yet) is left out. */
int view_add(struct view *v, const char *path, bool folder, bool write, struct err *e);
/* A file to be read later: as it is now, whatever gets its name meanwhile. */
int view_add_file(struct view *v, const char *path, struct err *e);
/* A host that refuses is no error: `on` is false then, `why` says it. */
int view_begin(struct view *v, struct err *e);
int view_enter(struct view *v, struct err *e);
/* The machine has ended; `clean`: as it should, and `after` is to be called. */
void view_dispose(struct view *v, bool clean);

/*
 * For a command that changes its terminal: the keeper alone, which puts it right should the command be killed. Before it is changed; does
 * nothing where standard input is no terminal. view_dispose ends it.
 */
void view_keep_terminal(struct view *v, bool full_screen);

/* What a machine sees beside its own, by number; NULL: no more. */
const char *view_extra(unsigned i);
bool view_extra_is_device(unsigned i); /* to be written to as well */

/* Whether this host lets us have a view; for `doctor`. 0, or -errno with e set. */
int view_probe(struct err *e);

#endif
