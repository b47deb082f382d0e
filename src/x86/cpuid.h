/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CPUID by model (v2, v3, v4, host): what the guest is offered, never more than engine and host can really do.
 * Held constant over a machine's life.
 */
#ifndef X86_CPUID_H
#define X86_CPUID_H

#include "x86/state.h"

struct err;
struct cpu;

#define CPUID_MAX 128
struct cpuid_entry {
	uint32_t leaf, subleaf;
	bool has_subleaves;
	uint32_t eax, ebx, ecx, edx;
};
struct cpuid_model {
	char name[16];
	unsigned count;
	struct cpuid_entry entry[CPUID_MAX];
	uint64_t xcr0_allowed;
	unsigned phys_bits;
	uint64_t tsc_khz;
	unsigned thread_bits, package_bits; /* of the APIC id: which thread of a core, which one of a package */
	/* everything asked often, decoded once from the table */
	bool has_avx, has_avx2, has_avx512, has_fma, has_pcid, has_invpcid, has_smep, has_smap, has_umip,
		has_fsgsbase, has_xsave, has_rdtscp, has_1g_pages, has_la57, has_rdrand, has_rdseed,
		has_f16c, has_aes, has_vaes, has_pclmul, has_vpclmul, has_sha, has_gfni, has_sse4a,
		has_xsaveopt, has_xsavec, has_xsaves;
	uint32_t avx512[3];   /* leaf 7's EBX, ECX, EDX: which parts of AVX-512 */
	uint16_t xsave_at[8]; /* where a component is in the standard form */
};

#define XSAVE_COMPONENTS 8
#define XSAVE_AREA_MAX 4096u
extern const uint16_t cpuid_xsave_bytes[XSAVE_COMPONENTS];
/* Size of an XSAVE area with these components, and where in it component n is. */
unsigned cpuid_xsave_size(const struct cpuid_model *m, uint64_t components, bool compact);
unsigned cpuid_xsave_offset(const struct cpuid_model *m, uint64_t components, bool compact, unsigned n);

/* name: "v2", "v3", "v4" or "host"; ncpus for the topology leaves. */
int cpuid_build(struct cpuid_model *m, const char *name, unsigned ncpus, uint64_t tsc_khz, struct err *e);
/*
 * Of `ncpus` alike: packages of `cores` cores of `threads` threads each. Before the machine starts; without it all are cores of one
 * package. CPU n has APIC id n, so that only shapes fit whose numbers leave no gap there; -EINVAL says so of others.
 */
int cpuid_set_topology(struct cpuid_model *m, unsigned ncpus, unsigned cores, unsigned threads, struct err *e);
/* As it is: cores of a package, threads of a core. */
void cpuid_get_topology(const struct cpuid_model *m, unsigned *cores, unsigned *threads);
/* Take over the model of a saved machine; refused, naming what lacks, when this host cannot keep its promises. */
int cpuid_adopt(struct cpuid_model *m, const struct cpuid_model *saved, struct err *e);
/*
 * Append the names of these bits of a leaf's register (0: EAX ... 3: EDX) to text, each after a space. What does not fit is three dots,
 * for which four bytes are always kept.
 */
void cpuid_name_bits(char *text, size_t size, uint32_t leaf, uint32_t subleaf, unsigned reg, uint32_t bits);
/* Take features away that an engine cannot offer: before the machine starts, of model host only. */
void cpuid_mask(struct cpuid_model *m, uint32_t leaf, uint32_t subleaf, const uint32_t keep[4]);
/* With the dynamic parts (APIC id, OSXSAVE, XSAVE sizes) of this CPU. */
void cpuid_query(const struct cpu *c, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);

#endif
