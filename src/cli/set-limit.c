/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ospite set: limits of a disk or a network card, by the control socket; those of the machine's process, by its control group, which is changed from
 * outside: the process itself cannot reach it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "backend/net-member.h"
#include "cli/set.h"
#include "vm/limits.h"

/* One word of a limit, KEY and VALUE: to a command's arguments, and into the description, which has room for it. */
typedef int (*limit_fn)(char *item, const char *key, const char *value, json_t *arguments, struct err *e);

/* "disk0,bps=10000000,iops=100" */
static int disk_word(char *item, const char *key, const char *value, json_t *arguments, struct err *e)
{
	static const char *const names[][2] = {
		{ "bps", "bps" },	   { "bps-read", "bps_rd" },	   { "bps-write", "bps_wr" },
		{ "iops", "iops" },	   { "iops-read", "iops_rd" },	   { "iops-write", "iops_wr" },
	};
	uint64_t n;

	for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
		if (strcmp(key, names[i][0]))
			continue;
		if (parse_number(value, 0, 1000000000000000, &n, e))
			return err_prefix(e, "%s=%.40s", key, value);
		json_object_set_new(arguments, names[i][1], json_integer((json_int_t)n));
		set_key_drop(item, key);
		if (n)
			sprintf(item + strlen(item), ",%s=%llu", key, (unsigned long long)n);
		return 0;
	}
	return err_set(e, EINVAL, "there is no limit '%.40s': disks have bps and iops, also with -read and -write, network cards in and out", key);
}

/* "net0,in=10Mbit,out=none" */
static int net_word(char *item, const char *key, const char *value, json_t *arguments, struct err *e)
{
	const char *way = strncmp(key, "limit-", 6) ? key : key + 6;
	char full[16];
	uint64_t rate = 0;

	if (strcmp(way, "in") && strcmp(way, "out"))
		return err_set(e, EINVAL, "there is no limit '%.40s': network cards have in and out", key);
	if (strcmp(value, "none") && strcmp(value, "0") && net_parse_rate(value, &rate, e))
		return err_prefix(e, "%s=%.40s", key, value);
	json_object_set_new(arguments, way, json_integer((json_int_t)rate));
	snprintf(full, sizeof(full), "limit-%s", way);
	set_key_drop(item, full);
	if (rate)
		sprintf(item + strlen(item), ",%s=%s", full, value);
	return 0;
}

/* A plain path takes no keys beside it: where the description begins with one it gets its key. */
static void path_key(char *into, const char *item)
{
	size_t word = strcspn(item, ",=");

	sprintf(into, "%s%s", item[word] == '=' ? "" : "file=", item);
}

/* What is limited: "disk" or "net", as the texts have it; its name; the words after that. */
struct limited {
	const char *key;
	char id[PC_ID];
	const char *words;
	json_t *arguments;
	limit_fn fn;
};

/* Sets the limits in the description that is the `at`th of *text. */
static int limit_text(const struct limited *d, char **text, int at, struct set_list *l, struct err *e)
{
	char *words _free_ = strdup(d->words), *next = words, *word, *item;
	int r = words ? 0 : err_set(e, ENOMEM, "out of memory");

	if (!r && at < 0)
		return err_set(e, ENODEV, "there is no %s '%.40s'", strcmp(d->key, "net") ? "disk" : "network card", d->id);
	item = r ? NULL : calloc(1, strlen(l->item[at]) + 2 * strlen(d->words) + 200);
	if (!item)
		return err_set(e, ENOMEM, "out of memory");
	if (strcmp(d->key, "net"))
		path_key(item, l->item[at]);
	else
		strcpy(item, l->item[at]);
	while (!r && (word = strsep(&next, ","))) {
		char *value = strchr(word, '=');

		if (value)
			*value++ = 0;
		r = value ? d->fn(item, word, value, d->arguments, e) : err_set(e, EINVAL, "'%.40s' is no KEY=NUMBER", word);
	}
	free(l->item[at]);
	l->item[at] = item;
	return r ? r : set_list_write(l, text, d->key, e);
}

