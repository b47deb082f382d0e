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
	void *opaque;
};

/* "stdio", "null", "file:PATH", "socket:PATH" (a listening UNIX socket). */
struct chr_config {
	const char *spec;
	/* stdio on a terminal: called for Ctrl-A X (leave) */
	void (*leave)(void *opaque);
	void *opaque;
	void (*save)(void *opaque); /* Ctrl-A S; NULL: there is no such key */
	void *save_opaque;
};
struct chr *chr_open(struct evloop *loop, const struct chr_config *config, struct err *e);
void chr_close(struct chr *c); /* flushes what is buffered, restores a terminal */
void chr_attach(struct chr *c, const struct chr_front *front);
/* Any thread. Everything accepted reaches its destination, in order; blocks only when a pipe or a file does. */
void chr_write(struct chr *c, const uint8_t *data, size_t n);
void chr_room_changed(struct chr *c); /* any thread: room() may have grown */
/* Restore the terminal at once; async-signal-safe; for fatal signals. */
void chr_restore_terminal(void);

#endif
