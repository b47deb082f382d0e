/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ospite cp: files by the guest agent, folders as tar archives that pass through a temporary file of the guest's. What comes out of a
 * machine is the guest's word: it is unpacked into the folder named, without device nodes, owners and set-user-ID bits.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "cli/agent.h"

struct copy {
	struct agent *agent;
	char archive[64]; /* in the guest */
	const char *inside, *outside;
	bool into; /* the target must be a folder: there are several sources */
	uint64_t done;
};

/* NAME:PATH; false: a path of the host's ("./a:b" and "/a:b" are). */
static bool split(const char *word, char name[STORE_NAME], const char **path)
{
	size_t n = strcspn(word, ":/");

	if (word[n] != ':' || !n || n >= STORE_NAME)
		return false;
	snprintf(name, STORE_NAME, "%.*s", (int)n, word);
	*path = word + n + 1;
	return true;
}

static const char *last_part(const char *path, size_t *len)
{
	const char *end = path + strlen(path), *at;

	while (end > path && end[-1] == '/')
		end--;
	at = end;
	while (at > path && at[-1] != '/')
		at--;
	*len = (size_t)(end - at);
	return at;
}

static int guest_says(struct copy *c, const char *script, const char *const *args, int ms, bool *yes, struct err *e)
{
	int status, r = agent_shell(c->agent, script, args, ms, &status, e);

	*yes = !status;
	return r;
}

static int archive_name(struct copy *c, struct err *e)
{
	const char *args[] = { c->archive, NULL };
	uint64_t random[2];
	bool ok;
	int r;

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return err_errno(e, "no random numbers");
	snprintf(c->archive, sizeof(c->archive), "/tmp/.ospite-%016llx%016llx", (unsigned long long)random[0],
		 (unsigned long long)random[1]);
	r = guest_says(c, "umask 077; set -C; : >\"$1\"", args, STEP_MS, &ok, e);
	return r ? r : ok ? 0 : err_set(e, EIO, "cannot make a file in the guest's /tmp (no room?)");
}

static void archive_remove(struct copy *c)
{
	const char *args[] = { c->archive, NULL };
	bool ok;

	if (c->archive[0])
		guest_says(c, "rm -f \"$1\"", args, STEP_MS, &ok, NULL);
}

/* tar of the host's; *fd is the end of its pipe that is ours. */
static int tar_start(const char *const *argv, bool reads, int *fd, pid_t *pid, struct err *e)
{
	int pipes[2];

	if (pipe2(pipes, O_CLOEXEC))
		return err_errno(e, "cannot make a pipe");
	*pid = fork();
	if (!*pid) {
		/* root's too: nothing that a guest has put together becomes a device here */
		prctl(PR_CAPBSET_DROP, CAP_MKNOD);
		signal(SIGPIPE, SIG_DFL);
		if (dup2(reads ? pipes[0] : pipes[1], reads ? 0 : 1) >= 0)
			execvp("tar", (char *const *)argv);
		_exit(127);
	}
	close(pipes[reads ? 0 : 1]);
	*fd = pipes[reads ? 1 : 0];
	if (*pid < 0) {
		close(*fd);
		return err_errno(e, "cannot start tar");
	}
	return 0;
}

static int tar_end(pid_t pid, struct err *e)
{
	int status;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		return 0;
	return WIFEXITED(status) && WEXITSTATUS(status) == 127 ? err_set(e, ENOENT, "the program tar is missing here") :
								 err_set(e, EIO, "tar has failed");
}

/* ---- into the machine */

static int folder_in(struct copy *c, const char *target, struct err *e)
{
	const char *argv[] = { "tar", "-cf", "-", "-C", c->outside, ".", NULL };
	const char *args[] = { c->archive, target, NULL };
	pid_t pid;
	bool ok;
	int fd, r = archive_name(c, e), ended;

	if (!r)
		r = tar_start(argv, false, &fd, &pid, e);
	if (r)
		return r;
	r = agent_upload(c->agent, fd, c->archive, &c->done, e);
	close(fd);
	ended = tar_end(pid, r ? NULL : e);
	if (!r && !ended)
		r = guest_says(c, "mkdir -p \"$2\" && tar -xf \"$1\" -C \"$2\"", args, 600000, &ok, e);
	if (!r && !ended && !ok)
		r = err_set(e, EIO, "tar in the guest cannot unpack to %.200s", target);
	return r ? r : ended;
}

static int file_in(struct copy *c, const char *target, struct err *e)
{
	int fd _close_ = open(c->outside, O_RDONLY | O_CLOEXEC);
	const char *args[] = { target, "", NULL };
	char mode[16];
	struct stat st;
	bool ok;
	int r;

	if (fd < 0 || fstat(fd, &st))
		return err_errno(e, "%.200s", c->outside);
	r = agent_upload(c->agent, fd, target, &c->done, e);
	snprintf(mode, sizeof(mode), "%o", (unsigned)st.st_mode & 0777);
	args[1] = mode;
	if (!r)
		r = guest_says(c, "chmod \"$2\" \"$1\"", args, STEP_MS, &ok, e);
	return r;
}

