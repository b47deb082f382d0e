/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ospite completion words -- WORD...: what the last word may become, for the completion of all shells. One candidate a line, a tab and what
 * it is where that helps; "@files" and "@folders" are left to the shell. A broken machine or folder gives no candidates, never an error.
 *
 * With --split the words are bash's, which cuts them at '=' and ':' too: they are put together here, and of a candidate
 * only what follows the last cut is said.
 */
#include <stdlib.h>
#include <string.h>
#include "cli/complete.h"
#include "cli/life.h"
#include "cli/run.h"
#include "ctl/private.h"
#include "engine/engine.h"
#include "store/network.h"

#define WORDS 512

struct complete {
	const char *word[WORDS + 1]; /* the command's name is the first, the last is underway */
	unsigned n;
	const char *current;
	char prefix[300]; /* before what is completed: "--engine=" */
	size_t cut;	  /* of prefix and candidate the shell has already */
	const char *root;
	const struct option_def *options;
};

static void say(const struct complete *c, const char *candidate, const char *help)
{
	char text[512];

	snprintf(text, sizeof(text), "%s%s", c->prefix, candidate);
	if (!strncmp(text, c->current, strlen(c->current)) && strlen(text) >= c->cut)
		printf("%s%s%s\n", text + c->cut, help ? "\t" : "", help ?: "");
}

static void say_files(const char *kind)
{
	puts(kind);
}

/* "a b c" */
static void say_list(const struct complete *c, const char *list)
{
	char word[64];

	for (const char *at = list; *at; at += strspn(at, " ")) {
		size_t n = strcspn(at, " ");

		snprintf(word, sizeof(word), "%.*s", (int)n, at);
		at += n;
		if (word[0] == '@')
			say_files(word);
		else
			say(c, word, NULL);
	}
}

/* ---- machines, templates, networks */

enum fits { FITS_ALL = 31, FITS_OFF = 1, FITS_RUNNING = 2, FITS_PAUSED = 4, FITS_SUSPENDED = 8, FITS_CRASHED = 16,
	    FITS_LIVE = FITS_RUNNING | FITS_PAUSED, FITS_STILL = FITS_OFF | FITS_CRASHED };

static const struct {
	const char *command;
	enum fits fits;
} fitting[] = {
	{ "start", FITS_STILL | FITS_SUSPENDED }, { "resume", FITS_PAUSED | FITS_SUSPENDED }, { "pause", FITS_RUNNING },
	{ "stop", FITS_LIVE },	   { "kill", FITS_LIVE },   { "suspend", FITS_LIVE }, { "reset", FITS_LIVE },
	{ "nmi", FITS_LIVE },	   { "console", FITS_LIVE }, { "exec", FITS_LIVE },   { "ssh", FITS_LIVE },
	{ "cp", FITS_LIVE },	   { "stats", FITS_LIVE },  { "screenshot", FITS_LIVE }, { "sendkey", FITS_LIVE },
	{ "medium", FITS_LIVE },   { "engine", FITS_LIVE }, { "ctl", FITS_LIVE },     { "wait", FITS_LIVE },
	{ "rename", FITS_STILL },  { "clone", FITS_STILL }, { "rm", FITS_STILL | FITS_SUSPENDED },
	{ "set", FITS_STILL | FITS_LIVE }, { "template", FITS_STILL },
};

static bool given(const struct complete *c, const char *word)
{
	for (unsigned i = 1; i + 1 < c->n; i++)
		if (!strcmp(c->word[i], word))
			return true;
	return false;
}

static enum fits state_of(struct store_vm *m, bool tell_paused)
{
	static const enum fits states[] = { [STORE_INACTIVE] = FITS_OFF, [STORE_RUNNING] = FITS_RUNNING, [STORE_SUSPENDED] = FITS_SUSPENDED,
					    [STORE_CRASHED] = FITS_CRASHED };
	struct store_status st = { 0 };

	if (store_vm_status(m, &st, NULL))
		return FITS_ALL;
	if (tell_paused && st.state == STORE_RUNNING && !strcmp(life_state(m, &st), "paused"))
		return FITS_PAUSED;
	return states[st.state];
}

static void machines(const struct complete *c, const char *suffix)
{
	enum fits fits = FITS_ALL;
	char **names, text[STORE_NAME + 2];
	unsigned count = 0;
	struct store s;

	for (unsigned i = 0; i < ARRAY_LEN(fitting); i++)
		if (!strcmp(fitting[i].command, c->word[0]))
			fits = fitting[i].fits;
	if (!strcmp(c->word[0], "rm") && given(c, "--force"))
		fits = FITS_ALL;
	if (store_open(&s, c->root, NULL))
		return;
	if (store_list(&s, &names, &count, NULL))
		count = 0;
	for (unsigned i = 0; i < count; i++) {
		struct store_vm m;

		if (!given(c, names[i]) && !store_vm_open(&s, names[i], &m, NULL)) {
			bool tell = !(fits & FITS_RUNNING) != !(fits & FITS_PAUSED);

			snprintf(text, sizeof(text), "%s%s", names[i], suffix);
			if (state_of(&m, tell) & fits)
				say(c, text, NULL);
			store_vm_close(&m);
		}
		free(names[i]);
	}
	if (count)
		free(names);
	store_close(&s);
}

