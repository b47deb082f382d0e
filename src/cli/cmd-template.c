/* SPDX-License-Identifier: Apache-2.0 */
/* ospite template: what machines are made of; and making one of a template, which is thin. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "cli/life.h"
#include "cli/progress.h"
#include "cli/template.h"
#include "cli/thin.h"

/* ---- making a template */

struct source {
	const char *yaml;  /* with the files' names in the folder */
	const struct store_vm *machine; /* a machine that is off; or */
	char *path[THIN_FILES], *name[THIN_FILES]; /* files, and what they are called there */
	unsigned n;
	const char *templates; /* or a Debian, to be made there */
	bool quiet;
};

static int fill(void *opaque, int folder, struct err *e)
{
	const struct source *src = opaque;
	struct progress bar;
	uint64_t total = 0;
	struct stat st;
	int r = 0;

	if (src->templates)
		return debian_make(folder, src->templates, src->quiet, e);
	if (src->machine)
		return folder_copy(src->machine->fd, folder, NULL, src->quiet, e);
	for (unsigned i = 0; i < src->n; i++)
		total += stat(src->path[i], &st) ? 0 : (uint64_t)st.st_blocks * 512;
	progress_start(&bar, "copying", total, src->quiet);
	for (unsigned i = 0; i < src->n && !r; i++) {
		r = file_copy(AT_FDCWD, src->path[i], folder, src->name[i], &bar, e);
		if (!r && faccessat(folder, src->name[i], F_OK, AT_SYMLINK_NOFOLLOW))
			r = err_set(e, EINVAL, "%.250s is no plain file (a link perhaps)", src->path[i]);
	}
	progress_end(&bar);
	return r;
}

/* A name in the folder for a file from elsewhere. */
static char *name_for(struct source *src, const char *path)
{
	const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
	char *name = strdup(base);

	for (unsigned i = 0, n = 1; name && i < src->n; i++) {
		if (strcmp(src->name[i], name))
			continue;
		free(name);
		if (asprintf(&name, "%u-%s", n++, base) < 0)
			return NULL;
		i = UINT32_MAX; /* from the beginning */
	}
	return name;
}

/* One value of a key that names a file: PATH, or keys with file=PATH. The new value, or NULL. */
static char *take_file(struct source *src, const char *value, struct err *e)
{
	const char *at = !strncmp(value, "file=", 5) ? value : strstr(value, ",file=");
	char *path = calloc(1, strlen(value) + 1), *p = path, *out = NULL;
	const char *from = at ? at + (*at == ',' ? 6 : 5) : value, *end = from;

	if (!path || src->n == THIN_FILES) {
		free(path);
		err_set(e, ENOMEM, "too many files");
		return NULL;
	}
	for (; *end && (!at || *end != ',' || end[1] == ','); end++) {
		*p++ = *end;
		end += at && *end == ',';
	}
	src->path[src->n] = path;
	src->name[src->n] = name_for(src, path);
	if (!src->name[src->n]) {
		free(path);
		return NULL;
	}
	p = src->name[src->n++];
	if (strchr(p, ',')) {
		err_set(e, EINVAL, "%.200s: a name without a comma, please", path);
		return NULL;
	}
	return asprintf(&out, "%.*s%s%s", (int)(from - value), value, p, end) < 0 ? NULL : out;
}

/* The files that options name are to lie in the folder. */
static int take_files(struct source *src, char **yaml, struct err *e)
{
	static const char *const keys[] = { "kernel", "initrd", "disk", "pmem", "cdrom" };
	char *values[CONFIG_LIST], *next;
	unsigned n;
	int r = 0;

	for (unsigned k = 0; k < ARRAY_LEN(keys) && !r; k++) {
		r = run_config_values(*yaml, keys[k], values, &n, e);
		for (unsigned i = 0; i < n && !r; i++) {
			char *now = strcmp(values[i], "none") ? take_file(src, values[i], e) : strdup(values[i]);

			if (!now)
				r = e->code ? -e->code : err_set(e, ENOMEM, "out of memory");
			else
				free(values[i]), values[i] = now;
		}
		if (!r && n)
			r = run_config_edit(*yaml, keys[k], (const char *const *)values, n, &next, e);
		if (!r && n)
			free(*yaml), *yaml = next;
		run_config_values_free(values, &n);
	}
	return r;
}

static int from_files(struct store *t, const struct run_words *w, struct run_options *o, struct err *e)
{
	struct source src = { 0 };
	char *yaml = NULL;
	int r = run_options_check(o, "console:console", e);

	if (!r)
		r = run_config_text(w->argc, w->argv, &yaml, e);
	if (!r)
		r = take_files(&src, &yaml, e);
	if (!r)
		r = store_create_filled(t, w->name, yaml, fill, &src, e);
	while (src.n--) {
		free(src.path[src.n]);
		free(src.name[src.n]);
	}
	free(yaml);
	return r;
}

