/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Landlock: the kernel refuses to open, make or remove files that no rule names, whoever asks in this process. It is the wall behind
 * the view (view.h), and in its place where there is none: a user's shared folders, hosts without user namespaces. Unlike the view it
 * hides nothing (names, owners and sizes can be asked for), and a socket with a name can be connected to.
 */
#ifndef VM_LANDLOCK_H
#define VM_LANDLOCK_H

#include "vm/view.h"

/*
 * From here on this process opens what the view has in it, and nothing else; what is open stays so. All threads. 1: it holds; 0: the
 * kernel has none, or one too old (before 5.19); -errno: it could not be done.
 */
int landlock_confine(const struct view *v, struct err *e);

/* The version of the kernel's interface; 0: none. */
int landlock_version(void);

#endif
