/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libneatvnc listens on a socket only we can reach, and clients come here: what they say goes on when vnc-filter.c lets it.
 * Two threads a client, one for each direction; gate->lock covers the list of them. Where a password is needed the gate asks for it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/base.h"
#include "base/err.h"
#include "base/mask.h"
#include "display/vnc-auth.h"
#include "display/vnc-gate.h"

#define LINKS_MAX 32
#define PIECE 65536

struct link {
	struct vnc_gate *gate;
	int client, server; /* server: -1 until the client may talk to it */
	struct vnc_session *session; /* NULL: the client's bytes are as they are */
	unsigned directions; /* threads that still run; under gate->lock */
	bool used;
	struct vnc_filter filter;
};

struct vnc_gate {
	struct vnc_filter filter; /* what each client's begins as */
	const struct vnc_auth *auth;
	int listener;
	char folder[64], path[80]; /* of libneatvnc's socket, until vnc_gate_anchor */
	int place; /* the socket's file, without a name */
	pthread_t thread;
	bool started, stopping;
	pthread_mutex_t lock;
	pthread_cond_t idle; /* no link is used */
	struct link link[LINKS_MAX];
	unsigned used;
};

/* ---- a client */

static bool send_all(int to, const uint8_t *data, size_t n)
{
	while (n) {
		ssize_t done = send(to, data, n, MSG_NOSIGNAL);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return false;
		data += done;
		n -= (size_t)done;
	}
	return true;
}

static ssize_t receive(int from, uint8_t *data, size_t n)
{
	ssize_t got;

	do
		got = recv(from, data, n, 0);
	while (got < 0 && errno == EINTR);
	return got;
}

/* What the client says, until it hangs up or says what it must not. */
static void relay_client(struct link *l)
{
	uint8_t *data = malloc(PIECE), *good = malloc(PIECE + VNC_FILTER_MORE);
	size_t len;
	ssize_t n;

	while (data && good) {
		n = l->session ? vnc_session_recv(l->session, data, PIECE) : receive(l->client, data, PIECE);
		if (n <= 0 || !vnc_filter(&l->filter, data, (size_t)n, good, &len) || !send_all(l->server, good, len))
			break;
	}
	free(data);
	free(good);
}

/*
 * Until the server hangs up. libneatvnc uses a client's memory after it could not write to it: so all it writes is read, and it learns
 * of a client's end by reading only.
 */
static void relay_server(struct link *l)
{
	uint8_t *data = malloc(PIECE);
	bool heard = true;
	ssize_t n;

	while (data && (n = receive(l->server, data, PIECE)) > 0) {
		if (!heard)
			continue;
		heard = l->session ? vnc_session_send(l->session, data, (size_t)n) : send_all(l->client, data, (size_t)n);
		if (!heard)
			shutdown(l->client, SHUT_RDWR);
	}
	free(data);
}

/* The last of the two closes. */
static void direction_over(struct link *l)
{
	struct vnc_gate *g = l->gate;

	shutdown(l->client, SHUT_RDWR);
	if (l->server >= 0)
		shutdown(l->server, SHUT_WR);
	pthread_mutex_lock(&g->lock);
	if (!--l->directions) {
		vnc_session_free(l->session);
		close(l->client);
		if (l->server >= 0)
			close(l->server);
		l->used = false;
		if (!--g->used)
			pthread_cond_broadcast(&g->idle);
	}
	pthread_mutex_unlock(&g->lock);
}

static void *to_client(void *opaque)
{
	struct link *l = opaque;

	relay_server(l);
	direction_over(l);
	return NULL;
}

static int server_connect(const struct vnc_gate *g)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (g->place >= 0)
		snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d", g->place);
	else
		snprintf(a.sun_path, sizeof(a.sun_path), "%s", g->path);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a))) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/* Threads that nobody joins: vnc_gate_close waits until no link is used. */
static bool direction_start(struct link *l, void *(*fn)(void *))
{
	pthread_t t;

	if (pthread_create(&t, NULL, fn, l))
		return false;
	pthread_detach(t);
	return true;
}

