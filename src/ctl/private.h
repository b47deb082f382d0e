/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the control socket: framing, sessions, the table of commands. */
#ifndef CTL_PRIVATE_H
#define CTL_PRIVATE_H

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include "base/base.h"
#include "ctl/ctl.h"

#define CTL_INPUT_MAX (256u << 10) /* one request */
#define CTL_OUTPUT_MAX (4u << 20)  /* waiting for a client that does not read; then it is dropped */
#define CTL_OUTPUT_BUSY (64u << 10) /* with this much waiting, no more requests of it are taken */
#define CTL_DEPTH_MAX 64
#define CTL_CLIENTS 32
#define CTL_DISKS 16
#define CTL_EVENTS 256 /* not yet sent; the oldest are lost beyond that */

/* ---- frame.c: a stream of bytes to JSON values, which need nothing between them */

struct ctl_frame {
	char *data;
	size_t used, size, scanned; /* scanned: bytes of the value underway that were looked at */
	unsigned depth;
	bool string, escape, skipping; /* skipping: to the end of a line, after nonsense */
};

enum ctl_frame_result { FRAME_MORE, FRAME_VALUE, FRAME_NONSENSE, FRAME_TOO_LONG };

int ctl_frame_add(struct ctl_frame *f, const char *bytes, size_t n); /* -ENOMEM, -E2BIG */
/* VALUE: *text, *len until the next call of either; call again until MORE. After TOO_LONG nothing makes sense. */
enum ctl_frame_result ctl_frame_next(struct ctl_frame *f, const char **text, size_t *len);
void ctl_frame_dispose(struct ctl_frame *f);

/* ---- brought.c: files that a client brings along */

#define CTL_FDS 64
#define CTL_FDS_WAITING 16 /* sent, with no add-fd yet */

struct ctl_file {
	int set, fd;
	char *name;
};
struct ctl_brought {
	struct ctl_file file[CTL_FDS];
	unsigned n;
	int waiting[CTL_FDS_WAITING];
	unsigned nwaiting;
};
void ctl_brought_receive(struct ctl_brought *b, int fd); /* takes it */
void ctl_brought_dispose(struct ctl_brought *b);

/* ---- session.c: one client's conversation, whatever carries it */

struct ctl_session {
	struct ctl *ctl;
	bool negotiated;
	struct ctl_brought brought;
};

/* A descriptor of the caller's own for a file brought along; -1: errno says EACCES, or ENOENT when it was not brought. */
int ctl_brought_open(struct ctl_session *s, const char *path, bool write);
struct block_files;
struct block_files ctl_brought_files(struct ctl_session *s);

json_t *ctl_session_greeting(const struct ctl_session *s);
/* The reply to one request. Never NULL, except without memory. */
json_t *ctl_session_handle(struct ctl_session *s, const char *text, size_t len);
json_t *ctl_session_error(const char *class, const char *text, json_t *id);

/* ---- commands */

struct ctl_call {
	struct ctl *ctl;
	struct ctl_session *session;
	json_t *arguments; /* an object, checked against the table; borrowed */
	json_t *result;    /* NULL: the empty object; given away */
};

struct ctl_command {
	const char *name;
	int (*run)(struct ctl_call *call, struct err *e); /* on the control's thread */
	const char *arguments, *returns, *help;
};

struct ctl_event_def {
	const char *name, *members, *help;
};

extern const struct ctl_command ctl_commands[]; /* end with a NULL name */
extern const struct ctl_event_def ctl_event_defs[];
const struct ctl_command *ctl_command_find(const char *name);

/* The next of a list of arguments; false at its end. */
struct ctl_argument {
	char name[32], type[12];
	bool optional;
};
bool ctl_argument_next(const char **list, struct ctl_argument *a);

#define CTL_COMMAND(name, function, arguments, returns, help)                                      \
	int ctl_##function(struct ctl_call *call, struct err *e);
#include "ctl/commands.def"
#undef CTL_COMMAND

/* ---- ctl.c */

struct ctl_pending {
	const char *name; /* from events.def: lives for ever */
	json_t *data;
	int64_t at_us; /* CLOCK_REALTIME */
};

struct ctl_client;

struct ctl {
	struct ctl_config config;
	struct evloop *loop;
	struct evsource *listening;
	int listener;
	bool bound, started;
	struct ctl_client *clients; /* the control's thread alone, as all of the above */
	unsigned nclients;
	pthread_mutex_t lock; /* events, host_reset */
	struct ctl_pending events[CTL_EVENTS];
	unsigned first, count;
	_Atomic bool io_error; /* a disk's error has paused the machine */
	int disk_error[CTL_DISKS]; /* the last one; the control's thread */
	bool host_reset; /* the reset underway was asked for here, not by the guest */
	struct vm_listener listener_hook;
	int64_t born_us;
	/* the pointer, as input-send-event has left it; the control's thread alone */
	unsigned pointer_x, pointer_y, pointer_buttons;
};

/* Sends what has happened so far, as far as clients take it at once; the control's thread. A client that fails is freed later. */
void ctl_events_now(struct ctl *c);
const char *ctl_state_name(struct vm *vm); /* QMP's RunState */

/* cmd-block.c: any thread; see pc_disks_on_error */
struct pc_disk_view;
/* The disk that "id" or "device" names, with its number; it may have no medium. */
int ctl_disk_named(struct ctl_call *call, struct pc_disk_view *d, unsigned *n, struct err *e);
void ctl_balloon_changed(void *opaque, uint64_t given);
void ctl_device_gone(void *opaque); /* cmd-plug.c */
void ctl_disk_error(void *opaque, unsigned n, int error, bool write);

#endif
