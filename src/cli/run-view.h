/* SPDX-License-Identifier: Apache-2.0 */
/* The host's files that the process of a machine goes on seeing. */
#ifndef CLI_RUN_VIEW_H
#define CLI_RUN_VIEW_H

#include "vm/view.h"

struct run_home;
struct run_options;

/* Before there are threads. `root`: where networks are; empty: none. */
int run_view_begin(struct view *v, const struct run_options *o, struct run_home *h, const char *root, struct err *e);

#endif