static void folders(const struct complete *c, int (*open)(struct store *s, const char *root, struct err *e), const char *prefix)
{
	char **names, text[STORE_NAME + 16];
	unsigned count = 0;
	struct store s;

	if (open(&s, c->root, NULL))
		return;
	if (store_list(&s, &names, &count, NULL))
		count = 0;
	for (unsigned i = 0; i < count; i++) {
		snprintf(text, sizeof(text), "%s%s", prefix, names[i]);
		if (!given(c, text))
			say(c, text, NULL);
		free(names[i]);
	}
	if (count)
		free(names);
	store_close(&s);
}

/* Disks or cards of the machine that is named, if it runs. */
static void devices(const struct complete *c, const char *command, const char *member, const char *suffix)
{
	struct ctl_peer *p = NULL;
	json_t *list = NULL, *one;
	char text[80];
	struct store s;
	struct store_vm m;
	size_t i;

	if (c->n < 3 || store_open(&s, c->root, NULL))
		return;
	for (unsigned w = 1; w + 1 < c->n && !p; w++) {
		if (c->word[w][0] == '-' || store_vm_open(&s, c->word[w], &m, NULL))
			continue;
		if (life_connect(&m, &p, NULL))
			p = NULL;
		store_vm_close(&m);
	}
	if (p && !ctl_call_command(p, command, NULL, &list, ANSWER_MS, NULL))
		json_array_foreach(list, i, one)
		{
			snprintf(text, sizeof(text), "%.60s%s", json_string_value(json_object_get(one, member)) ?: "", suffix);
			say(c, text, NULL);
		}
	json_decref(list);
	ctl_disconnect(p);
	store_close(&s);
}

static void disks(const struct complete *c, const char *suffix)
{
	devices(c, "query-block", "device", suffix);
}

static void cards(const struct complete *c, const char *suffix)
{
	devices(c, "ospite-query-networks", "name", suffix);
}

/* ---- values of options */

static void engines(const struct complete *c)
{
	say(c, "auto", "the fastest that works here");
	for (const struct engine_ops *const *e = engine_list(); *e; e++)
		say(c, (*e)->name, NULL);
}

/* X's names of keyboard layouts. */
static void layouts(const struct complete *c)
{
	FILE *f = fopen("/usr/share/X11/xkb/rules/evdev.lst", "re");
	char line[200], name[64], help[120];
	bool there = false;

	while (f && fgets(line, sizeof(line), f)) {
		if (line[0] == '!')
			there = !strncmp(line, "! layout", 8);
		else if (there && sscanf(line, " %63s %119[^\n]", name, help) == 2)
			say(c, name, help);
	}
	if (f)
		fclose(f);
}

static const struct {
	const char *option, *values;
} values[] = {
	{ "format", "raw qcow2 vmdk vdi vhdx" }, { "to-format", "raw qcow2" }, { "backing-format", "raw qcow2" },
	{ "cache", "writeback writethrough none unsafe" }, { "preallocation", "off metadata falloc full" }, { "compression", "zlib zstd" },
	{ "cpu", "host v2 v3 v4" }, { "firmware", "bios uefi @files" }, { "boot", "disk cdrom network disk,cdrom cdrom,disk" },
	{ "input", "tablet keyboard" }, { "memory-pages", "2M" }, { "save-memory", "packed mapped" }, { "serial", "stdio null file: socket:" },
	{ "debug-console", "stdio null file: socket:" }, { "display", "text vnc none" }, { "uplink", "user tap: bridge:" },
	{ "cdrom", "none @files" }, { "root", "@folders" }, { "view", "@folders" }, { "share", "@folders" }, { "save-to", "@files" },
	{ "restore", "@files" }, { "control", "@files" }, { "log", "@files" }, { "limit-in", "" }, { "firmware-vars", "@files" },
	{ "until", "running paused suspended inactive crashed agent" }, { "cpu-weight", "none" }, { "cpu-quota", "none" }, { "memory-max", "none" },
};

static void keys(const struct complete *c, const char *suffix)
{
	char text[64];

	for (const struct option_def *d = run_options; d->name; d++) {
		snprintf(text, sizeof(text), "%s%s", d->name, suffix);
		if (!(d->flags & OPTION_HERE))
			say(c, text, d->help);
	}
}

