/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interrupting a thread that runs guest code: a real-time signal sent to that thread alone. The handler runs on an
 * alternate stack, because translated code uses the stack pointer for a value of the guest.
 */
#ifndef BASE_KICK_H
#define BASE_KICK_H

#include <stdatomic.h>
#include <stddef.h>

struct err;

/* Called in signal context on the kicked thread: async-signal-safe things only. ucontext is ucontext_t *. */
typedef void (*kick_fn)(void *opaque, void *ucontext);

struct kick_thread {
	_Atomic int tid; /* 0: not attached */
	kick_fn fn;      /* may be NULL: the signal then only interrupts system calls that do not restart */
	void *opaque;
	void *stack;
};

/*
 * Make the calling thread one that can be kicked. Gives it an alternate signal stack (for all signals with
 * SA_ONSTACK) and blocks every asynchronous signal but the kick, so that SIGINT and kin go to other threads.
 */
int kick_attach(struct kick_thread *k, struct err *e);
void kick_detach(struct kick_thread *k); /* same thread */
/* Choose what the handler calls; same thread, or while the thread cannot be kicked. */
void kick_set(struct kick_thread *k, kick_fn fn, void *opaque);
/* Any thread, async-signal-safe. A thread that is not attached is not kicked. */
void kick_send(struct kick_thread *k);

#endif
