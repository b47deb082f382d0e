/* SPDX-License-Identifier: Apache-2.0 */
/* Templates: folders like machines' that are never run; machines made of them are thin. */
#ifndef CLI_TEMPLATE_H
#define CLI_TEMPLATE_H

#include "cli/run.h"
#include "cli/words.h"

#define TEMPLATE_DEBIAN "debian" /* the one we can make ourselves */
#define TEMPLATE_DISK (10ull << 30) /* how large the first disk of a machine is at least */

/*
 * A machine named `name` made of the template the words name, with the options beside them over it. The template `debian` is made
 * when it is not there yet.
 */
int template_use(struct store *s, const struct run_words *w, const struct run_options *o, const char *name, struct err *e);
/* The template "debian": into a new folder. (debian.c) */
int debian_make(int folder, const char *templates, bool quiet, struct err *e);
extern const char debian_yaml[];

#endif
