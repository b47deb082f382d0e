/* SPDX-License-Identifier: Apache-2.0 */
/* ospite console: a machine's console in this terminal; ospite logs: what was written to it. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>
#include "cli/life.h"
#include "vm/view.h"

#define CTRL_A 1

struct attached {
	int fd;
	bool terminal, escape, leave;
	struct termios old;
};

static int console_connect(struct store_vm *m, struct err *e)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	struct store_status st;
	int fd, r = store_vm_status(m, &st, e);

	if (r)
		return r;
	if (st.state != STORE_RUNNING)
		return err_set(e, ESRCH, "machine '%s' is %s; 'ospite logs %s' shows what it wrote", m->name,
			       store_state_name(st.state), m->name);
	snprintf(at.sun_path, sizeof(at.sun_path), "/proc/self/fd/%d/console", m->fd);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_errno(e, "cannot make a socket");
	if (connect(fd, (struct sockaddr *)&at, sizeof(at))) {
		r = errno == ENOENT ? err_set(e, ENOENT, "machine '%s' has no console: its first serial port is something else", m->name) :
				      err_errno(e, "cannot connect to the console of machine '%s'", m->name);
		close(fd);
		return r;
	}
	return fd;
}

static int write_all(int fd, const char *data, size_t n)
{
	while (n) {
		ssize_t w = write(fd, data, n);

		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0)
			return -1;
		data += w;
		n -= (size_t)w;
	}
	return 0;
}

static void escaped(struct attached *a, char key)
{
	static const char help[] = "\r\nCtrl-A D  leave; the machine goes on\r\nCtrl-A Ctrl-A  send Ctrl-A\r\nCtrl-A H  this help\r\n";
	static const char ctrl_a = CTRL_A;

	if (strchr("dDxX", key) && key)
		a->leave = true;
	else if (key == CTRL_A || key == 'a')
		write_all(a->fd, &ctrl_a, 1);
	else if (key && strchr("hH?", key))
		write_all(STDOUT_FILENO, help, sizeof(help) - 1);
}

/* Typed bytes without the escapes; without a terminal all of them. */
static void typed(struct attached *a, const char *data, size_t n)
{
	char out[4096];
	size_t used = 0;

	for (size_t i = 0; i < n && !a->leave; i++) {
		if (a->terminal && a->escape) {
			a->escape = false;
			escaped(a, data[i]);
		} else if (a->terminal && data[i] == CTRL_A) {
			a->escape = true;
		} else {
			out[used++] = data[i];
		}
	}
	if (used && write_all(a->fd, out, used))
		a->leave = true;
}

static void terminal_raw(struct attached *a)
{
	struct termios t;

	a->terminal = isatty(STDIN_FILENO) && !tcgetattr(STDIN_FILENO, &a->old);
	if (!a->terminal)
		return;
	t = a->old;
	t.c_iflag &= ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
	t.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | ISIG | IEXTEN);
	t.c_cc[VMIN] = 1;
	t.c_cc[VTIME] = 0;
	tcsetattr(STDIN_FILENO, TCSANOW, &t);
	fputs("ospite: Ctrl-A D leaves the console\r\n", stderr);
}

/* True: the machine has ended. */
static bool attach(struct attached *a)
{
	int signals _close_ = a->terminal ? life_signals() : -1;
	struct pollfd p[3] = { { .fd = a->fd, .events = POLLIN }, { .fd = STDIN_FILENO, .events = POLLIN }, { .fd = signals, .events = POLLIN } };
	char data[4096];
	ssize_t n;

	while (!a->leave) {
		if ((poll(p, 3, -1) < 0 && errno != EINTR) || p[2].revents)
			return false;
		if (p[0].revents) {
			n = read(a->fd, data, sizeof(data));
			if (n <= 0)
				return true;
			if (write_all(STDOUT_FILENO, data, (size_t)n))
				return false;
		}
		if (p[1].revents) {
			n = read(STDIN_FILENO, data, sizeof(data));
			if (n > 0)
				typed(a, data, (size_t)n);
			else if (a->terminal)
				return false;
			else
				p[1].fd = -1; /* no more input: go on showing */
		}
	}
	return false;
}

int life_console(const struct life_command *c, struct life_args *a, struct store *s, struct err *e)
{
	struct attached at = { 0 };
	struct store_vm m;
	struct view keeper;
	bool ended;
	int r = store_vm_open(s, a->words[0], &m, e);

	if (r)
		return r;
	at.fd = console_connect(&m, e);
	if (at.fd >= 0) {
		signal(SIGPIPE, SIG_IGN);
		view_keep_terminal(&keeper, false);
		terminal_raw(&at);
		ended = attach(&at);
		if (at.terminal) {
			tcsetattr(STDIN_FILENO, TCSADRAIN, &at.old);
			view_dispose(&keeper, true);
			fprintf(stderr, "\nospite: %s '%s'\n", ended ? "the end of" : "left the console of", m.name);
		}
		close(at.fd);
	}
	store_vm_close(&m);
	return at.fd < 0 ? at.fd : 0;
}