static void value(const struct complete *c, const struct option_def *d)
{
	bool set = !strcmp(c->word[0], "set");

	if (!strcmp(d->name, "engine"))
		engines(c);
	else if (!strcmp(d->name, "keyboard"))
		layouts(c);
	else if (!strcmp(d->name, "template"))
		folders(c, store_templates_open, "");
	else if (!strcmp(d->name, "drive"))
		disks(c, "");
	else if (set && !strcmp(d->name, "limit")) {
		disks(c, ",bps=");
		cards(c, ",in=");
		cards(c, ",out=");
	} else if (!strcmp(d->name, "net")) {
		say_list(c, "user none tap:");
		folders(c, store_networks_open, "switch:");
	} else if (!strcmp(d->name, "remove")) {
		disks(c, "");
		cards(c, "");
	} else if (!strcmp(d->name, "link")) {
		cards(c, "=up");
		cards(c, "=down");
	} else if (!strcmp(d->name, "set") || !strcmp(d->name, "unset")) {
		keys(c, d->name[0] == 's' ? "=" : "");
	} else {
		for (unsigned i = 0; i < ARRAY_LEN(values); i++) {
			if (!strcmp(values[i].option, d->name)) {
				say_list(c, values[i].values);
				return;
			}
		}
		if (d->flags & OPTION_PATH || strstr(d->arg, "FILE"))
			say_files("@files");
	}
}

static const struct option_def *option_named(const struct option_def *defs, const char *name, size_t len)
{
	for (; defs && defs->name; defs++)
		if (strlen(defs->name) == len && !strncmp(defs->name, name, len))
			return defs;
	return NULL;
}

static void option_names(const struct complete *c)
{
	char text[64];

	for (const struct option_def *d = c->options; d && d->name; d++) {
		snprintf(text, sizeof(text), "--%s", d->name);
		if (d->flags & OPTION_LIST || !given(c, text))
			say(c, text, d->help);
	}
	say(c, "--help", "explain");
}

/* ---- words of commands */

/* Which word of the command's own it is: options and their values do not count. */
static unsigned place_of(const struct complete *c, unsigned from)
{
	unsigned place = 0;

	for (unsigned i = from; i + 1 < c->n; i++) {
		const char *w = c->word[i];
		const struct option_def *d = w[0] == '-' ? option_named(c->options, w + 2, strlen(w) > 2 ? strlen(w) - 2 : 0) : NULL;

		if (w[0] != '-')
			place++;
		else if (d && d->arg)
			i++;
	}
	return place;
}

static void life_word(const struct complete *c, const struct life_command *life, unsigned place)
{
	const char *name = life->name;
	bool many = strstr(life->usage, "NAME...");

	if (!strcmp(name, "cp")) {
		machines(c, ":");
		say_files("@files");
	} else if (!life->max) {
		return;
	} else if (!place || many) {
		machines(c, "");
		if (!strcmp(name, "ctl"))
			say(c, "list", "all commands");
	} else if (place == 1 && !strcmp(name, "engine")) {
		engines(c);
	} else if (place == 1 && !strcmp(name, "ctl")) {
		for (const struct ctl_command *k = ctl_commands; k->name; k++)
			say(c, k->name, k->help);
	} else if (!strcmp(name, "sendkey")) {
		say_list(c, "ret esc tab spc backspace up down left right ctrl-alt-delete alt-f1 alt-f2 f1 f2 f12");
	} else if (place == 1 && (!strcmp(name, "medium") || !strcmp(name, "screenshot"))) {
		say_files("@files");
	} else if (life->rest && place > 1) {
		say_files("@files");
	}
}

static const struct {
	const char *command;
	bool (*verb)(unsigned i, struct verb_help *v);
} with_verbs[] = { { "image", image_verb }, { "net", net_verb }, { "template", template_verb } };

static void verb_word(const struct complete *c, const char *verb, unsigned place)
{
	if (!strcmp(c->word[0], "image")) {
		say_files("@files");
	} else if (!strcmp(c->word[0], "net")) {
		if (strcmp(verb, "create") && strcmp(verb, "ls") && (!place || strcmp(verb, "capture")))
			folders(c, store_networks_open, "");
		else if (!strcmp(verb, "capture"))
			say_files("@files");
	} else if (!strcmp(verb, "rm")) {
		folders(c, store_templates_open, "");
	} else if (!strcmp(verb, "create") && !place) {
		say(c, "debian", "made of the mirror this host uses");
	} else if (!strcmp(verb, "create")) {
		machines(c, "");
		say_files("@files");
	}
}

