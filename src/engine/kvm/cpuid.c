/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's CPUID model for KVM. The model is what the guest was promised and stays constant, so a host that
 * cannot hold the promise is refused with the features it lacks, not silently reduced.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include "engine/kvm/kvm.h"
#include "x86/cpuid.h"

#define SUPPORTED_MAX 256

/* Feature words that name what instructions may be used. `ours` is served by our devices, whatever KVM says. */
enum { EAX, EBX, ECX, EDX };
static const struct {
	uint32_t leaf, subleaf;
	unsigned reg;
	uint32_t ours;
} words[] = {
	{ 1, 0, ECX, 1u << 21 | 1u << 24 | 1u << 27 | 1u << 31 }, /* x2APIC, TSC deadline, OSXSAVE, hypervisor */
	{ 1, 0, EDX, 1u << 9 | 1u << 7 | 1u << 14 | 1u << 12 | 1u << 28 }, /* APIC, MCE, MCA, MTRR, HTT */
	{ 7, 0, EBX, 1u << 1 },
	{ 7, 0, ECX, 0 },
	{ 7, 0, EDX, 1u << 4 },
	{ 0xd, 1, EAX, 0 },
	{ 0x80000001, 0, ECX, 1u << 1 | 1u << 3 | 1u << 22 },
	{ 0x80000001, 0, EDX, 1u << 9 | 1u << 7 | 1u << 14 | 1u << 12 },
};
static const char *const reg_name[] = { "eax", "ebx", "ecx", "edx" };

/* Names of the bits that a host is likely to lack, as /proc/cpuinfo has them; others are said by number. */
static const struct {
	uint8_t word, bit;
	const char *name;
} names[] = {
	{ 0, 0, "sse3" }, { 0, 1, "pclmulqdq" }, { 0, 9, "ssse3" }, { 0, 12, "fma" }, { 0, 13, "cx16" },
	{ 0, 17, "pcid" }, { 0, 19, "sse4_1" }, { 0, 20, "sse4_2" }, { 0, 22, "movbe" }, { 0, 23, "popcnt" },
	{ 0, 25, "aes" }, { 0, 26, "xsave" }, { 0, 28, "avx" }, { 0, 29, "f16c" }, { 0, 30, "rdrand" },
	{ 1, 11, "sep" }, { 1, 15, "cmov" }, { 1, 19, "clflush" }, { 1, 25, "sse" }, { 1, 26, "sse2" },
	{ 2, 0, "fsgsbase" }, { 2, 3, "bmi1" }, { 2, 5, "avx2" }, { 2, 7, "smep" }, { 2, 8, "bmi2" }, { 2, 9, "erms" },
	{ 2, 10, "invpcid" }, { 2, 16, "avx512f" }, { 2, 17, "avx512dq" }, { 2, 18, "rdseed" }, { 2, 19, "adx" },
	{ 2, 20, "smap" }, { 2, 23, "clflushopt" }, { 2, 24, "clwb" }, { 2, 28, "avx512cd" }, { 2, 29, "sha_ni" },
	{ 2, 30, "avx512bw" }, { 2, 31, "avx512vl" }, { 3, 2, "umip" }, { 3, 9, "vaes" }, { 3, 10, "vpclmulqdq" },
	{ 3, 22, "rdpid" }, { 5, 0, "xsaveopt" }, { 5, 1, "xsavec" }, { 5, 2, "xgetbv1" }, { 5, 3, "xsaves" },
	{ 6, 0, "lahf_lm" }, { 6, 5, "abm" }, { 6, 6, "sse4a" }, { 6, 8, "3dnowprefetch" }, { 7, 20, "nx" },
	{ 7, 26, "pdpe1gb" }, { 7, 27, "rdtscp" }, { 7, 29, "lm" },
};

static size_t name_bit(char *out, size_t size, unsigned word, unsigned bit)
{
	for (unsigned i = 0; i < ARRAY_LEN(names); i++)
		if (names[i].word == word && names[i].bit == bit)
			return (size_t)snprintf(out, size, " %s", names[i].name);
	return (size_t)snprintf(out, size, " %x.%s[%u]", words[word].leaf, reg_name[words[word].reg], bit);
}

static const struct cpuid_entry *model_find(const struct cpuid_model *m, uint32_t leaf, uint32_t subleaf)
{
	for (unsigned i = 0; i < m->count; i++)
		if (m->entry[i].leaf == leaf && (!m->entry[i].has_subleaves || m->entry[i].subleaf == subleaf))
			return &m->entry[i];
	return NULL;
}