/* ---- logs */

/* What is read as one: the log before this one (console.log.1), and this one. */
struct log {
	int fd[2]; /* -1: there is none */
	off_t size[2];
	const char *name;
};

static int log_open(struct log *l, unsigned i, struct store_vm *m, struct err *e)
{
	struct stat st;
	char name[32];

	snprintf(name, sizeof(name), "%s%s", l->name, i ? "" : ".1");
	cleanup_close(&l->fd[i]);
	l->size[i] = 0;
	l->fd[i] = openat(m->fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW);
	if (l->fd[i] < 0 && errno == ENOENT)
		return 0; /* it never wrote anything */
	if (l->fd[i] < 0 || fstat(l->fd[i], &st))
		return err_errno(e, "cannot open the log of machine '%s'", m->name);
	if (!S_ISREG(st.st_mode))
		return err_set(e, EINVAL, "the log of machine '%s' is not a file", m->name);
	l->size[i] = st.st_size;
	return 0;
}

/* Has the machine begun another log since we opened this one? */
static bool log_replaced(const struct log *l, struct store_vm *m)
{
	struct stat ours, now;

	if (fstatat(m->fd, l->name, &now, AT_SYMLINK_NOFOLLOW))
		return false;
	return l->fd[1] < 0 || (!fstat(l->fd[1], &ours) && (ours.st_ino != now.st_ino || ours.st_dev != now.st_dev));
}

static int logs_open(struct log *l, bool both, struct store_vm *m, struct err *e)
{
	int r;

	do {
		r = log_open(l, 1, m, e);
		if (!r && both)
			r = log_open(l, 0, m, e);
	} while (!r && l->fd[1] >= 0 && log_replaced(l, m)); /* between the two */
	return r;
}

/* Where the last `lines` lines begin. */
static off_t tail_start(const struct log *l, uint64_t lines)
{
	off_t size = l->size[0] + l->size[1], at = size;
	char data[4096];

	while (at > 0 && lines) {
		bool first = at <= l->size[0];
		off_t border = first ? 0 : l->size[0];
		size_t n = (size_t)MIN(at - border, (off_t)sizeof(data));

		at -= (off_t)n;
		if (pread(l->fd[!first], data, n, at - border) != (ssize_t)n)
			return 0;
		for (size_t i = n; i--;)
			if (data[i] == '\n' && at + (off_t)i + 1 < size && !--lines)
				return at + (off_t)i + 1;
	}
	return lines ? 0 : size;
}

static int copy_from(int fd, off_t *at, struct err *e)
{
	char data[16384];
	ssize_t n;

	while (fd >= 0 && (n = pread(fd, data, sizeof(data), *at)) != 0) {
		if (n < 0)
			return err_errno(e, "cannot read the log");
		*at += n;
		if (write_all(STDOUT_FILENO, data, (size_t)n))
			return err_errno(e, "cannot write to standard output");
	}
	return 0;
}

/* All there is from `at` on in the present log, and what has begun after it. */
static int copy_on(struct log *l, off_t *at, struct store_vm *m, struct err *e)
{
	bool replaced = log_replaced(l, m); /* asked first: nothing is written to the one we have after that */
	int r = copy_from(l->fd[1], at, e);

	if (r || !replaced)
		return r;
	*at = 0;
	r = log_open(l, 1, m, e);
	return r ? r : copy_from(l->fd[1], at, e);
}

static int logs_show(struct life_args *a, struct log *l, struct store_vm *m, struct err *e)
{
	struct store_status st;
	int r = logs_open(l, !a->own_log, m, e);
	off_t at, first;

	if (r)
		return r;
	first = a->lines == UINT64_MAX ? 0 : tail_start(l, a->lines);
	at = MAX(first - l->size[0], (off_t)0);
	if (first < l->size[0])
		r = copy_from(l->fd[0], &first, e);
	do {
		/* asked before reading: what it wrote before its end is not missed */
		if (!r)
			r = store_vm_status(m, &st, e);
		if (!r)
			r = copy_on(l, &at, m, e);
		if (!r && a->follow && st.state == STORE_RUNNING)
			usleep(100000);
	} while (!r && a->follow && st.state == STORE_RUNNING);
	return r;
}

int life_logs(const struct life_command *c, struct life_args *a, struct store *s, struct err *e)
{
	struct log l = { .fd = { -1, -1 }, .name = a->own_log ? "log" : "console.log" };
	struct store_vm m;
	int r = store_vm_open(s, a->words[0], &m, e);

	if (r)
		return r;
	r = logs_show(a, &l, &m, e);
	cleanup_close(&l.fd[0]);
	cleanup_close(&l.fd[1]);
	store_vm_close(&m);
	return r;
}
