/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two texts describe a machine that runs. vm.yaml is what its next start makes; running.yaml is what this run was made from, with what has
 * come and gone since, each in its place: a machine that was suspended is made from that. A card that was there from the start
 * and has gone leaves the word "removed" there, so that those after it keep their slots; one with a slot of its own leaves nothing.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include "cli/set.h"

/* ---- lists of disks and cards in a text */

void set_list_free(struct set_list *l)
{
	while (l->n)
		free(l->item[--l->n]);
}

/* Takes over `item`, which may be NULL for want of memory. */
static int list_add(struct set_list *l, char *item, struct err *e)
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

void set_list_drop(struct set_list *l, unsigned i)
{
	free(l->item[i]);
	memmove(&l->item[i], &l->item[i + 1], (l->n - i - 1) * sizeof(l->item[0]));
	l->n--;
}

static int list_read(struct set_list *l, const char *text, const char *key, struct err *e)
{
	l->n = 0;
	return run_config_values(text, key, l->item, &l->n, e);
}

static int list_write(const struct set_list *l, char **text, const char *key, struct err *e)
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
char *set_key_in(char *item, const char *key, char **end)
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

void set_key_drop(char *item, const char *key)
{
	char *end, *value = set_key_in(item, key, &end), *at;

	if (!value)
		return;
	at = value - strlen(key) - 1;
	if (*end)
		memmove(at, end + 1, strlen(end));
	else
		*(at > item ? at - 1 : at) = 0;
}

/* What the control socket calls the i-th of a list. */
static void list_id(const struct set_list *l, const char *kind, unsigned i, char id[PC_ID])
{
	char *end, *value = set_key_in(l->item[i], "id", &end);

	if (value)
		snprintf(id, PC_ID, "%.*s", (int)(end - value), value);
	else
		snprintf(id, PC_ID, "%s%u", kind, i);
}

int set_list_find(const struct set_list *l, const char *kind, const char *id)
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
static int nets_plain(struct set_list *l, struct err *e)
{
	if (!l->n)
		return list_add(l, strdup("user"), e);
	if (l->n == 1 && !strcmp(l->item[0], "none"))
		set_list_drop(l, 0);
	return 0;
}

static int nets_write(struct set_list *l, char **text, struct err *e)
{
	int r = l->n ? 0 : list_add(l, strdup("none"), e);

	return r ? r : list_write(l, text, "net", e);
}

int set_list_read(struct set_list *l, const char *text, const char *key, struct err *e)
{
	int r = list_read(l, text, key, e);

	return r || strcmp(key, "net") ? r : nets_plain(l, e);
}

int set_list_write(struct set_list *l, char **text, const char *key, struct err *e)
{
	return strcmp(key, "net") ? list_write(l, text, key, e) : nets_write(l, text, e);
}

/* ---- the two texts */

int set_texts_read(struct set_texts *t, struct store_vm *m, bool runs, struct err *e)
{
	int r;

	*t = (struct set_texts){ .m = m, .lock = -1 };
	if (flock(m->fd, LOCK_EX)) /* of those who change them at once */
		return err_errno(e, "cannot lock the folder of machine '%s'", m->name);
	r = store_read(m->fd, "vm.yaml", &t->vm, e);
	return r || !runs ? r : store_read(m->fd, "running.yaml", &t->running, e);
}

int set_texts_write(struct set_texts *t, struct err *e)
{
	int r = run_config_check(t->vm, e);

	if (!r)
		r = store_write(t->m->fd, "vm.yaml", t->vm, e);
	return r || !t->running ? r : store_write(t->m->fd, "running.yaml", t->running, e);
}

void set_texts_free(struct set_texts *t)
{
	free(t->vm);
	free(t->running);
	flock(t->m->fd, LOCK_UN);
}

int set_text_add(char **text, const char *key, const char *item, struct err *e)
{
	struct set_list l;
	int r = set_list_read(&l, *text, key, e);

	if (!r)
		r = list_add(&l, strdup(item), e);
	if (!r)
		r = set_list_write(&l, text, key, e);
	set_list_free(&l);
	return r;
}

/* ---- what has gone */

/* A name is free again when its card has gone, and the next may get it: of several in the list the last is the one that lives. */
static bool has_later(const struct set_list *l, const char *kind, unsigned from, const char *id)
{
	char other[PC_ID];

	for (unsigned i = from + 1; i < l->n; i++) {
		list_id(l, kind, i, other);
		if (strncmp(l->item[i], PC_REMOVED, strlen(PC_REMOVED)) && !strcmp(other, id))
			return true;
	}
	return false;
}

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
	struct set_list l;
	char id[PC_ID], *end;
	int r = set_list_read(&l, *text, key, e);

	for (unsigned i = l.n; i-- > 0 && !r;) {
		list_id(&l, kind, i, id);
		if (!strncmp(l.item[i], PC_REMOVED, strlen(PC_REMOVED)) || (lives(alive, member, id) && !has_later(&l, kind, i, id)))
			continue;
		changed = true;
		if (set_key_in(l.item[i], "slot", &end)) {
			set_list_drop(&l, i);
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
		r = set_list_write(&l, text, key, e);
	set_list_free(&l);
	return r;
}

/* running.yaml as the machine is: what has gone meanwhile, by itself or when it was asked to, is in it no more. */
int set_texts_follow(struct set_texts *t, struct ctl_peer *p, struct err *e)
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
	struct set_texts t;
	int r = set_texts_read(&t, m, true, e);

	if (r == -ENOENT) { /* made by hand, or before there was such a file: nothing has changed */
		r = 0;
	} else if (!r) {
		before = strdup(t.running);
		r = set_texts_follow(&t, p, e);
		if (!r && before && strcmp(before, t.running))
			r = store_write(m->fd, "running.yaml", t.running, e);
	}
	free(before);
	set_texts_free(&t);
	return r;
}

/* The one in vm.yaml that is `id` in the machine that runs (or will be): the same text where the id says nothing. */
int set_vm_entry(struct setter *s, const char *key, const char *id, struct set_list *l, int *index, struct err *e)
{
	struct set_list now = { .n = 0 };
	int r = set_list_read(l, s->t.vm, key, e), at;

	*index = -1;
	if (r)
		return r;
	if (!s->t.running) {
		*index = set_list_find(l, key, id);
		return 0;
	}
	r = set_list_read(&now, s->t.running, key, e);
	at = r ? -1 : set_list_find(&now, key, id);
	for (unsigned i = 0; i < l->n && at >= 0 && *index < 0; i++) {
		char *end, *own = set_key_in(l->item[i], "id", &end);

		if (own ? strlen(id) == (size_t)(end - own) && !strncmp(own, id, strlen(id)) : !strcmp(l->item[i], now.item[at]))
			*index = (int)i;
	}
	set_list_free(&now);
	return r;
}
