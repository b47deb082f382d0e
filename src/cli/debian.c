/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The template "debian": scripts/guest/debian-template makes it, with mmdebstrap, from the host's mirror; it is part of this program. What it
 * says is kept in a file until it has ended well, and counted for the progress bar.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "cli/image.h"
#include "cli/template.h"
#include "debian-template.h"

/* Lines of apt and dpkg that mean one step more: a package fetched, unpacked, set up. Counted once, for Debian 12: 3 * 230. */
#define STEPS 640u

const char debian_yaml[] =
	"# A Debian for machines: 'ospite run debian'. The keys are the options of 'ospite run'.\n"
	"kernel: kernel\n"
	"initrd: initrd\n"
	"append: root=/dev/vda rw console=ttyS0 quiet\n"
	"disk:\n"
	"  - format=raw,file=disk.img,bus=virtio\n"
	"rng: true\n"
	"balloon: true\n"
	"seed: true\n";

static bool is_step(const char *line)
{
	static const char *const steps[] = { "Get:", "Unpacking ", "Setting up " };

	for (unsigned i = 0; i < ARRAY_LEN(steps); i++)
		if (!strncmp(line, steps[i], strlen(steps[i])))
			return true;
	return false;
}

/* "E:" is mmdebstrap's and apt's word for what went wrong; the first one is the cause. */
static void note(char why[200], const char *line)
{
	if (!strncmp(line, "debian-template: ", 17))
		snprintf(why, 200, "%.190s", line + 17);
	else if (!why[0] && !strncmp(line, "E: ", 3))
		snprintf(why, 200, "%.190s", line + 3);
	why[strcspn(why, "\n")] = 0;
}

static void watch(FILE *out, FILE *log, bool quiet, char why[200])
{
	struct progress bar;
	char line[4096];
	unsigned steps = 0;

	progress_start(&bar, "making the template debian", STEPS + 10, quiet);
	bar.steps = true;
	while (fgets(line, sizeof(line), out)) {
		fputs(line, log);
		steps += is_step(line);
		note(why, line);
		progress_show(&bar, MIN(steps, STEPS));
	}
	if (!why[0])
		progress_show(&bar, STEPS + 10);
	progress_end(&bar);
}

static _Noreturn void child(int script, int out, const char *folder)
{
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	char path[40];

	/* By descriptor: the script stays open over exec, and opens it again for its second step. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", script);
	fcntl(script, F_SETFD, 0);
	if (null >= 0 && dup2(null, 0) >= 0 && dup2(out, 1) >= 0 && dup2(out, 2) >= 0)
		execlp("sh", "sh", path, folder, (char *)NULL);
	_exit(127);
}

int debian_make(int folder, const char *templates, bool quiet, struct err *e)
{
	char path[PATH_MAX], log_path[PATH_MAX + 16], link[40], why[200] = "";
	int script _close_ = openat(folder, ".make", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int pipes[2], status = -1;
	FILE *out, *log;
	ssize_t n;
	pid_t pid;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", folder);
	n = readlink(link, path, sizeof(path) - 1);
	if (script < 0 || n <= 0 || write(script, debian_template, sizeof(debian_template) - 1) != (ssize_t)sizeof(debian_template) - 1)
		return err_errno(e, "cannot write to the template's folder");
	path[n] = 0;
	snprintf(log_path, sizeof(log_path), "%.4000s/.debian.log", templates);
	log = fopen(log_path, "we");
	if (!log)
		return err_errno(e, "cannot write %.250s", log_path);
	if (!quiet && !isatty(STDERR_FILENO))
		fputs("ospite: making the template debian, once; this takes a minute or two\n", stderr);
	if (pipe2(pipes, O_CLOEXEC)) {
		fclose(log);
		return err_errno(e, "cannot make a pipe");
	}
	fflush(NULL);
	pid = fork();
	if (!pid)
		child(script, pipes[1], path);
	close(pipes[1]);
	out = pid > 0 ? fdopen(pipes[0], "r") : NULL;
	if (out) {
		watch(out, log, quiet, why);
		fclose(out);
	} else {
		close(pipes[0]);
	}
	fclose(log);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	unlinkat(folder, ".make", 0);
	if (status)
		return err_set(e, EIO, "the template debian cannot be made: %s (all of it: %.200s)", why[0] ? why : "its script failed", log_path);
	unlink(log_path);
	return 0;
}
