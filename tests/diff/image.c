// SPDX-License-Identifier: Apache-2.0
/*
 * What cases start from: memory images and register contents with the values that matter mixed in (borders of
 * every integer size, NaNs, infinities, denormals, odd 80-bit numbers, pointers into the arena).
 */
#include <stdlib.h>
#include <string.h>
#include "diff.h"

const struct arena_page arena_pages[IMAGE_PAGES] = {
	{ ARENA_DATA, true },
	{ ARENA_DATA + 1 * PAGE, true },
	{ ARENA_DATA + 2 * PAGE, true },
	{ ARENA_DATA + 3 * PAGE, false },
	{ ARENA_DATA + 5 * PAGE, true },
	{ ARENA_STACK, true },
	{ ARENA_STACK + PAGE, true },
};

const uint64_t special_integers[] = {
	0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 63, 64, 65, 0x7f, 0x80, 0x81, 0xff, 0x100, 0x7fff, 0x8000, 0xffff,
	0x10000, 0x7fffffff, 0x80000000, 0x80000001, 0xffffffff, 0x100000000, 0x7fffffffffffffff,
	0x8000000000000000, 0x8000000000000001, 0xffffffffffffffff, 0xfffffffffffffffe,
	0xffffffffffffff80, 0xffffffffffff8000, 0xffffffff80000000, 0x0123456789abcdef,
	0x8080808080808080, 0x7f7f7f7f7f7f7f7f, 0x00ff00ff00ff00ff, 0xff00ff00ff00ff00,
	0x5555555555555555, 0xaaaaaaaaaaaaaaaa, 0x0000000100000001, 0x7fff80007fff8000,
};
const unsigned special_integer_count = ARRAY_LEN(special_integers);

static const uint32_t special_floats[] = {
	0x00000000, 0x80000000, 0x3f800000, 0xbf800000, 0x40000000, 0x3f000000, 0x7f800000, 0xff800000,
	0x7fc00000, 0xffc00000, 0x7f800001, 0xff812345, 0x7fffffff, 0x00000001, 0x80000001, 0x007fffff,
	0x00800000, 0x80800000, 0x7f7fffff, 0xff7fffff, 0x4f000000, 0xcf000000, 0x4effffff, 0x5f000000,
	0xdf000000, 0x3effffff, 0x3fc00000, 0x40200000, 0x4b000001, 0xcb000001, 0x42c80000, 0x33800000,
	0x477fe000, 0x477ff000, 0x38800000, 0x33000001, 0x4f800000, 0x3f7fffff, 0x3f800001, 0x43000000,
};
static const uint64_t special_doubles[] = {
	0x0000000000000000, 0x8000000000000000, 0x3ff0000000000000, 0xbff0000000000000,
	0x4000000000000000, 0x3fe0000000000000, 0x7ff0000000000000, 0xfff0000000000000,
	0x7ff8000000000000, 0xfff8000000000000, 0x7ff0000000000001, 0xfff4000000000123,
	0x0000000000000001, 0x800fffffffffffff, 0x0010000000000000, 0x7fefffffffffffff,
	0xffefffffffffffff, 0x41dfffffffc00000, 0x41e0000000000000, 0xc1e0000000000000,
	0x43e0000000000000, 0xc3e0000000000000, 0x3fdfffffffffffff, 0x3ff8000000000000,
	0x4330000000000001, 0x400921fb54442d18, 0x36a0000000000000, 0x380fffffffffffff,
	0x47efffffe0000000, 0x47f0000000000000, 0x43f0000000000000, 0x3fefffffffffffff,
};

uint64_t random_integer(struct rng *r)
{
	switch (rng_below(r, 8)) {
	case 0:
	case 1:
		return special_integers[rng_below(r, special_integer_count)];
	case 2:
		return rng_next(r) >> (rng_next(r) & 63);
	case 3:
		return ~(rng_next(r) >> (rng_next(r) & 63));
	case 4:
		return rng_below(r, 256);
	default:
		return rng_next(r);
	}
}

static uint64_t random_vector_lane(struct rng *r)
{
	uint32_t a, b;

	switch (rng_below(r, 6)) {
	case 0:
		a = special_floats[rng_below(r, ARRAY_LEN(special_floats))];
		b = special_floats[rng_below(r, ARRAY_LEN(special_floats))];
		return a | (uint64_t)b << 32;
	case 1:
		/* two floats of moderate size */
		a = (uint32_t)(rng_next(r) & 0x807fffff) | (110 + rng_below(r, 36)) << 23;
		b = (uint32_t)(rng_next(r) & 0x807fffff) | (110 + rng_below(r, 36)) << 23;
		return a | (uint64_t)b << 32;
	case 2:
		return special_doubles[rng_below(r, ARRAY_LEN(special_doubles))];
	case 3:
		return (rng_next(r) & 0x800fffffffffffffull) | (uint64_t)(990 + rng_below(r, 70)) << 52;
	case 4:
		return rng_below(r, 1000) | (uint64_t)rng_below(r, 1000) << 32; /* gather indices */
	default:
		return random_integer(r);
	}
}