/* What the command line so far says: the options that can come, and what a word would be. */
static void command_word(struct complete *c, bool word)
{
	const struct life_command *life = life_find(c->word[0]);
	bool create = !strcmp(c->word[0], "create");
	struct verb_help v;

	if (life) {
		c->options = life->options;
		if (word)
			life_word(c, life, place_of(c, 1));
		return;
	}
	for (unsigned k = 0; k < ARRAY_LEN(with_verbs); k++) {
		if (strcmp(with_verbs[k].command, c->word[0]))
			continue;
		for (unsigned i = 0; with_verbs[k].verb(i, &v); i++) {
			if (c->n == 2) {
				if (word)
					say(c, v.name, v.help);
			} else if (!strcmp(v.name, c->word[1])) {
				c->options = v.options;
				if (word)
					verb_word(c, v.name, place_of(c, 2));
			}
		}
		return;
	}
	if (create || !strcmp(c->word[0], "run")) {
		c->options = run_options;
		if (word && (!create || place_of(c, 1))) {
			folders(c, store_templates_open, "");
			say(c, "debian", "a template, made when it is not there");
			say_files("@files");
		}
	} else if (!strcmp(c->word[0], "engines")) {
		c->options = engines_options;
	} else if (word && !strcmp(c->word[0], "completion")) {
		say_list(c, "bash zsh fish man");
	}
}

static void command_names(const struct complete *c)
{
	for (const struct command *k = commands; k->name; k++)
		say(c, k->name, k->help);
	for (const struct life_command *k = life_commands; k->name; k++)
		say(c, k->name, k->help);
}

static void value_after_equals(struct complete *c)
{
	const char *equals = strchr(c->current, '=');
	const struct option_def *d = option_named(c->options, c->current + 2, (size_t)(equals - c->current) - 2);

	snprintf(c->prefix, sizeof(c->prefix), "%.*s", (int)(equals + 1 - c->current), c->current);
	if (d && d->arg)
		value(c, d);
}

/* config --set engine=... */
static void value_of_key(struct complete *c)
{
	const char *equals = strchr(c->current, '=');
	const struct option_def *d = option_named(run_options, c->current, (size_t)(equals - c->current));

	snprintf(c->prefix, sizeof(c->prefix), "%.*s", (int)(equals + 1 - c->current), c->current);
	if (d && d->arg)
		value(c, d);
	else if (d)
		say_list(c, "true false");
}

static void complete(struct complete *c)
{
	const char *before = c->n > 2 ? c->word[c->n - 2] : "";
	const struct option_def *d;
	bool option = c->current[0] == '-';

	if (c->n == 1 || (c->n == 2 && !strcmp(c->word[0], "help"))) {
		command_names(c);
		return;
	}
	for (unsigned i = 1; i + 1 < c->n; i++) {
		if (!strcmp(c->word[i], "--root"))
			c->root = c->word[i + 1];
		else if (!strncmp(c->word[i], "--root=", 7))
			c->root = c->word[i] + 7;
	}
	command_word(c, false);
	d = before[0] == '-' && before[1] == '-' ? option_named(c->options, before + 2, strlen(before) - 2) : NULL;
	if (d && d->arg && !strcmp(d->name, "set") && strchr(c->current, '='))
		value_of_key(c);
	else if (d && d->arg)
		value(c, d);
	else if (option && strchr(c->current, '='))
		value_after_equals(c);
	else if (option)
		option_names(c);
	else
		command_word(c, true);
}

/* What bash has cut at '=' and ':' (each a word of its own) is one word again. */
static void join(struct complete *c, int argc, char **argv, char *room, size_t size)
{
	bool glue = false;

	for (int i = 0; i < argc; i++) {
		bool cut = i && (!strcmp(argv[i], "=") || !strcmp(argv[i], ":"));

		if ((cut || glue) && c->n > 1) {
			int n = snprintf(room, size, "%s%s", c->word[c->n - 1], argv[i]);

			if (n < 0 || (size_t)n >= size)
				return;
			c->word[c->n - 1] = room;
			room += n + 1;
			size -= (size_t)n + 1;
			c->cut = (size_t)n - (cut ? 0 : strlen(argv[i]));
		} else if (c->n < WORDS) {
			c->word[c->n++] = argv[i];
			c->cut = 0;
		}
		glue = cut;
	}
}

int complete_words(int argc, char **argv)
{
	struct complete *c _free_ = calloc(1, sizeof(*c));
	char room[8192];
	bool split = argc && !strcmp(argv[0], "--split");

	argc -= split;
	argv += split;
	if (!c || !argc || strcmp(argv[0], "--") || argc < 2)
		return 0;
	if (split)
		join(c, argc - 1, argv + 1, room, sizeof(room));
	for (int i = 1; !split && i < argc && c->n < WORDS; i++)
		c->word[c->n++] = argv[i];
	c->current = c->word[c->n - 1];
	complete(c);
	return 0;
}
