/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file a machine is saved in: a header, then sections with a tag, a length and a checksum each, closed by an
 * END section that covers all headers. docs/formats/machine-file.md is its specification. Written beside its
 * final name and renamed when it is complete and on disk; read only after every section has proved whole.
 */
#ifndef STATE_FILE_H
#define STATE_FILE_H

#include <stdint.h>
#include <stddef.h>

struct err;
struct state_writer;
struct state_reader;

#define STATE_TAG 8 /* bytes, zero-padded */

/* Nothing is left behind unless state_writer_commit succeeds. */
struct state_writer *state_writer_open(const char *path, struct err *e);
int state_writer_begin(struct state_writer *w, const char *tag, struct err *e);
int state_writer_add(struct state_writer *w, const void *data, size_t len, struct err *e);
int state_writer_end(struct state_writer *w, struct err *e); /* of the section */
/*
 * After the last section: the file ends in an image of this many bytes, from a page's start on, to be mapped. It is all holes until it is
 * filled, by any threads. No checksum covers it: a section has to.
 */
int state_writer_image(struct state_writer *w, uint64_t length, struct err *e);
int state_writer_image_put(struct state_writer *w, uint64_t at, const void *data, size_t len, struct err *e);
int state_writer_commit(struct state_writer *w, struct err *e); /* END, fsync, rename */
void state_writer_close(struct state_writer *w);

/* Opens and verifies the whole file. */
struct state_reader *state_reader_open(const char *path, struct err *e);
void state_reader_close(struct state_reader *r);
/* -ENOENT if there is no such section. */
int state_reader_find(struct state_reader *r, const char *tag, uint64_t *length, struct err *e);
/* Bytes [at, at+len) of the section found last. */
int state_reader_get(struct state_reader *r, uint64_t at, void *buf, size_t len, struct err *e);
/* Of the image: its length, 0 if there is none; the file, which stays the reader's, and where it begins in there. Any thread. */
uint64_t state_reader_image(const struct state_reader *r, int *fd, uint64_t *at);
int state_reader_image_get(struct state_reader *r, uint64_t at, void *buf, size_t len, struct err *e);

#endif
