/* SPDX-License-Identifier: Apache-2.0 */
/* ospite run: one machine in this terminal, or with a folder in the background. */
#include <errno.h>
#include <string.h>
#include "base/log.h"
#include "base/trace.h"
#include "cli/life.h"
#include "cli/run.h"
#include "cli/seed.h"
#include "cli/template.h"

static int show_help(int argc, char **argv)
{
	if (options_print_asked(stdout, run_options, argc, argv))
		return 0;
	puts("Usage: ospite run FILE...|TEMPLATE [NAME] [OPTION...]  (.qcow2 .img .iso kernel)");
	options_print_often(stdout, run_options);
	puts("One of them: 'ospite run --help OPTION'; all: 'ospite run --help all'.\n"
	     "Ctrl-A X ends the machine, Ctrl-A H helps. Exit status: 0 after power off,\n"
	     "reset, leaving; the exit port's; 125 our error, 126 guest crash, 128+N signal N.");
	return 0;
}

static void trace_help_line(void *opaque, const char *name, const char *help)
{
	printf("  %-8s %s\n", name, help);
}

static int show_trace_help(void)
{
	puts("Usage: --trace LIST    categories separated by commas, or all; lines go to --log FILE");
	trace_help(trace_help_line, NULL);
	return 0;
}

/* A machine just made: started, or gone again. */
static int start_new(struct store *s, const char *name, struct err *e)
{
	struct store_vm m;
	int r = store_vm_open(s, name, &m, e);

	if (r)
		return r;
	r = store_vm_lock_run(&m, e);
	if (!r)
		r = machine_start(s, &m, e);
	if (r && store_vm_lock(&m, NULL) == 0)
		store_vm_remove(s, &m, NULL); /* all or nothing */
	store_vm_close(&m);
	return r;
}

static int show_console(struct store *s, const char *name, struct err *e)
{
	struct life_args a = { .words = &name, .nwords = 1 };

	return life_console(life_find("console"), &a, s, e);
}

/* Create and start; of a template: with its console here unless --detach. */
static int run_with_folder(struct run_options *o, const struct run_words *w, struct err *e)
{
	char *text _free_ = NULL, name[STORE_NAME];
	struct store s;
	int r;

	if (o->gdb || o->trace || o->stats || o->save_to || o->restore || o->control || o->log)
		return err_set(e, EINVAL, "a machine with a folder keeps its own log, control socket and saved state there: leave --gdb, "
					  "--trace, --stats, --save-to, --restore, --control and --log out");
	r = w->template ? 0 : run_config_text(w->argc, w->argv, &text, e);
	if (!r)
		r = store_open(&s, o->root, e);
	if (r)
		return r;
	snprintf(name, sizeof(name), "%s", o->folder_name ? o->folder_name : "");
	if (o->folder_name)
		r = store_name_check(o->folder_name, e);
	while (!r) { /* two may choose the same free name at once */
		r = o->folder_name ? 0 : store_name_free(&s, name, e);
		if (!r)
			r = w->template ? template_use(&s, w, o, name, e) : store_create(&s, name, text, o->remove, e);
		if (r != -EEXIST || o->folder_name)
			break;
		r = 0;
	}
	if (!r)
		r = start_new(&s, name, e);
	if (!r && !o->quiet)
		puts(name);
	if (!r && !o->detach) {
		fflush(stdout);
		r = show_console(&s, name, e);
	}
	store_close(&s);
	return r;
}

static int run(struct run_options *o, const struct run_words *w, struct err *e)
{
	int r = options_parse(run_options, o, w->argc, w->argv, e);

	if (r)
		return r;
	if (o->trace && !strcmp(o->trace, "help"))
		return show_trace_help();
	if (w->name && o->folder_name)
		return err_set(e, EINVAL, "unexpected '%.60s': --name says another", w->name);
	if (w->name)
		run_set_name(o, w->name, e);
	if (w->template)
		return run_with_folder(o, w, e);
	r = run_options_check(o, "stdio", e);
	if (!r && o->log && log_open(o->log))
		r = err_errno(e, "--log %s: cannot open", o->log);
	if (r)
		return r;
	log_set_level(o->log ? LOG_INFO : LOG_WARN);
	if (o->detach)
		return run_with_folder(o, w, e);
	r = seed_prepare_alone(o, e);
	return r ? r : run_process(o, NULL, e);
}

int cmd_run(int argc, char **argv)
{
	struct run_options o;
	struct run_words w;
	struct err e = { 0 };
	int status;

	if (options_want_help(argc, argv))
		return show_help(argc, argv);
	run_options_init(&o);
	status = run_words_expand(&w, argc, argv, false, &e);
	if (!status)
		status = run(&o, &w, &e);
	run_options_dispose(&o);
	run_words_dispose(&w);
	return status < 0 ? cli_fail("%s", e.text) : status;
}
