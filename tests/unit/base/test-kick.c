/* SPDX-License-Identifier: Apache-2.0 */
/* Kicking a thread: the handler runs there, on its own stack, whatever the stack pointer holds. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/base.h"
#include "base/err.h"
#include "base/kick.h"

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TEST_TSAN 1
#endif
#endif

struct lab {
	struct kick_thread kick;
	pthread_t thread;
	_Atomic unsigned kicks;
	_Atomic bool ready, stop, wrong_thread, wrong_stack, wild, sigint_blocked;
};

static void kicked(void *opaque, void *ucontext)
{
	struct lab *l = opaque;
	const ucontext_t *uc = ucontext;
	const char *here = (const char *)&uc, *stack = l->kick.stack;

	if (!pthread_equal(l->thread, pthread_self()))
		l->wrong_thread = true;
	if (here < stack || here > stack + (1 << 17))
		l->wrong_stack = true;
	if (uc->uc_mcontext.gregs[REG_RSP] == 8)
		l->wild = true;
	errno = EBADMSG; /* must not be seen outside */
	l->kicks++;
}

static void *run(void *opaque)
{
	struct lab *l = opaque;
	sigset_t now;

	l->thread = pthread_self();
	if (kick_attach(&l->kick, NULL))
		return NULL;
	pthread_sigmask(SIG_SETMASK, NULL, &now);
	l->sigint_blocked = sigismember(&now, SIGINT);
	kick_set(&l->kick, kicked, l);
	errno = 0;
	l->ready = true;
	while (!l->stop) {
		uint64_t spin = 20000, save;

		/* as translated code does: the stack pointer is a guest's value for a while */
		__asm__ volatile("movq %%rsp, %1\n\t"
				 "movq $8, %%rsp\n"
				 "1:\n\t"
				 "decq %0\n\t"
				 "jnz 1b\n\t"
				 "movq %1, %%rsp"
				 : "+r"(spin), "=&r"(save)
				 :
				 : "cc", "memory");
	}
	if (errno)
		l->wrong_thread = true;
	kick_detach(&l->kick);
	return NULL;
}

static void test_kick(void **state)
{
	struct lab l = { 0 };
	pthread_t t;
	unsigned i;

	kick_send(&l.kick); /* not attached yet: nothing */
	assert_int_equal(pthread_create(&t, NULL, run, &l), 0);
	while (!l.ready)
		usleep(100);
	for (i = 0; i < 10000 && (l.kicks < 200 || !l.wild); i++) {
		kick_send(&l.kick);
		usleep(10);
	}
	l.stop = true;
	pthread_join(t, NULL);
	kick_send(&l.kick); /* and no more */
	assert_true(l.kicks >= 200);
	assert_false(l.wrong_thread);
#ifndef TEST_TSAN /* it puts signals off and then calls handlers itself */
	assert_true(l.wild);
	assert_false(l.wrong_stack);
#endif
	assert_true(l.sigint_blocked);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kick),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
