/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ospite set: limits of a disk, by its control socket; those of the machine's process, by its control group, which is changed from
 * outside: the process itself cannot reach it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "cli/set.h"
#include "vm/limits.h"

/* "disk0,bps=10000000,iops=100": to QMP's names, and to those of the description. */
static int limit_one(struct setter *s, char *item, char *word, json_t *arguments, struct err *e)
{
	static const char *const names[][2] = {
		{ "bps", "bps" },	   { "bps-read", "bps_rd" },	   { "bps-write", "bps_wr" },
		{ "iops", "iops" },	   { "iops-read", "iops_rd" },	   { "iops-write", "iops_wr" },
	};
	char *value = strchr(word, '=');
	uint64_t n;

	if (!value)
		return err_set(e, EINVAL, "'%.40s' is no KEY=NUMBER", word);
	*value++ = 0;
	for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
		if (strcmp(word, names[i][0]))
			continue;
		if (parse_number(value, 0, 1000000000000000, &n, e))
			return err_prefix(e, "%s=%.40s", word, value);
		json_object_set_new(arguments, names[i][1], json_integer((json_int_t)n));
		set_key_drop(item, word);
		if (n)
			sprintf(item + strlen(item), ",%s=%llu", word, (unsigned long long)n);
		return 0;
	}
	return err_set(e, EINVAL, "there is no limit '%.40s': there are bps and iops, also with -read and -write", word);
}

/* A plain path takes no keys beside it: where the description begins with one it gets its key. */
static void path_key(char *into, const char *item)
{
	size_t word = strcspn(item, ",=");

	sprintf(into, "%s%s", item[word] == '=' ? "" : "file=", item);
}

/* Sets the limits in the description of disk `id` in *text. */
static int limit_text(struct setter *s, char **text, const char *id, int at, struct set_list *l, const char *limits, json_t *arguments,
		      struct err *e)
{
	char *words _free_ = strdup(limits), *next = words, *word, *item;
	int r = words ? 0 : err_set(e, ENOMEM, "out of memory");

	if (!r && at < 0)
		return err_set(e, ENODEV, "there is no disk '%.40s'", id);
	item = r ? NULL : calloc(1, strlen(l->item[at]) + 2 * strlen(limits) + 200);
	if (!item)
		return err_set(e, ENOMEM, "out of memory");
	path_key(item, l->item[at]);
	while (!r && (word = strsep(&next, ",")))
		r = limit_one(s, item, word, arguments, e);
	free(l->item[at]);
	l->item[at] = item;
	return r ? r : set_list_write(l, text, "disk", e);
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

int set_disk_limit(struct setter *s, const char *value, struct err *e)
{
	const char *comma = strchr(value, ',');
	json_t *arguments = json_object();
	struct set_list l = { .n = 0 };
	char id[PC_ID];
	int at, r = 0;

	snprintf(id, sizeof(id), "%.*s", (int)strcspn(value, ","), value);
	if (!comma)
		r = err_set(e, EINVAL, "--limit %.60s: write DISK,bps=N,iops=N", value);
	if (!r && s->p)
		r = limits_now(s, id, arguments, e);
	if (!r)
		r = set_vm_entry(s, "disk", id, &l, &at, e);
	if (!r)
		r = limit_text(s, &s->t.vm, id, at, &l, comma + 1, arguments, e);
	set_list_free(&l);
	if (!r && s->p) {
		r = set_list_read(&l, s->t.running, "disk", e);
		if (!r)
			r = limit_text(s, &s->t.running, id, set_list_find(&l, "disk", id), &l, comma + 1, arguments, e);
		set_list_free(&l);
	}
	if (!r && s->p)
		r = ctl_call_command(s->p, "block_set_io_throttle", json_incref(arguments), NULL, ANSWER_MS, e);
	json_decref(arguments);
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
