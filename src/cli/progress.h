/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bar for what takes its time: on a terminal only, and only when it takes longer than a moment. Ctrl-C leaves the line as it
 * is and the terminal as it was; a file named as unfinished goes then.
 */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
	const char *what;
	uint64_t total, done, started, shown;
	bool on, any;
	bool steps; /* what is counted is not bytes */
};

/* total may be 0 if it comes with progress_of. */
void progress_start(struct progress *p, const char *what, uint64_t total, bool quiet);
void progress_show(struct progress *p, uint64_t done);
void progress_add(struct progress *p, uint64_t more); /* p may be NULL */
/* As a callback of others: opaque is the bar. */
void progress_of(void *opaque, uint64_t done, uint64_t total);
/* Half made until progress_end; the text lives as long. NULL: none. */
void progress_unfinished(const char *path);
void progress_end(struct progress *p);

#endif
