/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AES, carry-less multiplication, SHA and GF(2^8): written from FIPS 197, FIPS 180-4 and the field
 * definitions. No secret of ours goes through here, so tables indexed by data are acceptable.
 */
#include "engine/interp/simd.h"

static inline uint8_t gf_mul(uint8_t x, uint8_t y) /* modulo x^8 + x^4 + x^3 + x + 1 */
{
	unsigned r = 0, a = x;

	for (; y; y >>= 1, a = a << 1 ^ (a & 0x80 ? 0x11b : 0))
		r ^= y & 1 ? a : 0;
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

/* SubBytes of FIPS 197 and its inverse. */
/* clang-format off */
static const uint8_t sbox[256] = {
	0x63, 0x7c, 0x77, 0x7b, 0xf2, 0x6b, 0x6f, 0xc5, 0x30, 0x01, 0x67, 0x2b, 0xfe, 0xd7, 0xab, 0x76,
	0xca, 0x82, 0xc9, 0x7d, 0xfa, 0x59, 0x47, 0xf0, 0xad, 0xd4, 0xa2, 0xaf, 0x9c, 0xa4, 0x72, 0xc0,
	0xb7, 0xfd, 0x93, 0x26, 0x36, 0x3f, 0xf7, 0xcc, 0x34, 0xa5, 0xe5, 0xf1, 0x71, 0xd8, 0x31, 0x15,
	0x04, 0xc7, 0x23, 0xc3, 0x18, 0x96, 0x05, 0x9a, 0x07, 0x12, 0x80, 0xe2, 0xeb, 0x27, 0xb2, 0x75,
	0x09, 0x83, 0x2c, 0x1a, 0x1b, 0x6e, 0x5a, 0xa0, 0x52, 0x3b, 0xd6, 0xb3, 0x29, 0xe3, 0x2f, 0x84,
	0x53, 0xd1, 0x00, 0xed, 0x20, 0xfc, 0xb1, 0x5b, 0x6a, 0xcb, 0xbe, 0x39, 0x4a, 0x4c, 0x58, 0xcf,
	0xd0, 0xef, 0xaa, 0xfb, 0x43, 0x4d, 0x33, 0x85, 0x45, 0xf9, 0x02, 0x7f, 0x50, 0x3c, 0x9f, 0xa8,
	0x51, 0xa3, 0x40, 0x8f, 0x92, 0x9d, 0x38, 0xf5, 0xbc, 0xb6, 0xda, 0x21, 0x10, 0xff, 0xf3, 0xd2,
	0xcd, 0x0c, 0x13, 0xec, 0x5f, 0x97, 0x44, 0x17, 0xc4, 0xa7, 0x7e, 0x3d, 0x64, 0x5d, 0x19, 0x73,
	0x60, 0x81, 0x4f, 0xdc, 0x22, 0x2a, 0x90, 0x88, 0x46, 0xee, 0xb8, 0x14, 0xde, 0x5e, 0x0b, 0xdb,
	0xe0, 0x32, 0x3a, 0x0a, 0x49, 0x06, 0x24, 0x5c, 0xc2, 0xd3, 0xac, 0x62, 0x91, 0x95, 0xe4, 0x79,
	0xe7, 0xc8, 0x37, 0x6d, 0x8d, 0xd5, 0x4e, 0xa9, 0x6c, 0x56, 0xf4, 0xea, 0x65, 0x7a, 0xae, 0x08,
	0xba, 0x78, 0x25, 0x2e, 0x1c, 0xa6, 0xb4, 0xc6, 0xe8, 0xdd, 0x74, 0x1f, 0x4b, 0xbd, 0x8b, 0x8a,
	0x70, 0x3e, 0xb5, 0x66, 0x48, 0x03, 0xf6, 0x0e, 0x61, 0x35, 0x57, 0xb9, 0x86, 0xc1, 0x1d, 0x9e,
	0xe1, 0xf8, 0x98, 0x11, 0x69, 0xd9, 0x8e, 0x94, 0x9b, 0x1e, 0x87, 0xe9, 0xce, 0x55, 0x28, 0xdf,
	0x8c, 0xa1, 0x89, 0x0d, 0xbf, 0xe6, 0x42, 0x68, 0x41, 0x99, 0x2d, 0x0f, 0xb0, 0x54, 0xbb, 0x16,
};
static const uint8_t sbox_inverse[256] = {
	0x52, 0x09, 0x6a, 0xd5, 0x30, 0x36, 0xa5, 0x38, 0xbf, 0x40, 0xa3, 0x9e, 0x81, 0xf3, 0xd7, 0xfb,
	0x7c, 0xe3, 0x39, 0x82, 0x9b, 0x2f, 0xff, 0x87, 0x34, 0x8e, 0x43, 0x44, 0xc4, 0xde, 0xe9, 0xcb,
	0x54, 0x7b, 0x94, 0x32, 0xa6, 0xc2, 0x23, 0x3d, 0xee, 0x4c, 0x95, 0x0b, 0x42, 0xfa, 0xc3, 0x4e,
	0x08, 0x2e, 0xa1, 0x66, 0x28, 0xd9, 0x24, 0xb2, 0x76, 0x5b, 0xa2, 0x49, 0x6d, 0x8b, 0xd1, 0x25,
	0x72, 0xf8, 0xf6, 0x64, 0x86, 0x68, 0x98, 0x16, 0xd4, 0xa4, 0x5c, 0xcc, 0x5d, 0x65, 0xb6, 0x92,
	0x6c, 0x70, 0x48, 0x50, 0xfd, 0xed, 0xb9, 0xda, 0x5e, 0x15, 0x46, 0x57, 0xa7, 0x8d, 0x9d, 0x84,
	0x90, 0xd8, 0xab, 0x00, 0x8c, 0xbc, 0xd3, 0x0a, 0xf7, 0xe4, 0x58, 0x05, 0xb8, 0xb3, 0x45, 0x06,
	0xd0, 0x2c, 0x1e, 0x8f, 0xca, 0x3f, 0x0f, 0x02, 0xc1, 0xaf, 0xbd, 0x03, 0x01, 0x13, 0x8a, 0x6b,
	0x3a, 0x91, 0x11, 0x41, 0x4f, 0x67, 0xdc, 0xea, 0x97, 0xf2, 0xcf, 0xce, 0xf0, 0xb4, 0xe6, 0x73,
	0x96, 0xac, 0x74, 0x22, 0xe7, 0xad, 0x35, 0x85, 0xe2, 0xf9, 0x37, 0xe8, 0x1c, 0x75, 0xdf, 0x6e,
	0x47, 0xf1, 0x1a, 0x71, 0x1d, 0x29, 0xc5, 0x89, 0x6f, 0xb7, 0x62, 0x0e, 0xaa, 0x18, 0xbe, 0x1b,
	0xfc, 0x56, 0x3e, 0x4b, 0xc6, 0xd2, 0x79, 0x20, 0x9a, 0xdb, 0xc0, 0xfe, 0x78, 0xcd, 0x5a, 0xf4,
	0x1f, 0xdd, 0xa8, 0x33, 0x88, 0x07, 0xc7, 0x31, 0xb1, 0x12, 0x10, 0x59, 0x27, 0x80, 0xec, 0x5f,
	0x60, 0x51, 0x7f, 0xa9, 0x19, 0xb5, 0x4a, 0x0d, 0x2d, 0xe5, 0x7a, 0x9f, 0x93, 0xc9, 0x9c, 0xef,
	0xa0, 0xe0, 0x3b, 0x4d, 0xae, 0x2a, 0xf5, 0xb0, 0xc8, 0xeb, 0xbb, 0x3c, 0x83, 0x53, 0x99, 0x61,
	0x17, 0x2b, 0x04, 0x7e, 0xba, 0x77, 0xd6, 0x26, 0xe1, 0x69, 0x14, 0x63, 0x55, 0x21, 0x0c, 0x7d,
};
/* clang-format on */

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

static void lane_aesenclast(union lane *d, const union lane *a, const union lane *b, unsigned n,
			    unsigned imm)
{
	for (unsigned k = 0; k < 16; k++) /* row k & 3 moves left by that many columns */
		d->b[k] = sbox[a->b[(k + 4 * (k & 3)) & 15]];
	d->q[0] ^= b->q[0];
	d->q[1] ^= b->q[1];
}

static void lane_aesenc(union lane *d, const union lane *a, const union lane *b, unsigned n,
			unsigned imm)
{
	static const union lane zero;

	lane_aesenclast(d, a, &zero, n, imm);
	mix_columns(d, mix_forward);
	d->q[0] ^= b->q[0];
	d->q[1] ^= b->q[1];
}

static void lane_aesdeclast(union lane *d, const union lane *a, const union lane *b, unsigned n,
			    unsigned imm)
{
	for (unsigned k = 0; k < 16; k++)
		d->b[k] = sbox_inverse[a->b[(k - 4 * (k & 3)) & 15]];
	d->q[0] ^= b->q[0];
	d->q[1] ^= b->q[1];
}

static void lane_aesdec(union lane *d, const union lane *a, const union lane *b, unsigned n,
			unsigned imm)
{
	static const union lane zero;

	lane_aesdeclast(d, a, &zero, n, imm);
	mix_columns(d, mix_inverse);
	d->q[0] ^= b->q[0];
	d->q[1] ^= b->q[1];
}

static void lane_aesimc(union lane *d, const union lane *a, const union lane *b, unsigned n,
			unsigned imm)
{
	*d = *b;
	mix_columns(d, mix_inverse);
}

static void lane_aeskeygenassist(union lane *d, const union lane *a, const union lane *b,
				 unsigned n, unsigned imm)
{
	for (unsigned half = 0; half < 2; half++) {
		uint32_t word = 0;

		for (unsigned k = 0; k < 4; k++)
			word |= (uint32_t)sbox[b->b[8 * half + 4 + k]] << 8 * k;
		d->d[2 * half] = word;
		d->d[2 * half + 1] = (word >> 8 | word << 24) ^ imm;
	}
}

/* ---- carry-less multiplication ---- */

static void lane_pclmulqdq(union lane *d, const union lane *a, const union lane *b, unsigned n,
			   unsigned imm)
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

static void lane_sha1msg1(union lane *d, const union lane *a, const union lane *b, unsigned n,
			  unsigned imm)
{
	d->d[3] = a->d[1] ^ a->d[3];
	d->d[2] = a->d[0] ^ a->d[2];
	d->d[1] = b->d[3] ^ a->d[1];
	d->d[0] = b->d[2] ^ a->d[0];
}

static void lane_sha1msg2(union lane *d, const union lane *a, const union lane *b, unsigned n,
			  unsigned imm)
{
	d->d[3] = rotl32(a->d[3] ^ b->d[2], 1);
	d->d[2] = rotl32(a->d[2] ^ b->d[1], 1);
	d->d[1] = rotl32(a->d[1] ^ b->d[0], 1);
	d->d[0] = rotl32(a->d[0] ^ d->d[3], 1);
}

static void lane_sha1nexte(union lane *d, const union lane *a, const union lane *b, unsigned n,
			   unsigned imm)
{
	*d = *b;
	d->d[3] += rotl32(a->d[3], 30);
}

static void lane_sha1rnds4(union lane *d, const union lane *a, const union lane *b, unsigned n,
			   unsigned imm)
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

static void lane_sha256msg1(union lane *d, const union lane *a, const union lane *b, unsigned n,
			    unsigned imm)
{
	for (unsigned k = 0; k < 4; k++)
		d->d[k] = a->d[k] + sha256_s0(k < 3 ? a->d[k + 1] : b->d[0]);
}

static void lane_sha256msg2(union lane *d, const union lane *a, const union lane *b, unsigned n,
			    unsigned imm)
{
	d->d[0] = a->d[0] + sha256_s1(b->d[2]);
	d->d[1] = a->d[1] + sha256_s1(b->d[3]);
	d->d[2] = a->d[2] + sha256_s1(d->d[0]);
	d->d[3] = a->d[3] + sha256_s1(d->d[1]);
}

/* SHA's memory operands need no alignment on AMD processors; nobody relies on the fault elsewhere.
 */
#define HANDLER(name, how)                                                                         \
	int simd_##name(struct cpu *c, const struct insn *i)                                       \
	{                                                                                          \
		return simd_op(c, i, lane_##name, how);                                            \
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
		uint32_t t1 = ((E & F) ^ (~E & G)) +
			      (rotr32(E, 6) ^ rotr32(E, 11) ^ rotr32(E, 25)) + wk->d[k] + H;
		uint32_t t2 = ((A & B) ^ (A & C) ^ (B & C)) +
			      (rotr32(A, 2) ^ rotr32(A, 13) ^ rotr32(A, 22));

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

static void lane_gf2p8mulb(union lane *d, const union lane *a, const union lane *b, unsigned n,
			   unsigned imm)
{
	for (unsigned k = 0; k < 16; k++)
		d->b[k] = gf_mul(a->b[k], b->b[k]);
}

/* Each byte times the 8x8 bit matrix in its half of b, plus imm. */
static uint8_t affine(uint8_t x, uint64_t matrix, unsigned imm)
{
	uint8_t r = 0;

	for (unsigned bit = 0; bit < 8; bit++)
		r |= (uint8_t)(__builtin_parity((unsigned)(matrix >> 8 * (7 - bit)) & 0xff & x)
			       << bit);
	return r ^ (uint8_t)imm;
}

static void lane_gf2p8affineqb(union lane *d, const union lane *a, const union lane *b, unsigned n,
			       unsigned imm)
{
	for (unsigned k = 0; k < 16; k++)
		d->b[k] = affine(a->b[k], b->q[k / 8], imm);
}

static void lane_gf2p8affineinvqb(union lane *d, const union lane *a, const union lane *b,
				  unsigned n, unsigned imm)
{
	for (unsigned k = 0; k < 16; k++)
		d->b[k] = affine(gf_inverse(a->b[k]), b->q[k / 8], imm);
}

HANDLER(gf2p8mulb, SIMD_GFNI)
HANDLER(gf2p8affineqb, SIMD_GFNI)
HANDLER(gf2p8affineinvqb, SIMD_GFNI)
