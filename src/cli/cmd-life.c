/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands that change what a machine is doing. Each either brings the machine to the new state or leaves it in the old
 * one and says why, and in which state it is.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "cli/life.h"
#include "cli/progress.h"
#include "cli/run.h"
#include "ctl/agent.h"

#define STOP_SECONDS 30
#define CLOCK_MS 2000
#define SAVE_MS (30 * 60 * 1000)

/* The agent's own command wants hwclock, which not every guest has. */
static void clock_tell(struct agent *agent)
{
	struct timespec now;
	char text[32];
	int status;

	clock_gettime(CLOCK_REALTIME, &now);
	if (!agent_call(agent, "guest-set-time", json_pack("{s:I}", "time", (json_int_t)now.tv_sec * 1000000000 + now.tv_nsec), NULL, NULL))
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	snprintf(text, sizeof(text), "@%lld", (long long)now.tv_sec);
	agent_run(agent, (const char *const[]){ "date", "-u", "-s", text, NULL }, CLOCK_MS, &status, NULL);
}

/*
 * The guest's clock stood still with it. Nothing but its agent can put it right: where a program has the agent's port open it is told
 * the time; what goes wrong with that is the guest's affair.
 */
static void clock_correct(struct store_vm *m)
{
	struct ctl_peer *p = NULL;
	json_t *machine = NULL;
	struct agent agent;

	if (ctl_connect(&p, m->fd, "control", ANSWER_MS, NULL))
		return;
	ctl_call_command(p, "ospite-query-machine", NULL, &machine, ANSWER_MS, NULL);
	ctl_disconnect(p);
	if (json_is_true(json_object_get(machine, "agent"))) {
		agent_init(&agent, m->fd);
		if (!agent_ready(&agent, CLOCK_MS, NULL))
			clock_tell(&agent);
		agent_dispose(&agent);
	}
	json_decref(machine);
}

int life_start(const struct life_command *c, struct life_args *a, struct store *s, struct store_vm *m, struct err *e)
{
	struct store_status st = { 0 };
	int r = store_vm_status(m, &st, e);

	if (!r)
		r = store_vm_lock_run(m, e);
	if (!r)
		r = machine_start(s, m, e);
	if (!r && st.state == STORE_SUSPENDED)
		clock_correct(m);
	return r;
}

bool life_autostarts(struct store_vm *m)
{
	char *text _free_ = NULL;
	struct run_options o;
	bool wanted;

	run_options_init(&o);
	wanted = !store_read(m->fd, "vm.yaml", &text, NULL) && (run_config_load(&o, text, NULL), o.autostart);
	run_options_dispose(&o);
	return wanted;
}

/* ---- the end */

/*
 * The process is found by its own word in `status`. Between reading it and the signal it may end and its number be given to
 * another: the number is turned into a descriptor first, and then asked about again.
 */
int life_end_process(struct store_vm *m, struct err *e)
{
	struct store_status st;
	int fd _close_ = -1;
	pid_t said;
	int r = store_vm_status(m, &st, e);

	if (r || st.state != STORE_RUNNING)
		return r;
	if (st.pid <= 1) /* it has the lock and has not yet said who it is */
		return err_set(e, EAGAIN, "machine '%s' is just starting: try again", m->name);
	said = st.pid;
	fd = pidfd_open(said, 0);
	r = store_vm_status(m, &st, e);
	if (r || st.state != STORE_RUNNING)
		return r;
	if (st.pid != said)
		return err_set(e, EAGAIN, "machine '%s' is just starting: try again", m->name);
	if (fd < 0 || pidfd_send_signal(fd, SIGKILL, NULL, 0))
		return err_errno(e, "cannot kill machine '%s' (process %d)", m->name, (int)st.pid);
	return store_vm_wait(m, 10000, e);
}

/* After a kill: the folder is put in order as the process would have done. */
static int after_kill(struct store *s, struct store_vm *m, struct err *e)
{
	int r = store_vm_lock(m, e);

	if (r)
		return r;
	store_vm_tidy(m);
	if (store_vm_temporary(m))
		return store_vm_remove(s, m, e);
	return store_vm_say_ended(m, false, 137, "killed", e);
}

/*
 * Quit is asked for first: disks are closed properly. True: it has ended. One whose socket is there no more is ending, or it is not there
 * yet: no reason to kill it.
 */
