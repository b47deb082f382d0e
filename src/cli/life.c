/* SPDX-License-Identifier: Apache-2.0 */
/* The commands about machines: one table, one way in. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>
#include "cli/life.h"
#include "vm/limits.h"

#define LIFE_SET(fn, field)                                                                        \
	int fn(void *into, const char *value, struct err *e)                                       \
	{                                                                                          \
		((struct life_args *)into)->field = true;                                          \
		return 0;                                                                          \
	}
LIFE_SET(life_set_json, json)
LIFE_SET(life_set_quiet, quiet)
LIFE_SET(life_set_all, all)
LIFE_SET(life_set_force, force)
LIFE_SET(life_set_follow, follow)
static LIFE_SET(set_autostart, autostart)
static LIFE_SET(set_edit, edit)
static LIFE_SET(set_once, once)
static LIFE_SET(set_own_log, own_log)
static LIFE_SET(set_text, text)
static LIFE_SET(set_eject, eject)
static LIFE_SET(set_input, input)
static LIFE_SET(set_direct, direct)
static LIFE_SET(set_thin, thin)
static LIFE_SET(set_mapped, mapped)

int life_set_root(void *into, const char *value, struct err *e)
{
	((struct life_args *)into)->root = value;
	return *value ? 0 : err_set(e, EINVAL, "needs a value");
}

int life_set_time(void *into, const char *value, struct err *e)
{
	return parse_number(value, 0, 1000000, &((struct life_args *)into)->time, e);
}

int life_set_lines(void *into, const char *value, struct err *e)
{
	return parse_number(value, 0, 1000000000, &((struct life_args *)into)->lines, e);
}

static int set_drive(void *into, const char *value, struct err *e)
{
	((struct life_args *)into)->drive = value;
	return *value ? 0 : err_set(e, EINVAL, "needs a value");
}

static int set_format(void *into, const char *value, struct err *e)
{
	((struct life_args *)into)->format = value;
	return *value ? 0 : err_set(e, EINVAL, "needs a value");
}

static int set_user(void *into, const char *value, struct err *e)
{
	((struct life_args *)into)->user = value;
	return *value && *value != '-' ? 0 : err_set(e, EINVAL, "is no user's name");
}

static int set_set(void *into, const char *value, struct err *e)
{
	struct life_args *a = into;

	if (!strchr(value, '=') || *value == '=')
		return err_set(e, EINVAL, "write KEY=VALUE");
	a->set[a->nset++] = value;
	return 0;
}

static int set_unset(void *into, const char *value, struct err *e)
{
	struct life_args *a = into;

	a->unset[a->nunset++] = value;
	return 0;
}

static int add_change(struct life_args *a, enum life_set kind, const char *value, struct err *e)
{
	a->change[a->nchange++] = (struct life_change){ kind, value };
	return *value ? 0 : err_set(e, EINVAL, "needs a value");
}
#define LIFE_CHANGE(fn, kind)                                                                      \
	static int fn(void *into, const char *value, struct err *e)                                \
	{                                                                                          \
		return add_change(into, kind, value, e);                                           \
	}
LIFE_CHANGE(change_memory, LIFE_SET_MEMORY)
LIFE_CHANGE(change_disk, LIFE_SET_DISK)
LIFE_CHANGE(change_net, LIFE_SET_NET)
LIFE_CHANGE(change_remove, LIFE_SET_REMOVE)
LIFE_CHANGE(change_limit, LIFE_SET_LIMIT)
LIFE_CHANGE(change_link, LIFE_SET_LINK)
LIFE_CHANGE(change_weight, LIFE_SET_WEIGHT)
LIFE_CHANGE(change_quota, LIFE_SET_QUOTA)
LIFE_CHANGE(change_max, LIFE_SET_MAX)

static int set_until(void *into, const char *value, struct err *e)
{
	static const char *const states[] = { "running", "paused", "suspended", "inactive", "crashed", "agent" };

	for (unsigned i = 0; i < ARRAY_LEN(states); i++) {
		if (!strcmp(value, states[i])) {
			((struct life_args *)into)->until = value;
			return 0;
		}
	}
	return err_set(e, EINVAL, "must be running, paused, suspended, inactive, crashed or agent");
}

#define TIME_OPTION(help) { "time", "SECONDS", help, life_set_time }

static const struct option_def plain[] = { LIFE_ROOT, LIFE_QUIET, LIFE_END };
static const struct option_def several[] = { LIFE_ALL, LIFE_ROOT, LIFE_QUIET, LIFE_END };
static const struct option_def suspend_options[] = {
	{ "mapped", NULL, "memory uncompressed, to be mapped: large, and goes on at once", set_mapped }, LIFE_ALL, LIFE_ROOT, LIFE_QUIET, LIFE_END,
};
static const struct option_def start_options[] = {
	{ "autostart", NULL, "all whose vm.yaml says autostart: true", set_autostart }, LIFE_ROOT, LIFE_QUIET, LIFE_END,
};
static const struct option_def ps_options[] = { LIFE_ALL, LIFE_JSON, LIFE_QUIET, LIFE_ROOT, LIFE_END };
static const struct option_def info_options[] = { LIFE_JSON, LIFE_ROOT, LIFE_END };
static const struct option_def stop_options[] = {
	TIME_OPTION("to wait for the guest before force [30]"), LIFE_ALL, LIFE_ROOT, LIFE_QUIET, LIFE_END,
};
static const struct option_def wait_options[] = {
	TIME_OPTION("to wait; then status 125 [for ever]"),
	{ "until", "STATE", "running, paused, suspended, inactive, crashed; agent: exec works [ended]", set_until }, LIFE_ROOT, LIFE_QUIET, LIFE_END,
};
static const struct option_def rm_options[] = {
	{ "force", NULL, "also if it runs, or has a saved state", life_set_force }, LIFE_ROOT, LIFE_QUIET, LIFE_END,
};
static const struct option_def clone_options[] = {
	{ "thin", NULL, "share the disks: both write to overlays of what is there now", set_thin }, LIFE_ROOT, LIFE_QUIET, LIFE_END,
};
static const struct option_def config_options[] = {
	{ "set", "KEY=VALUE", "change one; repeated keys of lists make the list", set_set, OPTION_LIST },
	{ "unset", "KEY", "back to what it is by default", set_unset, OPTION_LIST },
	{ "edit", NULL, "in $EDITOR, checked before it counts", set_edit },
	LIFE_ROOT, LIFE_QUIET, LIFE_END,
};
static const struct option_def set_options[] = {
	{ "memory", "SIZE", "what the guest is to have: by its balloon when it runs", change_memory },
	{ "disk", "SPEC", "another disk, as for 'ospite run'; on virtio when it runs", change_disk, OPTION_LIST | OPTION_PATH },
	{ "net", "KIND", "another network card, as for 'ospite run'", change_net, OPTION_LIST },
	{ "remove", "ID", "a disk or network card: disk1, net0, or its id=", change_remove, OPTION_LIST },
	{ "limit", "ID,LIMIT,...", "of a disk: bps=N, iops=N (also bps-read=, ...; 0: none); of a card: in=10Mbit, out=none", change_limit, OPTION_LIST },
	{ "link", "CARD=up|down", "plug a network card's cable, or unplug it", change_link, OPTION_LIST },
	{ "cpu-weight", "N", "its process's share of the CPUs beside others' 100; none", change_weight },
	{ "cpu-quota", "PERCENT", "of one CPU, the most it may use: 150%; none", change_quota },
	{ "memory-max", "SIZE", "the most its process may use; none", change_max },
	TIME_OPTION("the guest has to let go of what is removed [30]"), LIFE_ROOT, LIFE_QUIET, LIFE_END,
};
static const struct option_def logs_options[] = {
	{ "follow", NULL, "go on with what comes, until the machine ends", life_set_follow },
	{ "lines", "N", "only the last N", life_set_lines },
	{ "ospite", NULL, "what ospite has to say, not the guest's console", set_own_log },
	LIFE_ROOT, LIFE_END,
};
static const struct option_def events_options[] = { LIFE_JSON, LIFE_ROOT, LIFE_END };
static const struct option_def stats_options[] = { LIFE_JSON, LIFE_ROOT, LIFE_END };
static const struct option_def top_options[] = {
	{ "once", NULL, "one table, no screen", set_once }, LIFE_JSON, LIFE_ROOT, LIFE_END,
};
static const struct option_def screenshot_options[] = {
	{ "text", NULL, "print the text on the screen instead", set_text }, LIFE_ROOT, LIFE_END,
};
static const struct option_def medium_options[] = {
	{ "eject", NULL, "take it out", set_eject },
	{ "drive", "DISK", "which one, if there are several: disk0, disk1, ...", set_drive },
	{ "format", "FORMAT", "of the file: raw or qcow2 [raw]", set_format },
	{ "force", NULL, "also if the guest has locked it", life_set_force }, LIFE_JSON, LIFE_ROOT, LIFE_END,
};
#define AGENT_TIME TIME_OPTION("to wait for the guest's agent [5]")
static const struct option_def exec_options[] = {
	{ "env", "KEY=VALUE", "in its environment; may be repeated", set_set, OPTION_LIST },
	{ "stdin", NULL, "read standard input to its end first; it is the program's", set_input },
	{ "direct", NULL, "without a shell, output at its end: for other systems than Linux", set_direct },
	AGENT_TIME, LIFE_ROOT, LIFE_END,
};
static const struct option_def cp_options[] = { AGENT_TIME, LIFE_QUIET, LIFE_ROOT, LIFE_END };
static const struct option_def ssh_options[] = {
	{ "user", "NAME", "as whom [root]", set_user }, TIME_OPTION("to wait for the guest to be ready [120]"), LIFE_ROOT, LIFE_END,
};
static const struct option_def root_only[] = { LIFE_ROOT, LIFE_END };

#define MANY 4096

const struct life_command life_commands[] = {
	{ "start", "NAME...", "start machines; a suspended one goes on where it was", start_options, 1, MANY, NULL, life_start },
	{ "stop", "NAME...", "press the power button; after --time, force", stop_options, 1, MANY, NULL, life_stop, true },
	{ "kill", "NAME...", "end machines at once, as pulling the plug does", several, 1, MANY, NULL, life_kill, true },
	{ "pause", "NAME...", "let machines stand still", several, 1, MANY, NULL, life_simple, true },
	{ "resume", "NAME...", "let paused machines go on", several, 1, MANY, NULL, life_simple, true },
	{ "suspend", "NAME...", "save machines to their folders and end them", suspend_options, 1, MANY, NULL, life_suspend, true },
	{ "reset", "NAME...", "press the reset button", several, 1, MANY, NULL, life_simple, true },
	{ "nmi", "NAME...", "send an NMI to every CPU", several, 1, MANY, NULL, life_simple, true },
	{ "ps", "", "list the machines that run; --all: all of them", ps_options, 0, 0, life_ps },
	{ "info", "NAME...", "show all about machines", info_options, 1, MANY, life_info },
	{ "console", "NAME", "use a machine's console; Ctrl-A D leaves it", root_only, 1, 1, life_console },
	{ "exec", "NAME [--] COMMAND [ARGUMENT...]", "run a program in a machine (by its guest agent)", exec_options, 2, MANY, life_exec,
	  NULL, false, true },
	{ "cp", "SOURCE... TARGET", "copy files and folders; NAME:PATH is in a machine (by agent)", cp_options, 2, MANY, life_cp },
	{ "ssh", "NAME [--] [COMMAND...]", "log in to a machine by ssh, or run a command there", ssh_options, 1, MANY, life_ssh, NULL, false, true },
	{ "logs", "NAME", "show what a machine wrote to its console", logs_options, 1, 1, life_logs },
	{ "events", "[NAME...]", "show what happens to machines, as it happens", events_options, 0, MANY, life_events },
	{ "wait", "NAME...", "wait until machines end, and print their status; or for a state", wait_options, 1, MANY, NULL, life_wait },
	{ "stats", "NAME...", "show counters of machines that run", stats_options, 1, MANY, life_stats },
	{ "top", "", "a live table of what machines use; q leaves it", top_options, 0, 0, life_stats },
	{ "screenshot", "NAME [FILE.png]", "write what the screen shows to a file", screenshot_options, 1, 2, life_screenshot },
	{ "sendkey", "NAME KEY...", "strike keys: ret, a, ctrl-alt-delete", root_only, 2, MANY, life_sendkey },
	{ "medium", "NAME [FILE]", "show, change or eject what is in a CD-ROM drive", medium_options, 1, 2, life_medium },
	{ "engine", "NAME ENGINE", "let a running machine go on under another engine", root_only, 2, 2, life_engine },
	{ "rename", "OLD NEW", "give a machine that does not run another name", plain, 2, 2, life_rename },
	{ "clone", "NAME NEW", "make another machine like one that is off", clone_options, 2, 2, life_clone },
	{ "rm", "NAME...", "remove machines that do not run", rm_options, 1, MANY, NULL, life_rm },
	{ "config", "NAME", "show or change what a machine is", config_options, 1, 1, life_config },
	{ "set", "NAME", "change a machine, at once if it runs: memory, disks, cards", set_options, 1, 1, life_set },
	{ "doctor", "", "show what this host offers and lacks, and remedies", info_options, 0, 0 },
	{ "ctl", "NAME COMMAND [KEY=VALUE...]", "send a command to a machine's control socket; 'ctl list' lists them", root_only, 1, MANY,
	  life_ctl },
	{ NULL, NULL, NULL, NULL, 0, 0, NULL },
};

const struct life_command *life_find(const char *name)
{
	for (const struct life_command *c = life_commands; c->name; c++)
		if (!strcmp(c->name, name))
			return c;
	return NULL;
}

static int take_word(void *into, const char *word, struct err *e)
{
	struct life_args *a = into;

	a->words[a->nwords++] = word;
	return a->rest && a->nwords == 2 ? OPTIONS_STOP : 0;
}

static int life_help(const struct life_command *c)
{
	printf("Usage: ospite %s [OPTION...] %s\n%c%s.\n", c->name, c->usage, c->help[0] & ~0x20, c->help + 1);
	options_print(stdout, c->options);
	return 0;
}

/* ---- for each machine */

