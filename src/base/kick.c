/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kick signal. Which struct belongs to the interrupted thread is kept in a thread-local pointer, together with
 * the installed handler the only state outside of structs: signal dispositions belong to the process.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/base.h"
#include "base/err.h"
#include "base/kick.h"

#define KICK_STACK 65536u /* frames with AVX-512 state take 3.5 KiB each */
#define KICK_GUARD 4096u
/*
 * Or the kernel takes a stack pointer within the signal stack for a handler underway and goes on below it: in
 * translated code it is the guest's to choose.
 */
#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1u << 31)
#endif

static _Thread_local struct kick_thread *kick_self;

static int kick_signal(void)
{
	return SIGRTMIN + 2;
}

static void kick_handler(int number, siginfo_t *info, void *ucontext)
{
	struct kick_thread *k = kick_self;
	int saved = errno;

	if (k && k->fn)
		k->fn(k->opaque, ucontext);
	errno = saved;
}

static int kick_signals(struct err *e)
{
	struct sigaction sa = { .sa_sigaction = kick_handler, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART };
	sigset_t block;
	int r;

	sigfillset(&sa.sa_mask);
	if (sigaction(kick_signal(), &sa, NULL))
		return err_errno(e, "cannot handle the kick signal");
	sigfillset(&block);
	sigdelset(&block, kick_signal());
	sigdelset(&block, SIGSEGV);
	sigdelset(&block, SIGBUS);
	sigdelset(&block, SIGFPE);
	sigdelset(&block, SIGILL);
	sigdelset(&block, SIGTRAP);
	sigdelset(&block, SIGABRT);
	sigdelset(&block, SIGSYS);
	r = pthread_sigmask(SIG_SETMASK, &block, NULL);
	if (r) {
		errno = r;
		return err_errno(e, "cannot block signals");
	}
	return 0;
}

int kick_attach(struct kick_thread *k, struct err *e)
{
	stack_t stack = { .ss_size = KICK_STACK, .ss_flags = SS_AUTODISARM };
	int r;

	k->stack = mmap(NULL, KICK_GUARD + KICK_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			0);
	if (k->stack == MAP_FAILED) {
		k->stack = NULL;
		return err_errno(e, "no memory for a signal stack");
	}
	mprotect(k->stack, KICK_GUARD, PROT_NONE);
	stack.ss_sp = (char *)k->stack + KICK_GUARD;
	if (sigaltstack(&stack, NULL)) {
		r = err_errno(e, "cannot set a signal stack");
		munmap(k->stack, KICK_GUARD + KICK_STACK);
		k->stack = NULL;
		return r;
	}
	kick_self = k;
	r = kick_signals(e);
	if (r) {
		kick_detach(k);
		return r;
	}
	atomic_store(&k->tid, (int)syscall(SYS_gettid));
	return 0;
}

void kick_detach(struct kick_thread *k)
{
	stack_t off = { .ss_flags = SS_DISABLE };
	sigset_t block;

	/* one that is underway stays pending and goes with the thread */
	sigfillset(&block);
	pthread_sigmask(SIG_SETMASK, &block, NULL);
	atomic_store(&k->tid, 0);
	kick_self = NULL;
	sigaltstack(&off, NULL);
	if (k->stack)
		munmap(k->stack, KICK_GUARD + KICK_STACK);
	k->stack = NULL;
}

void kick_set(struct kick_thread *k, kick_fn fn, void *opaque)
{
	k->fn = NULL;
	atomic_signal_fence(memory_order_seq_cst);
	k->opaque = opaque;
	atomic_signal_fence(memory_order_seq_cst);
	k->fn = fn;
}

void kick_send(struct kick_thread *k)
{
	int tid = atomic_load(&k->tid);

	if (tid)
		syscall(SYS_tgkill, getpid(), tid, kick_signal());
}
