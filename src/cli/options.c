/* SPDX-License-Identifier: Apache-2.0 */
/* Parsing of long options from a table, and of the values they take. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "cli/cli.h"

#define WORD_MAX 32
#define OPTIONS_MAX 128 /* of one command, among which a nearest name is looked for */

/* Edit distance (insert, delete, replace), words cut at WORD_MAX. */
static unsigned distance(const char *a, const char *b)
{
	unsigned row[WORD_MAX + 1], na = (unsigned)MIN(strlen(a), (size_t)WORD_MAX);
	unsigned nb = (unsigned)MIN(strlen(b), (size_t)WORD_MAX);

	for (unsigned j = 0; j <= nb; j++)
		row[j] = j;
	for (unsigned i = 1; i <= na; i++) {
		unsigned diagonal = row[0];

		row[0] = i;
		for (unsigned j = 1; j <= nb; j++) {
			unsigned cost = diagonal + (a[i - 1] != b[j - 1]);

			diagonal = row[j];
			row[j] = MIN(cost, MIN(row[j], row[j - 1]) + 1);
		}
	}
	return row[nb];
}

const char *nearest(const char *word, const char *const *names, unsigned count)
{
	const char *best = NULL;
	unsigned best_distance = (unsigned)strlen(word) / 3 + 2;

	for (unsigned i = 0; i < count; i++) {
		unsigned d = distance(word, names[i]);

		if (*word && !strncmp(names[i], word, strlen(word)))
			d = 1; /* an abbreviation */
		if (d < best_distance) {
			best_distance = d;
			best = names[i];
		}
	}
	return best;
}

static const struct option_def *option_find(const struct option_def *defs, const char *name, size_t len)
{
	for (; defs->name; defs++) {
		if (strlen(defs->name) == len && !strncmp(defs->name, name, len))
			return defs;
	}
	return NULL;
}

/* What it is called elsewhere: first as others' command lines have it, then ours. NULL: nothing. */
const char *known_as(const char *word, const char *const (*table)[2])
{
	for (; (*table)[0]; table++)
		if (!strcmp(word, (*table)[0]))
			return (*table)[1];
	return NULL;
}

static const char *const elsewhere[][2] = {
	{ "d", "detach" }, { "m", "memory" }, { "p", "port" }, { "v", "share" }, { "mem", "memory" }, { "ram", "memory" }, { "smp", "cpus" },
	{ "vcpus", "cpus" }, { "vcpu", "cpus" }, { "drive", "disk" }, { "hda", "disk" }, { "image", "disk" }, { "publish", "port" },
	{ "volume", "share" }, { "mount", "share" }, { "netdev", "net" }, { "network", "net" }, { "nic", "net" }, { "vnc", "display" },
	{ "graphics", "display" }, { "cmdline", "append" }, { "bios", "firmware" }, { "accel", "engine" }, { "enable-kvm", "engine" },
	{ "qmp", "control" }, { "f", "follow" }, { "n", "lines" }, { "tail", "lines" }, { "a", "all" }, { "q", "quiet" }, { "t", "time" },
	{ "timeout", "time" }, { "e", "env" }, { "O", "format" }, { "o", "format" }, { "b", "backing" }, { "F", "backing-format" }, { "s", "gdb" },
	{ NULL, NULL },
};

static int refuse_option(const struct option_def *defs, const char *arg, struct err *e)
{
	const char *names[OPTIONS_MAX], *near;
	char word[WORD_MAX + 1];
	unsigned n = 0;

	for (; defs[n].name && n < ARRAY_LEN(names); n++)
		names[n] = defs[n].name;
	snprintf(word, sizeof(word), "%.*s", (int)strcspn(arg + strspn(arg, "-"), "="),
		 arg + strspn(arg, "-"));
	near = known_as(word, elsewhere);
	if (!near || !option_find(defs, near, strlen(near)))
		near = nearest(word, names, n);
	if (near)
		return err_set(e, EINVAL, "unknown option '%.60s'; did you mean --%s?", arg, near);
	return err_set(e, EINVAL, "unknown option '%.60s'; --help lists them all", arg);
}

/* "-x": the option with that initial, if it is the only one. */
static const struct option_def *option_by_letter(const struct option_def *defs, const char *arg)
{
	const struct option_def *found = NULL;

	if (!arg[1] || arg[2])
		return NULL;
	for (; defs->name; defs++) {
		if (defs->name[0] != arg[1])
			continue;
		if (found)
			return NULL;
		found = defs;
	}
	return found;
}

static int only_words(int argc, char **argv, int (*word)(void *opaque, const char *word, struct err *e), void *opaque, struct err *e)
{
	int r = 0;

	for (int i = 0; i < argc && r >= 0; i++)
		r = word(opaque, argv[i], e);
	return MIN(r, 0);
}

