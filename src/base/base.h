/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every room uses: bounds, bits, scope clean-up, invariants.
 */
#ifndef BASE_BASE_H
#define BASE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define BIT(n) (1ull << (n))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* True when [at, at+len) lies within [0, size); cannot wrap. */
static inline bool range_fits(uint64_t at, uint64_t len, uint64_t size)
{
	return len <= size && at <= size - len;
}

/* Bits lo..hi of v, both included. */
static inline uint64_t bits(uint64_t v, unsigned hi, unsigned lo)
{
	return (v >> lo) & (~0ull >> (63 - (hi - lo)));
}

/* Scope clean-up: int fd _close_ = open(...); char *s _free_ = strdup(...); */
void cleanup_close(int *fd);
void cleanup_free(void *ptr);
#define _close_ __attribute__((cleanup(cleanup_close)))
#define _free_ __attribute__((cleanup(cleanup_free)))

/*
 * An invariant of the VMM itself, never of guest, file or network input. Always compiled in; prints
 * where and aborts. DCHECK is for hot paths: debug builds only, and never an optimiser hint.
 */
_Noreturn void check_failed(const char *expr, const char *file, int line);
#define CHECK(x) ((x) ? (void)0 : check_failed(#x, __FILE__, __LINE__))
#ifdef OSPITE_DEBUG
#define DCHECK(x) CHECK(x)
#else
#define DCHECK(x) ((void)sizeof(!(x)))
#endif

#endif
