/* SPDX-License-Identifier: Apache-2.0 */
/* Floating point: matrix products in SSE2 and AVX2, and x87. */
#include <immintrin.h>
#include <math.h>
#include <string.h>
#include "parts.h"

#define N 192
static double a[N][N] __attribute__((aligned(32))), b[N][N] __attribute__((aligned(32))),
	c[N][N] __attribute__((aligned(32)));

static void fill(void)
{
	uint64_t seed = 5;

	for (int i = 0; i < N; i++)
		for (int j = 0; j < N; j++) {
			a[i][j] = (double)(next_random(&seed) % 1000) / 8;
			b[i][j] = (double)(next_random(&seed) % 1000) / 16;
		}
	memset(c, 0, sizeof(c));
}

static uint64_t sum_up(void)
{
	uint64_t sum = 0, v;

	for (int i = 0; i < N; i++)
		for (int j = 0; j < N; j++) {
			memcpy(&v, &c[i][j], 8);
			sum = sum * 31 + v;
		}
	return sum;
}

static uint64_t run_sse2(void)
{
	fill();
	for (int round = 0; round < 50; round++)
		for (int i = 0; i < N; i++)
			for (int k = 0; k < N; k++) {
				__m128d x = _mm_set1_pd(a[i][k]);

				for (int j = 0; j < N; j += 2)
					_mm_store_pd(&c[i][j],
						     _mm_add_pd(_mm_load_pd(&c[i][j]),
								_mm_mul_pd(x, _mm_load_pd(&b[k][j]))));
			}
	return sum_up();
}

__attribute__((target("avx2,fma"))) static uint64_t run_avx2(void)
{
	fill();
	for (int round = 0; round < 80; round++)
		for (int i = 0; i < N; i++)
			for (int k = 0; k < N; k++) {
				__m256d x = _mm256_set1_pd(a[i][k]);

				for (int j = 0; j < N; j += 4)
					_mm256_store_pd(&c[i][j],
							_mm256_fmadd_pd(x, _mm256_load_pd(&b[k][j]),
									_mm256_load_pd(&c[i][j])));
			}
	_mm256_zeroupper();
	return sum_up();
}

static int have_avx2(void)
{
	return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static uint64_t run_x87(void)
{
	long double x = 0.5L, sum = 0;
	uint64_t v;
	double d;

	for (int i = 0; i < 14000000; i++) {
		x = 3.9L * x * (1 - x);
		sum += sqrtl(x) / (x + 1);
	}
	d = (double)sum;
	memcpy(&v, &d, 8);
	return v;
}

const struct part parts_vector[] = {
	{ "matmul-sse2", "compute", run_sse2, 0 },
	{ "matmul-avx2", "compute", run_avx2, have_avx2 },
	{ "x87", "compute", run_x87, 0 },
	{ 0 },
};
