/* SPDX-License-Identifier: Apache-2.0 */
/* What the commands about machines share: options, the machines named, tables, the way to a running one. */
#ifndef CLI_LIFE_H
#define CLI_LIFE_H

#include <jansson.h>
#include "cli/cli.h"
#include "ctl/client.h"
#include "store/store.h"

#define ANSWER_MS 5000 /* how long a running machine may take to answer */

enum life_set { LIFE_SET_MEMORY, LIFE_SET_DISK, LIFE_SET_NET, LIFE_SET_REMOVE, LIFE_SET_LIMIT, LIFE_SET_LINK,
		LIFE_SET_WEIGHT, LIFE_SET_QUOTA, LIFE_SET_MAX };
struct life_change { /* of 'ospite set' */
	enum life_set kind;
	const char *value;
};

struct life_args {
	const char *root;
	const char *drive, *format, *user, *until;
	bool json, quiet, all, force, follow, edit, temporary, once, own_log, text, eject, input, direct, thin, mapped;
	bool autostart;
	bool rest; /* the second word and what follows is somebody else's command line */
	uint64_t time, lines; /* UINT64_MAX: not given */
	const char **set; /* --set KEY=VALUE, in order; values of words and these are argv's */
	const char **unset;
	unsigned nset, nunset;
	struct life_change *change; /* in order */
	unsigned nchange;
	const char **words;
	unsigned nwords;
};

/* Options that several commands have, for their tables. */
#define LIFE_ROOT { "root", "FOLDER", "where machines are [the user's data folder]", life_set_root }
#define LIFE_JSON { "json", NULL, "for programs", life_set_json }
#define LIFE_QUIET { "quiet", NULL, "names only, or nothing", life_set_quiet }
#define LIFE_ALL { "all", NULL, "all machines", life_set_all }
extern const struct option_def engines_options[]; /* of 'ospite engines' (cmd-engines.c) */
#define LIFE_END { NULL, NULL, NULL, NULL, 0 }
int life_set_root(void *into, const char *value, struct err *e);
int life_set_json(void *into, const char *value, struct err *e);
int life_set_quiet(void *into, const char *value, struct err *e);
int life_set_all(void *into, const char *value, struct err *e);
int life_set_force(void *into, const char *value, struct err *e);
int life_set_follow(void *into, const char *value, struct err *e);
int life_set_time(void *into, const char *value, struct err *e);
int life_set_lines(void *into, const char *value, struct err *e);

/* One command: how it is called, what it does, its options. */
struct life_command {
	const char *name, *usage, *help;
	const struct option_def *options;
	unsigned min, max; /* words; with --all none are needed if min is 1 */
	int (*run)(const struct life_command *c, struct life_args *a, struct store *s, struct err *e);
	/* or for each machine named (all of --all that fit): 0 or -errno, e set */
	int (*each)(const struct life_command *c, struct life_args *a, struct store *s, struct store_vm *m, struct err *e);
	bool running_only; /* --all: of those that run */
	bool rest;         /* NAME COMMAND ARGUMENT...: options of ours end with COMMAND; `run` gives the exit status */
};
extern const struct life_command life_commands[]; /* ends with a NULL name */
const struct life_command *life_find(const char *name);
int cmd_life(int argc, char **argv); /* the main of all of them: argv[0] says which */

/* The machine's control socket; an error that names the state when it does not run. */
int life_connect(struct store_vm *m, struct ctl_peer **p, struct err *e);
/* life_ask with a file brought along before: `fd` under the name `file`; NULL: none. */
int life_ask_with(struct life_args *a, struct store *s, const char *file, int fd, const char *command, json_t *arguments, json_t **result,
		  struct err *e);
/* One command to the machine a->words[0]. `arguments` is taken over; `result` may be NULL. */
int life_ask(struct life_args *a, struct store *s, const char *command, json_t *arguments, json_t **result, struct err *e);
/* inactive, running, paused, suspended, crashed */
const char *life_state(struct store_vm *m, const struct store_status *st);
/* An object that describes it, as ps and info show. */
json_t *life_describe(struct store_vm *m);

