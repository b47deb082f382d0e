/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See view.h. What is in the new root beside the folders: /proc with the process's own part alone, devices that may be opened
 * late (KVM for a change of engine, TUN for a card that comes), and what resolving names reads, all but the devices read-only.
 *
 * A folder is moved by descriptor, as the new root may lie over it for a moment. The old root goes by MNT_DETACH: files that are
 * open stay open, but a folder's ".." ends at the mount that was moved.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include "base/base.h"
#include "vm/view.h"

enum { KEEPER_ENTER = 'E', KEEPER_CLEAN = 'C' };

void view_init(struct view *v)
{
	*v = (struct view){ .terminal = -1, .fd = -1, .keep = { -1, -1, -1 } };
}

/* ---- what stays */

static bool below(const char *path, const char *folder)
{
	size_t n = strlen(folder);

	return !strncmp(path, folder, n) && (path[n] == '/' || !path[n]);
}

static int add_real(struct view *v, char *real, bool write, struct err *e)
{
	unsigned i = 0;

	while (i < v->nfolders && !below(real, v->folder[i].path))
		i++;
	if (i < v->nfolders) {
		v->folder[i].write |= write;
		free(real);
		return 0;
	}
	for (i = 0; i < v->nfolders;) { /* those below it come along */
		if (!below(v->folder[i].path, real)) {
			i++;
			continue;
		}
		write |= v->folder[i].write;
		free(v->folder[i].path);
		v->folder[i] = v->folder[--v->nfolders];
	}
	if (v->nfolders == VIEW_PATHS) {
		free(real);
		return err_set(e, E2BIG, "the machine has files in more than %d folders", VIEW_PATHS);
	}
	v->folder[v->nfolders++] = (struct view_path){ real, write };
	return 0;
}

int view_add(struct view *v, const char *path, bool folder, bool write, struct err *e)
{
	const char *slash = strrchr(path, '/');
	char *part = folder ? strdup(path) : !slash ? strdup(".") : strndup(path, MAX((size_t)(slash - path), (size_t)1));
	char *real = part ? realpath(part, NULL) : NULL;

	free(part);
	if (!real)
		return 0;
	if (!strcmp(real, "/") || below(real, "/proc") || below(real, "/dev") || below(real, "/sys")) {
		free(real);
		return 0;
	}
	return add_real(v, real, write, e);
}

int view_add_file(struct view *v, const char *path, struct err *e)
{
	char *real = realpath(path, NULL);

	if (!real)
		return 0;
	if (v->nfiles == VIEW_PATHS) {
		free(real);
		return err_set(e, E2BIG, "the machine has more than %d files", VIEW_PATHS);
	}
	v->file[v->nfiles++] = real;
	return 0;
}

/* ---- the name space */

static int refuse(struct view *v, const char *what)
{
	snprintf(v->why, sizeof(v->why), "%s: %s", what, strerror(errno));
	return 0;
}

static bool has_capability(unsigned n, bool *any)
{
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = { { 0 } };

	if (syscall(SYS_capget, &head, data))
		return false;
	*any = data[0].permitted | data[1].permitted;
	return data[n / 32].effective & 1u << n % 32;
}

static void drop_all(void)
{
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	const struct __user_cap_data_struct none[2] = { { 0 } };

	syscall(SYS_capset, &head, none);
}

static int put(const char *path, const char *text)
{
	int fd _close_ = open(path, O_WRONLY | O_CLOEXEC);

	return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : -1;
}

/* A user namespace in which everybody stays who they are: it is only for the right to mount. */
static int map_self(uid_t uid, gid_t gid)
{
	char text[64];

	snprintf(text, sizeof(text), "%u %u 1", uid, uid);
	if (put("/proc/self/setgroups", "deny") || put("/proc/self/uid_map", text))
		return -1;
	snprintf(text, sizeof(text), "%u %u 1", gid, gid);
	return put("/proc/self/gid_map", text);
}

/* What view_enter cannot do without, asked for while it is still easy to go on as before. */
static bool host_can(struct view *v)
{
	static const long calls[] = { SYS_open_tree, SYS_move_mount, SYS_mount_setattr };
	char line[512];
	bool initial = false;
	FILE *f;

	for (unsigned i = 0; i < ARRAY_LEN(calls); i++)
		if (syscall(calls[i], -1, NULL, ~0u, NULL, 0) < 0 && errno == ENOSYS)
			return refuse(v, "a kernel before 5.12, or a container that hides it");
	f = fopen("/proc/self/mountinfo", "re");
	while (f && fgets(line, sizeof(line), f))
		initial |= strstr(line, " / / ") && strstr(line, " - rootfs ");
	if (f)
		fclose(f);
	errno = EINVAL;
	return initial ? refuse(v, "the root is the initial RAM disk, which cannot be left") : true;
}