static int each_one(const struct life_command *c, struct life_args *a, struct store *s, const char *name)
{
	struct err e = { 0 };
	struct store_vm m;
	int r = store_vm_open(s, name, &m, &e);

	if (!r) {
		r = c->each(c, a, s, &m, &e);
		store_vm_close(&m);
	}
	if (r)
		cli_fail("%s", e.text);
	else if (!a->quiet && c->each != life_wait)
		puts(name);
	fflush(stdout);
	return r ? -1 : 0;
}

static int each_of_all(const struct life_command *c, struct life_args *a, struct store *s, struct err *e)
{
	char **names;
	unsigned count;
	int r = store_list(s, &names, &count, e), failed = 0;

	if (r)
		return r;
	for (unsigned i = 0; i < count; i++) {
		struct store_status st = { 0 };
		struct store_vm m;
		bool wanted;

		if (!store_vm_open(s, names[i], &m, NULL)) {
			store_vm_status(&m, &st, NULL);
			wanted = a->autostart ? st.state != STORE_RUNNING && life_autostarts(&m) :
						st.state == STORE_RUNNING || !c->running_only;
			store_vm_close(&m);
			if (wanted)
				failed |= each_one(c, a, s, names[i]);
		}
		free(names[i]);
	}
	free(names);
	return failed ? 1 : 0;
}

