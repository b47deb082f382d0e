/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Machines as folders: ROOT/machines/NAME with
 *
 *	vm.yaml      what the machine is (store/config.h)
 *	lock         locked by the process that runs it, for as long as it lives
 *	status       what that process says of itself, and how its last run ended; replaced as a whole
 *	saved        the state of a suspended machine; its being there is what makes it suspended
 *	control, console     sockets, while it runs
 *	console.log, log     what the guest wrote to its console; what we have to say
 *
 * Folders appear and go by rename, under the root's lock; what begins with a dot is half-made or half-removed, and is
 * removed by whoever next holds that lock. The lock file decides what a machine is: whatever a process that was killed
 * has left behind, the machine is not running when nobody holds its lock.
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/err.h"

#define STORE_NAME 64

struct store {
	char path[PATH_MAX]; /* ROOT/machines */
	int fd;
	const char *noun; /* machine */
	const char *list; /* the command that lists them */
};

/* NULL: $OSPITE_ROOT, else /var/lib/ospite for root, the XDG data folder for others. Made if need be. */
int store_open(struct store *s, const char *root, struct err *e);
/* Templates: the same kind of folders in ROOT/templates, never run. */
int store_templates_open(struct store *s, const char *root, struct err *e);
/* ROOT, as store_open chooses it; nothing is looked at or made. */
int store_root_choose(const char *root, char path[PATH_MAX], struct err *e);
/* ROOT of this store. */
void store_root(const struct store *s, char root[PATH_MAX]);
void store_close(struct store *s);
/* Letters, digits, '-', '_', '.'; beginning with a letter or digit. */
int store_name_check(const char *name, struct err *e);
/* A name nobody has yet: vm1, vm2, ... */
int store_name_free(struct store *s, char name[STORE_NAME], struct err *e);
/* All names, sorted; free each, then the list. Removes what is half-made. */
int store_list(struct store *s, char ***names, unsigned *count, struct err *e);
/* A folder with this vm.yaml in it, or nothing. */
int store_create(struct store *s, const char *name, const char *yaml, bool temporary, struct err *e);
/* The same with what `fill` puts into the folder; the root's lock is held meanwhile. */
int store_create_filled(struct store *s, const char *name, const char *yaml, int (*fill)(void *opaque, int folder, struct err *e),
			void *opaque, struct err *e);

enum store_state { STORE_INACTIVE, STORE_RUNNING, STORE_SUSPENDED, STORE_CRASHED };

struct store_vm {
	char name[STORE_NAME];
	int fd;   /* of the folder */
	int lock; /* -1: not ours */
	const char *noun; /* machine, or template */
};

struct store_status {
	enum store_state state;
	pid_t pid;         /* while it runs; 0: it has not yet said */
	int64_t started, ended; /* seconds since 1970, 0: never */
	int exit_status;   /* of the last run */
	char reason[200];  /* how the last run ended */
};

int store_vm_open(struct store *s, const char *name, struct store_vm *m, struct err *e);
void store_vm_close(struct store_vm *m);
/*
 * With a clear line: -EBUSY when it runs, -EAGAIN when another command works on it. Kept until store_vm_close, inherited by fork. The first
 * is for who works on a folder, the second for who only reads it, as several may, the third for who runs the machine.
 */
int store_vm_lock(struct store_vm *m, struct err *e);
int store_vm_lock_shared(struct store_vm *m, struct err *e);
int store_vm_lock_run(struct store_vm *m, struct err *e);
/* Waits until nobody runs it; -ETIMEDOUT. ms < 0: for ever. Takes no lock. */
int store_vm_wait(struct store_vm *m, int64_t ms, struct err *e);
/* The same, and how it ended, be its folder gone by then. */
int store_vm_wait_end(struct store_vm *m, int64_t ms, struct store_status *st, struct err *e);
int store_vm_status(struct store_vm *m, struct store_status *st, struct err *e);
const char *store_state_name(enum store_state state);
bool store_vm_temporary(struct store_vm *m);

/* With the lock held: what is written to `status`. */
int store_vm_say_running(struct store_vm *m, bool sync, struct err *e); /* sync: on disk before it returns */
int store_vm_say_ended(struct store_vm *m, bool crashed, int exit_status, const char *reason, struct err *e);
/* With the lock held: remove what a process that was killed has left: sockets, temporary files. */
void store_vm_tidy(struct store_vm *m);
/* Is this what such a process was writing to (NAME.tmp.NUMBER)? */
bool store_is_half(const char *name);
/* With the lock held. */
int store_vm_remove(struct store *s, struct store_vm *m, struct err *e);
int store_vm_rename(struct store *s, struct store_vm *m, const char *to, struct err *e);

/* A small file as a string; *text is to be freed. -EFBIG beyond a mebibyte. */
int store_read(int folder, const char *name, char **text, struct err *e);
/* Replaced as a whole, on disk when this returns. */
int store_write(int folder, const char *name, const char *text, struct err *e);
/* The same, but it may be empty or not there after the host has gone down. */
int store_write_quick(int folder, const char *name, const char *text, struct err *e);

#endif
