/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The saved format: self-describing records of named fields. docs/formats/state.md is its specification.
 */
#ifndef STATE_STREAM_H
#define STATE_STREAM_H

#include "state/fields.h"

/* A growing buffer being written, or a read-only one being parsed. */
struct state_buf {
	uint8_t *data;
	size_t len, cap, pos;
};
void state_buf_dispose(struct state_buf *b);

/* One record: desc->name, instance, version, then every field. */
int state_save(struct state_buf *b, const struct state_desc *desc, unsigned instance, const void *hw,
	       struct err *e);
/*
 * Finds the record of (desc, instance), fills a zeroed copy, runs desc->check, and only then writes *hw.
 * -ENOENT when there is no such record; -EINVAL for anything malformed.
 */
int state_load(const struct state_buf *b, const struct state_desc *desc, unsigned instance, void *hw,
	       struct err *e);
/* The end record, after the last state_save; and a look at the whole stream: complete and intact? */
int state_end(struct state_buf *b, struct err *e);
int state_verify(const struct state_buf *b, struct err *e);
/* Every field as text, for dumps: "pit.0 counter[2] = 0x12". Stops with -EINVAL at anything malformed. */
int state_dump(const struct state_buf *b, void (*line)(void *opaque, const char *text), void *opaque,
	       struct err *e);

#endif
