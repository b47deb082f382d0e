/* SPDX-License-Identifier: Apache-2.0 */
/* The fallback for hosts without FMA against a host with it: results, NaNs, MXCSR with DAZ, FTZ and
 * all roundings. */
#include <stdio.h>
#include <string.h>
#include "engine/interp/simd-fma.h"
#include "sandbox.h"

static float host_f32(float x, float y, float z)
{
	__asm__ volatile("vfmadd231ss %2, %1, %0" : "+x"(z) : "x"(x), "x"(y));
	return z;
}

static double host_f64(double x, double y, double z)
{
	__asm__ volatile("vfmadd231sd %2, %1, %0" : "+x"(z) : "x"(x), "x"(y));
	return z;
}

static uint32_t swap_csr(uint32_t csr)
{
	uint32_t old;

	__asm__ volatile("stmxcsr %0\n\tldmxcsr %1" : "=m"(old) : "m"(csr) : "memory");
	return old;
}

int main(void)
{
	const uint32_t normal = 0x1f80;
	unsigned differ = 0, runs = 0;
	struct sandbox s;

	if (!sandbox_create(&s, 0, false) || !__builtin_cpu_supports("fma"))
		return 77;
	for (; runs < 60000; runs++) {
		uint32_t csr = normal | sandbox_pick(&s, 4) << 13 |
			       (sandbox_pick(&s, 3) ? 0 : 0x8000) |
			       (sandbox_pick(&s, 3) ? 0 : 0x40);
		uint32_t want_csr, got_csr;
		float f[3], want32, got32;
		double d[3], want64, got64;

		for (unsigned k = 0; k < 3; k++) {
			sandbox_fill(&s, (uint8_t *)&f[k], 4);
			sandbox_fill(&s, (uint8_t *)&d[k], 8);
		}
		swap_csr(csr);
		want32 = host_f32(f[0], f[1], f[2]);
		want_csr = swap_csr(csr);
		got32 = fma_soft_f32(f[0], f[1], f[2]);
		got_csr = swap_csr(normal);
		if ((memcmp(&want32, &got32, 4) || want_csr != got_csr) && differ++ < 10)
			printf("f32 %a * %a + %a csr %x: host %a %x, ours %a %x\n", (double)f[0],
			       (double)f[1], (double)f[2], csr, (double)want32, want_csr,
			       (double)got32, got_csr);
		swap_csr(csr);
		want64 = host_f64(d[0], d[1], d[2]);
		want_csr = swap_csr(csr);
		got64 = fma_soft_f64(d[0], d[1], d[2]);
		got_csr = swap_csr(normal);
		if ((memcmp(&want64, &got64, 8) || want_csr != got_csr) && differ++ < 10)
			printf("f64 %a * %a + %a csr %x: host %a %x, ours %a %x\n", d[0], d[1],
			       d[2], csr, want64, want_csr, got64, got_csr);
	}
	printf("%u runs, %u differ\n", runs, differ);
	sandbox_destroy(&s);
	return differ != 0;
}
