/* SPDX-License-Identifier: Apache-2.0 */
/* vm.yaml and the options of `ospite run`: the same names, the same values, the same checks. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cli/run.h"

static bool is_kept(const struct option_def *def)
{
	return !(def->flags & OPTION_HERE);
}

void run_config_keys(struct config_key *keys, unsigned *count)
{
	*count = 0;
	for (const struct option_def *d = run_options; d->name; d++) {
		if (!is_kept(d))
			continue;
		CHECK(*count < CONFIG_KEYS);
		keys[(*count)++] = (struct config_key){
			d->name, !d->arg ? CONFIG_FLAG : d->flags & OPTION_LIST ? CONFIG_LIST_OF_STRINGS : CONFIG_STRING,
		};
	}
}

static const struct option_def *kept_option(unsigned key)
{
	const struct option_def *d = run_options;

	for (;; d++)
		if (is_kept(d) && !key--)
			return d;
}

static int take_value(void *opaque, unsigned key, const char *value, struct err *e)
{
	struct run_options *o = opaque;
	char **more = realloc(o->owned, (o->nowned + 1) * sizeof(char *));
	char *copy = NULL;

	if (!more)
		return err_set(e, ENOMEM, "out of memory");
	o->owned = more;
	if (value) {
		copy = o->owned[o->nowned] = strdup(value);
		if (!copy)
			return err_set(e, ENOMEM, "out of memory");
		o->nowned++;
	}
	return kept_option(key)->set(o, copy, e) ? err_prefix(e, "%.100s", value ? value : "true") : 0;
}

int run_config_load(struct run_options *o, const char *text, struct err *e)
{
	struct config_key keys[CONFIG_KEYS];
	unsigned count;
	int r;

	run_config_keys(keys, &count);
	r = config_read(text, "vm.yaml", keys, count, take_value, o, e);
	if (!r)
		r = run_options_check(o, "console:console", e);
	if (!r && o->pc.serial[0] && !strcmp(o->pc.serial[0], "stdio"))
		o->pc.serial[0] = "console:console";
	return r;
}

int run_config_check(const char *text, struct err *e)
{
	struct run_options o;
	int r;

	run_options_init(&o);
	r = run_config_load(&o, text, e);
	run_options_dispose(&o);
	return r;
}

int run_config_edit(const char *text, const char *key, const char *const *values, unsigned n, char **out, struct err *e)
{
	struct config_key keys[CONFIG_KEYS];
	const char *names[CONFIG_KEYS], *near;
	unsigned count;

	run_config_keys(keys, &count);
	for (unsigned i = 0; i < count; i++) {
		if (!strcmp(keys[i].name, key))
			return config_edit(text, &keys[i], values, n, out, e);
		names[i] = keys[i].name;
	}
	near = nearest(key, names, count);
	return near ? err_set(e, EINVAL, "there is no key '%.60s'; did you mean %s?", key, near) :
		      err_set(e, EINVAL, "there is no key '%.60s': the keys are the options of 'ospite run'", key);
}

struct wanted {
	unsigned key;
	char **values;
	unsigned *n;
};

static int keep_value(void *opaque, unsigned key, const char *value, struct err *e)
{
	struct wanted *w = opaque;

	if (key != w->key || *w->n == CONFIG_LIST)
		return 0;
	w->values[*w->n] = strdup(value ? value : "true");
	return w->values[*w->n] ? (++*w->n, 0) : err_set(e, ENOMEM, "out of memory");
}

int run_config_values(const char *text, const char *key, char **values, unsigned *n, struct err *e)
{
	struct wanted w = { .values = values, .n = n };
	struct config_key keys[CONFIG_KEYS];
	unsigned count;

	*n = 0;
	run_config_keys(keys, &count);
	while (w.key < count && strcmp(keys[w.key].name, key))
		w.key++;
	return config_read(text, "vm.yaml", keys, count, keep_value, &w, e);
}

void run_config_values_free(char **values, unsigned *n)
{
	while (*n)
		free(values[--*n]);
}

/* ---- from a command line */

