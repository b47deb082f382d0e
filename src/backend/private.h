/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the character back-ends. */
#ifndef BACKEND_PRIVATE_H
#define BACKEND_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>
#include "backend/chr.h"
#include "base/base.h"

#define CHR_BUFFER 65536u /* output kept for a slow reader */
#define CHR_TYPED 4096u   /* keys kept for a slow guest */

struct chr {
	struct evloop *loop;
	struct chr_front front;
	struct chr_config config;
	bool attached;

	/* output: under the lock */
	pthread_mutex_t lock;
	int out;         /* -1: nobody there, output vanishes */
	bool out_socket, out_poll; /* out_poll: descriptor may block, ask poll first */
	uint8_t *buffer; /* ring of CHR_BUFFER */
	size_t first, used;
	struct evsource *out_source; /* while something is buffered */
	bool arming;     /* chr_work is to make out_source */
	bool refused;    /* tell the front end when there is room */

	/* input: the loop's thread alone */
	int in;
	struct evsource *in_source;
	bool in_plain; /* always readable, as files are: epoll does not take it */
	_Atomic bool posted;

	/* terminal */
	bool terminal, escape;
	uint8_t typed[CHR_TYPED];
	size_t ntyped;

	/* socket */
	int listener;
	int peer_out; /* a duplicate to write to: epoll takes a descriptor only once */
	struct evsource *listen_source;
	char *path;

	struct console *console; /* chr-console.c */
};

/* chr.c */
void chr_set_input(struct chr *c, int fd); /* -1: none; loop's thread or before it runs */
void chr_set_output(struct chr *c, int fd);
void chr_post(struct chr *c);

/* chr-stdio.c */
int chr_open_stdio(struct chr *c, struct err *e);
void chr_close_stdio(struct chr *c);
void chr_typed(struct chr *c, const uint8_t *data, size_t n);

/* chr-socket.c */
int chr_open_socket(struct chr *c, const char *path, struct err *e);
void chr_close_socket(struct chr *c);
void chr_socket_gone(struct chr *c);

/* chr-console.c */
int chr_open_console(struct chr *c, const char *path, struct err *e);
void chr_close_console(struct chr *c);

#endif