/*
 * Version and no security, of clients that give no password; libneatvnc knows but 3.8, so older ones (RFC 6143, appendix A) have it
 * settled here. *result: they wait for the security result. False: that is no VNC client.
 */
static bool client_greet(int client, bool *result)
{
	static const uint8_t one_kind[] = { 1, VNC_SECURITY_NONE }, decided[] = { 0, 0, 0, VNC_SECURITY_NONE };
	char said[12];
	uint8_t chosen;

	if (!send_all(client, (const uint8_t *)VNC_VERSION, 12) || recv(client, said, 12, MSG_WAITALL) != 12)
		return false;
	*result = !memcmp(said, VNC_VERSION, 12);
	if (!memcmp(said, "RFB 003.003\n", 12) || !memcmp(said, "RFB 003.005\n", 12)) /* the latter counts as the former */
		return send_all(client, decided, sizeof(decided));
	if (!*result && memcmp(said, "RFB 003.007\n", 12))
		return false;
	return send_all(client, one_kind, sizeof(one_kind)) && recv(client, &chosen, 1, 0) == 1 && chosen == VNC_SECURITY_NONE;
}

/* What the client has said to us already, as it is: version, no security. */
static bool server_greet(int server, bool result)
{
	uint8_t said[256];
	bool offered = false;

	if (recv(server, said, 12, MSG_WAITALL) != 12 || !send_all(server, (const uint8_t *)VNC_VERSION, 12) ||
	    recv(server, said, 1, 0) != 1 || recv(server, said + 1, said[0], MSG_WAITALL) != said[0])
		return false;
	for (unsigned i = 1; i <= said[0]; i++)
		offered |= said[i] == VNC_SECURITY_NONE;
	said[0] = VNC_SECURITY_NONE;
	if (!offered || !send_all(server, said, 1))
		return false;
	/* the result goes on to the client, if he waits for just that */
	return result || (recv(server, said, 4, MSG_WAITALL) == 4 && !(said[0] | said[1] | said[2] | said[3]));
}

/* Let the client through to the server. False: it is not to be, or the server does not answer. */
static bool link_open(struct link *l)
{
	struct vnc_gate *g = l->gate;
	bool result = true;
	int server;

	if (g->auth) {
		l->session = vnc_auth_admit(g->auth, l->client);
		if (!l->session)
			return false;
	} else if (!client_greet(l->client, &result)) {
		return false;
	}
	server = server_connect(g);
	if (server < 0)
		return false;
	if (!server_greet(server, result)) {
		close(server);
		return false;
	}
	l->filter.greeted = VNC_GREETED;
	pthread_mutex_lock(&g->lock);
	l->server = server;
	l->directions++;
	pthread_mutex_unlock(&g->lock);
	if (!direction_start(l, to_client))
		direction_over(l);
	return true;
}

static void *to_server(void *opaque)
{
	struct link *l = opaque;

	if (link_open(l))
		relay_client(l);
	direction_over(l);
	return NULL;
}

static void client_take(struct vnc_gate *g, int client)
{
	struct link *l = NULL;
	int one = 1;

	pthread_mutex_lock(&g->lock);
	for (unsigned i = 0; i < LINKS_MAX && !l && !g->stopping; i++)
		if (!g->link[i].used)
			l = &g->link[i];
	if (!l) {
		pthread_mutex_unlock(&g->lock);
		close(client);
		return;
	}
	setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	*l = (struct link){ .gate = g, .client = client, .server = -1, .directions = 1, .used = true, .filter = g->filter };
	g->used++;
	pthread_mutex_unlock(&g->lock);
	if (!direction_start(l, to_server))
		direction_over(l);
}

/* ---- the gate */

static void *gate_thread(void *opaque)
{
	struct vnc_gate *g = opaque;
	sigset_t all;
	int fd;

	mask_fill(&all); /* and those it starts */
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	pthread_setname_np(pthread_self(), "vnc-gate");
	for (;;) {
		fd = accept4(g->listener, NULL, NULL, SOCK_CLOEXEC);
		pthread_mutex_lock(&g->lock);
		if (g->stopping) {
			pthread_mutex_unlock(&g->lock);
			if (fd >= 0)
				close(fd);
			return NULL;
		}
		pthread_mutex_unlock(&g->lock);
		if (fd >= 0)
			client_take(g, fd);
		else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
			usleep(100000); /* until somebody has closed something */
	}
}