/* Where the path begins in FILE, FILE,... or ...,file=FILE,...; NULL: there is none. */
static const char *path_in(const char *value)
{
	const char *at = strncmp(value, "file=", 5) ? strstr(value, ",file=") : value;

	if (strstr(value, "://") || !strncmp(value, "nbd:", 4))
		return NULL; /* an address */
	if (at)
		return at + (*at == ',' ? 6 : 5);
	return memchr(value, '=', strcspn(value, ",")) ? NULL : value;
}

/* Up to the comma that ends it; doubled ones are part of it. */
static char *path_copy(const char *path)
{
	char *out = malloc(strlen(path) + 1), *p = out;

	for (; out && *path && (*path != ',' || path[1] == ','); path++) {
		*p++ = *path;
		path += *path == ',';
	}
	if (out)
		*p = 0;
	return out;
}

/* A word without '/' that is no file here may be a word (bios, none), or a file to be made in the machine's folder. */
char *run_config_absolute(const char *value)
{
	const char *path = path_in(value);
	char *cwd, *out = NULL;
	bool here = false;

	if (path && *path && *path != '/') {
		char *name = path_copy(path);

		here = name && (strchr(name, '/') || !access(name, F_OK));
		if (name && !here && strchr(name, ':')) { /* FOLDER:TAG */
			*strrchr(name, ':') = 0;
			here = *name && !access(name, F_OK);
		}
		free(name);
	}
	if (!here)
		return strdup(value);
	cwd = getcwd(NULL, 0);
	if (!cwd || asprintf(&out, "%.*s%s/%s", (int)(path - value), value, cwd, path) < 0)
		out = NULL;
	free(cwd);
	return out;
}

struct builder {
	const struct option_def *key; /* whose values are being collected */
	char *values[CONFIG_LIST];
	unsigned n;
};

static int collect(void *opaque, const struct option_def *def, const char *value, struct err *e)
{
	struct builder *b = opaque;
	char *copy;

	if (def != b->key)
		return 0;
	if (b->n == CONFIG_LIST)
		return err_set(e, E2BIG, "is given too often");
	copy = !value ? strdup("true") : def->flags & OPTION_PATH ? run_config_absolute(value) : strdup(value);
	if (!copy)
		return err_set(e, ENOMEM, "out of memory");
	if (!(def->flags & OPTION_LIST) && b->n) /* the last one counts */
		free(b->values[--b->n]);
	b->values[b->n++] = copy;
	return 0;
}

static int ignore_word(void *opaque, const char *word, struct err *e)
{
	return 0;
}

static int merge_key(const struct option_def *d, char **text, int argc, char **argv, struct err *e)
{
	struct builder b = { .key = d };
	unsigned before = 0;
	char *next;
	int r = 0;

	if (d->flags & OPTION_LIST)
		r = run_config_values(*text, d->name, b.values, &b.n, e);
	before = b.n;
	if (!r)
		r = options_each(run_options, argc, argv, collect, ignore_word, &b, e);
	if (!r && b.n > before) {
		r = run_config_edit(*text, d->name, (const char *const *)b.values, b.n, &next, e);
		if (!r) {
			free(*text);
			*text = next;
		}
	}
	run_config_values_free(b.values, &b.n);
	return r;
}

int run_config_merge(const char *base, int argc, char **argv, char **text, struct err *e)
{
	int r = 0;

	*text = strdup(base);
	if (!*text)
		return err_set(e, ENOMEM, "out of memory");
	for (const struct option_def *d = run_options; d->name && !r; d++)
		if (is_kept(d))
			r = merge_key(d, text, argc, argv, e);
	if (r) {
		free(*text);
		*text = NULL;
	}
	return r;
}

int run_config_text(int argc, char **argv, char **text, struct err *e)
{
	return run_config_merge("# A machine of ospite. The keys are the options of 'ospite run'; relative paths start in this folder.\n",
				argc, argv, text, e);
}
