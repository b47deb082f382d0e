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
	char missing[520] = ""; /* others say before it what they were doing */

	for (unsigned i = 0; i < ARRAY_LEN(words); i++)
		cpuid_name_bits(missing, sizeof(missing), words[i].leaf, words[i].subleaf, words[i].reg, lacking(m, host, i));
	if (!missing[0])
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
