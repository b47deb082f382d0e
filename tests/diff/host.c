// SPDX-License-Identifier: Apache-2.0
/* What the host's CPU offers; nothing else is generated. */
#include <cpuid.h>
#include <string.h>
#include "diff.h"

void host_probe(struct host *h)
{
	unsigned a, b, c, d;

	memset(h, 0, sizeof(*h));
	__cpuid(0, a, b, c, d);
	h->amd = c == 0x444d4163; /* "cAMD" of AuthenticAMD */
	__cpuid(1, a, b, c, d);
	h->pclmul = c & bit_PCLMUL;
	h->ssse3 = c & bit_SSSE3;
	h->cx16 = c & bit_CMPXCHG16B;
	h->sse41 = c & bit_SSE4_1;
	h->sse42 = c & bit_SSE4_2;
	h->movbe = c & bit_MOVBE;
	h->popcnt = c & bit_POPCNT;
	h->aes = c & bit_AES;
	h->xsave = c & bit_OSXSAVE;
	if (h->xsave) {
		unsigned lo, hi;

		__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
		h->avx = (lo & 6) == 6 && (c & bit_AVX);
	}
	h->fma = h->avx && (c & bit_FMA);
	h->f16c = h->avx && (c & bit_F16C);
	__cpuid_count(7, 0, a, b, c, d);
	h->fsgsbase = b & bit_FSGSBASE;
	h->bmi1 = b & bit_BMI;
	h->bmi2 = b & bit_BMI2;
	h->avx2 = h->avx && (b & bit_AVX2);
	h->adx = b & bit_ADX;
	h->sha = b & bit_SHA;
	h->gfni = c & bit_GFNI;
	h->vaes = h->avx2 && (c & bit_VAES);
	h->vpclmul = h->avx2 && (c & bit_VPCLMULQDQ);
	h->clflushopt = b & bit_CLFLUSHOPT;
	h->clwb = b & bit_CLWB;
	__cpuid(0x80000001, a, b, c, d);
	h->lzcnt = c & bit_LZCNT;
	h->sse4a = c & bit_SSE4a;
	h->compat = true; /* the native runner corrects this */
}
