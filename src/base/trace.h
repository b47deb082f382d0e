/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tracing: what a machine does, line by line, to a file or standard error. A machine that traces nothing has a
 * NULL pointer, so that a trace point costs one predictable test. Trace points that know of CPUs are in
 * x86/cpu-trace.h.
 */
#ifndef BASE_TRACE_H
#define BASE_TRACE_H

#include "base/base.h"

struct err;

enum trace_category {
#define T(name, help) TRACE_##name,
#include "base/trace.def"
#undef T
	TRACE_COUNT
};

struct trace;

/*
 * spec: categories separated by commas, or "all"; path: NULL or "-" for standard error. The new trace is in *out;
 * it stays NULL for an empty spec.
 */
int trace_create(struct trace **out, const char *spec, const char *path, struct err *e);
void trace_destroy(struct trace *t); /* after everyone who might trace has stopped */
void trace_help(void (*line)(void *opaque, const char *name, const char *help), void *opaque);

/* The mask is the first member, so that the test below is inline. */
static inline bool trace_on(const struct trace *t, enum trace_category category)
{
	return unlikely(t != NULL) && (*(const uint32_t *)(const void *)t & (1u << category));
}
/* A line of its own; a newline is added. Does nothing when the category is off. Any thread. */
void trace_line(struct trace *t, enum trace_category category, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* device: NULL when there is none. */
void trace_mmio(struct trace *t, const char *device, bool write, uint64_t at, unsigned size,
		uint64_t value);
void trace_port(struct trace *t, const char *device, bool out, uint16_t port, unsigned size,
		uint32_t value);

#endif
