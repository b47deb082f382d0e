/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ospite set: changes to a machine, at once when it runs, and in its vm.yaml for later.
 *
 * Two texts describe a machine that runs. vm.yaml is what its next start makes; running.yaml is what this run was made from, with what has
 * come and gone since, each in its place: a machine that was suspended is made from that. A card that was there from the start
 * and has gone leaves the word "removed" there, so that those after it keep their slots; one with a slot of its own leaves nothing.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include "cli/life.h"
#include "cli/net.h"
#include "cli/run.h"

#define GO_SECONDS 30

/* ---- lists of disks and cards in a text */

struct list {
	char *item[CONFIG_LIST + 1];
	unsigned n;
};

static void list_free(struct list *l)
{
	while (l->n)
		free(l->item[--l->n]);
}

/* Takes over `item`, which may be NULL for want of memory. */
static int list_add(struct list *l, char *item, struct err *e)
{
	if (!item)
		return err_set(e, ENOMEM, "out of memory");
	if (l->n == CONFIG_LIST) {
		free(item);
		return err_set(e, E2BIG, "there are too many");
	}
	l->item[l->n++] = item;
	return 0;
}

static void list_drop(struct list *l, unsigned i)
{
	free(l->item[i]);
	memmove(&l->item[i], &l->item[i + 1], (l->n - i - 1) * sizeof(l->item[0]));
	l->n--;
}

static int list_read(struct list *l, const char *text, const char *key, struct err *e)
{
	l->n = 0;
	return run_config_values(text, key, l->item, &l->n, e);
}

static int list_write(const struct list *l, char **text, const char *key, struct err *e)
{
	char *next;
	int r = run_config_edit(*text, key, (const char *const *)l->item, l->n, &next, e);

	if (r)
		return r;
	free(*text);
	*text = next;
	return 0;
}

/* What follows the next comma that is not doubled (within a name); NULL: there is none. */
static char *word_next(char *at)
{
	for (at = strchr(at, ','); at && at[1] == ','; at = strchr(at + 2, ','))
		;
	return at ? at + 1 : NULL;
}

/* The value of "key=" in "...,key=value,..."; NULL: not there. Its end in *end. */
static char *key_in(char *item, const char *key, char **end)
{
	size_t len = strlen(key);

	for (char *at = item; at; at = word_next(at))
		if (!strncmp(at, key, len) && at[len] == '=') {
			char *next = word_next(at);

			*end = next ? next - 1 : at + strlen(at);
			return at + len + 1;
		}
	return NULL;
}

static void key_drop(char *item, const char *key)
{
	char *end, *value = key_in(item, key, &end), *at;

	if (!value)
		return;
	at = value - strlen(key) - 1;
	if (*end)
		memmove(at, end + 1, strlen(end));
	else
		*(at > item ? at - 1 : at) = 0;
}

/* What the control socket calls the i-th of a list. */
static void list_id(const struct list *l, const char *kind, unsigned i, char id[PC_ID])
{
	char *end, *value = key_in(l->item[i], "id", &end);

	if (value)
		snprintf(id, PC_ID, "%.*s", (int)(end - value), value);
	else
		snprintf(id, PC_ID, "%s%u", kind, i);
}

static int list_find(const struct list *l, const char *kind, const char *id)
{
	char name[PC_ID];

	for (unsigned i = 0; i < l->n; i++) {
		list_id(l, kind, i, name);
		if (!strcmp(name, id))
			return (int)i;
	}
	return -1;
}

/* A machine of which nothing else is said has a user network. */
static int nets_plain(struct list *l, struct err *e)
{
	if (!l->n)
		return list_add(l, strdup("user"), e);
	if (l->n == 1 && !strcmp(l->item[0], "none"))
		list_drop(l, 0);
	return 0;
}

static int nets_write(struct list *l, char **text, struct err *e)
{
	int r = l->n ? 0 : list_add(l, strdup("none"), e);

	return r ? r : list_write(l, text, "net", e);
}

static int lists_read(struct list *l, const char *text, const char *key, struct err *e)
{
	int r = list_read(l, text, key, e);

	return r || strcmp(key, "net") ? r : nets_plain(l, e);
}

static int lists_write(struct list *l, char **text, const char *key, struct err *e)
{
	return strcmp(key, "net") ? list_write(l, text, key, e) : nets_write(l, text, e);
}

/* ---- the two texts */

struct texts {
	struct store_vm *m;
	char *vm, *running; /* NULL: it does not run */
	int lock;
};

