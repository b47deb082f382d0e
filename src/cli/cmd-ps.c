/* SPDX-License-Identifier: Apache-2.0 */
/* Commands that show machines: ps, info, stats, top. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include "cli/life.h"
#include "cli/seed.h"

static void add_time(json_t *row, const char *key, int64_t at)
{
	char text[40];
	struct tm tm;
	time_t t = (time_t)at;

	if (at > 0 && gmtime_r(&t, &tm) && strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm))
		json_object_set_new(row, key, json_string(text));
}

/* Where its ssh is, for other programs than 'ospite ssh'. */
static void add_ssh(json_t *row, struct store_vm *m)
{
	char *text _free_ = NULL;

	if (store_read(m->fd, SEED_PORT, &text, NULL))
		return;
	text[strcspn(text, "\n")] = 0;
	json_object_set_new(row, "ssh", json_sprintf("127.0.0.1:%.5s", text));
}

json_t *life_describe(struct store_vm *m)
{
	json_t *row = json_pack("{s:s}", "name", m->name), *machine = NULL;
	struct store_status st;
	struct ctl_peer *p;
	struct err e = { 0 };

	if (store_vm_status(m, &st, &e)) {
		json_object_set_new(row, "state", json_string("unknown"));
		json_object_set_new(row, "reason", json_string(e.text));
		return row;
	}
	json_object_set_new(row, "state", json_string(life_state(m, &st)));
	if (st.state == STORE_RUNNING) {
		add_ssh(row, m);
		if (st.pid)
			json_object_set_new(row, "pid", json_integer(st.pid));
		if (!ctl_connect(&p, m->fd, "control", ANSWER_MS, &e)) {
			if (!ctl_call_command(p, "ospite-query-machine", NULL, &machine, ANSWER_MS, &e))
				json_object_update_missing(row, machine);
			json_decref(machine);
			ctl_disconnect(p);
		}
		if (e.code)
			json_object_set_new(row, "reason", json_string(e.text));
	} else if (st.ended || st.state == STORE_CRASHED) {
		json_object_set_new(row, "reason", json_string(st.reason));
		json_object_set_new(row, "exit-status", json_integer(st.exit_status));
		add_time(row, "ended", st.ended);
	}
	add_time(row, "started", st.started);
	return row;
}

static bool shown(const struct life_args *a, struct store_vm *m)
{
	struct store_status st;

	return a->all || (!store_vm_status(m, &st, NULL) && st.state == STORE_RUNNING);
}

static json_t *describe_all(struct life_args *a, struct store *s, struct err *e)
{
	json_t *rows = json_array();
	char **names;
	unsigned count;

	if (store_list(s, &names, &count, e)) {
		json_decref(rows);
		return NULL;
	}
	for (unsigned i = 0; i < count; i++) {
		struct store_vm m;

		if (!store_vm_open(s, names[i], &m, NULL)) {
			if (shown(a, &m))
				json_array_append_new(rows, a->quiet ? json_pack("{s:s}", "name", m.name) : life_describe(&m));
			store_vm_close(&m);
		}
		free(names[i]);
	}
	free(names);
	return rows;
}

/* What people read rather than programs. */
static void make_readable(json_t *rows)
{
	char text[32];
	json_t *row, *v;
	size_t i;

	json_array_foreach(rows, i, row) {
		v = json_object_get(row, "memory");
		if (v)
			json_object_set_new(row, "memory", json_string(short_size((uint64_t)json_integer_value(v), text)));
		v = json_object_get(row, "uptime-ms");
		if (v)
			json_object_set_new(row, "up", json_string(short_time(json_integer_value(v) / 1000, text)));
	}
}

