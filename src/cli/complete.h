/* SPDX-License-Identifier: Apache-2.0 */
/* What a word of a command line may become (complete.c), for 'ospite completion'. */
#ifndef CLI_COMPLETE_H
#define CLI_COMPLETE_H

#include "cli/cli.h"

/* [--split] -- WORD..., the first being the command, the last what is underway. Always 0. */
int complete_words(int argc, char **argv);

#endif
