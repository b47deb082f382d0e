/* SPDX-License-Identifier: Apache-2.0 */
/* Reading is libcyaml's, with a schema made from the keys; its messages become one line that names the place. */
#include <cyaml/cyaml.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/base.h"
#include "store/config.h"

#define VALUE_MAX 8192
#define UNEXPECTED "Unexpected key: " /* how libcyaml says it */
#define TWICE "Mapping field already seen: "

/* ---- reading */

union slot { /* of one key in what libcyaml fills */
	char *string;
	uint32_t flag;
	struct {
		char **item;
		uint64_t count;
	} list;
};

struct complaint { /* libcyaml says first what is wrong, then where */
	char what[160], where[160];
};

static void complain(cyaml_log_t level, void *ctx, const char *fmt, va_list args)
{
	struct complaint *c = ctx;
	char line[160], *at;

	vsnprintf(line, sizeof(line), fmt, args);
	line[strcspn(line, "\n")] = 0;
	at = strstr(line, "(line:");
	if (at && !c->where[0]) /* the innermost comes first */
		memmove(c->where, line + strspn(line, " "), strlen(line + strspn(line, " ")) + 1);
	else if (!at && !c->what[0] && level >= CYAML_LOG_WARNING && !strstr(line, "Backtrace"))
		memmove(c->what, strncmp(line, "Load: ", 6) ? line : line + 6, strlen(line) + 1 - (strncmp(line, "Load: ", 6) ? 0 : 6));
}

static const cyaml_schema_value_t string_item = {
	.type = CYAML_STRING, .flags = CYAML_FLAG_POINTER, .data_size = sizeof(char), .string = { 0, VALUE_MAX },
};

static const cyaml_strval_t flag_words[] = { { "false", 0 }, { "true", 1 }, { "no", 0 }, { "yes", 1 } };

static void schema_field(cyaml_schema_field_t *f, const struct config_key *key, unsigned at)
{
	*f = (cyaml_schema_field_t){ .key = key->name, .data_offset = at * (uint32_t)sizeof(union slot) };
	f->value.flags = CYAML_FLAG_OPTIONAL;
	switch (key->kind) {
	case CONFIG_STRING:
		f->value.type = CYAML_STRING;
		f->value.flags |= CYAML_FLAG_POINTER;
		f->value.data_size = sizeof(char);
		f->value.string.max = VALUE_MAX;
		break;
	case CONFIG_FLAG:
		f->value.type = CYAML_ENUM; /* its own booleans take any word for true */
		f->value.flags |= CYAML_FLAG_STRICT;
		f->value.data_size = sizeof(uint32_t);
		f->value.enumeration.strings = flag_words;
		f->value.enumeration.count = ARRAY_LEN(flag_words);
		break;
	case CONFIG_LIST_OF_STRINGS:
		f->value.type = CYAML_SEQUENCE;
		f->value.flags |= CYAML_FLAG_POINTER;
		f->value.data_size = sizeof(char *);
		f->value.sequence.entry = &string_item;
		f->value.sequence.max = CONFIG_LIST;
		f->count_offset = f->data_offset + (uint32_t)offsetof(union slot, list.count);
		f->count_size = sizeof(uint64_t);
		break;
	}
}

/* The line a key is on for the n-th time, from 1; 0: not there. */
static unsigned line_of_nth(const char *text, const char *key, unsigned n)
{
	size_t len = strlen(key);

	for (unsigned line = 1; *text; line++) {
		if (!strncmp(text, key, len) && text[len + strspn(text + len, " ")] == ':' && !--n)
			return line;
		text += strcspn(text, "\n");
		text += *text == '\n';
	}
	return 0;
}

static unsigned line_of(const char *text, const char *key)
{
	return line_of_nth(text, key, 1);
}

static int hand_out(const union slot *slots, const char *text, const char *file, const struct config_key *keys,
		    unsigned count, int (*value)(void *, unsigned, const char *, struct err *), void *opaque, struct err *e)
{
	for (unsigned i = 0; i < count; i++) {
		const union slot *s = &slots[i];
		int r = 0;

		if (keys[i].kind == CONFIG_STRING && s->string)
			r = value(opaque, i, s->string, e);
		else if (keys[i].kind == CONFIG_FLAG && s->flag)
			r = value(opaque, i, NULL, e);
		for (uint64_t k = 0; keys[i].kind == CONFIG_LIST_OF_STRINGS && k < s->list.count && !r; k++)
			r = value(opaque, i, s->list.item[k], e);
		if (r)
			return err_prefix(e, "%s, line %u: %s", file, line_of(text, keys[i].name), keys[i].name);
	}
	return 0;
}

static bool is_empty(const char *text)
{
	while (*text) {
		text += strspn(text, " \t\r\n");
		if (*text && *text != '#' && strncmp(text, "---", 3))
			return false;
		text += strcspn(text, "\n");
	}
	return true;
}

static bool is_marker(const char *line, const char *marker)
{
	return !strncmp(line, marker, 3) && (!line[3] || strchr(" \t\r\n", line[3]));
}

