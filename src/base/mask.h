/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_MASK_H
#define BASE_MASK_H

#include <signal.h>

/*
 * What threads that are never kicked (kick.h) block when they are made: every signal, but for SIGSYS, by which all threads are reached once
 * before a machine runs (vm/landlock.c).
 */
static inline void mask_fill(sigset_t *set)
{
	sigfillset(set);
	sigdelset(set, SIGSYS);
}

#endif