static int from_machine(struct store *t, const struct run_words *w, const struct run_options *o, struct err *e)
{
	char *yaml _free_ = NULL;
	struct store_vm m = { .fd = -1, .lock = -1 };
	struct source src = { .machine = &m };
	struct thin plan = { 0 };
	struct store s;
	int r = store_open(&s, o->root, e);

	if (r)
		return r;
	r = store_vm_open(&s, w->template, &m, e);
	if (r == -ENOENT && !strcmp(w->template, TEMPLATE_DEBIAN)) {
		src = (struct source){ .templates = t->path, .quiet = o->quiet };
		r = store_create_filled(t, w->name, debian_yaml, fill, &src, e);
		store_close(&s);
		return r;
	}
	if (!r)
		r = source_lock(&m, &yaml, e);
	if (!r && thin_plan(&plan, yaml, m.fd, e)) /* could machines be made of it? */
		r = err_prefix(e, "machine '%s'", m.name);
	thin_dispose(&plan);
	if (!r)
		r = store_create_filled(t, w->name, yaml, fill, &src, e);
	if (m.fd >= 0)
		store_vm_close(&m);
	store_close(&s);
	return r;
}

static int create(int argc, char **argv, struct err *e)
{
	struct run_words w;
	struct run_options o;
	struct store t = { .fd = -1 };
	int r = run_words_expand(&w, argc, argv, true, e);

	run_options_init(&o);
	if (!r)
		r = options_parse(run_options, &o, w.argc, w.argv, e);
	if (!r && !w.name)
		r = err_set(e, EINVAL, "usage: ospite template create NAME [MACHINE|FILE... [OPTION...]]");
	if (!r && !w.template && !w.image && !w.kernel && !strcmp(w.name, TEMPLATE_DEBIAN))
		w.template = w.name;
	if (!r)
		r = store_templates_open(&t, o.root, e);
	if (!r && !faccessat(t.fd, w.name, F_OK, AT_SYMLINK_NOFOLLOW))
		r = err_set(e, EEXIST, "there is a template '%s' already: choose another name, or remove it with 'ospite template rm %s'", w.name, w.name);
	if (!r)
		r = w.template ? from_machine(&t, &w, &o, e) : from_files(&t, &w, &o, e);
	if (!r && !o.quiet)
		puts(w.name);
	store_close(&t);
	run_options_dispose(&o);
	run_words_dispose(&w);
	return r;
}

/* ---- a machine made of one */

struct maker {
	const struct store_vm *template;
	struct thin thin;
	uint64_t size;
	bool temporary;
};

static int fill_machine(void *opaque, int folder, struct err *e)
{
	const struct maker *m = opaque;
	int r = thin_link(&m->thin, m->template->fd, folder, e);

	if (!r)
		r = folder_copy(m->template->fd, folder, &m->thin, true, e);
	if (!r)
		r = thin_make(&m->thin, folder, m->size, e);
	return r || !m->temporary ? r : store_write(folder, "temporary", "This machine is removed at its end.\n", e);
}

/* The template's vm.yaml with overlays for disks and what was given over it. */
static int machine_yaml(const struct maker *m, const struct run_words *w, const char *yaml, char **out, struct err *e)
{
	const char *from[] = { w->template };
	char *thin = NULL, *merged = NULL;
	struct run_options check;
	int r = thin_yaml(&m->thin, yaml, &thin, e);

	if (!r)
		r = run_config_merge(thin, w->argc, w->argv, &merged, e);
	if (!r)
		r = run_config_edit(merged, "template", from, 1, out, e);
	if (!r) {
		run_options_init(&check);
		r = run_config_load(&check, *out, e);
		run_options_dispose(&check);
	}
	free(thin);
	free(merged);
	return r;
}

static int open_template(struct store *t, const struct run_words *w, bool quiet, struct store_vm *m, struct err *e)
{
	struct source src = { .templates = t->path, .quiet = quiet };
	int r = store_vm_open(t, w->template, m, e);

	if (r == -ENOENT && !strcmp(w->template, TEMPLATE_DEBIAN)) {
		r = store_create_filled(t, w->template, debian_yaml, fill, &src, e);
		if (!r || r == -EEXIST) /* somebody else made it meanwhile */
			r = store_vm_open(t, w->template, m, e);
	} else if (r == -ENOENT) {
		err_set(e, ENOENT, "there is no template '%.60s' ('ospite template list'), and no ending says what file it is: write ./%.60s for "
				   "a kernel", w->template, w->template);
	}
	return r;
}