static bool quit_by_asking(struct store_vm *m)
{
	for (unsigned i = 0; i < 200; i++) {
		struct ctl_peer *p = NULL;
		int r = ctl_connect(&p, m->fd, "control", 1000, NULL);

		if (!r) {
			r = ctl_call_command(p, "quit", NULL, NULL, 1000, NULL);
			ctl_disconnect(p);
		}
		if (!r || r == -ETIMEDOUT)
			return !r && !store_vm_wait(m, 3000, NULL);
		if (!store_vm_wait(m, 50, NULL))
			return true;
	}
	return false;
}

/* What does not answer is killed. */
int life_kill(const struct life_command *c, struct life_args *a, struct store *s, struct store_vm *m, struct err *e)
{
	struct store_status st;
	int r = store_vm_status(m, &st, e);

	if (!r && st.state != STORE_RUNNING)
		r = err_set(e, ESRCH, "machine '%s' is %s, not running", m->name, store_state_name(st.state));
	if (r)
		return r;
	if (quit_by_asking(m))
		return 0;
	r = life_end_process(m, e);
	return r ? r : after_kill(s, m, e);
}

static int press_once(struct store_vm *m, struct err *e)
{
	struct ctl_peer *p = NULL;
	json_t *status = NULL;
	int r = life_connect(m, &p, e);

	if (!r)
		r = ctl_call_command(p, "query-status", NULL, &status, ANSWER_MS, e);
	if (!r && !json_is_true(json_object_get(status, "running")))
		r = -ECANCELED; /* a paused guest cannot notice it */
	if (!r)
		r = ctl_call_command(p, "system_powerdown", NULL, NULL, ANSWER_MS, e);
	json_decref(status);
	ctl_disconnect(p);
	return r;
}

/*
 * Who does not answer may be slow, or busy saving the machine: tried until `end`, for what comes then loses what the guest has not written.
 * -ESRCH: it does not run.
 */
static int press_button(struct store_vm *m, int64_t end, struct err *e)
{
	struct store_status st;
	int r;

	for (unsigned tries = 0;; tries++) {
		r = press_once(m, e);
		if (r == -ESRCH && tries && !store_vm_status(m, &st, NULL) && st.state != STORE_SUSPENDED)
			return 0; /* ended meanwhile, as it was to */
		if (!r || r == -ESRCH || r == -ECANCELED || r == -EREMOTEIO || life_now_ms() >= end)
			return r;
		store_vm_wait(m, 100, NULL);
	}
}

int life_stop(const struct life_command *c, struct life_args *a, struct store *s, struct store_vm *m, struct err *e)
{
	int64_t seconds = a->time == UINT64_MAX ? STOP_SECONDS : (int64_t)a->time, end = life_now_ms() + seconds * 1000;
	struct ctl_peer *p = NULL;
	int r = seconds ? press_button(m, end, e) : life_connect(m, &p, e);

	ctl_disconnect(p);
	if (r == -ESRCH)
		return r;
	if (!r && seconds && !store_vm_wait(m, MAX(end - life_now_ms(), (int64_t)0), NULL))
		return 0;
	r = life_kill(c, a, s, m, e);
	return r == -ESRCH ? 0 : r; /* it went by itself meanwhile */
}

/* ---- while it runs */

int life_simple(const struct life_command *c, struct life_args *a, struct store *s, struct store_vm *m, struct err *e)
{
	static const char *const commands_of[][2] = {
		{ "pause", "stop" }, { "resume", "cont" }, { "reset", "system_reset" }, { "nmi", "inject-nmi" },
	};
	struct ctl_peer *p;
	struct store_status st;
	const char *state;
	int r = store_vm_status(m, &st, e);

	if (r)
		return r;
	state = life_state(m, &st);
	if (!strcmp(c->name, "pause") && !strcmp(state, "paused"))
		return err_set(e, EALREADY, "machine '%s' is paused already", m->name);
	if (!strcmp(c->name, "resume") && !strcmp(state, "running"))
		return err_set(e, EALREADY, "machine '%s' is running, not paused", m->name);
	if (!strcmp(c->name, "resume") && st.state == STORE_SUSPENDED)
		return life_start(c, a, s, m, e);
	r = life_connect(m, &p, e);
	for (unsigned i = 0; i < ARRAY_LEN(commands_of) && !r; i++)
		if (!strcmp(commands_of[i][0], c->name)) {
			r = ctl_call_command(p, commands_of[i][1], NULL, NULL, ANSWER_MS, e);
			ctl_disconnect(p);
			if (!r && !strcmp(c->name, "resume"))
				clock_correct(m);
			return r ? err_prefix(e, "machine '%s'", m->name) : 0;
		}
	return r;
}

