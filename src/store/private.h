/* SPDX-License-Identifier: Apache-2.0 */
/* Between the files of the store. */
#ifndef STORE_PRIVATE_H
#define STORE_PRIVATE_H

#include "store/store.h"

/* A folder of the root other than "machines". */
int store_open_kind(struct store *s, const char *root, const char *kind, struct err *e);
int store_lock(struct store *s, struct err *e); /* a descriptor to close, or -1 */
void store_remove_tree(int folder, const char *name); /* as far as possible; follows no links */
void store_clean(struct store *s);
int store_vm_remove_locked(struct store *s, struct store_vm *m, struct err *e); /* the root's lock is held */

#endif