/* The limits the disk has, as block_set_io_throttle wants them: all. */
static int limits_now(struct setter *s, const char *id, json_t *arguments, struct err *e)
{
	static const char *const names[] = { "bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr" };
	json_t *disks = NULL, *one;
	size_t i;
	int r = ctl_call_command(s->p, "query-block", NULL, &disks, ANSWER_MS, e);

	json_array_foreach(disks, i, one) {
		json_t *has = json_object_get(one, "inserted");

		if (strcmp(json_string_value(json_object_get(one, "device")) ?: "", id))
			continue;
		for (unsigned k = 0; k < ARRAY_LEN(names); k++)
			json_object_set_new(arguments, names[k], json_integer(json_integer_value(json_object_get(has, names[k]))));
	}
	json_decref(disks);
	json_object_set_new(arguments, "device", json_string(id));
	return r;
}

/* In both texts. */
static int limit_texts(struct setter *s, const struct limited *d, struct err *e)
{
	struct set_list l = { .n = 0 };
	int at, r = set_vm_entry(s, d->key, d->id, &l, &at, e);

	if (!r)
		r = limit_text(d, &s->t.vm, at, &l, e);
	set_list_free(&l);
	if (r || !s->p)
		return r;
	r = set_list_read(&l, s->t.running, d->key, e);
	if (!r)
		r = limit_text(d, &s->t.running, set_list_find(&l, d->key, d->id), &l, e);
	set_list_free(&l);
	return r;
}

/* Whose limit it is shows in its name. */
static bool limits_net(const char *words)
{
	static const char *const names[] = { "in=", "out=", "limit-in=", "limit-out=" };

	for (unsigned i = 0; i < ARRAY_LEN(names); i++)
		if (!strncmp(words, names[i], strlen(names[i])))
			return true;
	return false;
}

int set_limit(struct setter *s, const char *value, struct err *e)
{
	const char *comma = strchr(value, ',');
	bool net = comma && limits_net(comma + 1);
	struct limited d = { .key = net ? "net" : "disk", .fn = net ? net_word : disk_word, .words = comma ? comma + 1 : NULL };
	int r = 0;

	if (!comma || (size_t)(comma - value) >= sizeof(d.id))
		return err_set(e, EINVAL, "--limit %.60s: write DISK,bps=N,iops=N or CARD,in=RATE,out=RATE", value);
	snprintf(d.id, sizeof(d.id), "%.*s", (int)(comma - value), value);
	d.arguments = json_object();
	if (net)
		json_object_set_new(d.arguments, "name", json_string(d.id));
	else if (s->p)
		r = limits_now(s, d.id, d.arguments, e);
	if (!r)
		r = limit_texts(s, &d, e);
	if (!r && s->p)
		r = ctl_call_command(s->p, net ? "ospite-net-set-limits" : "block_set_io_throttle", json_incref(d.arguments), NULL, ANSWER_MS, e);
	json_decref(d.arguments);
	return r;
}

/* ---- the process */

static void limit_none(struct limits *l, const char *key)
{
	if (!strcmp(key, "cpu-weight"))
		l->cpu_weight = LIMIT_NONE;
	else if (!strcmp(key, "cpu-quota"))
		l->cpu_quota = LIMIT_NONE;
	else
		l->memory_max = UINT64_MAX;
}

static int limit_write(char **text, const char *key, const char *value, bool none, struct err *e)
{
	char *next;
	int r = run_config_edit(*text, key, &value, !none, &next, e);

	if (r)
		return r;
	free(*text);
	*text = next;
	return 0;
}

int set_process_limit(struct setter *s, const char *key, const char *value, struct err *e)
{
	bool none = !strcmp(value, "none");
	struct limits l = { 0 };
	struct store_status st;
	struct cgroups groups;
	int r = none ? 0 : run_limit_parse(&l, key, value, e);

	if (r)
		return err_prefix(e, "--%s %.60s", key, value);
	if (none)
		limit_none(&l, key);
	if (s->p) {
		r = store_vm_status(s->m, &st, e);
		if (!r && !st.pid)
			r = err_set(e, EBUSY, "it is starting or ending right now: try again");
		cgroups_find(&groups);
		if (!r)
			r = limits_apply(&groups, st.pid, &l, e);
	}
	if (!r)
		r = limit_write(&s->t.vm, key, value, none, e);
	return r || !s->p ? r : limit_write(&s->t.running, key, value, none, e);
}
