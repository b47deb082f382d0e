/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a vCPU's time goes, for --stats: a timer looks a thousand times a second what is being executed. By the clock, so
 * that halts are seen too. Costs nothing when off, and about one part in a thousand when on. The handler takes no locks.
 */
#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#undef REG_RIP /* an enumerator of <ucontext.h> too */
#include <unistd.h>
#include "engine/dbt/dbt.h"

#define SAMPLE_NS 1000000
#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

enum { UC_RIP = REG_CR2 - 6 };
_Static_assert(UC_RIP == REG_EFL - 1, "order of gregs");

static _Thread_local struct dbt_cpu *sample_self;

static int sample_signal(void)
{
	return SIGRTMIN + 4;
}

static void sample_handler(int number, siginfo_t *info, void *ucontext)
{
	struct dbt_cpu *dc = sample_self;
	const ucontext_t *uc = ucontext;

	if (!dc)
		return;
	if (atomic_load_explicit(&dc->c->run_state, memory_order_relaxed) == CPU_HALTED) {
		dc->counters.samples_halted++;
		return;
	}
	if ((uintptr_t)uc->uc_mcontext.gregs[UC_RIP] - (uintptr_t)dc->d->rx < dc->d->size)
		dc->counters.samples_guest_code++;
	else if (dc->translating)
		dc->counters.samples_translating++;
	else
		dc->counters.samples_helpers++;
}

/* On the vCPU's thread. Without a timer the counters stay at nought. */
void sample_start(struct dbt_cpu *dc)
{
	struct sigaction sa = { .sa_sigaction = sample_handler, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART };
	struct sigevent how = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = sample_signal() };
	sigset_t open;
	struct itimerspec every = { { 0, SAMPLE_NS }, { 0, SAMPLE_NS } };

	if (!dc->c->machine->sample)
		return;
	how.sigev_notify_thread_id = (int)syscall(SYS_gettid);
	sigfillset(&sa.sa_mask);
	sample_self = dc;
	if (sigaction(sample_signal(), &sa, NULL) || timer_create(CLOCK_MONOTONIC, &how, &dc->sampler))
		return;
	sigemptyset(&open);
	sigaddset(&open, sample_signal());
	pthread_sigmask(SIG_UNBLOCK, &open, NULL);
	dc->sampling = !timer_settime(dc->sampler, 0, &every, NULL);
}

void sample_stop(struct dbt_cpu *dc)
{
	sample_self = NULL;
	if (dc->sampling)
		timer_delete(dc->sampler);
	dc->sampling = false;
}