int template_use(struct store *s, const struct run_words *w, const struct run_options *o, const char *name, struct err *e)
{
	struct maker m = { .size = o->disk_size ? o->disk_size : TEMPLATE_DISK, .temporary = o->remove };
	char *yaml _free_ = NULL, *text _free_ = NULL, root[PATH_MAX];
	struct store_vm template = { .fd = -1, .lock = -1 };
	struct store t;
	int r;

	store_root(s, root);
	r = store_templates_open(&t, root, e);
	if (r)
		return r;
	m.template = &template;
	r = open_template(&t, w, o->quiet, &template, e);
	if (!r) /* it does not go before the machine has it all */
		r = store_vm_lock_shared(&template, e);
	if (!r)
		r = store_read(template.fd, "vm.yaml", &yaml, e);
	if (!r && thin_plan(&m.thin, yaml, template.fd, e))
		r = err_prefix(e, "template '%.60s'", w->template);
	if (!r)
		r = machine_yaml(&m, w, yaml, &text, e);
	if (!r)
		r = store_create_filled(s, name, text, fill_machine, &m, e);
	thin_dispose(&m.thin);
	if (template.fd >= 0)
		store_vm_close(&template);
	store_close(&t);
	return r;
}

/* ---- listing and removing */

/* Machines made of a template: their names in one text, to be freed. */
static char *users_of(struct store *s, const char *template, unsigned *count)
{
	char **names, *list = NULL, *values[CONFIG_LIST];
	unsigned n, nvalues;
	size_t size;
	FILE *f;

	*count = 0;
	if (store_list(s, &names, &n, NULL))
		return NULL;
	f = open_memstream(&list, &size);
	for (unsigned i = 0; i < n; i++) {
		char *yaml _free_ = NULL;
		struct store_vm m;

		if (!store_vm_open(s, names[i], &m, NULL)) {
			store_read(m.fd, "vm.yaml", &yaml, NULL);
			store_vm_close(&m);
		}
		if (yaml && !run_config_values(yaml, "template", values, &nvalues, NULL)) {
			if (f && nvalues && !strcmp(values[0], template))
				fprintf(f, "%s%s", (*count)++ ? ", " : "", names[i]);
			run_config_values_free(values, &nvalues);
		}
		free(names[i]);
	}
	free(names);
	if (f)
		fclose(f);
	return list;
}

static uint64_t disk_usage(int folder)
{
	uint64_t sum = 0;
	int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;
	struct stat st;

	while (d && (entry = readdir(d)))
		if (!fstatat(folder, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) && S_ISREG(st.st_mode))
			sum += (uint64_t)st.st_blocks * 512;
	if (d)
		closedir(d);
	else
		cleanup_close(&fd);
	return sum;
}

static int list(const struct life_args *a, struct store *t, struct store *s, struct err *e)
{
	static const struct column columns[] = { { "name", "NAME" }, { "size", "SIZE", true }, { "made", "MADE" }, { "machines", "MACHINES" }, { NULL } };
	json_t *rows = json_array();
	char **names;
	unsigned n, users;
	int r = store_list(t, &names, &n, e);

	for (unsigned i = 0; i < n && !r; i++) {
		char *by _free_ = NULL, text[32], made[40] = "";
		struct store_vm m;
		struct stat st;
		struct tm tm;

		if (!store_vm_open(t, names[i], &m, NULL)) {
			uint64_t size = disk_usage(m.fd);

			if (!fstatat(m.fd, "vm.yaml", &st, 0) && gmtime_r(&st.st_mtime, &tm))
				strftime(made, sizeof(made), a->json ? "%Y-%m-%dT%H:%M:%SZ" : "%Y-%m-%d", &tm);
			by = users_of(s, names[i], &users);
			json_array_append_new(rows, json_pack("{s:s,s:o,s:s,s:s}", "name", names[i], "size",
							      a->json ? json_integer((json_int_t)size) : json_string(short_size(size, text)),
							      "made", made, "machines", by ? by : ""));
			store_vm_close(&m);
		}
		free(names[i]);
	}
	if (!r)
		free(names);
	if (!r && a->quiet)
		for (size_t i = 0; i < json_array_size(rows); i++)
			puts(json_string_value(json_object_get(json_array_get(rows, i), "name")));
	else if (!r)
		table_print(rows, columns, a->json);
	json_decref(rows);
	return r;
}

