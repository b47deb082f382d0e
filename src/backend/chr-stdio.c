/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Standard input and output as a serial line. A terminal is put into raw mode, except that output keeps its
 * translation of line ends, so that our own messages look right too; Ctrl-A is the escape.
 *
 * What a terminal was like before is kept outside of any struct, because it belongs to the process and a fatal
 * signal's handler must find it.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>
#include "base/err.h"
#include "backend/private.h"

#define CTRL_A 1

static struct termios saved_terminal;
static _Atomic bool terminal_raw, terminal_full;

void chr_restore_terminal(void)
{
	static const char leave[] = "\033[0m\033[?25h\033[?1049l";

	if (atomic_exchange(&terminal_full, false) && write(STDOUT_FILENO, leave, sizeof(leave) - 1) < 0) {
		/* it is gone: nothing to restore */
	}
	if (atomic_exchange(&terminal_raw, false))
		tcsetattr(STDIN_FILENO, TCSADRAIN, &saved_terminal);
}

static void say(struct chr *c, const char *text)
{
	chr_write(c, (const uint8_t *)text, strlen(text));
}

static void help(struct chr *c)
{
	say(c, "\r\nCtrl-A X  leave (ends the machine)\r\n");
	if (c->config.save)
		say(c, "Ctrl-A S  save the machine and leave\r\n");
	say(c, "Ctrl-A Ctrl-A  send Ctrl-A\r\nCtrl-A H  this help\r\n");
}

static void typed_byte(struct chr *c, uint8_t b)
{
	if (c->ntyped < CHR_TYPED)
		c->typed[c->ntyped++] = b;
}

static void escaped(struct chr *c, uint8_t b)
{
	switch (b) {
	case 'x':
	case 'X':
		if (!c->config.full_screen)
			say(c, "\r\n");
		if (c->config.leave)
			c->config.leave(c->config.opaque);
		break;
	case 'h':
	case 'H':
	case '?':
		if (c->config.help)
			c->config.help(c->config.help_opaque);
		else
			help(c);
		break;
	case 's':
	case 'S':
		if (c->config.save)
			c->config.save(c->config.save_opaque);
		break;
	case CTRL_A:
	case 'a':
		typed_byte(c, CTRL_A);
		break;
	default:
		break;
	}
}

void chr_typed(struct chr *c, const uint8_t *data, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (c->escape) {
			c->escape = false;
			escaped(c, data[i]);
		} else if (data[i] == CTRL_A) {
			c->escape = true;
		} else {
			typed_byte(c, data[i]);
		}
	}
}

static int terminal_open(struct chr *c, struct err *e)
{
	struct termios t;

	if (tcgetattr(STDIN_FILENO, &t))
		return err_errno(e, "cannot ask the terminal");
	if (tcgetpgrp(STDIN_FILENO) != getpgrp())
		return 0; /* in the background, where changing it would stop us */
	saved_terminal = t;
	t.c_iflag &= ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
	t.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | ISIG | IEXTEN);
	t.c_cflag |= CS8;
	t.c_cc[VMIN] = 1;
	t.c_cc[VTIME] = 0;
	if (tcsetattr(STDIN_FILENO, TCSANOW, &t))
		return err_errno(e, "cannot set the terminal");
	atomic_store(&terminal_raw, true);
	c->terminal = true;
	return 0;
}

/*
 * Writing must not block, but O_NONBLOCK would be set for everybody who has the same open file, the shell for one. So
 * pipes and terminals are opened again; where that is not possible poll is asked before each write.
 */
static void output_open(struct chr *c)
{
	struct stat st;

	c->out = STDOUT_FILENO;
	if (fstat(STDOUT_FILENO, &st)) {
		c->out = -1; /* there is no standard output */
		return;
	}
	if (S_ISREG(st.st_mode))
		return;
	if (S_ISSOCK(st.st_mode)) {
		c->out_socket = true;
		return;
	}
	c->out = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	if (c->out < 0) {
		c->out = STDOUT_FILENO;
		c->out_poll = true;
	}
}

int chr_open_stdio(struct chr *c, struct err *e)
{
	int r = 0;

	if (atomic_load(&terminal_raw))
		return err_set(e, EBUSY, "standard input is in use already");
	if (isatty(STDIN_FILENO))
		r = terminal_open(c, e);
	if (r)
		return r;
	output_open(c);
	if (c->terminal && c->config.full_screen) {
		atomic_store(&terminal_full, true);
		say(c, "\033[?1049h");
	}
	c->in = fcntl(STDIN_FILENO, F_GETFD) < 0 ? -1 : STDIN_FILENO;
	return 0;
}

void chr_close_stdio(struct chr *c)
{
	if (c->out > STDERR_FILENO)
		close(c->out);
	if (c->terminal)
		chr_restore_terminal();
}
