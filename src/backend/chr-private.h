/* SPDX-License-Identifier: Apache-2.0 */
/* What the kinds of character back-end share. */
#ifndef BACKEND_CHR_PRIVATE_H
#define BACKEND_CHR_PRIVATE_H

#include <stdatomic.h>
#include <pthread.h>
#include "backend/chr.h"
#include "base/base.h"
#include "base/err.h"

#define CHR_HOLD 4096 /* bytes read ahead of the front end */

struct chr {
	struct evloop *loop;
	struct chr_config config;
	struct chr_front front;
	bool attached;
	pthread_mutex_t lock; /* front, hold, out_fd */
	pthread_mutex_t write_lock;

	int in_fd, out_fd; /* -1: none */
	bool close_fds;
	struct evsource *in, *listener;
	int listen_fd;
	char *socket_path;

	uint8_t hold[CHR_HOLD]; /* read, not yet taken by the front end */
	_Atomic size_t held; /* written on the loop; chr_room_changed looks from anywhere */
	bool terminal;  /* stdio on a terminal: raw mode, escape key */
	bool escape;    /* Ctrl-A was typed */
	bool in_always_ready; /* a file: epoll cannot watch it */
	_Atomic bool at_eof;
};

/* chr-socket.c */
int chr_socket_open(struct chr *c, const char *path, struct err *e);
void chr_socket_close(struct chr *c);

/* chr.c: watch a new input; gone on end of file or error */
int chr_watch_input(struct chr *c, int fd, struct err *e);
void chr_input_gone(struct chr *c);

/* terminal.c */
int terminal_raw(struct err *e);
size_t terminal_filter(struct chr *c, uint8_t *data, size_t n); /* handles Ctrl-A; gives what is left */

#endif