/* The line where a second document begins, which libcyaml would not look at; 0: there is none. */
static unsigned second_document(const char *text)
{
	unsigned line = 1;
	bool content = false;

	for (; *text; text += strcspn(text, "\n"), text += *text == '\n', line++) {
		bool ends = is_marker(text, "---") || is_marker(text, "...");
		char first = text[strspn(text, " \t")];

		if (ends && content)
			return is_empty(text + 3) ? 0 : line;
		content |= !ends && *text != '%' && first && !strchr("#\r\n", first);
	}
	return 0;
}

int config_read(const char *text, const char *file, const struct config_key *keys, unsigned count,
		int (*value)(void *opaque, unsigned key, const char *value, struct err *e), void *opaque, struct err *e)
{
	cyaml_schema_field_t fields[CONFIG_KEYS + 1] = { 0 };
	cyaml_schema_value_t top = { .type = CYAML_MAPPING, .flags = CYAML_FLAG_POINTER,
				     .data_size = count * (uint32_t)sizeof(union slot), .mapping.fields = fields };
	struct complaint c = { 0 };
	const cyaml_config_t config = { .log_fn = complain, .log_ctx = &c, .mem_fn = cyaml_mem, .log_level = CYAML_LOG_WARNING,
					.flags = CYAML_CFG_NO_ALIAS };
	cyaml_data_t *data = NULL;
	cyaml_err_t failed;
	int r;

	CHECK(count <= CONFIG_KEYS);
	if (is_empty(text))
		return 0;
	if (second_document(text))
		return err_set(e, EINVAL, "%s, line %u: a second document begins here; there is to be one", file, second_document(text));
	for (unsigned i = 0; i < count; i++)
		schema_field(&fields[i], &keys[i], i);
	failed = cyaml_load_data((const uint8_t *)text, strlen(text), &config, &top, &data, NULL);
	if (failed && !strncmp(c.what, UNEXPECTED, strlen(UNEXPECTED))) /* it names the place of the one before */
		return err_set(e, EINVAL, "%s, line %u: there is no key '%s': the keys are the options of 'ospite run'", file,
			       line_of(text, c.what + strlen(UNEXPECTED)), c.what + strlen(UNEXPECTED));
	if (failed && !strncmp(c.what, TWICE, strlen(TWICE))) /* here, too */
		return err_set(e, EINVAL, "%s, line %u: '%s' is given twice", file, line_of_nth(text, c.what + strlen(TWICE), 2), c.what + strlen(TWICE));
	if (failed)
		return err_set(e, EINVAL, "%s: %s%s%s", file, c.what[0] ? c.what : cyaml_strerror(failed), c.where[0] ? ", " : "",
			       c.where);
	r = hand_out((const union slot *)data, text, file, keys, count, value, opaque, e);
	cyaml_free(&config, &top, data, 0);
	return r;
}

/* ---- editing */

struct text {
	char *data;
	size_t used, size;
	bool failed;
};

static void text_add(struct text *t, const char *bytes, size_t n)
{
	size_t size = t->size ? t->size : 256;
	char *data;

	while (size < t->used + n + 1)
		size *= 2;
	if (size > t->size) {
		data = realloc(t->data, size);
		if (!data) {
			t->failed = true;
			return;
		}
		t->data = data;
		t->size = size;
	}
	memcpy(t->data + t->used, bytes, n);
	t->used += n;
	t->data[t->used] = 0;
}

static void text_puts(struct text *t, const char *s)
{
	text_add(t, s, strlen(s));
}

/* Plain where nobody could misread it, else in double quotes. */
static void text_value(struct text *t, const char *v)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-+=,@%";
	size_t n = strspn(v, plain);

	if (*v && !v[n] && strchr("-=,@%", *v) == NULL) {
		text_puts(t, v);
		return;
	}
	text_puts(t, "\"");
	for (; *v; v++) {
		char escaped[8];

		if (*v == '"' || *v == '\\')
			snprintf(escaped, sizeof(escaped), "\\%c", *v);
		else if ((unsigned char)*v < ' ' || *v == 0x7f)
			snprintf(escaped, sizeof(escaped), "\\x%02x", (unsigned char)*v);
		else
			snprintf(escaped, sizeof(escaped), "%c", *v);
		text_puts(t, escaped);
	}
	text_puts(t, "\"");
}

static void text_key(struct text *t, const struct config_key *key, const char *const *values, unsigned n, const char *comment)
{
	if (!n)
		return;
	text_puts(t, key->name);
	text_puts(t, ":");
	if (key->kind != CONFIG_LIST_OF_STRINGS) {
		text_puts(t, " ");
		if (key->kind == CONFIG_FLAG)
			text_puts(t, values[0] ? values[0] : "true");
		else
			text_value(t, values[0]);
	}
	text_puts(t, comment);
	text_puts(t, "\n");
	for (unsigned i = 0; i < n && key->kind == CONFIG_LIST_OF_STRINGS; i++) {
		text_puts(t, "  - ");
		text_value(t, values[i]);
		text_puts(t, "\n");
	}
}

static const char *line_end(const char *at)
{
	at += strcspn(at, "\n");
	return at + (*at == '\n');
}

