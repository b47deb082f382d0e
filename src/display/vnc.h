/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's screen for VNC clients, by libneatvnc, on a thread of its own. It looks at the screen 30 times a second while a
 * client is connected, and not at all otherwise. Keys and pointer go to the machine's keyboard and mouse.
 */
#ifndef DISPLAY_VNC_H
#define DISPLAY_VNC_H

#include "display/keys.h"
#include "display/screen.h"

struct err;
struct vnc;

struct vnc_config {
	const char *address; /* NULL: loopback */
	uint16_t port;
	const char *password, *tls; /* files, see vnc-auth.h; NULL: no password */
	const char *layout; /* of the clients' and the guest's keyboards, see layout.h; NULL: American */
	const char *name; /* of the machine, for the client's window */
	const struct screen *screen;
	struct keyboard keyboard;
	/* Motion since the last call, right and down positive; wheel down positive; buttons 1 left, 2 right, 4 middle. */
	void (*mouse)(void *opaque, int dx, int dy, int wheel, unsigned buttons);
	/* Where it is, of 0 to VNC_POINTER_RANGE; false: nobody can be told that, only motion. May be NULL. */
	bool (*tablet)(void *opaque, unsigned x, unsigned y, int wheel, unsigned buttons);
	void *opaque;
};
#define VNC_POINTER_RANGE 0x7fffu

struct vnc *vnc_open(const struct vnc_config *config, struct err *e);
void vnc_close(struct vnc *v);

/* "vnc", "vnc:PORT" or "vnc:ADDRESS:PORT"; address is a buffer. False: not of that form. */
#define VNC_ADDRESS 64
#define VNC_PORT 5900
bool vnc_parse(const char *spec, char address[VNC_ADDRESS], uint16_t *port);

#endif
