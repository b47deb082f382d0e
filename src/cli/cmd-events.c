/* SPDX-License-Identifier: Apache-2.0 */
/* ospite events: what happens to machines; ospite ctl: any command of the control socket. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "cli/life.h"
#include "ctl/private.h"

#define WATCHED 256

struct watched {
	char name[STORE_NAME];
	struct ctl_peer *peer;
};

static int watch(struct store *s, const char *name, struct watched *w, struct err *e)
{
	struct store_vm m;
	int r = store_vm_open(s, name, &m, e);

	if (r)
		return r;
	snprintf(w->name, sizeof(w->name), "%s", m.name);
	r = life_connect(&m, &w->peer, e);
	store_vm_close(&m);
	return r;
}

static void show_event(const struct life_args *a, const char *name, json_t *event)
{
	json_t *data = json_object_get(event, "data"), *value;
	json_int_t seconds = json_integer_value(json_object_get(json_object_get(event, "timestamp"), "seconds"));
	time_t t = (time_t)seconds;
	char when[40] = "";
	const char *key;
	struct tm tm;

	if (a->json) {
		json_object_set_new(event, "machine", json_string(name));
		json_dumpf(event, stdout, JSON_COMPACT);
		putchar('\n');
	} else {
		if (localtime_r(&t, &tm))
			strftime(when, sizeof(when), "%F %T", &tm);
		printf("%s  %-16s ", when, name);
		text_print(json_string_value(json_object_get(event, "event")) ?: "", false);
		json_object_foreach(data, key, value) {
			if (!json_is_string(value))
				continue;
			putchar(' ');
			text_print(key, false);
			putchar('=');
			text_print(json_string_value(value), false);
		}
		putchar('\n');
	}
	fflush(stdout);
}

static int watch_them(const struct life_args *a, struct watched *w, unsigned n, struct err *e)
{
	struct pollfd p[WATCHED];
	unsigned left = n;
	int r;

	for (unsigned i = 0; i < n; i++)
		p[i] = (struct pollfd){ .fd = ctl_peer_fd(w[i].peer), .events = POLLIN };
	while (left) {
		if (poll(p, n, -1) < 0 && errno != EINTR)
			return err_errno(e, "cannot wait for events");
		for (unsigned i = 0; i < n; i++) {
			json_t *event;

			if (!p[i].revents)
				continue;
			while (!(r = ctl_next_event(w[i].peer, &event, 0, NULL))) {
				show_event(a, w[i].name, event);
				json_decref(event);
				if (ferror(stdout))
					return 0; /* which main() reports */
			}
			if (r != -ETIMEDOUT) {
				p[i].fd = -1;
				left--;
			}
		}
	}
	return 0;
}

int life_events(const struct life_command *c, struct life_args *a, struct store *s, struct err *e)
{
	struct watched *w = calloc(WATCHED, sizeof(*w));
	char **names = NULL;
	unsigned count = 0, n = 0;
	int r = w ? 0 : err_set(e, ENOMEM, "out of memory");

	if (!r && !a->nwords)
		r = store_list(s, &names, &count, e);
	for (unsigned i = 0; i < count; i++) {
		if (n < WATCHED && !watch(s, names[i], &w[n], NULL))
			n++;
		free(names[i]);
	}
	free(names);
	for (unsigned i = 0; i < a->nwords && !r && n < WATCHED; i++) {
		r = watch(s, a->words[i], &w[n], e);
		n += !r;
	}
	if (!r && !n)
		r = err_set(e, ESRCH, "no machine runs");
	if (!r)
		r = watch_them(a, w, n, e);
	for (unsigned i = 0; i < n; i++)
		ctl_disconnect(w[i].peer);
	free(w);
	return r;
}

/* ---- ctl */

static int list_commands(void)
{
	for (const struct ctl_command *c = ctl_commands; c->name; c++)
		printf("%-28s %s%s%s\n", c->name, c->arguments, c->arguments[0] ? "  " : "", c->help);
	return 0;
}

/* A value is what the command's table says: JSON, or a plain string. */
static int argument(json_t *to, const struct ctl_command *command, const char *word, struct err *e)
{
	const char *list = command ? command->arguments : "", *value = strchr(word, '=');
	struct ctl_argument a;
	char key[64];
	json_t *v = NULL;
	bool text = !command;

	if (!value || value == word)
		return err_set(e, EINVAL, "'%.60s': write KEY=VALUE", word);
	snprintf(key, sizeof(key), "%.*s", (int)(value++ - word), word);
	while (ctl_argument_next(&list, &a))
		text |= !strcmp(a.name, key) && !strcmp(a.type, "str");
	if (!text)
		v = json_loads(value, JSON_DECODE_ANY, NULL);
	if (!v)
		v = json_string(value);
	return v && !json_object_set_new(to, key, v) ? 0 : err_set(e, EINVAL, "'%.60s' is not UTF-8", word);
}

int life_ctl(const struct life_command *c, struct life_args *a, struct store *s, struct err *e)
{
	json_t *arguments = json_object(), *result = NULL;
	struct ctl_peer *p = NULL;
	struct store_vm m;
	int r;

	if (a->nwords < 2) {
		json_decref(arguments);
		return !strcmp(a->words[0], "list") ? list_commands() : err_set(e, EINVAL, "usage: ospite ctl %s", c->usage);
	}
	r = store_vm_open(s, a->words[0], &m, e);
	if (r) {
		json_decref(arguments);
		return r;
	}
	for (unsigned i = 2; i < a->nwords && !r; i++)
		r = argument(arguments, ctl_command_find(a->words[1]), a->words[i], e);
	if (!r)
		r = life_connect(&m, &p, e);
	if (!r)
		r = life_bring_arguments(p, a->words[1], arguments, e);
	if (!r)
		r = ctl_call_command(p, a->words[1], json_incref(arguments), &result, -1, e);
	if (!r)
		print_json(result);
	json_decref(result);
	json_decref(arguments);
	ctl_disconnect(p);
	store_vm_close(&m);
	return r;
}
