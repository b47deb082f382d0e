/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The user's terminal as a serial line: raw mode while a machine has it, restored whatever happens, and the escape key
 * Ctrl-A. The saved settings are this process's own, like the terminal itself, and are needed in signal handlers: the
 * one place with state at file scope.
 */
#include <signal.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>
#include "backend/chr-private.h"

#define CTRL_A 1

static struct termios saved;
static volatile sig_atomic_t is_raw;

int terminal_raw(struct err *e)
{
	struct termios raw;

	if (tcgetattr(STDIN_FILENO, &saved) < 0)
		return err_errno(e, "the terminal's settings");
	raw = saved;
	cfmakeraw(&raw);
	raw.c_oflag = saved.c_oflag; /* the guest's own line ends, but ours stay readable */
	if (tcsetattr(STDIN_FILENO, TCSANOW, &raw) < 0)
		return err_errno(e, "setting the terminal to raw mode");
	is_raw = 1;
	return 0;
}

void chr_restore_terminal(void)
{
	if (!is_raw)
		return;
	is_raw = 0;
	tcsetattr(STDIN_FILENO, TCSANOW, &saved);
}

static void say(const char *text)
{
	ssize_t n = write(STDERR_FILENO, text, strlen(text));

	(void)n;
}

/* The key after Ctrl-A. True: it is for the guest. */
static bool escape_key(struct chr *c, uint8_t key)
{
	switch (key) {
	case CTRL_A:
	case 'a': return true; /* twice: once for the guest */
	case 'x':
	case 'X':
		chr_restore_terminal();
		say("\n");
		if (c->config.leave)
			c->config.leave(c->config.opaque);
		return false;
	case 's':
	case 'S':
		if (c->config.save)
			c->config.save(c->config.save_opaque);
		return false;
	case 'h':
	case 'H':
	case '?':
		say("\r\nCtrl-A X  leave (ends the machine)\r\n");
		if (c->config.save)
			say("Ctrl-A S  save the machine and leave\r\n");
		say("Ctrl-A A  send Ctrl-A\r\nCtrl-A H  this help\r\n");
		return false;
	default: return false;
	}
}

size_t terminal_filter(struct chr *c, uint8_t *data, size_t n)
{
	size_t kept = 0;

	for (size_t i = 0; i < n; i++) {
		if (c->escape) {
			c->escape = false;
			if (escape_key(c, data[i]))
				data[kept++] = CTRL_A;
		} else if (data[i] == CTRL_A) {
			c->escape = true;
		} else {
			data[kept++] = data[i];
		}
	}
	return kept;
}
