/* SPDX-License-Identifier: Apache-2.0 */
/* Keyboards that are not American: which key types what, by the tables of X (libxkbcommon, package xkb-data). */
#ifndef DISPLAY_LAYOUT_H
#define DISPLAY_LAYOUT_H

#include <stdint.h>

struct err;
struct key_layout;

/* "de", "fr", "ch:fr": a layout and its variant. The tables are read here; nothing is looked up in files afterwards. */
struct key_layout *key_layout_open(const char *name, struct err *e);
void key_layout_close(struct key_layout *l);
/* The key's number (linux/input-event-codes.h) that types an X key symbol with whatever modifiers; 0: none does. */
unsigned key_layout_find(const struct key_layout *l, uint32_t symbol);

#endif
