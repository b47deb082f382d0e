/* SPDX-License-Identifier: Apache-2.0 */
/* Who may talk to libneatvnc, and what; inside of the room. */
#ifndef DISPLAY_VNC_GATE_H
#define DISPLAY_VNC_GATE_H

#include "display/vnc-filter.h"

struct err;
struct vnc_auth;
struct vnc_gate;

/* Listens for clients; `filter` is what each one's begins as, auth what they must pass (NULL: nothing); it must outlive the gate. The server is then to listen at vnc_gate_path, and clients are let through from vnc_gate_start on. */
struct vnc_gate *vnc_gate_open(const char *address, uint16_t port, const struct vnc_filter *filter, const struct vnc_auth *auth,
			       struct err *e);
const char *vnc_gate_path(const struct vnc_gate *g);
/* The server listens: its socket loses its name, for everybody but us. */
int vnc_gate_anchor(struct vnc_gate *g, struct err *e);
int vnc_gate_start(struct vnc_gate *g, struct err *e);
void vnc_gate_stop(struct vnc_gate *g); /* nobody is connected any more; may be NULL, as for close */
void vnc_gate_close(struct vnc_gate *g);

#endif
