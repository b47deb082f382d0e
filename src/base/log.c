/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log lines. One sink per process, which is the only state here that does not hang off a machine: file
 * descriptor 2 belongs to the process too. A line is put together first and leaves by one write(), so lines of
 * several threads do not mix. Control characters never reach the sink: a guest may have chosen the text and
 * the sink may be a terminal.
 *
 * Guest messages pass a token bucket by module: a burst of 10, then 4 a second; after some thousands one an hour, since the sink is a
 * file as a rule, and a guest that does nothing else would fill a disk within a year.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "base/base.h"
#include "base/log.h"

#define LOG_LINE 1024
#define GUEST_BURST 10
#define GUEST_PERIOD 250000000ull /* ns for one more line */
#define GUEST_MANY 4000u          /* then */
#define GUEST_RARE 3600000000000ull
#define GUEST_MODULES 64          /* further modules share the last bucket */

struct log_bucket {
	char module[16];
	uint64_t full_at; /* when the bucket will be full again */
	uint64_t suppressed;
	unsigned lines;
};

static struct {
	_Atomic int fd;
	_Atomic int level;
	pthread_mutex_t lock; /* buckets */
	struct log_bucket bucket[GUEST_MODULES];
} sink = { .fd = STDERR_FILENO, .level = LOG_INFO, .lock = PTHREAD_MUTEX_INITIALIZER };

int log_open(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666), old;

	if (fd < 0)
		return -errno;
	old = atomic_exchange(&sink.fd, fd);
	if (old != STDERR_FILENO)
		close(old);
	return 0;
}

void log_set_level(enum log_level level)
{
	atomic_store(&sink.level, (int)level);
}

static uint64_t log_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static __attribute__((format(printf, 4, 0))) void log_line(enum log_level level, const char *module,
							   uint64_t suppressed, const char *fmt,
							   va_list ap)
{
	static const char *const names[] = { "error", "warning", "info", "debug" };
	char line[LOG_LINE];
	uint64_t now = log_now();
	size_t n, i;
	int r;

	r = snprintf(line, sizeof(line) - 1, "ospite[%llu.%03u] %s: %s: ",
		     (unsigned long long)(now / 1000000000u), (unsigned)(now / 1000000 % 1000),
		     names[level & 3], module);
	n = MIN((size_t)(r < 0 ? 0 : r), sizeof(line) - 2);
	vsnprintf(line + n, sizeof(line) - 1 - n, fmt, ap);
	n = strlen(line);
	if (suppressed && n < sizeof(line) - 1) {
		snprintf(line + n, sizeof(line) - 1 - n, " (%llu more like it not shown)",
			 (unsigned long long)suppressed);
		n = strlen(line);
	}
	for (i = 0; i < n; i++)
		if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
			line[i] = '?';
	line[n++] = '\n';
	if (write(atomic_load(&sink.fd), line, n) < 0) {
		/* nowhere left to complain */
	}
}

void log_msg(enum log_level level, const char *module, const char *fmt, ...)
{
	va_list ap;

	if ((int)level > atomic_load_explicit(&sink.level, memory_order_relaxed))
		return;
	va_start(ap, fmt);
	log_line(level, module, 0, fmt, ap);
	va_end(ap);
}

static struct log_bucket *log_bucket_find(const char *module)
{
	unsigned i;

	for (i = 0; i < GUEST_MODULES - 1; i++) {
		struct log_bucket *b = &sink.bucket[i];

		if (!b->module[0])
			snprintf(b->module, sizeof(b->module), "%s", module);
		if (!strncmp(b->module, module, sizeof(b->module) - 1))
			return b;
	}
	return &sink.bucket[i];
}

void log_guest(const char *module, const char *fmt, ...)
{
	uint64_t now, suppressed = 0;
	struct log_bucket *b;
	bool pass;
	va_list ap;

	if (LOG_WARN > atomic_load_explicit(&sink.level, memory_order_relaxed))
		return;
	now = log_now();
	pthread_mutex_lock(&sink.lock);
	b = log_bucket_find(module);
	if (b->full_at < now)
		b->full_at = now;
	pass = b->full_at - now <= (b->lines < GUEST_MANY ? (GUEST_BURST - 1) * GUEST_PERIOD : 0);
	if (pass) {
		b->full_at += b->lines < GUEST_MANY ? GUEST_PERIOD : GUEST_RARE;
		b->lines += b->lines < GUEST_MANY;
		suppressed = b->suppressed;
		b->suppressed = 0;
	} else {
		b->suppressed++;
	}
	pthread_mutex_unlock(&sink.lock);
	if (!pass)
		return;
	va_start(ap, fmt);
	log_line(LOG_WARN, module, suppressed, fmt, ap);
	va_end(ap);
}
