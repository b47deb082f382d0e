/* SPDX-License-Identifier: Apache-2.0 */
/* The command line: one file per command, one table of options for parsing, help and suggestions. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <signal.h>
#include <stdio.h>
#include "base/base.h"
#include "base/err.h"

#define EXIT_OURS 125  /* an error of ours */
#define EXIT_GUEST 126 /* the guest crashed */

struct command {
	const char *name, *help;
	int (*main)(int argc, char **argv); /* argv[0] is the command's name; gives the exit status */
};
extern const struct command commands[]; /* ends with a NULL name */

/* What ends a program: SIGTERM, SIGINT, SIGHUP, but for those whoever started us has ignored (nohup, a shell's background). */
void ends_set(sigset_t *set);
int cmd_run(int argc, char **argv);
int cmd_engines(int argc, char **argv);
int cmd_image(int argc, char **argv);
int cmd_net(int argc, char **argv);
int cmd_template(int argc, char **argv);
int cmd_completion(int argc, char **argv);
int cmd_create(int argc, char **argv);
int cmd_help(int argc, char **argv);
int cmd_version(int argc, char **argv);

/* In place: what a terminal could take for a command (control characters, C1 in UTF-8 too) becomes '?'. */
void text_clean(char *text);
/* To standard output, cleaned, but for ends of lines where there may be some. */
void text_print(const char *text, bool lines);
/* "ospite: TEXT" on standard error, as one line; gives EXIT_OURS. */
int cli_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* ---- options (options.c) ---- */

enum option_flags {
	OPTION_LIST = 1, /* may be given several times */
	OPTION_PATH = 2, /* a file, or FILE,... or ...,file=FILE,...; made absolute where it is kept */
	OPTION_HERE = 4, /* of this command, not of the machine: not kept in vm.yaml */
	OPTION_OFTEN = 8, /* explained by the --help that fits a screen */
};

struct option_def {
	const char *name; /* without the dashes */
	const char *arg;  /* NULL: takes none */
	const char *help;
	/* value is NULL when it takes none. 0, or -errno with e saying what is wrong with the value. */
	int (*set)(void *into, const char *value, struct err *e);
	unsigned flags;
};

/* Of the commands that have verbs: the verb number i, false beyond the last. For help, completion, the manual page. */
struct verb_help {
	const char *name, *args, *help;
	const struct option_def *options;
};
bool image_verb(unsigned i, struct verb_help *v);
bool net_verb(unsigned i, struct verb_help *v);
bool template_verb(unsigned i, struct verb_help *v);

/* Long options with '=' or a blank; all must be in the table (which ends with a NULL name). */
int options_parse(const struct option_def *defs, void *into, int argc, char **argv, struct err *e);
/*
 * The same, but what is no option goes to `word`; "-x" is the option whose name begins with x, if one does. After "--", or
 * when `word` gives OPTIONS_STOP, everything is a word.
 */
#define OPTIONS_STOP 1
int options_parse_words(const struct option_def *defs, void *into, int argc, char **argv,
			int (*word)(void *into, const char *word, struct err *e), struct err *e);
/* Each option of a command line and its value (NULL: it takes none), known to be in the table. */
int options_each(const struct option_def *defs, int argc, char **argv,
		 int (*fn)(void *opaque, const struct option_def *def, const char *value, struct err *e),
		 int (*word)(void *opaque, const char *word, struct err *e), void *opaque, struct err *e);
/* True when --help or -h is among the arguments (before a "--"). */
bool options_want_help(int argc, char **argv);
void options_print(FILE *out, const struct option_def *defs);
/* For a command with more options than fit a screen: what is used often, and the names of the others. */
void options_print_often(FILE *out, const struct option_def *defs);
/* What follows --help, "all" or the name of an option (with or without dashes): print that. False when it is neither. */
bool options_print_asked(FILE *out, const struct option_def *defs, int argc, char **argv);

/* "512M", "2G", "64k"; a bare number counts MiB. */
int parse_size(const char *text, uint64_t *out, struct err *e);
/* Decimal or 0x hexadecimal within min..max. */
int parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *out, struct err *e);
/* Pairs of others' word and ours, ending with NULL. */
const char *known_as(const char *word, const char *const (*table)[2]);
/* The one of names (count) nearest to word, if near enough; else NULL. */
const char *nearest(const char *word, const char *const *names, unsigned count);

#endif