int life_ps(const struct life_command *c, struct life_args *a, struct store *s, struct err *e)
{
	static const struct column columns[] = {
		{ "name", "NAME" }, { "state", "STATE" }, { "engine", "ENGINE" }, { "cpus", "CPUS", true },
		{ "memory", "MEMORY", true }, { "pid", "PID", true }, { "up", "UP", true }, { "address", "ADDRESS" }, { "reason", "REMARK" }, { NULL },
	};
	json_t *rows = describe_all(a, s, e), *row;
	size_t i;

	if (!rows)
		return -e->code;
	if (a->quiet && !a->json) {
		json_array_foreach(rows, i, row)
			puts(json_string_value(json_object_get(row, "name")));
	} else {
		if (!a->json)
			make_readable(rows);
		table_print(rows, columns, a->json);
	}
	json_decref(rows);
	return 0;
}

/* Some of it is what the machine's process says, who may be anybody by now. */
static void print_member(const char *indent, const char *key, const char *value)
{
	fputs(indent, stdout);
	text_print(key, false);
	printf("%*s", (int)(25 - MIN(strlen(key), 24u)), "");
	text_print(value, false);
	putchar('\n');
}

static void print_members(json_t *object, const char *indent)
{
	const char *key;
	json_t *v;

	json_object_foreach(object, key, v) {
		if (json_is_string(v))
			print_member(indent, key, json_string_value(v));
		else if (json_is_integer(v))
			printf("%s%-24s %lld\n", indent, key, (long long)json_integer_value(v));
		else if (json_is_object(v))
			print_members(v, indent);
	}
}

int life_info(const struct life_command *c, struct life_args *a, struct store *s, struct err *e)
{
	json_t *rows = json_array(), *row;
	int r = 0;
	size_t i;

	for (unsigned k = 0; k < a->nwords && !r; k++) {
		char *text _free_ = NULL;
		struct store_vm m;

		r = store_vm_open(s, a->words[k], &m, e);
		if (r)
			break;
		row = life_describe(&m);
		json_object_set_new(row, "folder", json_sprintf("%s/%s", s->path, m.name));
		if (!store_read(m.fd, "vm.yaml", &text, NULL))
			json_object_set_new(row, "config", json_string(text) ?: json_null());
		json_array_append_new(rows, row);
		store_vm_close(&m);
	}
	if (!r && a->json) {
		print_json(rows);
	} else if (!r) {
		json_array_foreach(rows, i, row) {
			json_t *config = json_incref(json_object_get(row, "config"));

			json_object_del(row, "config");
			print_members(row, "");
			if (json_is_string(config)) {
				puts("config");
				text_print(json_string_value(config), true);
			}
			json_decref(config);
			if (i + 1 < json_array_size(rows))
				putchar('\n');
		}
	}
	json_decref(rows);
	return r;
}

/* ---- stats and top */

static json_t *query_stats(struct store_vm *m, struct err *e)
{
	struct ctl_peer *p;
	json_t *stats = NULL;

	if (life_connect(m, &p, e))
		return NULL;
	if (ctl_call_command(p, "ospite-query-stats", NULL, &stats, ANSWER_MS, e))
		stats = NULL;
	ctl_disconnect(p);
	return stats;
}

static int show_stats(struct life_args *a, struct store *s, struct err *e)
{
	json_t *all = json_object();
	int r = 0;
	const char *name;
	json_t *stats;

	for (unsigned i = 0; i < a->nwords && !r; i++) {
		struct store_vm m;

		r = store_vm_open(s, a->words[i], &m, e);
		if (r)
			break;
		stats = query_stats(&m, e);
		r = stats ? 0 : -e->code;
		if (stats)
			json_object_set_new(all, m.name, stats);
		store_vm_close(&m);
	}
	if (!r && a->json)
		print_json(all);
	else if (!r)
		json_object_foreach(all, name, stats) {
			printf("%s\n", name);
			print_members(stats, "  ");
		}
	json_decref(all);
	return r;
}

int life_stats(const struct life_command *c, struct life_args *a, struct store *s, struct err *e)
{
	return strcmp(c->name, "top") ? show_stats(a, s, e) : life_top(a, s, e);
}