static const struct kvm_cpuid_entry2 *host_find(const struct kvm_cpuid2 *h, uint32_t leaf, uint32_t subleaf)
{
	for (unsigned i = 0; i < h->nent; i++)
		if (h->entries[i].function == leaf && h->entries[i].index == subleaf)
			return &h->entries[i];
	return NULL;
}

/* Bits of word i that the model has and this KVM cannot give. */
static uint32_t lacking(const struct cpuid_model *m, const struct kvm_cpuid2 *host, unsigned i)
{
	const struct cpuid_entry *a = model_find(m, words[i].leaf, words[i].subleaf);
	const struct kvm_cpuid_entry2 *b = host_find(host, words[i].leaf, words[i].subleaf);

	if (!a)
		return 0;
	const uint32_t want[] = { a->eax, a->ebx, a->ecx, a->edx };
	const uint32_t have[] = { b ? b->eax : 0, b ? b->ebx : 0, b ? b->ecx : 0, b ? b->edx : 0 };

	return want[words[i].reg] & ~words[i].ours & ~have[words[i].reg];
}

static int check(const struct machine *machine, const struct kvm_cpuid2 *host, struct err *e)
{
	const struct cpuid_model *m = machine->cpuid;
	char missing[360] = "";
	size_t used = 0;

	for (unsigned i = 0; i < ARRAY_LEN(words); i++) {
		uint32_t l = lacking(m, host, i);

		for (unsigned bit = 0; bit < 32 && used < sizeof(missing) - 32; bit++)
			if (l & 1u << bit)
				used += name_bit(missing + used, sizeof(missing) - used, i, bit);
	}
	if (!used)
		return 0;
	if (machine->cpuid_promised)
		return err_set(e, ENOTSUP, "KVM on this host lacks what the guest was promised:%s", missing);
	return err_set(e, ENOTSUP, "KVM on this host cannot offer CPU model %s (try --cpu host); it lacks:%s", m->name, missing);
}

/* Model host is what this host and engine can do together: what KVM lacks goes. */
static void restrict_host(struct cpuid_model *m, const struct kvm_cpuid2 *host)
{
	for (unsigned i = 0; i < ARRAY_LEN(words); i++) {
		uint32_t keep[4] = { ~0u, ~0u, ~0u, ~0u };

		keep[words[i].reg] = ~lacking(m, host, i);
		cpuid_mask(m, words[i].leaf, words[i].subleaf, keep);
	}
}

static struct kvm_cpuid2 *host_table(struct kvm_vm *vm, struct err *e)
{
	struct kvm_cpuid2 *table = calloc(1, sizeof(*table) + SUPPORTED_MAX * sizeof(table->entries[0]));

	if (!table) {
		err_set(e, ENOMEM, "no memory for CPUID");
		return NULL;
	}
	table->nent = SUPPORTED_MAX;
	if (ioctl(vm->dev_fd, KVM_GET_SUPPORTED_CPUID, table) < 0) {
		err_errno(e, "KVM_GET_SUPPORTED_CPUID");
		free(table);
		return NULL;
	}
	return table;
}

int kvm_cpuid_attach(struct kvm_vm *vm, struct err *e)
{
	struct kvm_cpuid2 *table _free_ = host_table(vm, e);

	if (!table)
		return -EIO;
	if (!strcmp(vm->machine->cpuid->name, "host") && !vm->machine->cpuid_promised)
		restrict_host(vm->machine->cpuid, table);
	return check(vm->machine, table, e);
}

static void fill(const struct cpu *c, struct kvm_cpuid2 *out)
{
	const struct cpuid_model *m = c->machine->cpuid;

	out->nent = 0;
	for (unsigned i = 0; i < m->count; i++) {
		const struct cpuid_entry *a = &m->entry[i];
		uint32_t v[4];

		cpuid_query(c, a->leaf, a->subleaf, v); /* with the parts that are this CPU's own */
		out->entries[out->nent++] = (struct kvm_cpuid_entry2){
			.function = a->leaf,
			.index = a->subleaf,
			.flags = a->has_subleaves ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
			.eax = v[0],
			.ebx = v[1],
			.ecx = v[2],
			.edx = v[3],
		};
	}
}

int kvm_cpuid_set(struct cpu *c, struct err *e)
{
	struct kvm_cpu *k = c->engine_data;
	struct kvm_cpuid2 *table _free_ = calloc(1, sizeof(*table) + SUPPORTED_MAX * sizeof(table->entries[0]));

	if (!table)
		return err_set(e, ENOMEM, "no memory for CPUID");
	fill(c, table);
	if (ioctl(k->fd, KVM_SET_CPUID2, table) < 0)
		return err_errno(e, "KVM_SET_CPUID2");
	return 0;
}