static int listen_at(struct vnc_gate *g, const char *address, uint16_t port, struct err *e)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE }, *found;
	char service[8];
	int r, one = 1;

	snprintf(service, sizeof(service), "%u", port);
	r = getaddrinfo(address, service, &hints, &found);
	if (r)
		return err_set(e, EINVAL, "cannot find %s: %s", address, gai_strerror(r));
	g->listener = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	r = g->listener < 0 || setsockopt(g->listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
	    bind(g->listener, found->ai_addr, found->ai_addrlen) || listen(g->listener, 16);
	freeaddrinfo(found);
	return r ? err_set(e, errno, "cannot listen on %s port %u (%s); choose another with vnc:PORT", address, port, strerror(errno)) : 0;
}

struct vnc_gate *vnc_gate_open(const char *address, uint16_t port, const struct vnc_filter *filter, const struct vnc_auth *auth,
			       struct err *e)
{
	struct vnc_gate *g = calloc(1, sizeof(*g));

	if (!g) {
		err_set(e, ENOMEM, "no memory for a VNC server");
		return NULL;
	}
	g->listener = g->place = -1;
	g->filter = *filter;
	g->auth = auth;
	pthread_mutex_init(&g->lock, NULL);
	pthread_cond_init(&g->idle, NULL);
	if (!listen_at(g, address, port, e)) {
		strcpy(g->folder, "/tmp/ospite-vnc-XXXXXX");
		if (mkdtemp(g->folder)) /* for nobody else */
			snprintf(g->path, sizeof(g->path), "%s/socket", g->folder);
		else
			err_errno(e, "cannot make a folder in /tmp");
	}
	if (*g->path)
		return g;
	*g->folder = 0;
	vnc_gate_close(g);
	return NULL;
}

const char *vnc_gate_path(const struct vnc_gate *g)
{
	return g->path;
}

/* Nobody else is to find it, and later the process does not see it by name any more (vm/view.h); nor is it left behind. */
int vnc_gate_anchor(struct vnc_gate *g, struct err *e)
{
	g->place = open(g->path, O_PATH | O_CLOEXEC);
	if (g->place < 0)
		return err_errno(e, "cannot open %s", g->path);
	unlink(g->path);
	rmdir(g->folder);
	*g->folder = 0;
	return 0;
}

int vnc_gate_start(struct vnc_gate *g, struct err *e)
{
	int r = pthread_create(&g->thread, NULL, gate_thread, g);

	g->started = !r;
	return r ? err_set(e, r, "cannot create the VNC server's thread: %s", strerror(r)) : 0;
}

void vnc_gate_stop(struct vnc_gate *g)
{
	if (!g || !g->started)
		return;
	pthread_mutex_lock(&g->lock);
	g->stopping = true;
	pthread_mutex_unlock(&g->lock);
	shutdown(g->listener, SHUT_RDWR); /* ends accept */
	pthread_join(g->thread, NULL);
	g->started = false;
	pthread_mutex_lock(&g->lock);
	for (unsigned i = 0; i < LINKS_MAX; i++) {
		if (g->link[i].used)
			shutdown(g->link[i].client, SHUT_RDWR);
	}
	while (g->used)
		pthread_cond_wait(&g->idle, &g->lock);
	pthread_mutex_unlock(&g->lock);
}

void vnc_gate_close(struct vnc_gate *g)
{
	if (!g)
		return;
	vnc_gate_stop(g);
	if (g->listener >= 0)
		close(g->listener);
	cleanup_close(&g->place);
	if (*g->folder) {
		unlink(g->path);
		rmdir(g->folder);
	}
	pthread_mutex_destroy(&g->lock);
	pthread_cond_destroy(&g->idle);
	free(g);
}
