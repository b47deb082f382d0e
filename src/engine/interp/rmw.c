/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Read-modify-write of memory, plain and locked. Locked accesses use the host's own locked
 * instructions on the guest's page, so they are atomic against every other CPU and the host; where
 * there is no such page (MMIO, written code, two pages) all other CPUs' locked accesses are held
 * off.
 */
#include "engine/interp/private.h"

int rmw_begin_slow(struct cpu *c, unsigned size, struct rmw *m)
{
	int r = cpu_rmw(c, m->at, size, &m->host);

	if (r)
		return r;
	if (m->host) {
		m->old = host_load(m->host, size);
		return CPU_OK;
	}
	m->old = 0;
	return cpu_read(c, m->at, &m->old, size);
}

int lock_begin_at(struct cpu *c, gva_t at, unsigned size, struct rmw *m)
{
	int r;

	m->at = at;
	r = cpu_rmw(c, at, size, &m->host);
	if (r)
		return r;
	if (m->host) {
		m->old = host_load(m->host, size);
		return CPU_OK;
	}
	cpu_exclusive_begin(c);
	m->old = 0;
	r = cpu_read(c, at, &m->old, size);
	if (r)
		cpu_exclusive_end(c);
	return r;
}

int lock_begin(struct cpu *c, const struct insn *i, unsigned size, struct rmw *m)
{
	gva_t at;
	int r = operand_linear(c, i, size, true, &at);

	return r ? r : lock_begin_at(c, at, size, m);
}

/* Inline assembly, because the guest's address need not be aligned, which the compiler's atomics
 * require. */
static bool host_exchange_if(void *p, unsigned size, uint64_t *old, uint64_t v)
{
	bool done;

	switch (size) {
	case 1:
		__asm__ volatile("lock cmpxchgb %b3, %1"
				 : "=@ccz"(done), "+m"(*(uint8_t *)p), "+a"(*old)
				 : "q"(v)
				 : "memory");
		break;
	case 2:
		__asm__ volatile("lock cmpxchgw %w3, %1"
				 : "=@ccz"(done), "+m"(*(uint16_t *)p), "+a"(*old)
				 : "r"(v)
				 : "memory");
		break;
	case 4:
		__asm__ volatile("lock cmpxchgl %k3, %1"
				 : "=@ccz"(done), "+m"(*(uint32_t *)p), "+a"(*old)
				 : "r"(v)
				 : "memory");
		break;
	default:
		__asm__ volatile("lock cmpxchgq %q3, %1"
				 : "=@ccz"(done), "+m"(*(uint64_t *)p), "+a"(*old)
				 : "r"(v)
				 : "memory");
		break;
	}
	return done;
}

int lock_end(struct cpu *c, struct rmw *m, unsigned size, uint64_t v)
{
	int r;

	if (m->host)
		return host_exchange_if(m->host, size, &m->old, v) ? CPU_OK : LOCK_RETRY;
	r = cpu_write(c, m->at, &v, size);
	cpu_exclusive_end(c);
	return r;
}
