/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Character back-ends: where a serial line's bytes go and come from. The front end (a UART, a virtio
 * console) gives an input callback; a back-end holds input while the front end has no room.
 */
#ifndef BACKEND_CHR_H
#define BACKEND_CHR_H

#include "base/evloop.h"
#include <stdbool.h>
#include <stddef.h>

struct chr;

/* The front end's side. Called on the event loop. */
struct chr_front {
	size_t (*room)(void *opaque); /* bytes it can take now */
	void (*input)(void *opaque, const uint8_t *data, size_t n); /* n <= room */
	void (*drained)(void *opaque); /* chr_write has room again after it had none; may be NULL */
	void *opaque;
};

/*
 * "stdio", "null", "file:PATH", "socket:PATH" (a listening UNIX socket), "console:PATH" (the same for several at once, with
 * what was written before, and a log in PATH.log).
 */
struct chr_config {
	const char *spec;
	/* stdio on a terminal: called for Ctrl-A X (leave) */
	void (*leave)(void *opaque);
	void *opaque;
	void (*save)(void *opaque); /* Ctrl-A S; NULL: there is no such key */
	void *save_opaque;
	/* stdio on a terminal: the whole screen is ours, and what was on it comes back at the end */
	bool full_screen;
	bool goes_on; /* a saved machine's: who reads a console first gets the end of its log */
	void (*help)(void *opaque); /* Ctrl-A H; NULL: it is written out */
	void *help_opaque;
};
struct chr *chr_open(struct evloop *loop, const struct chr_config *config, struct err *e);
/* After the loop has stopped. Flushes what is buffered, restores a terminal. */
void chr_close(struct chr *c);
void chr_attach(struct chr *c, const struct chr_front *front); /* NULL: detach, once the loop has stopped */
/*
 * Any thread; never blocks, except for a file's disk. The number of bytes accepted: they reach their destination, in
 * order. Fewer than n only when the other side does not read, until `drained`; nobody at the other side reads all.
 */
size_t chr_write(struct chr *c, const uint8_t *data, size_t n);
/* Any thread: wait until chr_write has room, for `ms` at most, or until a signal arrives. */
void chr_wait(struct chr *c, int ms);
void chr_room_changed(struct chr *c); /* any thread: room() may have grown */
/* Restore the terminal at once; async-signal-safe; for fatal signals. */
void chr_restore_terminal(void);
/* A listening UNIX socket for its owner alone; replaces one nobody listens on any more; -1. Not tied to a chr. */
int chr_listen(const char *path, struct err *e);

#endif