static void show_saving(void *opaque, const json_t *event)
{
	const json_t *data = json_object_get(event, "data");

	if (!strcmp(json_string_value(json_object_get(event, "event")) ?: "", "OSPITE_SAVING"))
		progress_of(opaque, (uint64_t)json_integer_value(json_object_get(data, "done")),
			    (uint64_t)json_integer_value(json_object_get(data, "total")));
}

int life_suspend(const struct life_command *c, struct life_args *a, struct store *s, struct store_vm *m, struct err *e)
{
	struct store_status st;
	struct progress bar;
	struct ctl_peer *p;
	int r = life_connect(m, &p, e);

	if (r)
		return r;
	progress_start(&bar, "saving", 0, a->quiet);
	r = life_follow(m, p, e);
	if (!r)
		r = ctl_call_watching(p, "ospite-suspend", a->mapped ? json_pack("{s:s}", "memory", "mapped") : NULL, show_saving, &bar, SAVE_MS, e);
	progress_end(&bar);
	ctl_disconnect(p);
	if (r)
		return err_prefix(e, "machine '%s'", m->name);
	r = store_vm_wait(m, 10000, e);
	if (!r)
		r = store_vm_status(m, &st, e);
	if (!r && st.state != STORE_SUSPENDED)
		r = err_set(e, EIO, "machine '%s' is %s instead of suspended", m->name, store_state_name(st.state));
	return r;
}

#define NAP_US 200000 /* between two looks, in the end */

static bool agent_there(struct store_vm *m)
{
	json_t *machine = NULL;
	struct ctl_peer *p;
	bool there = false;

	if (life_connect(m, &p, NULL))
		return false;
	if (!ctl_call_command(p, "ospite-query-machine", NULL, &machine, ANSWER_MS, NULL))
		there = json_is_true(json_object_get(machine, "agent"));
	json_decref(machine);
	ctl_disconnect(p);
	return there;
}

static int wait_until(const struct life_args *a, struct store_vm *m, struct err *e)
{
	int64_t end = a->time == UINT64_MAX ? INT64_MAX : life_now_ms() + (int64_t)a->time * 1000;
	const char *now = "?";

	for (useconds_t nap = 5000;; nap = MIN(nap * 2, (useconds_t)NAP_US)) {
		struct store_status st;
		struct stat folder;
		int r = store_vm_status(m, &st, e);

		if (r)
			return r;
		now = life_state(m, &st);
		if (!fstat(m->fd, &folder) && !folder.st_nlink && strcmp(a->until, now))
			return err_set(e, ENOENT, "there is no machine '%s' any more", m->name);
		if (!strcmp(a->until, "agent") ? agent_there(m) : !strcmp(a->until, now))
			return 0;
		if (life_now_ms() >= end)
			return err_set(e, ETIMEDOUT, "machine '%s' is %s, not '%s', after %llu seconds", m->name, now, a->until,
				       (unsigned long long)a->time);
		usleep(nap);
	}
}

int life_wait(const struct life_command *c, struct life_args *a, struct store *s, struct store_vm *m, struct err *e)
{
	struct store_status st;
	int r = a->until ? wait_until(a, m, e) : store_vm_wait_end(m, a->time == UINT64_MAX ? -1 : (int64_t)a->time * 1000, &st, e);

	if (!r && !a->quiet && !a->until)
		printf("%d\n", st.exit_status);
	return r;
}

int life_rm(const struct life_command *c, struct life_args *a, struct store *s, struct store_vm *m, struct err *e)
{
	struct store_status st;
	int r = store_vm_status(m, &st, e);

	if (!r && a->force && st.state == STORE_RUNNING) {
		r = life_kill(c, a, s, m, e);
		if (!r && faccessat(s->fd, m->name, F_OK, AT_SYMLINK_NOFOLLOW))
			return 0; /* it was a temporary one */
	}
	if (!r && !a->force && st.state == STORE_SUSPENDED)
		return err_set(e, EBUSY, "machine '%s' is suspended: --force removes it with its saved state", m->name);
	if (!r && m->lock < 0)
		r = store_vm_lock(m, e);
	if (r == -EBUSY)
		return err_set(e, EBUSY, "machine '%s' is running: stop it first, or use --force", m->name);
	return r ? r : store_vm_remove(s, m, e);
}