static int life_do(const struct life_command *c, struct life_args *a, struct err *e)
{
	struct store s;
	int r, failed = 0;

	if (!c->run && !c->each)
		return life_doctor(c, a, e);
	r = store_open(&s, a->root, e);
	if (r)
		return r;
	if (c->run)
		r = c->run(c, a, &s, e);
	else if (a->all || a->autostart)
		r = each_of_all(c, a, &s, e);
	else {
		for (unsigned i = 0; i < a->nwords; i++)
			failed |= each_one(c, a, &s, a->words[i]);
		r = failed ? 1 : 0;
	}
	store_close(&s);
	if (!geteuid()) { /* what ended a moment ago may still be in its group: then the next command does it */
		struct cgroups groups;

		cgroups_find(&groups);
		limits_tidy(&groups);
	}
	return r;
}

/* Where the other command begins: --help after that is for it. */
static int own_arguments(int argc, char **argv)
{
	int words = 0, i = 1;

	for (; i < argc && words < 2; i++)
		words += argv[i][0] != '-';
	return i;
}

/* What is left of a command line is never more than all of it. */
int cmd_life(int argc, char **argv)
{
	const struct life_command *c = life_find(argv[0]);
	const char **room = calloc((size_t)argc * 3, sizeof(char *));
	struct life_change *changes _free_ = calloc((size_t)argc, sizeof(*changes));
	struct life_args a = { .time = UINT64_MAX, .lines = UINT64_MAX, .words = room, .set = room + argc,
			       .unset = room + 2 * argc, .change = changes };
	struct err e = { 0 };
	int r;

	a.rest = c->rest;
	if (options_want_help(c->rest ? own_arguments(argc, argv) : argc, argv)) {
		free(room);
		return life_help(c);
	}
	r = room && changes ? 0 : err_set(&e, ENOMEM, "out of memory");
	if (!r)
		r = options_parse_words(c->options, &a, argc, argv, take_word, &e);
	if (!r && a.nwords < c->min && !((a.all || a.autostart) && !a.nwords))
		r = err_set(&e, EINVAL, "usage: ospite %s %s", c->name, c->usage);
	if (!r && (a.nwords > c->max || ((a.all || a.autostart) && a.nwords)))
		r = err_set(&e, EINVAL, "unexpected '%.60s'; usage: ospite %s %s", a.words[a.nwords - 1], c->name, c->usage);
	if (!r)
		r = life_do(c, &a, &e);
	free(room);
	return r < 0 ? cli_fail("%s", e.text) : c->rest ? r : r ? EXIT_OURS : 0;
}

