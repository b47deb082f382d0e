/* SPDX-License-Identifier: Apache-2.0 */
/* CPUID's feature bits in words, for whoever is told what a host lacks: as /proc/cpuinfo has them. */
#include <stdio.h>
#include <string.h>
#include "base/base.h"
#include "x86/cpuid.h"

enum { EAX, EBX, ECX, EDX };
/* Bits that a host is likely to lack; others are said by number. */
static const struct {
	uint32_t leaf;
	uint8_t subleaf, reg, bit;
	const char *name;
} names[] = {
	{ 1, 0, ECX, 0, "sse3" }, { 1, 0, ECX, 1, "pclmulqdq" }, { 1, 0, ECX, 9, "ssse3" }, { 1, 0, ECX, 12, "fma" },
	{ 1, 0, ECX, 13, "cx16" }, { 1, 0, ECX, 17, "pcid" }, { 1, 0, ECX, 19, "sse4_1" }, { 1, 0, ECX, 20, "sse4_2" },
	{ 1, 0, ECX, 22, "movbe" }, { 1, 0, ECX, 23, "popcnt" }, { 1, 0, ECX, 25, "aes" }, { 1, 0, ECX, 26, "xsave" },
	{ 1, 0, ECX, 28, "avx" }, { 1, 0, ECX, 29, "f16c" }, { 1, 0, ECX, 30, "rdrand" }, { 1, 0, EDX, 11, "sep" },
	{ 1, 0, EDX, 15, "cmov" }, { 1, 0, EDX, 19, "clflush" }, { 1, 0, EDX, 25, "sse" }, { 1, 0, EDX, 26, "sse2" },
	{ 7, 0, EBX, 0, "fsgsbase" }, { 7, 0, EBX, 3, "bmi1" }, { 7, 0, EBX, 5, "avx2" }, { 7, 0, EBX, 7, "smep" },
	{ 7, 0, EBX, 8, "bmi2" }, { 7, 0, EBX, 9, "erms" }, { 7, 0, EBX, 10, "invpcid" }, { 7, 0, EBX, 16, "avx512f" },
	{ 7, 0, EBX, 17, "avx512dq" }, { 7, 0, EBX, 18, "rdseed" }, { 7, 0, EBX, 19, "adx" }, { 7, 0, EBX, 20, "smap" },
	{ 7, 0, EBX, 21, "avx512ifma" }, { 7, 0, EBX, 23, "clflushopt" }, { 7, 0, EBX, 24, "clwb" },
	{ 7, 0, EBX, 28, "avx512cd" }, { 7, 0, EBX, 29, "sha_ni" }, { 7, 0, EBX, 30, "avx512bw" },
	{ 7, 0, EBX, 31, "avx512vl" }, { 7, 0, ECX, 1, "avx512vbmi" }, { 7, 0, ECX, 2, "umip" }, { 7, 0, ECX, 3, "pku" },
	{ 7, 0, ECX, 6, "avx512_vbmi2" }, { 7, 0, ECX, 8, "gfni" }, { 7, 0, ECX, 9, "vaes" },
	{ 7, 0, ECX, 10, "vpclmulqdq" }, { 7, 0, ECX, 11, "avx512_vnni" }, { 7, 0, ECX, 12, "avx512_bitalg" },
	{ 7, 0, ECX, 14, "avx512_vpopcntdq" }, { 7, 0, ECX, 16, "la57" }, { 7, 0, ECX, 22, "rdpid" },
	{ 0xd, 1, EAX, 0, "xsaveopt" }, { 0xd, 1, EAX, 1, "xsavec" }, { 0xd, 1, EAX, 2, "xgetbv1" },
	{ 0xd, 1, EAX, 3, "xsaves" }, { 0x80000001, 0, ECX, 0, "lahf_lm" }, { 0x80000001, 0, ECX, 5, "abm" },
	{ 0x80000001, 0, ECX, 6, "sse4a" }, { 0x80000001, 0, ECX, 8, "3dnowprefetch" }, { 0x80000001, 0, EDX, 20, "nx" },
	{ 0x80000001, 0, EDX, 26, "pdpe1gb" }, { 0x80000001, 0, EDX, 27, "rdtscp" }, { 0x80000001, 0, EDX, 29, "lm" },
};

static void name_bit(char *out, size_t size, uint32_t leaf, uint32_t subleaf, unsigned reg, unsigned bit)
{
	static const char *const reg_name[] = { "eax", "ebx", "ecx", "edx" };

	for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
		if (names[i].leaf == leaf && names[i].subleaf == subleaf && names[i].reg == reg && names[i].bit == bit) {
			snprintf(out, size, "%s", names[i].name);
			return;
		}
	}
	snprintf(out, size, "%x.%s[%u]", leaf, reg_name[reg], bit);
}

void cpuid_name_bits(char *text, size_t size, uint32_t leaf, uint32_t subleaf, unsigned reg, uint32_t bits)
{
	static const char more[] = " ...";
	char one[32];

	for (unsigned bit = 0; bit < 32; bit++) {
		size_t used = strlen(text);

		if (!(bits >> bit & 1))
			continue;
		name_bit(one, sizeof(one), leaf, subleaf, reg, bit);
		if (used + 1 + strlen(one) + sizeof(more) <= size) {
			snprintf(text + used, size - used, " %s", one);
			continue;
		}
		if (used < sizeof(more) - 1 || strcmp(text + used - (sizeof(more) - 1), more))
			snprintf(text + used, size - used, "%s", more);
		return;
	}
}
