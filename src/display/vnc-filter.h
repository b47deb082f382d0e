/* SPDX-License-Identifier: Apache-2.0 */
/* What VNC clients say, before libneatvnc hears it; inside of the room. */
#ifndef DISPLAY_VNC_FILTER_H
#define DISPLAY_VNC_FILTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define VNC_VERSION "RFB 003.008\n"
#define VNC_SECURITY_NONE 1
#define VNC_SECURITY_TLS 19 /* VeNCrypt */
#define VNC_GREETED 13u	    /* bytes up to the choice of security, which the gate itself has with who must give a password */
#define VNC_FILTER_MORE 1100u /* the longest message */

/* One client's; zeroed but for the first two. */
struct vnc_filter {
	void (*size)(void *opaque, unsigned *width, unsigned *height); /* of the screen, now; any thread */
	void *opaque;
	unsigned greeted; /* bytes of the greeting so far */
	size_t skip, have;
	uint8_t head[VNC_FILTER_MORE]; /* the message underway */
};

/* What of n bytes is to go on, into out, which has room for n + VNC_FILTER_MORE. False: hang up. */
bool vnc_filter(struct vnc_filter *f, const uint8_t *in, size_t n, uint8_t *out, size_t *out_n);

#endif
