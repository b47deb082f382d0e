/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a machine is made of: the options of `ospite run`, which are the keys of vm.yaml as well; and the process that runs
 * one, in the terminal or with a folder of its own.
 */
#ifndef CLI_RUN_H
#define CLI_RUN_H

#include "board/pc.h"
#include "cli/cli.h"
#include "store/config.h"
#include "store/store.h"
#include "vm/limits.h"
#include "vm/vm.h"

#define MODULES_MAX 32
#define SSH_KEYS 16
#define RUN_VIEWS 16

struct run_options {
	struct vm_config vm;
	struct pc_config pc;
	struct pc_module module[MODULES_MAX];
	char *module_text[MODULES_MAX];
	char *disk_text[PC_DISKS], *port_text[PC_PORTS], *vsock_text, *share_text[PC_SHARES];
	struct limits limits;
	bool autostart; /* 'ospite start --autostart' starts it */
	const char *user; /* root's: who runs the machine */
	bool unconfined;
	const char *view[RUN_VIEWS]; /* folders its process may see beside its own */
	unsigned nviews;
	bool vga; /* a display adapter without firmware */
	bool net_none, append_given, stats, require_kvm, sized;
	const char *log, *trace, *gdb, *save_to, *restore, *control;
	const char *root, *folder_name; /* --detach: the machine gets a folder */
	const char *template; /* what it is made of */
	uint64_t disk_size;   /* of its first disk, then */
	/* First-boot data (cli/seed.h). */
	bool seed;
	const char *hostname, *user_data, *ssh_key[SSH_KEYS];
	unsigned nssh_keys;
	bool detach, remove, quiet;
	char **owned; /* texts that live as long as this */
	unsigned nowned;
};

/* ---- options (run-options.c, run-check.c) */

extern const struct option_def run_options[];
int run_set_name(void *into, const char *value, struct err *e);
void run_options_init(struct run_options *o);
void run_options_dispose(struct run_options *o);
/* The value of cpu-weight, cpu-quota or memory-max. */
int run_limit_parse(struct limits *l, const char *key, const char *value, struct err *e);
/* What no single option can tell. `console`: of the first serial port when none is given. */
int run_options_check(struct run_options *o, const char *console, struct err *e);

/* ---- configuration (machine-config.c) */

/* The keys of vm.yaml, in the order of run_options; *count of them, at most CONFIG_KEYS. */
void run_config_keys(struct config_key *keys, unsigned *count);
/* vm.yaml into options, checked as far as possible without making the machine. */
int run_config_load(struct run_options *o, const char *text, struct err *e);
/* The text of a vm.yaml for what was given on a command line. */
int run_config_text(int argc, char **argv, char **text, struct err *e);
/* The same, laid over another text: lists get longer, what else is given replaces. */
int run_config_merge(const char *base, int argc, char **argv, char **text, struct err *e);
/* Copies of the values one key has in a text (CONFIG_LIST at most). */
int run_config_values(const char *text, const char *key, char **values, unsigned *n, struct err *e);
void run_config_values_free(char **values, unsigned *n);
/* Would it start, as far as its configuration goes? */
int run_config_check(const char *text, struct err *e);
/* A value of OPTION_PATH as it is kept: the path in it is absolute if it is a file here. To be freed. */
char *run_config_absolute(const char *value);
int run_config_edit(const char *text, const char *key, const char *const *values, unsigned n, char **out, struct err *e);

/* ---- the process (run-process.c) */

/* A machine with a folder: the process's working folder, locked by it. */
struct run_home {
	struct store *store;
	struct store_vm *vm;
	bool was_suspended;
	void (*ready)(void *opaque); /* it runs */
	void *opaque;
};

/* From start to end; home may be NULL. The exit status, or -errno. */
int run_process(struct run_options *options, struct run_home *home, struct err *e);

/* In a process of its own, in the background: returns when it runs. m is locked; the lock goes to it. (machine-start.c) */
int machine_start(struct store *s, struct store_vm *m, struct err *e);

#endif