/* True: in a name space of our own, `user` of both kinds. */
static bool leave(struct view *v, bool *user)
{
	const uid_t uid = geteuid();
	const gid_t gid = getegid();
	bool any = false;

	*user = !has_capability(CAP_SYS_ADMIN, &any);
	if (*user && any) { /* rights given to the program would be gone in there */
		errno = EPERM;
		return refuse(v, "some capabilities, but not that to mount");
	}
	if (!host_can(v))
		return false;
	if (unshare(CLONE_NEWNS | (*user ? CLONE_NEWUSER : 0)))
		return refuse(v, *user ? "no user namespaces for this user" : "no mount namespace");
	if (*user && map_self(uid, gid))
		return refuse(v, "cannot set up the user namespace");
	if (mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL))
		return refuse(v, "may not mount in the namespace");
	return true;
}

/* ---- the keeper */

static int make_parents(char *path)
{
	for (char *at = path; (at = strchr(at, '/')); at++) {
		*at = 0;
		if (*path && mkdir(path, 0755) && errno != EEXIST)
			return -1;
		*at = '/';
	}
	return 0;
}

/* Moves the mount `from` to where `path` (absolute) is in the working folder. */
static int move_to(int from, const char *path, bool folder)
{
	char *to _free_ = strdup(path + 1);

	if (!to || make_parents(to))
		return -1;
	if (folder ? mkdir(to, 0755) && errno != EEXIST : mknod(to, S_IFREG | 0644, 0) && errno != EEXIST)
		return -1;
	return (int)syscall(SYS_move_mount, from, "", AT_FDCWD, to, MOVE_MOUNT_F_EMPTY_PATH);
}

/* With what is mounted below it, unless it is the root itself. */
static int make_read_only(int fd)
{
	struct mount_attr a = { .attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID };

	if (fd == AT_FDCWD)
		return (int)syscall(SYS_mount_setattr, fd, ".", 0, &a, sizeof(a));
	return (int)syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &a, sizeof(a));
}

static const struct {
	const char *path;
	bool write;
} extras[] = {
	{ "/dev/null", true },	       { "/dev/kvm", true },	       { "/dev/net/tun", true },     { "/etc/resolv.conf", false },
	{ "/etc/hosts", false },       { "/etc/nsswitch.conf", false }, { "/etc/host.conf", false }, { "/etc/gai.conf", false },
	{ "/etc/services", false },    { "/etc/localtime", false },
};

const char *view_extra(unsigned i)
{
	return i < ARRAY_LEN(extras) ? extras[i].path : NULL;
}

bool view_extra_is_device(unsigned i)
{
	return extras[i].write;
}

struct plan {
	const struct view *v;
	pid_t machine;
	int folder[VIEW_PATHS], file[VIEW_PATHS], proc, extra[ARRAY_LEN(extras)];
};

static int clone_mount(const char *path)
{
	return (int)syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
}

