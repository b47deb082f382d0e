/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AES, carry-less multiplication, SHA and GF(2^8): written from FIPS 197, FIPS 180-4 and the field
 * definitions. No secret of ours goes through here, so tables indexed by data are acceptable.
 */
#include "engine/interp/simd.h"

static inline uint8_t gf_mul(uint8_t x, uint8_t y) /* modulo x^8 + x^4 + x^3 + x + 1 */
{
	unsigned r = 0, a = x;

	for (unsigned k = 0; k < 8; k++, a = a << 1 ^ (a & 0x80 ? 0x11b : 0))
		r ^= y >> k & 1 ? a : 0;
	return (uint8_t)r;
}

static uint8_t gf_inverse(uint8_t x) /* x^254; 0 for 0 */
{
	uint8_t r = 1;

	for (unsigned k = 0; k < 7; k++) {
		x = gf_mul(x, x);
		r = gf_mul(r, x);
	}
	return r;
}

static inline uint8_t rotl8(uint8_t v, unsigned n)
{
	return (uint8_t)(v << n | v >> (8 - n));
}

static uint8_t sbox(uint8_t x)
{
	uint8_t v = gf_inverse(x);

	return v ^ rotl8(v, 1) ^ rotl8(v, 2) ^ rotl8(v, 3) ^ rotl8(v, 4) ^ 0x63;
}

static uint8_t sbox_inverse(uint8_t x)
{
	return gf_inverse(rotl8(x, 1) ^ rotl8(x, 3) ^ rotl8(x, 6) ^ 0x05);
}

/* ---- AES; the state is column by column, as FIPS 197 has it ---- */

static void mix_columns(union lane *d, const uint8_t coefficient[4])
{
	for (unsigned col = 0; col < 16; col += 4) {
		uint8_t out[4];

		for (unsigned row = 0; row < 4; row++) {
			out[row] = 0;
			for (unsigned k = 0; k < 4; k++)
				out[row] ^= gf_mul(d->b[col + k], coefficient[(k - row) & 3]);
		}
		memcpy(&d->b[col], out, 4);
	}
}

static const uint8_t mix_forward[4] = { 2, 3, 1, 1 }, mix_inverse[4] = { 14, 11, 13, 9 };

static void lane_aesenclast(union lane *d, const union lane *a, const union lane *b, unsigned n, unsigned imm)
{
	for (unsigned k = 0; k < 16; k++) /* row k & 3 moves left by that many columns */
		d->b[k] = sbox(a->b[(k + 4 * (k & 3)) & 15]);
	d->q[0] ^= b->q[0];
	d->q[1] ^= b->q[1];
}

static void lane_aesenc(union lane *d, const union lane *a, const union lane *b, unsigned n, unsigned imm)
{
	static const union lane zero;

	lane_aesenclast(d, a, &zero, n, imm);
	mix_columns(d, mix_forward);
	d->q[0] ^= b->q[0];
	d->q[1] ^= b->q[1];
}

static void lane_aesdeclast(union lane *d, const union lane *a, const union lane *b, unsigned n, unsigned imm)
{
	for (unsigned k = 0; k < 16; k++)
		d->b[k] = sbox_inverse(a->b[(k - 4 * (k & 3)) & 15]);
	d->q[0] ^= b->q[0];
	d->q[1] ^= b->q[1];
}

static void lane_aesdec(union lane *d, const union lane *a, const union lane *b, unsigned n, unsigned imm)
{
	static const union lane zero;

	lane_aesdeclast(d, a, &zero, n, imm);
	mix_columns(d, mix_inverse);
	d->q[0] ^= b->q[0];
	d->q[1] ^= b->q[1];
}

static void lane_aesimc(union lane *d, const union lane *a, const union lane *b, unsigned n, unsigned imm)
{
	*d = *b;
	mix_columns(d, mix_inverse);
}

static void lane_aeskeygenassist(union lane *d, const union lane *a, const union lane *b, unsigned n,
				 unsigned imm)
{
	for (unsigned half = 0; half < 2; half++) {
		uint32_t word = 0;

		for (unsigned k = 0; k < 4; k++)
			word |= (uint32_t)sbox(b->b[8 * half + 4 + k]) << 8 * k;
		d->d[2 * half] = word;
		d->d[2 * half + 1] = (word >> 8 | word << 24) ^ imm;
	}
}

