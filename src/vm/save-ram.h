/* SPDX-License-Identifier: Apache-2.0 */
/* Guest memory in a saved machine. Section RAM: zero pages are left out, runs of others compressed with zstd. */
#ifndef VM_SAVE_RAM_H
#define VM_SAVE_RAM_H

#include "mem/mem.h"
#include "state/file.h"

/* A whole section. `told`, if not NULL, of bytes looked at. */
int save_ram_write(struct mem *m, struct state_writer *w, void (*told)(void *opaque, uint64_t done, uint64_t total), void *opaque, struct err *e);
int save_ram_read(struct mem *m, struct state_reader *r, struct err *e);  /* RAM is still all zero */

/* Section RAMMAP and the image behind it: laid out as memory is, zero pages left out as holes, to be mapped in place of being read. */
int save_image_write(struct mem *m, struct state_writer *w, void (*told)(void *opaque, uint64_t done, uint64_t total), void *opaque,
		     struct err *e); /* the last section */
int save_image_read(struct mem *m, struct state_reader *r, struct err *e);
bool save_image_has(struct state_reader *r);

bool save_page_is_zero(const uint8_t *page);
int save_ram_check_size(uint64_t saved, const struct mem *m, struct err *e);

#endif