struct column {
	const char *key, *title;
	bool right;
};
/* Rows (an array of objects, borrowed) as JSON or as a table with a line of titles; columns end with a NULL key. */
void table_print(json_t *rows, const struct column *columns, bool json);
void print_json(json_t *value);
/* "3 min", "2 h", "5 d"; "1.5 GiB". */
const char *short_time(int64_t seconds, char text[32]);
const char *short_size(uint64_t bytes, char text[32]);

/* In files of their own. */
int life_ps(const struct life_command *c, struct life_args *a, struct store *s, struct err *e);
int life_info(const struct life_command *c, struct life_args *a, struct store *s, struct err *e);
int life_start(const struct life_command *c, struct life_args *a, struct store *s, struct store_vm *m, struct err *e);
int life_stop(const struct life_command *c, struct life_args *a, struct store *s, struct store_vm *m, struct err *e);
int life_kill(const struct life_command *c, struct life_args *a, struct store *s, struct store_vm *m, struct err *e);
int life_simple(const struct life_command *c, struct life_args *a, struct store *s, struct store_vm *m, struct err *e);
int life_suspend(const struct life_command *c, struct life_args *a, struct store *s, struct store_vm *m, struct err *e);
int life_wait(const struct life_command *c, struct life_args *a, struct store *s, struct store_vm *m, struct err *e);
int life_rm(const struct life_command *c, struct life_args *a, struct store *s, struct store_vm *m, struct err *e);
bool life_autostarts(struct store_vm *m); /* its vm.yaml says so */
int life_set(const struct life_command *c, struct life_args *a, struct store *s, struct err *e);
int life_rename(const struct life_command *c, struct life_args *a, struct store *s, struct err *e);
int life_config(const struct life_command *c, struct life_args *a, struct store *s, struct err *e);
int life_console(const struct life_command *c, struct life_args *a, struct store *s, struct err *e);
int life_logs(const struct life_command *c, struct life_args *a, struct store *s, struct err *e);
int life_events(const struct life_command *c, struct life_args *a, struct store *s, struct err *e);
int life_stats(const struct life_command *c, struct life_args *a, struct store *s, struct err *e);
int life_top(struct life_args *a, struct store *s, struct err *e);
int life_screenshot(const struct life_command *c, struct life_args *a, struct store *s, struct err *e);
int life_medium(const struct life_command *c, struct life_args *a, struct store *s, struct err *e);
int life_sendkey(const struct life_command *c, struct life_args *a, struct store *s, struct err *e);
int life_engine(const struct life_command *c, struct life_args *a, struct store *s, struct err *e);
int life_ctl(const struct life_command *c, struct life_args *a, struct store *s, struct err *e);

int life_clone(const struct life_command *c, struct life_args *a, struct store *s, struct err *e);
int life_doctor(const struct life_command *c, struct life_args *a, struct err *e); /* needs no store */
int life_exec(const struct life_command *c, struct life_args *a, struct store *s, struct err *e);
int life_ssh(const struct life_command *c, struct life_args *a, struct store *s, struct err *e);
int life_cp(const struct life_command *c, struct life_args *a, struct store *s, struct err *e);

/* running.yaml as the machine is at the moment, before it is suspended (cmd-set.c). */
int life_follow(struct store_vm *m, struct ctl_peer *p, struct err *e);
/* Files for the machine that runs, before the command that names them (bring.c). */
int life_bring_file(struct ctl_peer *p, const char *path, struct err *e);
int life_bring_disk(struct ctl_peer *p, const char *spec, struct err *e);
/* Those that a command of the control socket names. */
int life_bring_arguments(struct ctl_peer *p, const char *command, const json_t *arguments, struct err *e);
/* A descriptor that can be read when somebody wants this command to end (SIGTERM, SIGINT, SIGHUP): the terminal is put right first. */
int life_signals(void);
int64_t life_now_ms(void); /* of a clock that does not jump */

/* Kills what runs m, if anything still does, and waits for it. */
int life_end_process(struct store_vm *m, struct err *e);

#endif
