/* SPDX-License-Identifier: Apache-2.0 */
/* A password for VNC clients; inside of the room. */
#ifndef DISPLAY_VNC_AUTH_H
#define DISPLAY_VNC_AUTH_H

struct err;
struct nvnc;
struct vnc_auth;

#define VNC_PASSWORD_MAX 255
/*
 * From now on clients have to know what the file `password` says in its first line. tls: a file with certificate and key; NULL: a
 * new one is made. Free the result after the server; NULL: it failed.
 */
struct vnc_auth *vnc_auth_enable(struct nvnc *server, const char *password, const char *tls, struct err *e);
void vnc_auth_free(struct vnc_auth *a);

#endif
