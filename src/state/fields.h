/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device declares what of it is saved in a table of fields of its `hw` struct. The same table drives
 * saving, checking, loading, dumping and the round-trip test; the stream holds names, so a field can be
 * added later with a default.
 */
#ifndef STATE_FIELDS_H
#define STATE_FIELDS_H

#include "base/base.h"

struct err;

struct state_field {
	const char *name;
	uint32_t offset;
	uint16_t size;  /* of one element: 1, 2, 4, 8 for integers; any for raw bytes */
	uint32_t count; /* elements */
	bool raw;
	bool truth; /* a bool: 0 and 1 only, so that a loaded one is never anything else */
};

#define STATE_IS_TRUTH(member) _Generic((member), bool : true, default : false)

#define STATE_INT(type, member)                                                                    \
	{                                                                                          \
		#member, offsetof(type, member), sizeof(((type *)0)->member), 1, false,            \
			STATE_IS_TRUTH(((type *)0)->member)                                        \
	}
#define STATE_INTS(type, member)                                                                   \
	{                                                                                          \
		#member, offsetof(type, member), sizeof(((type *)0)->member[0]),                   \
			ARRAY_LEN(((type *)0)->member), false,                                     \
			STATE_IS_TRUTH(((type *)0)->member[0])                                     \
	}
#define STATE_RAW(type, member)                                                                    \
	{                                                                                          \
		#member, offsetof(type, member), 1, sizeof(((type *)0)->member), true, false       \
	}

struct state_desc {
	const char *name; /* stable: "pit", "lapic" */
	uint16_t version;
	uint32_t size; /* of the hw struct */
	const struct state_field *fields;
	unsigned nfields;
	/* May hw, as loaded from an untrusted stream, be taken over? -errno and e when not. */
	int (*check)(const void *hw, struct err *e);
};

#endif
