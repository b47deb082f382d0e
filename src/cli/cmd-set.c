/* SPDX-License-Identifier: Apache-2.0 */
/* ospite set: changes to a machine, at once when it runs, and in its vm.yaml for later. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "cli/net.h"
#include "cli/set.h"

#define GO_SECONDS 30

/* ---- one change each */

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

/*
 * The network's switch runs before the machine, which may start no process, asks for a port; and the machine, which may have been started
 * before there was any network, is given a connection to it. *hold keeps the switch from ending before the card is on it.
 */
static int bring_switch(struct setter *s, const char *spec, int *hold, struct err *e)
{
	struct store networks = { .fd = -1 };
	char root[PATH_MAX], name[128];
	int fd _close_ = -1, r;

	if (strncmp(spec, "switch:", 7))
		return 0;
	snprintf(name, sizeof(name), "%.*s", (int)MIN(strcspn(spec, ","), sizeof(name) - 1), spec);
	store_root(s->s, root);
	r = store_networks_open(&networks, root, e);
	if (r)
		return r;
	*hold = network_start(&networks, name + 7, e);
	r = MIN(*hold, 0);
	if (!r)
		r = fd = network_dial(&networks, name + 7, e);
	store_close(&networks);
	return r < 0 ? r : ctl_bring(s->p, name, fd, ANSWER_MS, e);
}

static int vm_remove(struct setter *s, const char *key, const char *id, bool *found, struct err *e)
{
	struct set_list l = { .n = 0 };
	int at, r = set_vm_entry(s, key, id, &l, &at, e);

	if (!r && at >= 0) {
		*found = true;
		set_list_drop(&l, (unsigned)at);
		r = set_list_write(&l, &s->t.vm, key, e);
	}
	set_list_free(&l);
	return r;
}

/* What says id= of one that is no more (a suspended machine's running.yaml has forgotten it): two of a name cannot start. */
static int forget_named(struct setter *s, const char *key, const char *id, struct err *e)
{
	struct set_list l;
	bool changed = false;
	int r = set_list_read(&l, s->t.vm, key, e);

	for (unsigned i = l.n; i-- > 0 && !r;) {
		char *end, *value = set_key_in(l.item[i], "id", &end);

		if (value && (size_t)(end - value) == strlen(id) && !strncmp(value, id, strlen(id))) {
			set_list_drop(&l, i);
			changed = true;
		}
	}
	if (!r && changed)
		r = set_list_write(&l, &s->t.vm, key, e);
	set_list_free(&l);
	return r;
}

/* One that had this name before has gone without a word to us, as it had been asked to: vm.yaml forgets it, too. */
static int forget_former(struct setter *s, const char *key, const char *id, struct err *e)
{
	struct set_list l;
	bool found = false;
	int r = set_list_read(&l, s->t.running, key, e);

	found = !r && set_list_find(&l, key, id) >= 0;
	set_list_free(&l);
	r = found ? vm_remove(s, key, id, &found, e) : r;
	return r ? r : forget_named(s, key, id, e);
}

static int set_new(struct setter *s, const char *key, const char *value, struct err *e)
{
	char *spec _free_ = !strcmp(key, "disk") ? run_config_absolute(value) : strdup(value);
	char command[32], *text _free_ = NULL;
	json_t *result = NULL;
	int hold _close_ = -1, r;

	if (!spec)
		return err_set(e, ENOMEM, "out of memory");
	if (!s->p)
		return set_text_add(&s->t.vm, key, spec, e);
	r = strcmp(key, "net") ? life_bring_disk(s->p, spec, e) : bring_switch(s, spec, &hold, e);
	snprintf(command, sizeof(command), "ospite-%s-add", key);
	if (!r)
		r = ctl_call_command(s->p, command, json_pack("{s:s}", key, spec), &result, ANSWER_MS, e);
	if (r)
		return r;
	text = strdup(json_string_value(json_object_get(result, key)) ?: "");
	if (!s->a->quiet)
		puts(json_string_value(json_object_get(result, "id")) ?: "?");
	r = forget_former(s, key, json_string_value(json_object_get(result, "id")) ?: "", e);
	json_decref(result);
	if (r) {
		free(text);
		return r;
	}
	r = text ? set_text_add(&s->t.running, key, text, e) : err_set(e, ENOMEM, "out of memory");
	if (r)
		return r;
	set_key_drop(text, "slot"); /* the next start finds one again */
	return set_text_add(&s->t.vm, key, text, e);
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
		return set_texts_follow(&s->t, s->p, e);
	return r || found ? r : err_set(e, ENODEV, "there is no disk or network card '%.40s' in vm.yaml", id);
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
	case LIFE_SET_WEIGHT:
		return set_process_limit(s, "cpu-weight", c->value, e);
	case LIFE_SET_QUOTA:
		return set_process_limit(s, "cpu-quota", c->value, e);
	case LIFE_SET_MAX:
		return set_process_limit(s, "memory-max", c->value, e);
	}
	return 0;
}

static int set_all(struct setter *s, struct err *e)
{
	bool runs = s->p;
	int r = set_texts_read(&s->t, s->m, runs, e);

	/* what is done is written even if the next fails: the machine has it */
	for (unsigned i = 0; i < s->a->nchange && !r; i++) {
		r = set_one(s, &s->a->change[i], e);
		if (!r && (runs || i + 1 == s->a->nchange))
			r = set_texts_write(&s->t, e);
	}
	set_texts_free(&s->t);
	return r;
}

int life_set(const struct life_command *c, struct life_args *a, struct store *s, struct err *e)
{
	struct setter set = { .a = a, .s = s };
	struct store_status st;
	struct store_vm m;
	int r;

	if (!a->nchange)
		return err_set(e, EINVAL, "say what: --memory, --disk, --net, --remove, --limit, --link, --cpu-quota and more; see 'ospite set --help'");
	r = store_vm_open(s, a->words[0], &m, e);
	if (r)
		return r;
	set.m = &m;
	r = store_vm_status(&m, &st, e);
	if (!r && st.state == STORE_SUSPENDED)
		r = err_set(e, EBUSY, "machine '%s' is suspended: let it go on ('ospite resume %s'), or end it, first", m.name, m.name);
	if (!r && st.state == STORE_RUNNING)
		r = life_connect(&m, &set.p, e);
	if (!r && set_all(&set, e))
		r = err_prefix(e, "machine '%s'", m.name);
	ctl_disconnect(set.p);
	store_vm_close(&m);
	return r;
}