static int rm(const struct life_args *a, struct store *t, struct store *s, struct err *e)
{
	int r = 0;

	for (unsigned i = 0; i < a->nwords && !r; i++) {
		char *users _free_ = NULL;
		struct store_vm m;
		unsigned n = 0;

		r = store_vm_open(t, a->words[i], &m, e);
		if (r)
			break;
		r = store_vm_lock(&m, e); /* no machine is being made of it any more */
		if (!r)
			users = users_of(s, m.name, &n);
		if (!r && n && !a->force)
			r = err_set(e, EBUSY, "template '%s' is what these are made of: %.300s; remove them first (--force: they keep what they have of it)",
				    m.name, users);
		if (!r)
			r = store_vm_remove(t, &m, e);
		if (!r && !a->quiet)
			puts(m.name);
		store_vm_close(&m);
	}
	return r;
}

/* ---- the command */

static const struct option_def list_options[] = { LIFE_JSON, LIFE_QUIET, LIFE_ROOT, LIFE_END };
static const struct option_def rm_options[] = {
	{ "force", NULL, "also if machines are made of it: they keep what they have", life_set_force }, LIFE_ROOT, LIFE_QUIET, LIFE_END,
};

static const struct verb {
	const char *name, *args, *help;
	const struct option_def *options;
	unsigned min;
	int (*run)(const struct life_args *a, struct store *t, struct store *s, struct err *e);
} verbs[] = {
	{ "create", "NAME [MACHINE|FILE...]", "make one: of a machine, of files; 'debian' by itself", run_options, 1, NULL },
	{ "list", "", "show what there is, and which machines are made of it", list_options, 0, list },
	{ "rm", "NAME...", "remove templates", rm_options, 1, rm },
	{ NULL, NULL, NULL, NULL, 0, NULL },
};

bool template_verb(unsigned i, struct verb_help *v)
{
	if (i + 1 >= ARRAY_LEN(verbs))
		return false;
	*v = (struct verb_help){ verbs[i].name, verbs[i].args, verbs[i].help, verbs[i].options };
	return true;
}

static void print_help(const struct verb *v)
{
	if (v) {
		printf("Usage: ospite template %s %s [OPTION...]\n%c%s.\n", v->name, v->args, v->help[0] & ~0x20, v->help + 1);
		if (v->run)
			options_print(stdout, v->options);
		else
			puts("Options are those of 'ospite run'; files are copied. 'ospite template create debian' makes a Debian\n"
			     "of the mirror this host uses, as 'ospite run debian' does when there is none.");
		return;
	}
	puts("Usage: ospite template VERB [OPTION...]\n");
	for (v = verbs; v->name; v++)
		printf("  %-7s %-23s %s\n", v->name, v->args, v->help);
	puts("\n'ospite run TEMPLATE [NAME]' makes a machine of it and starts it; its disks are overlays.");
}

static int take_word(void *into, const char *word, struct err *e)
{
	struct life_args *a = into;

	a->words[a->nwords++] = word;
	return 0;
}

static int listing(const struct verb *v, int argc, char **argv, struct err *e)
{
	struct life_args a = { .words = calloc((size_t)argc, sizeof(char *)) };
	struct store t = { .fd = -1 }, s = { .fd = -1 };
	int r = a.words ? options_parse_words(v->options, &a, argc, argv, take_word, e) : err_set(e, ENOMEM, "out of memory");

	if (!r && (a.nwords < v->min || (!v->min && a.nwords)))
		r = err_set(e, EINVAL, "usage: ospite template %s %s", v->name, v->args);
	if (!r)
		r = store_templates_open(&t, a.root, e);
	if (!r)
		r = store_open(&s, a.root, e);
	if (!r)
		r = v->run(&a, &t, &s, e);
	store_close(&s);
	store_close(&t);
	free(a.words);
	return r;
}

int cmd_template(int argc, char **argv)
{
	const struct verb *v = verbs;
	const char *names[8], *near;
	struct err e = { 0 };
	unsigned n = 0;

	if (argc < 2 || argv[1][0] == '-') {
		print_help(NULL);
		return argc > 1 && options_want_help(argc, argv) ? 0 : EXIT_OURS;
	}
	while (v->name && strcmp(v->name, argv[1]) && !(v->run == list && !strcmp(argv[1], "ls")))
		names[n++] = v++->name;
	if (!v->name) {
		near = nearest(argv[1], names, n);
		return near ? cli_fail("unknown 'template %.60s'; did you mean 'template %s'?", argv[1], near) :
			      cli_fail("unknown 'template %.60s'; 'ospite template --help' lists the verbs", argv[1]);
	}
	if (options_want_help(argc, argv)) {
		print_help(v);
		return 0;
	}
	return (v->run ? listing(v, argc - 1, argv + 1, &e) : create(argc - 1, argv + 1, &e)) ? cli_fail("%s", e.text) : 0;
}