static void plan_open(struct plan *p)
{
	char path[64];

	for (unsigned i = 0; i < p->v->nfolders; i++)
		p->folder[i] = open(p->v->folder[i].path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	snprintf(path, sizeof(path), "/proc/%d", p->machine);
	p->proc = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	for (unsigned i = 0; i < ARRAY_LEN(extras); i++)
		p->extra[i] = clone_mount(extras[i].path);
	for (unsigned i = 0; i < p->v->nfiles; i++)
		p->file[i] = clone_mount(p->v->file[i]);
}

static int file_add(int fd, const char *path, bool write)
{
	if (fd < 0)
		return 0; /* not on this host */
	if (!write)
		make_read_only(fd);
	return move_to(fd, path, false);
}

static bool in_folders(const struct view *v, const char *path)
{
	for (unsigned i = 0; i < v->nfolders; i++)
		if (below(path, v->folder[i].path))
			return true;
	return false;
}

static int plan_fill(const struct plan *p)
{
	char path[64];

	for (unsigned i = 0; i < p->v->nfolders; i++) {
		if (p->folder[i] < 0)
			continue; /* removed meanwhile */
		if (!p->v->folder[i].write && make_read_only(p->folder[i]) && errno != EBUSY)
			return -1;
		if (move_to(p->folder[i], p->v->folder[i].path, true))
			return -1;
	}
	snprintf(path, sizeof(path), "/proc/%d", p->machine);
	if (move_to(p->proc, path, true) || symlink(path + 6, "proc/self"))
		return -1;
	for (unsigned i = 0; i < ARRAY_LEN(extras); i++)
		if (file_add(p->extra[i], extras[i].path, extras[i].write))
			return -1;
	for (unsigned i = 0; i < p->v->nfiles; i++)
		if (!in_folders(p->v, p->v->file[i]) && file_add(p->file[i], p->v->file[i], false))
			return -1;
	return 0;
}

/* The new root cannot lie over a folder that moves into it. /proc is never one of them. */
static bool may_lie_over(const struct view *v, const char *place)
{
	for (unsigned i = 0; i < v->nfolders; i++)
		if (below(place, v->folder[i].path))
			return false;
	return true;
}

/* NULL, or what did not work (errno). */
static const char *enter(const struct view *v, pid_t machine)
{
	static const char *const places[] = { "/tmp", "/run", "/mnt", "/proc" };
	struct plan p = { .v = v, .machine = machine };
	const char *place = NULL;

	umask(022);
	plan_open(&p);
	for (unsigned i = 0; i < ARRAY_LEN(places) && !place; i++)
		if (may_lie_over(v, places[i]) &&
		    !mount("ospite", places[i], "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=755,size=256k,nr_inodes=1024"))
			place = places[i];
	if (!place || chdir(place))
		return "cannot mount a file system in memory";
	if (plan_fill(&p))
		return "cannot move a folder to the new root";
	if (make_read_only(AT_FDCWD))
		return "cannot make the new root read-only";
	if (syscall(SYS_pivot_root, ".", "."))
		return "cannot change the root";
	if (umount2(".", MNT_DETACH) || chdir("/"))
		return "cannot let go of the old root";
	return NULL;
}

/* The machine died without a word: its terminal is raw still, unless somebody has been faster. */
static void terminal_restore(const struct view *v, const struct termios *before)
{
	static const char leave[] = "\033[0m\033[?25h\033[?1049l";
	struct termios now;

	signal(SIGTTOU, SIG_IGN);
	if (tcgetattr(v->terminal, &now) || now.c_lflag & (ICANON | ECHO | ISIG))
		return;
	if (v->full_screen && write(v->terminal, leave, sizeof(leave) - 1) < 0) {
		/* it is gone: nothing to restore */
	}
	tcsetattr(v->terminal, TCSANOW, before);
}

static void close_all_but(int a, int b, const int keep[3])
{
	int order[] = { 2, a, b, keep[0], keep[1], keep[2] };
	unsigned from = 0;

	for (;;) {
		unsigned next = UINT_MAX;

		for (unsigned i = 0; i < ARRAY_LEN(order); i++)
			if (order[i] >= 0 && (unsigned)order[i] >= from)
				next = MIN(next, (unsigned)order[i]);
		if (next > from)
			close_range(from, next - 1, 0);
		if (next == UINT_MAX)
			return;
		from = next + 1;
	}
}

static _Noreturn void keeper(struct view *v, int fd, pid_t machine, const struct termios *before)
{
	const char *wrong;
	char answer[200], word;
	bool clean = false;

	prctl(PR_SET_NAME, "keeper");
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	close_all_but(fd, v->terminal, v->keep);
	setsid(); /* no signal of the terminal's reaches it */
	while (read(fd, &word, 1) == 1) {
		if (word == KEEPER_CLEAN)
			clean = true;
		if (word != KEEPER_ENTER)
			continue;
		wrong = enter(v, machine);
		snprintf(answer, sizeof(answer), "%s%s%s", wrong ?: "", wrong ? ": " : "", wrong ? strerror(errno) : "");
		if (write(fd, answer, strlen(answer) + 1) < 0 || !v->stay)
			break;
		if (!v->after)
			drop_all();
	}
	if (v->terminal >= 0 && !clean)
		terminal_restore(v, before);
	if (clean && v->after)
		v->after(v->opaque);
	_exit(0);
}

/* ---- the machine's side */

static bool fix_folders(struct view *v)
{
	char proc[64];

	for (unsigned i = 0; i < v->nfolders; i++)
		if (mount(v->folder[i].path, v->folder[i].path, NULL, MS_BIND | MS_REC, NULL))
			return refuse(v, v->folder[i].path);
	snprintf(proc, sizeof(proc), "/proc/%d", getpid());
	return mount(proc, proc, NULL, MS_BIND, NULL) ? refuse(v, proc) : true;
}

static int keeper_start(struct view *v, struct err *e)
{
	pid_t machine = getpid();
	struct termios before; /* asked for here: the keeper might come too late */
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return err_errno(e, "cannot make a socket");
	if (v->terminal >= 0 && tcgetattr(v->terminal, &before))
		v->terminal = -1;
	fflush(NULL);
	v->keeper = fork();
	if (!v->keeper)
		keeper(v, pair[0], machine, &before);
	close(pair[0]);
	v->fd = pair[1];
	return v->keeper < 0 ? err_errno(e, "cannot make a process") : 0;
}

int view_begin(struct view *v, struct err *e)
{
	char here[PATH_MAX];
	bool user = false;
	int r = 0;

	if (v->wanted && leave(v, &user))
		v->on = fix_folders(v);
	v->mapped = user;
	if (v->on && getcwd(here, sizeof(here)) && chdir(here)) /* the same folder, in its new mount */
		r = err_errno(e, "cannot go to %s", here);
	if (!r && (v->on || v->stay))
		r = keeper_start(v, e);
	if (user)
		drop_all();
	return r;
}

void view_keep_terminal(struct view *v, bool full_screen)
{
	view_init(v);
	if (!isatty(STDIN_FILENO))
		return;
	v->stay = true;
	v->terminal = STDIN_FILENO;
	v->full_screen = full_screen;
	if (view_begin(v, NULL))
		v->fd = -1; /* it does without */
}

int view_enter(struct view *v, struct err *e)
{
	char answer[200] = "", here[PATH_MAX], word = KEEPER_ENTER;
	bool known = getcwd(here, sizeof(here));
	ssize_t n;

	if (!v->on)
		return 0;
	n = send(v->fd, &word, 1, MSG_NOSIGNAL);
	if (n == 1)
		n = read(v->fd, answer, sizeof(answer) - 1);
	if (n <= 0)
		return err_set(e, EPIPE, "its keeper died while it changed the root");
	if (answer[0])
		return err_set(e, EPERM, "own view of files: %s ('--unconfined' does without)", answer);
	if ((!known || chdir(here)) && chdir("/"))
		return err_errno(e, "cannot go to the new root");
	if (!v->stay) {
		cleanup_close(&v->fd);
		v->fd = -1;
		waitpid(v->keeper, NULL, 0);
		v->keeper = 0;
	}
	return 0;
}

void view_dispose(struct view *v, bool clean)
{
	char word = KEEPER_CLEAN;

	if (v->fd >= 0 && clean && send(v->fd, &word, 1, MSG_NOSIGNAL) < 0) {
		/* it was killed: nothing is done after us */
	}
	cleanup_close(&v->fd);
	v->fd = -1;
	for (unsigned i = 0; i < v->nfolders; i++)
		free(v->folder[i].path);
	for (unsigned i = 0; i < v->nfiles; i++)
		free(v->file[i]);
	v->nfolders = v->nfiles = 0;
}

int view_probe(struct err *e)
{
	struct view v;
	int pipes[2], status;
	char why[200] = "";
	pid_t child;

	view_init(&v);
	if (pipe2(pipes, O_CLOEXEC))
		return err_errno(e, "cannot make a pipe");
	child = fork();
	if (!child) {
		bool user;
		const char *wrong = leave(&v, &user) && fix_folders(&v) ? enter(&v, getpid()) : v.why;

		if (wrong && write(pipes[1], wrong, strlen(wrong)) < 0)
			_exit(2);
		_exit(wrong != NULL);
	}
	close(pipes[1]);
	if (child > 0 && read(pipes[0], why, sizeof(why) - 1) < 0)
		why[0] = 0;
	close(pipes[0]);
	if (child < 0 || waitpid(child, &status, 0) < 0)
		return err_errno(e, "cannot make a process");
	return status ? err_set(e, EPERM, "%s", why[0] ? why : "the attempt died") : 0;
}
