/* SPDX-License-Identifier: Apache-2.0 */
/* Guest memory in a saved machine: zero pages are left out, runs of others compressed with zstd. */
#ifndef VM_SAVE_RAM_H
#define VM_SAVE_RAM_H

#include "mem/mem.h"
#include "state/file.h"

int save_ram_write(struct mem *m, struct state_writer *w, struct err *e); /* a whole section */
int save_ram_read(struct mem *m, struct state_reader *r, struct err *e);  /* RAM is still all zero */

#endif
