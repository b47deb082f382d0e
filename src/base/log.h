/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leveled log lines with a module name. What a guest can trigger goes through log_guest, which is
 * limited to a few lines a second for each module so that no guest can fill a disk.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* One sink per process: standard error until log_open names a file. */
int log_open(const char *path); /* 0 or -errno */
void log_set_level(enum log_level level);

void log_msg(enum log_level level, const char *module, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void log_guest(const char *module, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
