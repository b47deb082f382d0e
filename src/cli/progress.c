/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See progress.h. What a signal's handler has to put right is kept outside of any struct: it belongs to the process, and the handler
 * must find it.
 */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/base.h"
#include "base/clock.h"
#include "cli/progress.h"

#define MOMENT_NS 400000000u /* what is done by then needs no bar */
#define BETWEEN_NS 100000000u
#define WIDTH 30

static const char *_Atomic unfinished;
static _Atomic bool line_open;

static void interrupted(int number)
{
	const char *path = unfinished;

	if (path)
		unlink(path);
	if (line_open && write(STDERR_FILENO, "\n", 1) < 0) {
		/* nobody is there to see it */
	}
	raise(number); /* the handler is gone (SA_RESETHAND) */
}

static void watch_signals(bool on)
{
	static const int ends[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction act = { .sa_handler = interrupted, .sa_flags = (int)SA_RESETHAND }, old;

	for (unsigned i = 0; i < ARRAY_LEN(ends); i++) {
		if (sigaction(ends[i], NULL, &old))
			continue;
		if (on && old.sa_handler == SIG_DFL)
			sigaction(ends[i], &act, NULL);
		else if (!on && old.sa_handler == interrupted)
			signal(ends[i], SIG_DFL);
	}
}

void progress_start(struct progress *p, const char *what, uint64_t total, bool quiet)
{
	*p = (struct progress){ .what = what, .total = MAX(total, 1u), .started = clock_host_now(), .on = !quiet && isatty(STDERR_FILENO) };
	watch_signals(true);
}

void progress_show(struct progress *p, uint64_t done)
{
	uint64_t now;
	double part, seconds;
	char bar[WIDTH + 1];

	p->done = done;
	if (!p->on)
		return;
	now = clock_host_now();
	if (now - p->shown < BETWEEN_NS && (done < p->total || !p->any))
		return;
	if (!p->any && now - p->started < MOMENT_NS)
		return;
	p->shown = now;
	p->any = true;
	atomic_store(&line_open, true);
	part = MIN((double)done / (double)p->total, 1.0);
	seconds = (double)(now - p->started) / 1e9;
	for (unsigned i = 0; i < WIDTH; i++)
		bar[i] = i < part * WIDTH ? '#' : '.';
	bar[WIDTH] = 0;
	fprintf(stderr, "\r%s [%s] %3.0f %%", p->what, bar, part * 100);
	if (!p->steps)
		fprintf(stderr, " %7.1f MB/s", seconds > 0 ? (double)done / 1e6 / seconds : 0);
	if (part > 0.01 && part < 1)
		fprintf(stderr, " %4.0f s left ", seconds / part - seconds);
	else
		fprintf(stderr, "             ");
}

void progress_add(struct progress *p, uint64_t more)
{
	if (p)
		progress_show(p, p->done + more);
}

void progress_of(void *opaque, uint64_t done, uint64_t total)
{
	struct progress *p = opaque;

	p->total = MAX(total, 1u);
	progress_show(p, done);
}

void progress_unfinished(const char *path)
{
	unfinished = path;
}

void progress_end(struct progress *p)
{
	unfinished = NULL;
	watch_signals(false);
	if (p->any)
		fputc('\n', stderr);
	atomic_store(&line_open, false);
	p->any = false;
}
