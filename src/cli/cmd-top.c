/* SPDX-License-Identifier: Apache-2.0 */
/* ospite top: what machines use, from the difference of two looks at their counters. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include "cli/life.h"
#include "vm/view.h"

#define CTRL_C 3

static int64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static int64_t number(const json_t *of, const char *name)
{
	return json_integer_value(json_object_get(of, name));
}

/* Of all disks, or all cards. */
static int64_t sum(const json_t *list, const char *within, const char *name)
{
	const json_t *one;
	int64_t all = 0;
	size_t i;

	json_array_foreach(list, i, one)
		all += number(within ? json_object_get(one, within) : one, name);
	return all;
}

/* What only grows, and when; with what is as it is. NULL: it does not run, or does not answer. */
static json_t *look(struct store_vm *m)
{
	json_t *stats = NULL, *disks = NULL, *cards = NULL, *size = NULL, *now = NULL;
	struct ctl_peer *p;

	if (ctl_connect(&p, m->fd, "control", ANSWER_MS, NULL)) /* one that is just starting is not waited for */
		return NULL;
	if (!ctl_call_command(p, "ospite-query-stats", NULL, &stats, ANSWER_MS, NULL)) {
		ctl_call_command(p, "query-blockstats", NULL, &disks, ANSWER_MS, NULL);
		ctl_call_command(p, "ospite-query-networks", NULL, &cards, ANSWER_MS, NULL);
		ctl_call_command(p, "query-memory-size-summary", NULL, &size, ANSWER_MS, NULL);
		now = json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "at", (json_int_t)now_us(), "cpu",
				(json_int_t)(number(stats, "user-us") + number(stats, "system-us")), "exits",
				(json_int_t)number(json_object_get(stats, "counters"), "vcpu.stops"), "resident", (json_int_t)number(stats, "resident"),
				"memory", (json_int_t)number(size, "base-memory"), "read", (json_int_t)sum(disks, "stats", "rd_bytes"), "written",
				(json_int_t)sum(disks, "stats", "wr_bytes"), "received", (json_int_t)sum(cards, NULL, "received-bytes"), "sent",
				(json_int_t)sum(cards, NULL, "sent-bytes"));
	}
	json_decref(stats);
	json_decref(disks);
	json_decref(cards);
	json_decref(size);
	ctl_disconnect(p);
	return now;
}

static json_t *row_of(const char *name, const json_t *now, const json_t *was)
{
	static const char *const bytes[] = { "read", "written", "received", "sent" };
	int64_t gone = number(now, "at") - number(was, "at");
	json_t *row = json_pack("{s:s}", "name", name);
	char text[32];

	json_object_set_new(row, "resident", json_string(short_size((uint64_t)number(now, "resident"), text)));
	json_object_set_new(row, "memory", json_string(short_size((uint64_t)number(now, "memory"), text)));
	if (!was || gone <= 0)
		return row;
	json_object_set_new(row, "cpu", json_real(100.0 * (double)(number(now, "cpu") - number(was, "cpu")) / (double)gone));
	json_object_set_new(row, "exits", json_integer((number(now, "exits") - number(was, "exits")) * 1000000 / gone));
	for (unsigned i = 0; i < ARRAY_LEN(bytes); i++) {
		int64_t grown = MAX(number(now, bytes[i]) - number(was, bytes[i]), (int64_t)0); /* a card may have gone */

		json_object_set_new(row, bytes[i], json_string(short_size((uint64_t)((double)grown * 1e6 / (double)gone), text)));
	}
	return row;
}

/* One table; `before` holds the last figures by name and gets the new ones. */
static json_t *top_rows(struct store *s, json_t *before, struct err *e)
{
	json_t *rows = json_array();
	char **names;
	unsigned count;

	if (store_list(s, &names, &count, e)) {
		json_decref(rows);
		return NULL;
	}
	for (unsigned i = 0; i < count; i++) {
		json_t *now = NULL;
		struct store_vm m;

		if (!store_vm_open(s, names[i], &m, NULL)) {
			now = look(&m);
			store_vm_close(&m);
		}
		if (now) {
			json_array_append_new(rows, row_of(names[i], now, json_object_get(before, names[i])));
			json_object_set_new(before, names[i], now);
		}
		free(names[i]);
	}
	free(names);
	return rows;
}

int life_top(struct life_args *a, struct store *s, struct err *e)
{
	static const struct column columns[] = {
		{ "name", "NAME" }, { "cpu", "CPU %", true }, { "exits", "EXITS/s", true }, { "resident", "RESIDENT", true },
		{ "memory", "MEMORY", true }, { "read", "DISK READ/s", true }, { "written", "WRITTEN/s", true }, { "received", "NET IN/s", true },
		{ "sent", "OUT/s", true }, { NULL },
	};
	bool live = !a->once && !a->json && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
	struct pollfd p[2] = { { .fd = STDIN_FILENO, .events = POLLIN }, { .fd = -1, .events = POLLIN } };
	json_t *before = json_object(), *rows;
	struct termios old, raw;
	struct view keeper;
	char key = 0;
	int r = 0;

	if (live && !tcgetattr(STDIN_FILENO, &old)) {
		p[1].fd = life_signals();
		raw = old;
		raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO | ISIG); /* all three: so the keeper knows it for ours */
		view_keep_terminal(&keeper, true);
		tcsetattr(STDIN_FILENO, TCSANOW, &raw);
		fputs("\033[?1049h\033[?25l", stdout);
	}
	for (unsigned round = 0; key != 'q' && key != CTRL_C && (live || round < 2); round++) {
		rows = top_rows(s, before, e);
		r = rows ? 0 : -e->code;
		if (r)
			break;
		if (live) {
			fputs("\033[H\033[J", stdout);
			printf("ospite top: %zu running; q leaves\n\n", json_array_size(rows));
		}
		if (live || round)
			table_print(rows, columns, a->json);
		json_decref(rows);
		fflush(stdout);
		if (live && poll(p, 2, round ? 1000 : 200) > 0 && (p[1].revents || read(STDIN_FILENO, &key, 1) != 1))
			key = 'q';
		else if (!live && !round)
			usleep(500000);
	}
	if (live) {
		fputs("\033[?25h\033[?1049l", stdout);
		fflush(stdout);
		tcsetattr(STDIN_FILENO, TCSANOW, &old);
		view_dispose(&keeper, true);
		cleanup_close(&p[1].fd);
	}
	json_decref(before);
	return r;
}