static int copy_in(struct copy *c, struct err *e)
{
	const char *args[] = { c->inside, NULL }, *name;
	char target[4400];
	struct stat st;
	bool folder = false;
	size_t len;
	int r = 0;

	if (stat(c->outside, &st))
		return err_errno(e, "%.200s", c->outside);
	name = last_part(c->outside, &len);
	if (len > 255 || strlen(c->inside) > 4000)
		return err_set(e, ENAMETOOLONG, "too long a name");
	r = guest_says(c, "test -d \"$1\"", args, STEP_MS, &folder, e);
	if (folder && len && strncmp(name, ".", len) && strncmp(name, "..", len))
		snprintf(target, sizeof(target), "%s/%.*s", c->inside, (int)len, name);
	else
		snprintf(target, sizeof(target), "%s", c->inside);
	if (!r && c->into && !folder)
		r = err_set(e, ENOTDIR, "'%.200s' is no folder of the machine: several can only be copied into one", c->inside);
	if (r)
		return r;
	return S_ISDIR(st.st_mode) ? folder_in(c, target, e) : file_in(c, target, e);
}

/* ---- out of it */

static int folder_out(struct copy *c, const char *target, struct err *e)
{
	const char *argv[] = { "tar", "-xf", "-", "--no-same-owner", "--no-same-permissions", "-C", target, NULL };
	const char *args[] = { c->archive, c->inside, NULL };
	pid_t pid;
	bool ok;
	int fd, r = archive_name(c, e), ended;

	if (!r)
		r = guest_says(c, "tar -cf \"$1\" -C \"$2\" .", args, 600000, &ok, e);
	if (!r && !ok)
		r = err_set(e, EIO, "tar in the guest has failed (no room in its /tmp?)");
	if (!r && mkdir(target, 0777) && errno != EEXIST)
		r = err_errno(e, "%.200s", target);
	if (!r)
		r = tar_start(argv, true, &fd, &pid, e);
	if (r)
		return r;
	r = agent_download(c->agent, c->archive, fd, &c->done, e);
	close(fd);
	ended = tar_end(pid, r ? NULL : e);
	return r ? r : ended;
}

/* Whole, or not there. */
static int file_out(struct copy *c, const char *target, struct err *e)
{
	char temp[4500];
	int fd, r;

	snprintf(temp, sizeof(temp), "%s.part-%d", target, (int)getpid());
	fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (fd < 0)
		return err_errno(e, "%.200s", target);
	r = agent_download(c->agent, c->inside, fd, &c->done, e);
	if (close(fd) && !r)
		r = err_errno(e, "%.200s", target);
	if (!r && rename(temp, target))
		r = err_errno(e, "%.200s", target);
	if (r)
		unlink(temp);
	return r;
}

static int copy_out(struct copy *c, struct err *e)
{
	const char *args[] = { c->inside, NULL }, *name;
	char target[4400];
	struct stat st;
	bool folder = false, there = false;
	size_t len;
	int r = guest_says(c, "test -e \"$1\"", args, STEP_MS, &there, e);

	if (!r && !there)
		r = err_set(e, ENOENT, "there is no '%.200s' in the machine", c->inside);
	if (!r)
		r = guest_says(c, "test -d \"$1\"", args, STEP_MS, &folder, e);
	if (r)
		return r;
	name = last_part(c->inside, &len);
	if (len > 255 || strlen(c->outside) > 4000)
		return err_set(e, ENAMETOOLONG, "too long a name");
	there = !stat(c->outside, &st) && S_ISDIR(st.st_mode);
	if (c->into && !there)
		return err_set(e, ENOTDIR, "'%.200s' is no folder: several can only be copied into one", c->outside);
	if (there && len && strncmp(name, ".", len) && strncmp(name, "..", len))
		snprintf(target, sizeof(target), "%s/%.*s", c->outside, (int)len, name);
	else
		snprintf(target, sizeof(target), "%s", c->outside);
	return folder ? folder_out(c, target, e) : file_out(c, target, e);
}

/* Where the sources are, and where the last word leads: one of the two in a machine, whose name is returned. */
static int sort_out(const struct life_args *a, bool *in, char name[STORE_NAME], struct err *e)
{
	unsigned last = a->nwords - 1;
	char other[STORE_NAME];
	const char *path;

	*in = split(a->words[last], name, &path);
	for (unsigned i = 0; i < last; i++) {
		if (split(a->words[i], *in || i ? other : name, &path) == *in)
			return err_set(e, EINVAL, "either the sources or the target are a machine's: NAME:PATH (write ./a:b for a file of that name here)");
		if (!*in && i && strcmp(other, name))
			return err_set(e, EINVAL, "%.60s: the sources are of more than one machine", a->words[i]);
	}
	return 0;
}

static int copy_one(struct copy *c, const char *source, const char *target, bool in, struct err *e)
{
	char name[STORE_NAME];
	int r;

	c->outside = in ? source : target;
	split(in ? target : source, name, &c->inside);
	c->archive[0] = 0;
	if (c->inside[0] != '/')
		return err_set(e, EINVAL, "a path in a machine begins with '/'");
	r = in ? copy_in(c, e) : copy_out(c, e);
	archive_remove(c);
	return r;
}

int life_cp(const struct life_command *c, struct life_args *a, struct store *s, struct err *e)
{
	char name[STORE_NAME], size[32];
	struct copy copy = { .into = a->nwords > 2 };
	struct agent_link l;
	bool in;
	int r = sort_out(a, &in, name, e);

	if (r)
		return r;
	signal(SIGPIPE, SIG_IGN);
	copy.agent = &l.agent;
	r = agent_link_open(&l, s, name, a, e);
	if (!r) {
		for (unsigned i = 0; i + 1 < a->nwords && !r; i++)
			r = copy_one(&copy, a->words[i], a->words[a->nwords - 1], in, e);
		if (r)
			err_prefix(e, "machine '%s'", name);
	}
	agent_link_close(&l);
	if (!r && !a->quiet)
		fprintf(stderr, "ospite: %s copied\n", short_size(copy.done, size));
	return r;
}
