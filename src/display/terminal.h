/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's screen in this terminal: text modes as text, pictures as blocks of two pixels a character. What is typed goes to the
 * guest's keyboard; Ctrl-A is the escape, as on a serial console. Looks at the screen 25 times a second and writes
 * what has changed.
 */
#ifndef DISPLAY_TERMINAL_H
#define DISPLAY_TERMINAL_H

#include "display/keys.h"
#include "display/screen.h"

struct err;
struct evloop;
struct terminal;

struct terminal_config {
	struct evloop *loop;
	const struct screen *screen;
	struct keyboard keyboard;
	void (*leave)(void *opaque); /* Ctrl-A X */
	void (*save)(void *opaque);  /* Ctrl-A S; NULL: there is no such key */
	void *opaque;
};

struct terminal *terminal_open(const struct terminal_config *config, struct err *e);
void terminal_close(struct terminal *t); /* after the loop has stopped; the terminal is as it was */

#endif