int life_signals(void)
{
	sigset_t set;

	ends_set(&set);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int64_t life_now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- the way to a running machine */

/* One that has the lock but no socket is just starting, or ending: then it is soon something else. */
int life_connect(struct store_vm *m, struct ctl_peer **p, struct err *e)
{
	int64_t end = life_now_ms() + ANSWER_MS;

	for (useconds_t nap = 1000;; nap = MIN(nap * 2, 50000u)) {
		struct store_status st;
		int r = store_vm_status(m, &st, e);

		if (r)
			return r;
		if (st.state != STORE_RUNNING)
			return err_set(e, ESRCH, "machine '%s' is %s%s; 'ospite start %s' starts it", m->name, store_state_name(st.state),
				       st.state == STORE_CRASHED ? " (see 'ospite info')" : "", m->name);
		r = ctl_connect(p, m->fd, "control", ANSWER_MS, e);
		if (!r)
			return 0;
		if ((r != -ENOENT && r != -ECONNREFUSED && r != -EPIPE) || life_now_ms() >= end)
			return err_prefix(e, "machine '%s'", m->name);
		usleep(nap);
	}
}

const char *life_state(struct store_vm *m, const struct store_status *st)
{
	struct ctl_peer *p;
	json_t *status = NULL;
	bool paused = false;

	if (st->state != STORE_RUNNING)
		return store_state_name(st->state);
	if (!ctl_connect(&p, m->fd, "control", ANSWER_MS, NULL)) {
		if (!ctl_call_command(p, "query-status", NULL, &status, ANSWER_MS, NULL))
			paused = !strcmp(json_string_value(json_object_get(status, "status")) ?: "", "paused");
		json_decref(status);
		ctl_disconnect(p);
	}
	return paused ? "paused" : "running";
}
