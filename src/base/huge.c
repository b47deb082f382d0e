/* SPDX-License-Identifier: Apache-2.0 */
/* See huge.h. Over-reserves by one huge page to align, and gives the rest back. */
#include <stdint.h>
#include <sys/mman.h>
#include "base/huge.h"

#define HUGE ((size_t)2 << 20)
#define TAIL (HUGE / 2) /* of the last huge page at least so much must be used, or it is made of small ones */

static size_t whole(size_t size)
{
	return (size + HUGE - 1) & ~(HUGE - 1);
}

void *huge_alloc(size_t size)
{
	size_t len = whole(size), lead;
	char *p;

	if (!size || len < size || len + HUGE < len)
		return NULL;
	p = mmap(NULL, len + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	lead = -(uintptr_t)p & (HUGE - 1);
	if (lead)
		munmap(p, lead);
	munmap(p + lead + len, HUGE - lead);
	madvise(p + lead, size % HUGE < TAIL ? size & ~(HUGE - 1) : len, MADV_HUGEPAGE); /* only advice */
	return p + lead;
}

void huge_give_rest(void *p, size_t size)
{
	size_t used = (size + 4095) & ~(size_t)4095;

	if (!p || used >= whole(size))
		return;
	madvise((char *)p + used, whole(size) - used, MADV_NOHUGEPAGE);
	madvise((char *)p + used, whole(size) - used, MADV_DONTNEED);
}

void huge_free(void *p, size_t size)
{
	if (p)
		munmap(p, whole(size));
}
