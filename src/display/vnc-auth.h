/* SPDX-License-Identifier: Apache-2.0 */
/* A password for VNC clients; inside of the room. */
#ifndef DISPLAY_VNC_AUTH_H
#define DISPLAY_VNC_AUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct err;
struct vnc_auth;
struct vnc_session;

#define VNC_PASSWORD_MAX 255
/* Clients have to know what the file `password` says in its first line. tls: a file with certificate and key; NULL: a new one is made. */
struct vnc_auth *vnc_auth_create(const char *password, const char *tls, struct err *e);
void vnc_auth_free(struct vnc_auth *a);

/* The greeting up to the right password, on a blocking socket; NULL: refused. One thread may receive while another sends. */
struct vnc_session *vnc_auth_admit(const struct vnc_auth *a, int client);
void vnc_session_free(struct vnc_session *s); /* NULL is fine; the socket stays open */
ssize_t vnc_session_recv(struct vnc_session *s, void *data, size_t n); /* 0 or less: it is over */
bool vnc_session_send(struct vnc_session *s, const void *data, size_t n);

#endif
