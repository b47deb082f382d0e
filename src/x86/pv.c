/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm-clock, steal time and hypercalls.
 *
 * The clock page says how to turn a TSC into nanoseconds since the machine started. TSC and virtual clock stop together
 * while the machine is paused, so a page stays true and is written only when the guest asks or moves its TSC.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "x86/pv.h"

#define ENABLE 1ull
#define TSC_STABLE 1u /* flags: all CPUs' clocks agree */
#define KVM_ENOSYS 1000
#define HC_VAPIC_POLL_IRQ 1

struct pv_time { /* ABI */
	uint32_t version, pad0;
	uint64_t tsc_timestamp, system_time;
	uint32_t tsc_to_system_mul;
	int8_t tsc_shift;
	uint8_t flags, pad[2];
};
struct pv_wall { /* ABI */
	uint32_t version, sec, nsec;
};
struct pv_steal { /* ABI; the version is odd while the rest changes */
	uint64_t steal;
	uint32_t version, flags;
	uint8_t preempted, pad[47];
};
_Static_assert(sizeof(struct pv_steal) == 64, "the guest reads this layout");
_Static_assert(sizeof(struct pv_time) == 32, "the guest reads this layout");
_Static_assert(sizeof(struct pv_wall) == 12, "the guest reads this layout");

/* mul and shift such that ns = ((ticks << shift) * mul) >> 32. */
static void scale(uint64_t khz, uint32_t *mul, int8_t *shift)
{
	uint64_t target = 1000000000ull, hz = khz * 1000;
	int n = 0;

	while (hz > target * 2 || hz >> 32) {
		hz >>= 1;
		n--;
	}
	while (hz <= target) {
		if (target >> 32 || hz >> 31)
			target >>= 1;
		else
			hz <<= 1;
		n++;
	}
	*shift = (int8_t)n;
	*mul = (uint32_t)((target << 32) / hz);
}

/* The version is odd while the rest changes. */
static int publish(struct cpu *c, gpa_t at, void *data, size_t len)
{
	uint32_t version;

	if (mem_dma_read(c->mem, at, &version, sizeof(version)))
		return -1;
	version = (version | 1) + 2;
	mem_dma_write(c->mem, at, &version, sizeof(version));
	atomic_thread_fence(memory_order_release);
	mem_dma_write(c->mem, at + 4, (char *)data + 4, len - 4);
	atomic_thread_fence(memory_order_release);
	version++;
	return mem_dma_write(c->mem, at, &version, sizeof(version));
}

void pv_system_time_update(struct cpu *c)
{
	/*
	 * The machine's tick 0 is its nanosecond 0. With that as the pair for every CPU, all of them compute the same from
	 * the same TSC, to the last bit, as TSC_STABLE promises.
	 */
	struct pv_time t = { .flags = TSC_STABLE, .tsc_timestamp = (uint64_t)c->s.tsc_offset };

	if (!(c->s.pv_clock & ENABLE))
		return;
	scale(clock_tsc_khz(c->machine->clock), &t.tsc_to_system_mul, &t.tsc_shift);
	publish(c, c->s.pv_clock & ~ENABLE, &t, sizeof(t));
}

int pv_system_time_write(struct cpu *c, uint64_t value)
{
	c->s.pv_clock = value;
	pv_system_time_update(c);
	return CPU_OK;
}

int pv_wall_clock_write(struct cpu *c, uint64_t value)
{
	struct pv_wall w = { 0 };
	struct timespec now;
	uint64_t ns;

	c->s.pv_wall_clock = value;
	clock_gettime(CLOCK_REALTIME, &now);
	ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec - clock_now(c->machine->clock);
	w.sec = (uint32_t)(ns / 1000000000u);
	w.nsec = (uint32_t)(ns % 1000000000u);
	publish(c, value & ~3ull, &w, sizeof(w));
	return CPU_OK;
}

/* Nanoseconds this thread has waited for a processor, as the scheduler counts them; 0 where it does not. */
static uint64_t run_delay(void)
{
	char text[96], *end, path[64];
	int fd;
	ssize_t n;

	/* thread-self is not in the process's own view of /proc (vm/view.c) */
	snprintf(path, sizeof(path), "/proc/self/task/%d/schedstat", gettid());
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return 0;
	text[n] = 0;
	strtoull(text, &end, 10); /* time on a processor */
	return strtoull(end, NULL, 10);
}

void pv_steal_update(struct cpu *c)
{
	uint64_t now = clock_now(c->machine->clock), delay;
	gpa_t at = c->s.pv_steal & ~63ull;
	struct pv_steal t;

	if (now < c->steal_next || mem_dma_read(c->mem, at, &t, sizeof(t)))
		return;
	c->steal_next = now + PV_STEAL_PERIOD;
	delay = run_delay();
	if (delay <= c->steal_seen) { /* nothing new, or another thread than before */
		c->steal_seen = delay;
		return;
	}
	t.version = (t.version | 1) + 2;
	t.steal += delay - c->steal_seen;
	c->steal_seen = delay;
	mem_dma_write(c->mem, at + offsetof(struct pv_steal, version), &t.version, sizeof(t.version));
	atomic_thread_fence(memory_order_release);
	mem_dma_write(c->mem, at, &t.steal, sizeof(t.steal));
	atomic_thread_fence(memory_order_release);
	t.version++;
	mem_dma_write(c->mem, at + offsetof(struct pv_steal, version), &t.version, sizeof(t.version));
}

int pv_steal_write(struct cpu *c, uint64_t value)
{
	if (value & 0x3e)
		return cpu_raise_error(c, VEC_GP, 0);
	c->s.pv_steal = value;
	c->steal_seen = run_delay(); /* what was before does not count */
	return CPU_OK;
}

int pv_hypercall(struct cpu *c)
{
	if (c->s.cpl)
		c->s.gpr[RAX] = (uint64_t)-1; /* EPERM: kernels only */
	else if (c->s.gpr[RAX] == HC_VAPIC_POLL_IRQ)
		c->s.gpr[RAX] = 0;
	else
		c->s.gpr[RAX] = (uint64_t)-KVM_ENOSYS;
	return CPU_OK;
}