/* ---- carry-less multiplication ---- */

static void lane_pclmulqdq(union lane *d, const union lane *a, const union lane *b, unsigned n, unsigned imm)
{
	uint64_t x = a->q[imm & 1], y = b->q[imm >> 4 & 1], low = 0, high = 0;

	for (unsigned k = 0; k < 64; k++) {
		if (!(y >> k & 1))
			continue;
		low ^= x << k;
		high ^= k ? x >> (64 - k) : 0;
	}
	d->q[0] = low;
	d->q[1] = high;
}

/* ---- SHA; the first operand is the destination, words are numbered from the top ---- */

static inline uint32_t rotl32(uint32_t v, unsigned n)
{
	return v << n | v >> (32 - n);
}

static inline uint32_t rotr32(uint32_t v, unsigned n)
{
	return v >> n | v << (32 - n);
}

static void lane_sha1msg1(union lane *d, const union lane *a, const union lane *b, unsigned n, unsigned imm)
{
	d->d[3] = a->d[1] ^ a->d[3];
	d->d[2] = a->d[0] ^ a->d[2];
	d->d[1] = b->d[3] ^ a->d[1];
	d->d[0] = b->d[2] ^ a->d[0];
}

static void lane_sha1msg2(union lane *d, const union lane *a, const union lane *b, unsigned n, unsigned imm)
{
	d->d[3] = rotl32(a->d[3] ^ b->d[2], 1);
	d->d[2] = rotl32(a->d[2] ^ b->d[1], 1);
	d->d[1] = rotl32(a->d[1] ^ b->d[0], 1);
	d->d[0] = rotl32(a->d[0] ^ d->d[3], 1);
}

static void lane_sha1nexte(union lane *d, const union lane *a, const union lane *b, unsigned n, unsigned imm)
{
	*d = *b;
	d->d[3] += rotl32(a->d[3], 30);
}

static void lane_sha1rnds4(union lane *d, const union lane *a, const union lane *b, unsigned n, unsigned imm)
{
	static const uint32_t constant[4] = { 0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6 };
	uint32_t A = a->d[3], B = a->d[2], C = a->d[1], D = a->d[0], E = 0, t, f;

	for (unsigned k = 0; k < 4; k++) {
		switch (imm & 3) {
		case 0:
			f = (B & C) ^ (~B & D);
			break;
		case 2:
			f = (B & C) ^ (B & D) ^ (C & D);
			break;
		default:
			f = B ^ C ^ D;
			break;
		}
		/* the first word of b holds E as well */
		t = f + rotl32(A, 5) + b->d[3 - k] + constant[imm & 3] + E;
		E = D;
		D = C;
		C = rotl32(B, 30);
		B = A;
		A = t;
	}
	*d = (union lane){ .d = { D, C, B, A } };
}

static inline uint32_t sha256_s0(uint32_t v)
{
	return rotr32(v, 7) ^ rotr32(v, 18) ^ v >> 3;
}

static inline uint32_t sha256_s1(uint32_t v)
{
	return rotr32(v, 17) ^ rotr32(v, 19) ^ v >> 10;
}

static void lane_sha256msg1(union lane *d, const union lane *a, const union lane *b, unsigned n, unsigned imm)
{
	for (unsigned k = 0; k < 4; k++)
		d->d[k] = a->d[k] + sha256_s0(k < 3 ? a->d[k + 1] : b->d[0]);
}

static void lane_sha256msg2(union lane *d, const union lane *a, const union lane *b, unsigned n, unsigned imm)
{
	d->d[0] = a->d[0] + sha256_s1(b->d[2]);
	d->d[1] = a->d[1] + sha256_s1(b->d[3]);
	d->d[2] = a->d[2] + sha256_s1(d->d[0]);
	d->d[3] = a->d[3] + sha256_s1(d->d[1]);
}