/* An 80-bit number, sometimes one of the forms no operation makes. */
static void random_extended(struct rng *r, uint64_t *mantissa, uint16_t *exponent)
{
	*mantissa = rng_next(r) | BIT(63);
	*exponent = (uint16_t)(rng_next(r) & 0x8000);
	switch (rng_below(r, 10)) {
	case 0:
		*mantissa = 0;
		break;
	case 1:
		*exponent |= 0x7fff;
		*mantissa = rng_below(r, 2) ? BIT(63) : *mantissa;
		break;
	case 2:
		*mantissa = rng_next(r) >> rng_below(r, 64); /* denormal, or pseudo-denormal */
		break;
	case 3:
		*exponent |= rng_next(r) & 0x7fff;
		*mantissa = rng_next(r); /* unnormal half of the time */
		break;
	case 4:
		*exponent |= 0x3fff;
		*mantissa = BIT(63) | (rng_next(r) & ~(BIT(rng_below(r, 63)) - 1));
		break;
	default:
		*exponent |= 0x3fff - 40 + rng_below(r, 100);
		*mantissa &= ~(BIT(rng_below(r, 64)) - 1);
		*mantissa |= BIT(63);
		break;
	}
}

uint8_t *images_create(void)
{
	uint8_t *all = malloc((size_t)IMAGES * IMAGE_BYTES);
	struct rng r = { 0x1234 };

	CHECK(all);
	for (size_t at = 0; at < (size_t)IMAGES * IMAGE_BYTES; at += 16) {
		uint64_t v[2] = { random_vector_lane(&r), random_vector_lane(&r) };

		if (rng_permille(&r, 30))
			v[0] = ARENA_DATA + rng_below(&r, 6 * PAGE);
		if (rng_permille(&r, 60)) {
			uint16_t exponent;

			random_extended(&r, &v[0], &exponent);
			v[1] = (v[1] & ~0xffffull) | exponent;
		}
		memcpy(all + at, v, 16);
	}
	return all;
}

static uint64_t random_pointer(struct rng *r)
{
	uint32_t page = rng_below(r, IMAGE_PAGES);

	return arena_pages[page].at + (rng_below(r, 4) ? rng_below(r, PAGE / 32) * 32 : rng_below(r, PAGE));
}

static void random_fpu(struct rng *r, struct diff_regs *out)
{
	unsigned top = rng_below(r, 8);

	out->fcw = 0x037f;
	if (rng_permille(r, 500)) {
		out->fcw = (uint16_t)(0x40 | rng_below(r, 4) << 10 | 0x3f | rng_below(r, 4) << 8);
		if (rng_permille(r, 150))
			out->fcw &= (uint16_t)~rng_below(r, 64); /* some exceptions unmasked */
	}
	out->fsw = (uint16_t)(top << 11 | (rng_next(r) & 0x4700));
	if ((out->fcw & 0x3f) == 0x3f)
		out->fsw |= (uint16_t)rng_below(r, 64);
	out->ftw = rng_below(r, 4) ? 0xff : (uint8_t)rng_next(r);
	if (rng_permille(r, 200))
		out->ftw = 0;
	for (unsigned i = 0; i < 8; i++)
		random_extended(r, &out->st[i].mantissa, &out->st[i].exponent);
	out->mxcsr = 0x1f80;
	if (rng_permille(r, 400)) {
		out->mxcsr = 0x1f80 | rng_below(r, 4) << 13 | rng_below(r, 64);
		if (rng_below(r, 2))
			out->mxcsr |= (uint32_t)(rng_next(r) & 0x8040); /* FTZ, DAZ */
		if (rng_permille(r, 150))
			out->mxcsr &= ~((uint32_t)rng_below(r, 64) << 7);
	}
}

void random_regs(struct rng *r, enum diff_mode mode, struct diff_regs *out)
{
	memset(out, 0, sizeof(*out));
	for (unsigned i = 0; i < 16; i++)
		out->gpr[i] = rng_permille(r, 450) ? random_pointer(r) : random_integer(r);
	out->gpr[4] = ARENA_STACK + PAGE + (rng_below(r, 8) ? rng_below(r, 64) * 16 : rng_below(r, 2048)) - 512;
	if (rng_permille(r, 700))
		out->gpr[5] = ARENA_STACK + PAGE + rng_below(r, 128) * 8 - 512;
	out->rflags = 0x202 | (rng_next(r) & 0x8d5);
	if (rng_permille(r, 100))
		out->rflags |= 0x400; /* DF */
	if (rng_permille(r, 12))
		out->rflags |= 0x40000; /* AC */
	if (rng_permille(r, 10))
		out->rflags |= 0x100; /* TF */
	out->fs_base = ARENA_DATA + rng_below(r, 64) * 8;
	out->gs_base = ARENA_DATA + PAGE + rng_below(r, 64);
	if (rng_permille(r, 30))
		out->gs_base = random_integer(r) & 0x7fffffffffff;
	out->sel[0] = out->sel[2] = out->sel[3] = 0x2b;
	out->sel[1] = mode == DIFF_64 ? 0x33 : 0x23;
	if (mode == DIFF_32) {
		for (unsigned i = 0; i < 16; i++)
			out->gpr[i] = i < 8 ? (uint32_t)out->gpr[i] : 0;
		out->fs_base = out->gs_base = 0;
	}
	random_fpu(r, out);
	for (unsigned i = 0; i < 16; i++) {
		for (unsigned k = 0; k < 4; k++)
			out->ymm[i][k] = random_vector_lane(r);
		if (rng_permille(r, 80))
			memset(out->ymm[i], 0, 32);
		if (mode == DIFF_32 && i >= 8)
			memset(out->ymm[i], 0, 32);
	}
}