static int texts_read(struct texts *t, struct store_vm *m, bool runs, struct err *e)
{
	int r;

	*t = (struct texts){ .m = m, .lock = -1 };
	if (flock(m->fd, LOCK_EX)) /* of those who change them at once */
		return err_errno(e, "cannot lock the folder of machine '%s'", m->name);
	r = store_read(m->fd, "vm.yaml", &t->vm, e);
	return r || !runs ? r : store_read(m->fd, "running.yaml", &t->running, e);
}

static int texts_write(struct texts *t, struct err *e)
{
	int r = run_config_check(t->vm, e);

	if (!r)
		r = store_write(t->m->fd, "vm.yaml", t->vm, e);
	return r || !t->running ? r : store_write(t->m->fd, "running.yaml", t->running, e);
}

static void texts_free(struct texts *t)
{
	free(t->vm);
	free(t->running);
	flock(t->m->fd, LOCK_UN);
}

static int text_add(char **text, const char *key, const char *item, struct err *e)
{
	struct list l;
	int r = lists_read(&l, *text, key, e);

	if (!r)
		r = list_add(&l, strdup(item), e);
	if (!r)
		r = lists_write(&l, text, key, e);
	list_free(&l);
	return r;
}

/* ---- what has gone */

static bool lives(json_t *alive, const char *member, const char *id)
{
	json_t *one;
	size_t i;

	json_array_foreach(alive, i, one)
		if (!strcmp(json_string_value(json_object_get(one, member)) ?: "", id))
			return true;
	return false;
}

static int gone_from(char **text, const char *key, const char *kind, json_t *alive, const char *member, struct err *e)
{
	bool changed = false;
	struct list l;
	char id[PC_ID], *end;
	int r = lists_read(&l, *text, key, e);

	for (unsigned i = l.n; i-- > 0 && !r;) {
		list_id(&l, kind, i, id);
		if (!strncmp(l.item[i], PC_REMOVED, strlen(PC_REMOVED)) || lives(alive, member, id))
			continue;
		changed = true;
		if (key_in(l.item[i], "slot", &end)) {
			list_drop(&l, i);
			continue;
		}
		end = strdup(strstr(l.item[i], "model=e1000") ? PC_REMOVED ",model=e1000" : PC_REMOVED);
		r = end ? 0 : err_set(e, ENOMEM, "out of memory");
		if (!r) {
			free(l.item[i]);
			l.item[i] = end;
		}
	}
	if (!r && changed)
		r = lists_write(&l, text, key, e);
	list_free(&l);
	return r;
}

/* running.yaml as the machine is: what has gone meanwhile, by itself or when it was asked to, is in it no more. */
static int texts_follow(struct texts *t, struct ctl_peer *p, struct err *e)
{
	json_t *disks = NULL, *nets = NULL;
	int r = ctl_call_command(p, "query-block", NULL, &disks, ANSWER_MS, e);

	if (!r)
		r = ctl_call_command(p, "ospite-query-networks", NULL, &nets, ANSWER_MS, e);
	if (!r)
		r = gone_from(&t->running, "disk", "disk", disks, "device", e);
	if (!r)
		r = gone_from(&t->running, "net", "net", nets, "name", e);
	json_decref(disks);
	json_decref(nets);
	return r;
}

int life_follow(struct store_vm *m, struct ctl_peer *p, struct err *e)
{
	char *before = NULL;
	struct texts t;
	int r = texts_read(&t, m, true, e);

	if (r == -ENOENT) { /* made by hand, or before there was such a file: nothing has changed */
		r = 0;
	} else if (!r) {
		before = strdup(t.running);
		r = texts_follow(&t, p, e);
		if (!r && before && strcmp(before, t.running))
			r = store_write(m->fd, "running.yaml", t.running, e);
	}
	free(before);
	texts_free(&t);
	return r;
}

/* ---- one change each */

struct setter {
	struct life_args *a;
	struct store *s;
	struct store_vm *m;
	struct ctl_peer *p; /* NULL: it does not run */
	struct texts t;
};

static int set_memory(struct setter *s, const char *value, struct err *e)
{
	uint64_t size;
	char *next;
	int r = parse_size(value, &size, e);

	if (r)
		return err_prefix(e, "--memory %.60s", value);
	if (s->p)
		return ctl_call_command(s->p, "balloon", json_pack("{s:I}", "value", (json_int_t)size), NULL, ANSWER_MS, e);
	r = run_config_edit(s->t.vm, "memory", &value, 1, &next, e);
	if (!r) {
		free(s->t.vm);
		s->t.vm = next;
	}
	return r;
}

