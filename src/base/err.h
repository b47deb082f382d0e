/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors are values. A fallible host operation returns 0 or a negative errno and fills the caller's
 * `struct err` (which may be NULL); callers prefix context on the way up; only cli prints and exits.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#define ERR_TEXT 640

struct err {
	int code; /* positive errno */
	char text[ERR_TEXT];
};

/* Fill e and return -code, so that `return err_set(e, EINVAL, "...", ...)` reads well. */
int err_set(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The same from errno: "FMT: strerror". */
int err_errno(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Put "FMT: " in front of what is there; returns -e->code. */
int err_prefix(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