/* The comment at the end of a key's line, with the blanks before it; "" if none. In quotes '#' is no comment. */
static const char *line_comment(const char *at, char *into, size_t size)
{
	char quote = 0;
	const char *start;

	into[0] = 0;
	for (start = at; *at && *at != '\n'; at++) {
		if (quote)
			quote = *at == quote ? 0 : quote;
		else if ((*at == '"' || *at == '\'') && at > start && strchr(" :", at[-1]))
			quote = *at;
		else if (*at == '#' && at > start && at[-1] == ' ') {
			const char *blank = at;

			while (blank > start && blank[-1] == ' ')
				blank--;
			snprintf(into, size, "%.*s", (int)strcspn(blank, "\r\n"), blank);
			break;
		}
	}
	return into;
}

/* Lines of the value after the key's own: indented, or items. Blank lines and comments before the next key are not. */
static const char *value_end(const char *at)
{
	const char *end = at;

	while (*at) {
		if (*at == ' ' || *at == '\t' || (at[0] == '-' && strncmp(at, "---", 3))) {
			at = line_end(at);
			end = at;
		} else if (*at == '\n' || *at == '#') {
			at = line_end(at);
		} else {
			break;
		}
	}
	return end;
}

/* An item as it stands in the text, with the comments before it. */
struct item {
	const char *start, *line, *end; /* start NULL: it has more lines, or has been taken */
};

/* Written so that nothing of it could mean something else: then the same bytes are the same value. */
static bool item_is(const struct item *item, const char *value)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-+=,";
	const char *text = item->line + strspn(item->line, " ") + 1;
	size_t n = strlen(value);

	if (!item->start || !n || value[strspn(value, plain)])
		return false;
	text += strspn(text, " ");
	for (const char *quote = " \"'"; *quote; quote++) {
		const char *at = text, *rest;

		if (*quote != ' ' && *at++ != *quote)
			continue;
		if (strncmp(at, value, n))
			continue;
		at += n;
		if (*quote != ' ' && *at++ != *quote)
			continue;
		rest = at + strspn(at, " \r");
		if (!*rest || *rest == '\n' || (*rest == '#' && rest > at))
			return true;
	}
	return false;
}

static unsigned items_find(struct item item[CONFIG_LIST], const char *from, const char *to, int *indent)
{
	const char *start = from;
	unsigned n = 0;

	for (const char *at = from; at < to && n < CONFIG_LIST; at = line_end(at)) {
		const char *first = at + strspn(at, " ");

		if (first[0] == '-' && first[1] == ' ') {
			*indent = n ? *indent : (int)(first - at);
			item[n++] = (struct item){ start, at, line_end(at) };
			start = line_end(at);
		} else if (!strchr("#\r\n", *first)) { /* goes on from the line before */
			if (n)
				item[n - 1].start = NULL;
			start = line_end(at);
		}
	}
	return n;
}

/* Items that stay keep their lines and comments; `from` to `to`: the value after the key's line. */
static void text_list(struct text *t, const struct config_key *key, const char *const *values, unsigned n, const char *comment, const char *from,
		      const char *to)
{
	struct item item[CONFIG_LIST];
	int indent = 2;
	unsigned items = items_find(item, from, to, &indent);

	text_puts(t, key->name);
	text_puts(t, ":");
	text_puts(t, comment);
	text_puts(t, "\n");
	for (unsigned i = 0; i < n; i++) {
		unsigned k = 0;

		while (k < items && !item_is(&item[k], values[i]))
			k++;
		if (k < items) {
			text_add(t, item[k].start, (size_t)(item[k].end - item[k].start));
			if (item[k].end[-1] != '\n')
				text_puts(t, "\n");
			item[k].start = NULL;
			continue;
		}
		for (int blank = 0; blank < indent; blank++)
			text_puts(t, " ");
		text_puts(t, "- ");
		text_value(t, values[i]);
		text_puts(t, "\n");
	}
}

int config_edit(const char *text, const struct config_key *key, const char *const *values, unsigned nvalues, char **out,
		struct err *e)
{
	size_t len = strlen(key->name);
	struct text t = { 0 };
	bool found = false;
	char comment[200];

	text_puts(&t, "");
	for (const char *at = text; *at;) {
		const char *end = line_end(at);

		if (!found && !strncmp(at, key->name, len) && at[len + strspn(at + len, " ")] == ':') {
			found = true;
			line_comment(at, comment, sizeof(comment));
			if (key->kind == CONFIG_LIST_OF_STRINGS && nvalues)
				text_list(&t, key, values, nvalues, comment, end, value_end(end));
			else
				text_key(&t, key, values, nvalues, comment);
			at = value_end(end);
			continue;
		}
		text_add(&t, at, (size_t)(end - at));
		if (!*end && end[-1] != '\n')
			text_puts(&t, "\n");
		at = end;
	}
	if (!found)
		text_key(&t, key, values, nvalues, "");
	if (t.failed) {
		free(t.data);
		return err_set(e, ENOMEM, "no memory for the configuration");
	}
	*out = t.data;
	return 0;
}