int options_each(const struct option_def *defs, int argc, char **argv,
		 int (*fn)(void *opaque, const struct option_def *def, const char *value, struct err *e),
		 int (*word)(void *opaque, const char *word, struct err *e), void *opaque, struct err *e)
{
	for (int i = 1; i < argc; i++) {
		const char *arg = argv[i], *value = NULL;
		const struct option_def *def;
		size_t len;
		int r;

		if (arg[0] != '-' || (word && !strcmp(arg, "--"))) {
			r = arg[0] == '-' ? OPTIONS_STOP :
			    word ? word(opaque, arg, e) :
				   err_set(e, EINVAL, "unexpected '%.60s'; everything is given by options, see --help", arg);
			if (r == OPTIONS_STOP)
				return only_words(argc - i - 1, argv + i + 1, word, opaque, e);
			if (r)
				return r;
			continue;
		}
		len = arg[1] == '-' ? strcspn(arg + 2, "=") : 0;
		def = len ? option_find(defs, arg + 2, len) : word ? option_by_letter(defs, arg) : NULL;
		if (!def)
			return refuse_option(defs, arg, e);
		if (len && arg[2 + len] == '=')
			value = arg + 3 + len;
		if (value && !def->arg)
			return err_set(e, EINVAL, "--%s takes no value", def->name);
		if (def->arg && !value) {
			if (i + 1 == argc)
				return err_set(e, EINVAL, "--%s needs a value: --%s %s", def->name,
					       def->name, def->arg);
			value = argv[++i];
		}
		r = fn(opaque, def, value, e);
		if (r) {
			err_prefix(e, "--%s%s%.100s", def->name, value ? " " : "", value ? value : "");
			return r;
		}
	}
	return 0;
}

struct parse {
	void *into;
	int (*word)(void *into, const char *word, struct err *e);
};

static int parse_option(void *opaque, const struct option_def *def, const char *value, struct err *e)
{
	return def->set(((struct parse *)opaque)->into, value, e);
}

static int parse_word(void *opaque, const char *word, struct err *e)
{
	return ((struct parse *)opaque)->word(((struct parse *)opaque)->into, word, e);
}

int options_parse_words(const struct option_def *defs, void *into, int argc, char **argv,
			int (*word)(void *into, const char *word, struct err *e), struct err *e)
{
	struct parse p = { into, word };

	return options_each(defs, argc, argv, parse_option, word ? parse_word : NULL, &p, e);
}

int options_parse(const struct option_def *defs, void *into, int argc, char **argv, struct err *e)
{
	return options_parse_words(defs, into, argc, argv, NULL, e);
}

bool options_want_help(int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--"); i++) {
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
			return true;
	}
	return false;
}

static void print_one(FILE *out, const struct option_def *d)
{
	int n = fprintf(out, " --%s%s%s", d->name, d->arg ? " " : "", d->arg ? d->arg : "");

	fprintf(out, "%*s%s\n", MAX(22 - n, 1), "", d->help);
}

void options_print(FILE *out, const struct option_def *defs)
{
	for (; defs->name; defs++)
		print_one(out, defs);
}

void options_print_often(FILE *out, const struct option_def *defs)
{
	int column = 0;

	for (const struct option_def *d = defs; d->name; d++)
		if (d->flags & OPTION_OFTEN)
			print_one(out, d);
	for (const struct option_def *d = defs; d->name; d++) {
		int n = (int)strlen(d->name) + 3;

		if (d->flags & OPTION_OFTEN)
			continue;
		column = column + n > 79 ? 0 : column;
		fprintf(out, "%s --%s", column || d == defs ? "" : "\n", d->name);
		column += n;
	}
	fputc('\n', out);
}

bool options_print_asked(FILE *out, const struct option_def *defs, int argc, char **argv)
{
	for (int i = 1; i + 1 < argc; i++) {
		const char *what = argv[i + 1] + strspn(argv[i + 1], "-");

		if (strcmp(argv[i], "--help") && strcmp(argv[i], "-h"))
			continue;
		if (!strcmp(what, "all")) {
			options_print(out, defs);
			return true;
		}
		for (const struct option_def *d = defs; d->name; d++) {
			if (!strcmp(what, d->name)) {
				print_one(out, d);
				return true;
			}
		}
	}
	return false;
}

static int parse_digits(const char *text, char **end, uint64_t *out)
{
	bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');

	if (!isdigit((unsigned char)text[0]) || (hex && !isxdigit((unsigned char)text[2])))
		return -EINVAL;
	errno = 0;
	*out = strtoull(text, end, hex ? 16 : 10);
	return errno ? -ERANGE : 0;
}

int parse_size(const char *text, uint64_t *out, struct err *e)
{
	static const char units[] = "kmgt";
	unsigned shift = 20;
	uint64_t v;
	char *end;
	int r = parse_digits(text, &end, &v);

	if (!r && *end) {
		const char *unit = strchr(units, tolower((unsigned char)*end));

		shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;
		end++;
		if (end[0] == 'i' && end[1] == 'B')
			end += 2;
		else if (end[0] == 'B')
			end++;
	}
	if (r == -EINVAL || *end || !shift)
		return err_set(e, EINVAL, "is no size; write 512M or 2G");
	if (r || v > UINT64_MAX >> shift)
		return err_set(e, ERANGE, "is too large");
	*out = v << shift;
	return 0;
}

int parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *out, struct err *e)
{
	char *end = NULL;
	int r = parse_digits(text, &end, out);

	if (r == -EINVAL || (end && *end))
		return err_set(e, EINVAL, "is no number");
	if (r || *out < min || *out > max)
		return err_set(e, ERANGE, "must be from %llu to %llu", (unsigned long long)min,
			       (unsigned long long)max);
	return 0;
}
