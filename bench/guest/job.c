/* SPDX-License-Identifier: Apache-2.0 */
/* A real job: the C compiler proper of gcc translates a preprocessed file, where both are beside the program. */
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "parts.h"

#define COMPILER "/job/cc1"
#define SOURCE "/job/source.i"
#define OUTPUT "/tmp/bench-job.s"

static int have_job(void)
{
	return access(COMPILER, X_OK) == 0 && access(SOURCE, R_OK) == 0;
}

static uint64_t run_compile(void)
{
	int status = -1;
	struct stat st = { 0 };
	pid_t pid = vfork();

	if (pid == 0) {
		execl(COMPILER, "cc1", "-quiet", "-O2", "-fpreprocessed", SOURCE, "-o", OUTPUT, (char *)0);
		_exit(127);
	}
	waitpid(pid, &status, 0);
	stat(OUTPUT, &st);
	unlink(OUTPUT);
	return status ? 0 : (uint64_t)st.st_size;
}

const struct part parts_job[] = {
	{ "compile-c", "job", run_compile, have_job },
	{ 0 },
};