/* SHA's memory operands need no alignment on AMD processors; nobody relies on the fault elsewhere. */
#define HANDLER(name, how)                                   \
	int simd_##name(struct cpu *c, const struct insn *i) \
	{                                                    \
		return simd_op(c, i, lane_##name, how);      \
	}
HANDLER(aesenc, SIMD_AES)
HANDLER(aesenclast, SIMD_AES)
HANDLER(aesdec, SIMD_AES)
HANDLER(aesdeclast, SIMD_AES)
HANDLER(aesimc, SIMD_AES)
HANDLER(aeskeygenassist, SIMD_AES)
HANDLER(pclmulqdq, SIMD_PCLMUL)
HANDLER(sha1msg1, SIMD_SHA | SIMD_UNALIGNED)
HANDLER(sha1msg2, SIMD_SHA | SIMD_UNALIGNED)
HANDLER(sha1nexte, SIMD_SHA | SIMD_UNALIGNED)
HANDLER(sha1rnds4, SIMD_SHA | SIMD_UNALIGNED)
HANDLER(sha256msg1, SIMD_SHA | SIMD_UNALIGNED)
HANDLER(sha256msg2, SIMD_SHA | SIMD_UNALIGNED)

/* Two rounds; XMM0 holds the next two words plus their constants. */
int simd_sha256rnds2(struct cpu *c, const struct insn *i)
{
	const union x86_vreg *wk = &c->s.v[0];
	union x86_vreg a = c->s.v[i->reg], b;
	uint32_t A, B, C, D, E, F, G, H;
	int r = simd_check(c, i, SIMD_SHA);

	if (!r)
		r = simd_load(c, i, &b, SIMD_UNALIGNED);
	if (r)
		return r;
	A = b.d[3], B = b.d[2], E = b.d[1], F = b.d[0];
	C = a.d[3], D = a.d[2], G = a.d[1], H = a.d[0];
	for (unsigned k = 0; k < 2; k++) {
		uint32_t t1 = ((E & F) ^ (~E & G)) + (rotr32(E, 6) ^ rotr32(E, 11) ^ rotr32(E, 25)) + wk->d[k] + H;
		uint32_t t2 = ((A & B) ^ (A & C) ^ (B & C)) + (rotr32(A, 2) ^ rotr32(A, 13) ^ rotr32(A, 22));

		H = G, G = F, F = E, E = D + t1;
		D = C, C = B, B = A, A = t1 + t2;
	}
	c->s.v[i->reg].d[0] = F;
	c->s.v[i->reg].d[1] = E;
	c->s.v[i->reg].d[2] = B;
	c->s.v[i->reg].d[3] = A;
	return CPU_OK;
}

/* ---- GF(2^8) ---- */

static void lane_gf2p8mulb(union lane *d, const union lane *a, const union lane *b, unsigned n, unsigned imm)
{
	for (unsigned k = 0; k < 16; k++)
		d->b[k] = gf_mul(a->b[k], b->b[k]);
}

/* Each byte times the 8x8 bit matrix in its half of b, plus imm. */
static uint8_t affine(uint8_t x, uint64_t matrix, unsigned imm)
{
	uint8_t r = 0;

	for (unsigned bit = 0; bit < 8; bit++)
		r |= (uint8_t)(__builtin_parity((unsigned)(matrix >> 8 * (7 - bit)) & 0xff & x) << bit);
	return r ^ (uint8_t)imm;
}

static void lane_gf2p8affineqb(union lane *d, const union lane *a, const union lane *b, unsigned n,
			       unsigned imm)
{
	for (unsigned k = 0; k < 16; k++)
		d->b[k] = affine(a->b[k], b->q[k / 8], imm);
}

static void lane_gf2p8affineinvqb(union lane *d, const union lane *a, const union lane *b, unsigned n,
				  unsigned imm)
{
	for (unsigned k = 0; k < 16; k++)
		d->b[k] = affine(gf_inverse(a->b[k]), b->q[k / 8], imm);
}

HANDLER(gf2p8mulb, SIMD_GFNI)
HANDLER(gf2p8affineqb, SIMD_GFNI)
HANDLER(gf2p8affineinvqb, SIMD_GFNI)
