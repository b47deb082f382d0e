/* SPDX-License-Identifier: Apache-2.0 */
/* Commands about a machine's folder: create, rename, config. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>
#include "backend/blk.h"
#include "cli/life.h"
#include "cli/run.h"
#include "cli/template.h"
#include "cli/words.h"

/* ---- create: the options of run, and a name */

/* Allowed: it may be put there before the start. But a mistyped name should be noticed now. */
static void note_missing(const struct store *s, const char *machine, const char *path)
{
	if (path && *path && access(path, F_OK) && errno == ENOENT)
		fprintf(stderr, "ospite: note: there is no file %.200s; 'ospite start %s' will look for it%s%.200s%s%s\n", path, machine,
			*path == '/' ? "" : " in ", *path == '/' ? "" : s->path, *path == '/' ? "" : "/", *path == '/' ? "" : machine);
}

static void note_missing_files(const struct store *s, const struct run_options *o)
{
	note_missing(s, o->folder_name, o->pc.kernel);
	note_missing(s, o->folder_name, o->pc.initrd);
	for (unsigned i = 0; i < o->pc.ndisks; i++) {
		struct blk_spec spec;

		if (!o->pc.disk[i].spec || blk_spec_parse(&spec, o->pc.disk[i].spec, NULL))
			continue;
		if (!spec.nbd)
			note_missing(s, o->folder_name, spec.path);
		blk_spec_dispose(&spec);
	}
}

static int create(struct run_options *o, const struct run_words *w, struct err *e)
{
	char *text _free_ = NULL;
	struct store s;
	int r = options_parse(run_options, o, w->argc, w->argv, e);

	if (!r && w->name && o->folder_name)
		r = err_set(e, EINVAL, "unexpected '%.60s': --name says another", w->name);
	if (w->name)
		o->folder_name = w->name;
	if (!r && !o->folder_name)
		r = err_set(e, EINVAL, "usage: ospite create NAME [FILE...|TEMPLATE] [OPTION...]; the options are those of 'ospite run'");
	if (!r && (o->gdb || o->trace || o->stats || o->save_to || o->restore || o->control || o->log || o->detach || o->remove))
		r = err_set(e, EINVAL, "--gdb, --trace, --stats, --save-to, --restore, --control, --log, --detach and --rm are not for create");
	if (!r)
		r = store_name_check(o->folder_name, e);
	if (!r && w->template) {
		r = store_open(&s, o->root, e);
		if (r)
			return r;
		r = template_use(&s, w, o, o->folder_name, e);
		store_close(&s);
		if (!r && !o->quiet)
			puts(o->folder_name);
		return r;
	}
	if (!r)
		r = run_options_check(o, "console:console", e);
	if (!r)
		r = run_config_text(w->argc, w->argv, &text, e);
	if (!r)
		r = store_open(&s, o->root, e);
	if (r)
		return r;
	r = store_create(&s, o->folder_name, text, false, e);
	if (!r && !o->quiet)
		note_missing_files(&s, o);
	store_close(&s);
	if (!r && !o->quiet)
		puts(o->folder_name);
	return r;
}

int cmd_create(int argc, char **argv)
{
	struct run_options o;
	struct run_words w;
	struct err e = { 0 };
	int r;

	if (options_want_help(argc, argv)) {
		puts("Usage: ospite create NAME [FILE...|TEMPLATE] [OPTION...]\n"
		     "Makes the folder of a machine; 'ospite start NAME' starts it. The options are those of\n"
		     "'ospite run', kept in its vm.yaml: 'ospite config NAME' shows and changes them. The first\n"
		     "serial port is its console: 'ospite console NAME'. Files are what they are for 'run'.\n"
		     "Example: ospite create web --kernel vmlinuz --initrd initrd --append console=ttyS0 --memory 512M");
		return 0;
	}
	run_options_init(&o);
	r = run_words_expand(&w, argc, argv, true, &e);
	if (!r)
		r = create(&o, &w, &e);
	run_options_dispose(&o);
	run_words_dispose(&w);
	return r ? cli_fail("%s", e.text) : 0;
}

int life_rename(const struct life_command *c, struct life_args *a, struct store *s, struct err *e)
{
	struct store_vm m;
	int r = store_vm_open(s, a->words[0], &m, e);

	if (r)
		return r;
	r = store_vm_lock(&m, e);
	if (!r)
		r = store_vm_rename(s, &m, a->words[1], e);
	store_vm_close(&m);
	if (!r && !a->quiet)
		puts(a->words[1]);
	return r;
}

/* ---- config */

