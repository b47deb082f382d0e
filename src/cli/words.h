/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `ospite run` and `ospite create` are given beside options: files that say by their names what they are, a template's name,
 * the machine's name. A word with a '/' or with one of the endings below is a file, any other is a name; content is never looked at.
 */
#ifndef CLI_WORDS_H
#define CLI_WORDS_H

#include <stdbool.h>
#include "base/err.h"

struct run_words {
	char **argv; /* of options alone: what the files stand for, then what was given; to be disposed of */
	int argc;
	const char *template, *name; /* NULL: not given; argv's */
	/* Between the calls. */
	char **owned;
	unsigned nowned;
	bool create, kernel, image, given_append, given_screen, detach;
};

/* `create`: the first word is the machine's name, not the second. run_words_dispose is right in any case. */
int run_words_expand(struct run_words *w, int argc, char **argv, bool create, struct err *e);
void run_words_dispose(struct run_words *w);

#endif
