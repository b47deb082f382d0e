/* SPDX-License-Identifier: Apache-2.0 */
/* What compilers call by themselves, in general registers only: see general.h. By single instructions, or they would call themselves. */
#include <stddef.h>
#include <stdint.h>

void *general_memcpy(void *to, const void *from, size_t n);
void *general_memmove(void *to, const void *from, size_t n);
void *general_memset(void *to, int v, size_t n);
int general_memcmp(const void *a, const void *b, size_t n);

void *general_memcpy(void *to, const void *from, size_t n)
{
	void *p = to;

	__asm__ volatile("rep movsb" : "+D"(p), "+S"(from), "+c"(n)::"memory");
	return to;
}

void *general_memmove(void *to, const void *from, size_t n)
{
	char *p = (char *)to + n - 1;
	const char *q = (const char *)from + n - 1;

	if ((uintptr_t)to - (uintptr_t)from >= n)
		return general_memcpy(to, from, n);
	__asm__ volatile("std\n\trep movsb\n\tcld" : "+D"(p), "+S"(q), "+c"(n)::"memory", "cc");
	return to;
}

void *general_memset(void *to, int v, size_t n)
{
	void *p = to;

	__asm__ volatile("rep stosb" : "+D"(p), "+c"(n) : "a"(v) : "memory");
	return to;
}

int general_memcmp(const void *a, const void *b, size_t n)
{
	const uint8_t *x = a, *y = b;

	for (; n; n--, x++, y++)
		if (*x != *y)
			return *x - *y;
	return 0;
}
