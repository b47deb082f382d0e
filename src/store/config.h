/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm.yaml: a mapping from keys to strings, flags, and lists of strings. Which keys there are the caller says: they are
 * the options of `ospite run`, and what a value means is theirs to check. Texts are edited line by line, so comments and order stay.
 */
#ifndef STORE_CONFIG_H
#define STORE_CONFIG_H

#include <stdbool.h>
#include "base/err.h"

#define CONFIG_KEYS 96
#define CONFIG_LIST 64

enum config_kind { CONFIG_STRING, CONFIG_FLAG, CONFIG_LIST_OF_STRINGS };

struct config_key {
	const char *name;
	enum config_kind kind;
};

/*
 * Calls `value` for every value in the text, in the order of `keys` (count of them); a flag's value is NULL and it is only called
 * for those that are true. Errors name the line. What `value` returns (with e set) ends it, the line put in front.
 */
int config_read(const char *text, const char *file, const struct config_key *keys, unsigned count,
		int (*value)(void *opaque, unsigned key, const char *value, struct err *e), void *opaque, struct err *e);

/* A new text, to be freed, in which the key has these values (none: it is not there). */
int config_edit(const char *text, const struct config_key *key, const char *const *values, unsigned nvalues, char **out,
		struct err *e);

#endif
