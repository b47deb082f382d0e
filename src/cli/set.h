/* SPDX-License-Identifier: Apache-2.0 */
/* ospite set: the two texts that describe a machine (set-text.c), limits (set-limit.c), and what drives both (cmd-set.c). */
#ifndef CLI_SET_H
#define CLI_SET_H

#include "cli/life.h"
#include "cli/run.h"

/* ---- lists of disks and cards in a text */

struct set_list {
	char *item[CONFIG_LIST + 1];
	unsigned n;
};

int set_list_read(struct set_list *l, const char *text, const char *key, struct err *e); /* "net": also what is not said */
int set_list_write(struct set_list *l, char **text, const char *key, struct err *e);
void set_list_free(struct set_list *l);
void set_list_drop(struct set_list *l, unsigned i);
int set_list_find(const struct set_list *l, const char *kind, const char *id);
/* The value of "key=" in "...,key=value,..."; NULL: not there. Its end in *end. */
char *set_key_in(char *item, const char *key, char **end);
void set_key_drop(char *item, const char *key);

/* ---- the two texts */

struct set_texts {
	struct store_vm *m;
	char *vm, *running; /* NULL: it does not run */
	int lock;
};

int set_texts_read(struct set_texts *t, struct store_vm *m, bool runs, struct err *e);
int set_texts_write(struct set_texts *t, struct err *e);
void set_texts_free(struct set_texts *t);
int set_text_add(char **text, const char *key, const char *item, struct err *e);
/* running.yaml as the machine is: what has gone meanwhile, by itself or when it was asked to, is in it no more. */
int set_texts_follow(struct set_texts *t, struct ctl_peer *p, struct err *e);

/* ---- changing */

struct setter {
	struct life_args *a;
	struct store *s;
	struct store_vm *m;
	struct ctl_peer *p; /* NULL: it does not run */
	struct set_texts t;
};

/* The one in vm.yaml that is `id` in the machine that runs (or will be); *index is -1 when there is none. */
int set_vm_entry(struct setter *s, const char *key, const char *id, struct set_list *l, int *index, struct err *e);
int set_limit(struct setter *s, const char *value, struct err *e);
/* One of cpu-weight, cpu-quota, memory-max of the machine's process; "none" takes it away. */
int set_process_limit(struct setter *s, const char *key, const char *value, struct err *e);

#endif