static bool same_key(const char *set, const char *other)
{
	size_t n = strcspn(set, "=");

	return n == strcspn(other, "=") && !strncmp(set, other, n);
}

/* All the values that --set gives this key, at its first. */
static int edit_one(struct life_args *a, unsigned first, char **text, struct err *e)
{
	const char *values[CONFIG_LIST], *at = a->set[first];
	char *next, key[64];
	unsigned n = 0;
	int r;

	for (unsigned i = 0; i < first; i++)
		if (same_key(a->set[i], at))
			return 0;
	for (unsigned i = first; i < a->nset && n < CONFIG_LIST; i++)
		if (same_key(a->set[i], at))
			values[n++] = strchr(a->set[i], '=') + 1;
	snprintf(key, sizeof(key), "%.*s", (int)strcspn(at, "="), at);
	r = run_config_edit(*text, key, values, n, &next, e);
	if (r)
		return r;
	free(*text);
	*text = next;
	return 0;
}

static int edit_all(struct life_args *a, char **text, struct err *e)
{
	char *next;
	int r = 0;

	for (unsigned i = 0; i < a->nunset && !r; i++) {
		r = run_config_edit(*text, a->unset[i], NULL, 0, &next, e);
		if (!r) {
			free(*text);
			*text = next;
		}
	}
	for (unsigned i = 0; i < a->nset && !r; i++)
		r = edit_one(a, i, text, e);
	return r;
}

/* What others change must not be lost: this is held from reading vm.yaml until it is written. Goes with the folder's descriptor. */
static int text_lock(struct store_vm *m, struct err *e)
{
	return flock(m->fd, LOCK_EX) ? err_errno(e, "cannot lock the folder of machine '%s'", m->name) : 0;
}

/* An editor may be open for days: the lock is taken after it. */
static int same_still(struct store_vm *m, const char *was, struct err *e)
{
	char *now _free_ = NULL;
	int r = text_lock(m, e);

	if (!r)
		r = store_read(m->fd, "vm.yaml", &now, e);
	return r || !strcmp(now, was) ? r : err_set(e, EAGAIN, "another command has changed vm.yaml meanwhile");
}

static int edit_by_hand(struct store_vm *m, char **text, struct err *e)
{
	const char *editor = getenv("VISUAL") ?: getenv("EDITOR") ?: "vi";
	char name[] = "/tmp/ospite-config-XXXXXX.yaml", command[4200];
	int fd _close_ = mkstemps(name, 5);
	char *was = *text, *now = NULL;
	int r = 0;

	if (fd < 0)
		return err_errno(e, "cannot make a temporary file");
	if (write(fd, was, strlen(was)) != (ssize_t)strlen(was))
		r = err_errno(e, "cannot write %s", name);
	snprintf(command, sizeof(command), "%.4000s %s", editor, name);
	if (!r && system(command))
		r = err_set(e, ECANCELED, "the editor (%.100s) failed; nothing is changed", editor);
	if (!r)
		r = store_read(-1, name, &now, e);
	if (!r && (run_config_check(now, e) || same_still(m, was, e))) {
		err_prefix(e, "nothing is changed (your text is in %s)", name);
		free(now);
		return -e->code;
	}
	unlink(name);
	if (r) {
		free(now);
		return r;
	}
	free(was);
	*text = now;
	return 0;
}

int life_config(const struct life_command *c, struct life_args *a, struct store *s, struct err *e)
{
	char *text = NULL;
	struct store_status st;
	struct store_vm m;
	int r = store_vm_open(s, a->words[0], &m, e);

	if (r)
		return r;
	if (!a->edit && (a->nset || a->nunset))
		r = text_lock(&m, e);
	if (!r)
		r = store_read(m.fd, "vm.yaml", &text, e);
	if (!r && !a->nset && !a->nunset && !a->edit) {
		fputs(text, stdout);
	} else if (!r) {
		r = a->edit ? edit_by_hand(&m, &text, e) : 0;
		if (!r)
			r = edit_all(a, &text, e);
		if (!r)
			r = run_config_check(text, e);
		if (!r)
			r = store_vm_status(&m, &st, e);
		if (!r)
			r = store_write(m.fd, "vm.yaml", text, e);
		if (!r && !a->quiet && st.state == STORE_SUSPENDED)
			fprintf(stderr, "ospite: machine '%s' is suspended and goes on as it was: this counts when it has ended\n", m.name);
		else if (!r && !a->quiet && st.state == STORE_RUNNING)
			fprintf(stderr, "ospite: machine '%s' is running: this counts from its next start on\n", m.name);
	}
	free(text);
	store_vm_close(&m);
	return r;
}