/* A network's switch runs before the machine, which may start no process, asks for a port. */
static int switch_start(struct setter *s, const char *spec, int *fd, struct err *e)
{
	struct store networks = { .fd = -1 };
	char root[PATH_MAX], name[128];
	int r;

	if (strncmp(spec, "switch:", 7))
		return 0;
	snprintf(name, sizeof(name), "%.*s", (int)MIN(strcspn(spec + 7, ","), sizeof(name) - 1), spec + 7);
	snprintf(root, sizeof(root), "%s", s->s->path);
	*strrchr(root, '/') = 0;
	r = store_networks_open(&networks, root, e);
	if (!r) {
		*fd = network_start(&networks, name, e);
		r = MIN(*fd, 0);
		store_close(&networks);
	}
	return r;
}

static int set_new(struct setter *s, const char *key, const char *value, struct err *e)
{
	char *spec _free_ = !strcmp(key, "disk") ? run_config_absolute(value) : strdup(value);
	char command[32], *text _free_ = NULL;
	json_t *result = NULL;
	int fd _close_ = -1, r;

	if (!spec)
		return err_set(e, ENOMEM, "out of memory");
	if (!s->p)
		return text_add(&s->t.vm, key, spec, e);
	r = strcmp(key, "net") ? 0 : switch_start(s, spec, &fd, e);
	if (!r && !strcmp(key, "disk"))
		r = life_bring_disk(s->p, spec, e);
	snprintf(command, sizeof(command), "ospite-%s-add", key);
	if (!r)
		r = ctl_call_command(s->p, command, json_pack("{s:s}", key, spec), &result, ANSWER_MS, e);
	if (r)
		return r;
	text = strdup(json_string_value(json_object_get(result, key)) ?: "");
	if (!s->a->quiet)
		puts(json_string_value(json_object_get(result, "id")) ?: "?");
	json_decref(result);
	r = text ? text_add(&s->t.running, key, text, e) : err_set(e, ENOMEM, "out of memory");
	if (r)
		return r;
	key_drop(text, "slot"); /* the next start finds one again */
	return text_add(&s->t.vm, key, text, e);
}

/* The one in vm.yaml that is `id` in the machine that runs (or will be): the same text where the id says nothing. */
static int vm_entry(struct setter *s, const char *key, const char *id, struct list *l, int *index, struct err *e)
{
	struct list now = { .n = 0 };
	int r = lists_read(l, s->t.vm, key, e), at;

	*index = -1;
	if (r)
		return r;
	if (!s->t.running) {
		*index = list_find(l, key, id);
		return 0;
	}
	r = lists_read(&now, s->t.running, key, e);
	at = r ? -1 : list_find(&now, key, id);
	for (unsigned i = 0; i < l->n && at >= 0 && *index < 0; i++) {
		char *end, *own = key_in(l->item[i], "id", &end);

		if (own ? strlen(id) == (size_t)(end - own) && !strncmp(own, id, strlen(id)) : !strcmp(l->item[i], now.item[at]))
			*index = (int)i;
	}
	list_free(&now);
	return r;
}

static int vm_remove(struct setter *s, const char *key, const char *id, bool *found, struct err *e)
{
	struct list l = { .n = 0 };
	int at, r = vm_entry(s, key, id, &l, &at, e);

	if (!r && at >= 0) {
		*found = true;
		list_drop(&l, (unsigned)at);
		r = lists_write(&l, &s->t.vm, key, e);
	}
	list_free(&l);
	return r;
}

static int wait_gone(struct setter *s, const char *id, struct err *e)
{
	uint64_t seconds = s->a->time == UINT64_MAX ? GO_SECONDS : s->a->time;
	int64_t end = life_now_ms() + (int64_t)seconds * 1000;
	bool gone = false;
	int r = 0;

	while (!gone && !r) {
		json_t *event = NULL;
		int64_t left = end - life_now_ms();

		r = left > 0 ? ctl_next_event(s->p, &event, (int)left, e) : -ETIMEDOUT;
		if (!r)
			gone = !strcmp(json_string_value(json_object_get(event, "event")) ?: "", "DEVICE_DELETED") &&
			       !strcmp(json_string_value(json_object_get(json_object_get(event, "data"), "device")) ?: "", id);
		json_decref(event);
	}
	return r == -ETIMEDOUT ? err_set(e, ETIMEDOUT,
					 "the guest has not let go of %s within %llu seconds; it goes when the guest does, or is reset", id,
					 (unsigned long long)seconds) :
				 r;
}

