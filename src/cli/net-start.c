/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process of a switch: started by whoever needs it first, with the lock of the network's folder, in the background; it
 * tells by a pipe that it listens, or why it does not.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <poll.h>
#include <unistd.h>
#include "backend/net-client.h"
#include "base/evloop.h"
#include "base/log.h"
#include "cli/net.h"
#include "net/serve.h"
#include "vm/confine.h"

#define TRIES 100 /* a tenth of a second apart: another may be just ending, or just starting */

int network_connect(int folder, struct err *e)
{
	struct net_hello h = { .magic = NET_WIRE_MAGIC, .kind = NET_HELLO_CONTROL, .name = "ospite net" };
	int fd = net_client_connect(folder, &h, e);

	return fd < 0 ? -e->code : fd;
}

/* Nothing of the terminal or of the caller stays open: a pipe of theirs would never end. */
static int detach(int folder, int lock, int pipe)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int log = openat(folder, "log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW, 0600);

	if (null < 0 || log < 0 || setsid() < 0 || chdir("/"))
		return -1;
	if (dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(log, 2) < 0)
		return -1;
	for (int fd = 3; fd < 1024; fd++)
		if (fd != folder && fd != lock && fd != pipe)
			close(fd);
	umask(077);
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

/* Until its last member has gone, or SIGTERM. */
static int serve_until_end(struct serve *s, struct evloop *loop, int signals, struct err *e)
{
	struct pollfd p[2] = { { serve_ended(s), POLLIN, 0 }, { signals, POLLIN, 0 } };
	int r = evloop_start(loop, e);

	while (!r && poll(p, 2, -1) < 0 && errno == EINTR)
		;
	evloop_stop(loop);
	return r;
}

static int switch_run(const struct serve_config *c, int folder, int *pipe, struct err *e)
{
	struct evloop *loop = NULL;
	struct serve *s = NULL;
	sigset_t set;
	int listener, signals, r;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signals = signalfd(-1, &set, SFD_CLOEXEC);
	listener = signals < 0 ? err_errno(e, "cannot wait for signals") : serve_listen(folder, e);
	if (listener < 0)
		return -e->code;
	loop = evloop_create(e);
	if (loop)
		s = serve_create(c, loop, listener, e);
	else
		close(listener);
	/* frames are foreign: from here on the process can do little with what they might talk it into */
	r = !s || confine_early(&(struct confine){ .nothing = true }, e) || confine_late(e) ? -e->code : 0;
	if (!r && write(*pipe, "", 1) < 0) {
		/* whoever started us is gone: others may come */
	}
	if (!r) {
		cleanup_close(pipe);
		*pipe = -1;
		r = serve_until_end(s, loop, signals, e);
	}
	unlinkat(folder, NET_CLIENT_SOCKET, 0);
	serve_destroy(s);
	evloop_destroy(loop);
	close(signals);
	return r;
}

static _Noreturn void child(const struct serve_config *c, int folder, int lock, int pipe)
{
	struct err e = { 0 };
	int r;

	prctl(PR_SET_NAME, "ospite-net");
	r = detach(folder, lock, pipe) ? err_errno(&e, "cannot go to the background") : switch_run(c, folder, &pipe, &e);
	if (r) {
		log_msg(LOG_ERROR, "net", "%s", e.text);
		if (pipe >= 0 && write(pipe, e.text, strlen(e.text)) < 0) {
			/* whoever started us is gone */
		}
	}
	_exit(r ? EXIT_OURS : 0);
}

static int hear(int pipe, struct err *e)
{
	char text[ERR_TEXT];
	size_t n = 0;
	ssize_t r = 1;

	while (n < sizeof(text) - 1 && (r = read(pipe, text + n, sizeof(text) - 1 - n)) != 0) {
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return err_errno(e, "cannot hear from the switch's process");
		n += (size_t)r;
		if (!text[0])
			return 0;
	}
	text[n] = 0;
	return err_set(e, ECHILD, "%s", n ? text : "its process died while it was starting; its log may say why");
}

/* lock: held, closed here. */
static int spawn(const char *name, int folder, int lock, struct err *e)
{
	struct serve_config c;
	char *text _free_ = NULL;
	int pipes[2], r;
	pid_t pid;

	r = store_read(folder, "network.json", &text, e) ?: serve_config_parse(text, &c, e);
	if (!r && pipe2(pipes, O_CLOEXEC))
		r = err_errno(e, "cannot make a pipe");
	if (r) {
		close(lock);
		return r;
	}
	snprintf(c.name, sizeof(c.name), "%s", name);
	fflush(NULL);
	pid = fork();
	if (!pid) {
		/* not our caller's child: it need not wait for it */
		if (fork())
			_exit(0);
		child(&c, folder, lock, pipes[1]);
	}
	close(pipes[1]);
	close(lock); /* the process has it now */
	r = pid < 0 ? err_errno(e, "cannot make a process") : hear(pipes[0], e);
	if (pid > 0)
		waitpid(pid, NULL, 0);
	close(pipes[0]);
	return r;
}

int network_start(struct store *networks, const char *name, struct err *e)
{
	int folder _close_ = store_network_open(networks, name, e), r = folder;

	for (unsigned i = 0; folder >= 0 && i < TRIES; i++) {
		int lock;

		r = network_connect(folder, e);
		if (r != -ENOENT && r != -ECONNREFUSED)
			break;
		lock = store_network_lock(folder, e);
		r = lock >= 0 ? spawn(name, folder, lock, e) : lock;
		if (r && r != -EBUSY)
			break;
		if (r)
			usleep(100000);
	}
	return r < 0 && folder >= 0 ? err_prefix(e, "network %s", name) : r;
}

int network_dial(struct store *networks, const char *network, struct err *e)
{
	int folder _close_ = store_network_open(networks, network, e), fd;

	if (folder < 0)
		return folder;
	fd = net_client_dial(folder, e);
	return fd < 0 ? err_prefix(e, "network %s", network) : fd;
}

json_t *network_show(int fd, struct err *e)
{
	static const size_t size = 65536;
	char *text _free_ = malloc(size), question[64];
	json_t *all = NULL, *part, *next;
	json_int_t from = 0;

	if (!text)
		err_set(e, ENOMEM, "no memory for an answer");
	while (text && from >= 0) {
		snprintf(question, sizeof(question), "{\"command\": \"show\", \"from\": %lld}", (long long)from);
		part = net_client_ask(fd, question, text, size, e) > 0 ? json_loads(text, 0, NULL) : NULL;
		if (!json_is_array(json_object_get(part, "ports"))) {
			if (!e->code)
				err_set(e, EPROTO, "the switch answers strangely");
			json_decref(part);
			json_decref(all);
			return NULL;
		}
		next = json_object_get(part, "next");
		from = json_is_integer(next) && json_integer_value(next) > from ? json_integer_value(next) : -1;
		if (all)
			json_array_extend(json_object_get(all, "ports"), json_object_get(part, "ports"));
		else
			all = json_incref(part);
		json_decref(part);
	}
	json_object_del(all, "next");
	return all;
}
