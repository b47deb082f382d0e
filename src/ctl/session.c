/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One client's conversation: greeting, negotiation, one reply for each request. Arguments are checked here, from the table,
 * so that a command only sees what it has asked for, of the right type.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "ctl/private.h"

const struct ctl_command ctl_commands[] = {
#define CTL_COMMAND(name, function, arguments, returns, help) { name, ctl_##function, arguments, returns, help },
#include "ctl/commands.def"
#undef CTL_COMMAND
	{ NULL, NULL, NULL, NULL, NULL },
};

const struct ctl_event_def ctl_event_defs[] = {
#define CTL_EVENT(name, members, help) { name, members, help },
#include "ctl/events.def"
#undef CTL_EVENT
	{ NULL, NULL, NULL },
};

const struct ctl_command *ctl_command_find(const char *name)
{
	for (const struct ctl_command *c = ctl_commands; c->name; c++) {
		if (!strcmp(c->name, name))
			return c;
	}
	return NULL;
}

bool ctl_argument_next(const char **list, struct ctl_argument *a)
{
	const char *at = *list + strspn(*list, " "), *end = at + strcspn(at, " ");
	const char *colon = memchr(at, ':', (size_t)(end - at));

	if (at == end)
		return false;
	CHECK(colon && colon > at);
	a->optional = colon[-1] == '?';
	snprintf(a->name, sizeof(a->name), "%.*s", (int)(colon - at) - a->optional, at);
	snprintf(a->type, sizeof(a->type), "%.*s", (int)(end - colon - 1), colon + 1);
	*list = end;
	return true;
}

static bool type_matches(const json_t *value, const char *type)
{
	if (!strcmp(type, "str"))
		return json_is_string(value);
	if (!strcmp(type, "int"))
		return json_is_integer(value);
	if (!strcmp(type, "bool"))
		return json_is_boolean(value);
	if (!strcmp(type, "number"))
		return json_is_number(value);
	return true;
}

static int arguments_check(const struct ctl_command *c, json_t *arguments, struct err *e)
{
	const char *list = c->arguments, *key;
	struct ctl_argument a;
	size_t known = 0;
	json_t *value;

	while (ctl_argument_next(&list, &a)) {
		value = json_object_get(arguments, a.name);
		if (!value && !a.optional)
			return err_set(e, EINVAL, "%s needs the argument '%s' (%s)", c->name, a.name, a.type);
		if (value && !type_matches(value, a.type))
			return err_set(e, EINVAL, "the argument '%s' of %s must be of type %s", a.name, c->name, a.type);
		known += value != NULL;
	}
	if (known == json_object_size(arguments))
		return 0;
	json_object_foreach(arguments, key, value) {
		bool found = false;

		list = c->arguments;
		while (ctl_argument_next(&list, &a))
			found |= !strcmp(a.name, key);
		if (!found)
			return err_set(e, EINVAL, "%s has no argument '%.60s'", c->name, key);
	}
	return 0;
}

json_t *ctl_session_error(const char *class, const char *text, json_t *id)
{
	/* the text may quote foreign bytes: jansson refuses what is not UTF-8 */
	json_t *desc = json_string(text);
	json_t *reply;

	if (!desc)
		desc = json_string("the request has bytes that are not UTF-8");
	reply = json_pack("{s:{s:s,s:o}}", "error", "class", class, "desc", desc);
	if (id)
		json_object_set(reply, "id", id);
	return reply;
}

json_t *ctl_session_greeting(const struct ctl_session *s)
{
	struct ctl_call call = { .ctl = s->ctl };

	if (ctl_query_version(&call, NULL))
		return NULL;
	return json_pack("{s:{s:o,s:[]}}", "QMP", "version", call.result, "capabilities");
}

/* A file that is there all the same, for whoever asks: what is to be done about that. */
static void say_own_files(const struct ctl_call *call, const struct ctl_command *c, struct err *e)
{
	static const char *const names[] = { "disk", "filename", "path" };
	const char *remedy = strcmp(c->name, "ospite-save") ? "bring others along by add-fd, as 'ospite ctl' and 'ospite set' do" :
							      "save to the machine's folder, or give --view FOLDER at its start";
	size_t n = strlen(e->text);
	bool has = false;

	for (unsigned i = 0; i < ARRAY_LEN(names); i++)
		has |= json_is_string(json_object_get(call->arguments, names[i]));
	if (has && call->ctl->config.own_files && (e->code == ENOENT || e->code == EACCES || e->code == EROFS))
		snprintf(e->text + n, sizeof(e->text) - n, " (of the host's files the machine has its own only: %s)", remedy);
}

static json_t *execute(struct ctl_session *s, const struct ctl_command *c, json_t *arguments, json_t *id)
{
	struct ctl_call call = { .ctl = s->ctl, .session = s };
	json_t *empty = arguments ? NULL : json_object(), *reply;
	struct err e = { 0 };
	int r;

	call.arguments = arguments ? arguments : empty;
	r = arguments_check(c, call.arguments, &e);
	if (!r)
		r = c->run(&call, &e);
	if (r) {
		json_decref(call.result);
		say_own_files(&call, c, &e);
		reply = ctl_session_error("GenericError", e.text[0] ? e.text : strerror(-r), id);
	} else {
		reply = json_pack("{s:o}", "return", call.result ? call.result : json_object());
		if (id)
			json_object_set(reply, "id", id);
	}
	json_decref(empty);
	return reply;
}

/* What is asked for, or the error to reply with. */
static json_t *refuse(const struct ctl_session *s, json_t *request, const struct ctl_command **c)
{
	json_t *id = json_object_get(request, "id"), *arguments = json_object_get(request, "arguments"), *value;
	const char *name = json_string_value(json_object_get(request, "execute")), *key;
	char text[200];

	json_object_foreach(request, key, value) {
		if (strcmp(key, "execute") && strcmp(key, "arguments") && strcmp(key, "id")) {
			snprintf(text, sizeof(text), "a request has no member '%.60s'", key);
			return ctl_session_error("GenericError", text, id);
		}
	}
	if (!name)
		return ctl_session_error("GenericError", "a request needs the member 'execute', a string", id);
	if (arguments && !json_is_object(arguments))
		return ctl_session_error("GenericError", "'arguments' must be an object", id);
	*c = ctl_command_find(name);
	if (!*c) {
		snprintf(text, sizeof(text), "there is no command '%.60s'; query-commands lists them", name);
		return ctl_session_error("CommandNotFound", text, id);
	}
	if (!s->negotiated && (*c)->run != ctl_qmp_capabilities)
		return ctl_session_error("CommandNotFound", "the first command must be qmp_capabilities", id);
	return NULL;
}

json_t *ctl_session_handle(struct ctl_session *s, const char *text, size_t len)
{
	const struct ctl_command *c = NULL;
	json_error_t where;
	json_t *request = json_loadb(text, len, JSON_REJECT_DUPLICATES, &where), *reply;
	char line[300];

	if (!request) {
		snprintf(line, sizeof(line), "not JSON: %.160s at byte %d", where.text, where.position);
		return ctl_session_error("GenericError", line, NULL);
	}
	if (json_is_object(request)) {
		reply = refuse(s, request, &c);
		if (!reply)
			reply = execute(s, c, json_object_get(request, "arguments"), json_object_get(request, "id"));
	} else {
		reply = ctl_session_error("GenericError", "a request must be an object", NULL);
	}
	json_decref(request);
	return reply;
}
