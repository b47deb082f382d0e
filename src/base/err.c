/* SPDX-License-Identifier: Apache-2.0 */
/* Error values: fixed storage at the caller, never an allocation, so reporting cannot fail. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "base/err.h"

static void err_vset(struct err *e, int code, const char *fmt, va_list ap)
{
	if (!e)
		return;
	e->code = code;
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
}

int err_set(struct err *e, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	err_vset(e, code, fmt, ap);
	va_end(ap);
	return -code;
}

int err_errno(struct err *e, const char *fmt, ...)
{
	int code = errno ? errno : EIO;
	va_list ap;
	size_t n;

	va_start(ap, fmt);
	err_vset(e, code, fmt, ap);
	va_end(ap);
	if (e) {
		n = strlen(e->text);
		snprintf(e->text + n, sizeof(e->text) - n, ": %s", strerrordesc_np(code));
	}
	return -code;
}

int err_prefix(struct err *e, const char *fmt, ...)
{
	char old[ERR_TEXT];
	va_list ap;
	size_t n;

	if (!e)
		return -EIO;
	memcpy(old, e->text, sizeof(old));
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	n = strlen(e->text);
	snprintf(e->text + n, sizeof(e->text) - n, ": %s", old);
	return -e->code;
}