static int set_removed(struct setter *s, const char *id, struct err *e)
{
	bool found = false;
	int r = 0;

	if (s->p)
		r = ctl_call_command(s->p, "device_del", json_pack("{s:s}", "id", id), NULL, ANSWER_MS, e);
	if (!r && s->p)
		r = wait_gone(s, id, e);
	if (!r)
		r = vm_remove(s, "disk", id, &found, e);
	if (!r && !found)
		r = vm_remove(s, "net", id, &found, e);
	if (!r && s->p)
		return texts_follow(&s->t, s->p, e);
	return r || found ? r : err_set(e, ENODEV, "there is no disk or network card '%.40s' in vm.yaml", id);
}

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
		key_drop(item, word);
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
static int limit_text(struct setter *s, char **text, const char *id, int at, struct list *l, const char *limits, json_t *arguments,
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
	return r ? r : list_write(l, text, "disk", e);
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

static int set_limit(struct setter *s, const char *value, struct err *e)
{
	const char *comma = strchr(value, ',');
	json_t *arguments = json_object();
	struct list l = { .n = 0 };
	char id[PC_ID];
	int at, r = 0;

	snprintf(id, sizeof(id), "%.*s", (int)strcspn(value, ","), value);
	if (!comma)
		r = err_set(e, EINVAL, "--limit %.60s: write DISK,bps=N,iops=N", value);
	if (!r && s->p)
		r = limits_now(s, id, arguments, e);
	if (!r)
		r = vm_entry(s, "disk", id, &l, &at, e);
	if (!r)
		r = limit_text(s, &s->t.vm, id, at, &l, comma + 1, arguments, e);
	list_free(&l);
	if (!r && s->p) {
		r = list_read(&l, s->t.running, "disk", e);
		if (!r)
			r = limit_text(s, &s->t.running, id, list_find(&l, "disk", id), &l, comma + 1, arguments, e);
		list_free(&l);
	}
	if (!r && s->p)
		r = ctl_call_command(s->p, "block_set_io_throttle", json_incref(arguments), NULL, ANSWER_MS, e);
	json_decref(arguments);
	return r;
}

static int set_link(struct setter *s, const char *value, struct err *e)
{
	const char *equals = strchr(value, '=');
	char name[PC_ID];

	if (!equals || (strcmp(equals, "=up") && strcmp(equals, "=down")))
		return err_set(e, EINVAL, "--link %.60s: write CARD=up or CARD=down", value);
	if (!s->p)
		return err_set(e, EINVAL, "--link is for a machine that runs");
	snprintf(name, sizeof(name), "%.*s", (int)(equals - value), value);
	return ctl_call_command(s->p, "set_link", json_pack("{s:s,s:b}", "name", name, "up", equals[1] == 'u'), NULL, ANSWER_MS, e);
}

static int set_one(struct setter *s, const struct life_change *c, struct err *e)
{
	switch (c->kind) {
	case LIFE_SET_MEMORY:
		return set_memory(s, c->value, e);
	case LIFE_SET_DISK:
		return set_new(s, "disk", c->value, e);
	case LIFE_SET_NET:
		return set_new(s, "net", c->value, e);
	case LIFE_SET_REMOVE:
		return set_removed(s, c->value, e);
	case LIFE_SET_LIMIT:
		return set_limit(s, c->value, e);
	case LIFE_SET_LINK:
		return set_link(s, c->value, e);
	}
	return 0;
}

static int set_all(struct setter *s, struct err *e)
{
	bool runs = s->p;
	int r = texts_read(&s->t, s->m, runs, e);

	/* what is done is written even if the next fails: the machine has it */
	for (unsigned i = 0; i < s->a->nchange && !r; i++) {
		r = set_one(s, &s->a->change[i], e);
		if (!r && (runs || i + 1 == s->a->nchange))
			r = texts_write(&s->t, e);
	}
	texts_free(&s->t);
	return r;
}

int life_set(const struct life_command *c, struct life_args *a, struct store *s, struct err *e)
{
	struct setter set = { .a = a, .s = s };
	struct store_status st;
	struct store_vm m;
	int r;

	if (!a->nchange)
		return err_set(e, EINVAL, "say what: --memory, --disk, --net, --remove, --limit, --link; see 'ospite set --help'");
	r = store_vm_open(s, a->words[0], &m, e);
	if (r)
		return r;
	set.m = &m;
	r = store_vm_status(&m, &st, e);
	if (!r && st.state == STORE_SUSPENDED)
		r = err_set(e, EBUSY, "machine '%s' is suspended: let it go on ('ospite resume %s'), or end it, first", m.name, m.name);
	if (!r && st.state == STORE_RUNNING)
		r = life_connect(&m, &set.p, e);
	if (!r)
		r = set_all(&set, e);
	if (r)
		err_prefix(e, "machine '%s'", m.name);
	ctl_disconnect(set.p);
	store_vm_close(&m);
	return r;
}
