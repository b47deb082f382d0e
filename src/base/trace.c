/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trace output: lines put together on the caller's stack and appended under a lock to a buffered file. The
 * buffer is written out when the trace ends; to standard error, line by line.
 */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "base/trace.h"

#define TRACE_LINE 1024

struct trace {
	uint32_t mask; /* first: trace_on() */
	FILE *file;
	bool owned;
	pthread_mutex_t lock;
};

static const struct {
	const char *name, *help;
} categories[] = {
#define T(name, help) { #name, help },
#include "base/trace.def"
#undef T
};

static int trace_parse(uint32_t *mask, const char *spec, struct err *e)
{
	const char *p = spec;

	*mask = 0;
	while (*p) {
		size_t n = strcspn(p, ",");
		unsigned i;

		for (i = 0; i < TRACE_COUNT; i++) {
			if (strlen(categories[i].name) == n && !memcmp(categories[i].name, p, n)) {
				*mask |= 1u << i;
				break;
			}
		}
		if (n == 3 && !memcmp(p, "all", 3))
			*mask = (1u << TRACE_COUNT) - 1;
		else if (n && i == TRACE_COUNT)
			return err_set(e, EINVAL, "nothing is traced as \"%.*s\"", (int)MIN(n, 40u), p);
		p += n;
		p += *p == ',';
	}
	return 0;
}

int trace_create(struct trace **out, const char *spec, const char *path, struct err *e)
{
	struct trace *t;
	uint32_t mask;
	int r;

	*out = NULL;
	r = trace_parse(&mask, spec, e);
	if (r || !mask)
		return r;
	t = calloc(1, sizeof(*t));
	if (!t)
		return err_set(e, ENOMEM, "no memory for a trace");
	t->mask = mask;
	t->file = stderr;
	if (path && strcmp(path, "-")) {
		t->file = fopen(path, "ae");
		if (!t->file) {
			free(t);
			return err_errno(e, "cannot write %s", path);
		}
		t->owned = true;
		setvbuf(t->file, NULL, _IOFBF, 1 << 18);
	}
	pthread_mutex_init(&t->lock, NULL);
	*out = t;
	return 0;
}

void trace_destroy(struct trace *t)
{
	if (!t)
		return;
	if (t->owned)
		fclose(t->file);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

void trace_help(void (*line)(void *opaque, const char *name, const char *help), void *opaque)
{
	unsigned i;

	for (i = 0; i < TRACE_COUNT; i++)
		line(opaque, categories[i].name, categories[i].help);
}

void trace_line(struct trace *t, enum trace_category category, const char *fmt, ...)
{
	char line[TRACE_LINE];
	size_t n, i;
	va_list ap;

	if (!trace_on(t, category))
		return;
	n = (size_t)snprintf(line, sizeof(line), "%s ", categories[category].name);
	va_start(ap, fmt);
	vsnprintf(line + n, sizeof(line) - 1 - n, fmt, ap);
	va_end(ap);
	n = strlen(line);
	while (n && line[n - 1] == ' ')
		n--;
	for (i = 0; i < n; i++)
		if ((unsigned char)line[i] < ' ')
			line[i] = ' ';
	line[n++] = '\n';
	pthread_mutex_lock(&t->lock);
	fwrite(line, 1, n, t->file);
	pthread_mutex_unlock(&t->lock);
}

void trace_mmio(struct trace *t, const char *device, bool write, uint64_t at, unsigned size,
		uint64_t value)
{
	trace_line(t, TRACE_mmio, "%s %#llx.%u %s %#llx", device ? device : "nothing",
		   (unsigned long long)at, size, write ? "<-" : "->", (unsigned long long)value);
}

void trace_port(struct trace *t, const char *device, bool out, uint16_t port, unsigned size,
		uint32_t value)
{
	trace_line(t, TRACE_port, "%s %#x.%u %s %#x", device ? device : "nothing", port, size,
		   out ? "<-" : "->", value);
}
