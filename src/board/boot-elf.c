/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ELF files as kernels: 32 and 64 bit, x86 only. Everything is bounds-checked against the file before it is
 * used; offsets and sizes are taken as hostile.
 */
#include <errno.h>
#include <string.h>
#include "board/private.h"

/* What is needed of elf.h, whose PF_* would clash with the page-fault bits. */
#define ELF_IDENT 16
#define ELF_CLASS 4
#define ELF_DATA 5
#define ELF32_HEADER 52
#define ELF64_HEADER 64
#define ELF32_PHDR 32
#define ELF64_PHDR 56
#define EM_386 3
#define EM_X86_64 62
#define PT_LOAD 1
#define PT_NOTE 4

#define NOTE_XEN_PHYS32_ENTRY 18

bool elf_is(const uint8_t *data, uint64_t size)
{
	return size >= ELF_IDENT && !memcmp(data, "\177ELF", 4);
}

static void segment_read(struct elf_segment *s, const uint8_t *p, bool is64)
{
	if (is64) {
		*s = (struct elf_segment){ .type = get32(p), .offset = get64(p + 8), .vaddr = get64(p + 16),
					   .paddr = get64(p + 24), .filesz = get64(p + 32),
					   .memsz = get64(p + 40), .align = get64(p + 48) };
		return;
	}
	*s = (struct elf_segment){ .type = get32(p), .offset = get32(p + 4), .vaddr = get32(p + 8),
				   .paddr = get32(p + 12), .filesz = get32(p + 16),
				   .memsz = get32(p + 20), .align = get32(p + 28) };
}

int elf_parse(struct elf_file *f, const uint8_t *data, uint64_t size, struct err *e)
{
	uint64_t phoff, phentsize, phnum;

	*f = (struct elf_file){ 0 };
	if (!elf_is(data, size))
		return err_set(e, ENOEXEC, "is not an ELF file");
	if (size < ELF32_HEADER)
		return err_set(e, ENOEXEC, "is cut short (inside its ELF header); fetch it again");
	f->is64 = data[ELF_CLASS] == 2;
	if (data[ELF_DATA] != 1 || (!f->is64 && data[ELF_CLASS] != 1) ||
	    (f->is64 && size < ELF64_HEADER))
		return err_set(e, ENOEXEC, "has a broken ELF header; fetch or build it again");
	f->machine = get16(data + 18);
	if (f->machine != (f->is64 ? EM_X86_64 : EM_386))
		return err_set(e, ENOEXEC, "is an ELF file for another processor (machine %u); give one for x86",
			       f->machine);
	f->entry = f->is64 ? get64(data + 24) : get32(data + 24);
	phoff = f->is64 ? get64(data + 32) : get32(data + 28);
	phentsize = get16(data + (f->is64 ? 54 : 42));
	phnum = get16(data + (f->is64 ? 56 : 44));
	if (!phnum)
		return err_set(e, ENOEXEC, "has nothing to load (no program headers); give a linked kernel");
	if (phentsize < (f->is64 ? ELF64_PHDR : ELF32_PHDR) || phnum > ELF_SEGMENTS)
		return err_set(e, ENOEXEC, "has unusable ELF program headers; fetch or build it again");
	if (!range_fits(phoff, phentsize * phnum, size))
		return err_set(e, ENOEXEC, "is cut short (ELF program headers lie past its end); fetch it again");
	for (unsigned i = 0; i < phnum; i++) {
		struct elf_segment *s = &f->segment[f->nsegments];

		segment_read(s, data + phoff + i * phentsize, f->is64);
		if (s->type != PT_LOAD && s->type != PT_NOTE)
			continue;
		if (!range_fits(s->offset, s->filesz, size))
			return err_set(e, ENOEXEC,
				       "is cut short (an ELF segment needs %#llx bytes from %#llx, the file has %#llx); fetch it again",
				       (unsigned long long)s->filesz, (unsigned long long)s->offset,
				       (unsigned long long)size);
		if (s->type == PT_LOAD && s->memsz < s->filesz)
			return err_set(e, ENOEXEC, "has an ELF segment larger in the file than in memory; build it again");
		f->nsegments++;
	}
	return 0;
}

/* One note segment; padding is 4 unless the segment says 8. */
static bool notes_find(const uint8_t *p, uint64_t size, uint64_t pad, uint32_t *entry)
{
	uint64_t at = 0;

	while (range_fits(at, 12, size)) {
		uint64_t namesz = get32(p + at), descsz = get32(p + at + 4);
		uint32_t type = get32(p + at + 8);
		uint64_t name = at + 12, desc;

		desc = (name + namesz + pad - 1) & ~(pad - 1);
		if (!range_fits(name, namesz, size) || !range_fits(desc, descsz, size))
			return false;
		if (type == NOTE_XEN_PHYS32_ENTRY && namesz == 4 && !memcmp(p + name, "Xen", 4) &&
		    descsz >= 4) {
			*entry = get32(p + desc);
			return true;
		}
		at = (desc + descsz + pad - 1) & ~(pad - 1);
	}
	return false;
}

bool elf_pvh_entry(const struct elf_file *f, const uint8_t *data, uint32_t *entry)
{
	for (unsigned i = 0; i < f->nsegments; i++) {
		const struct elf_segment *s = &f->segment[i];

		if (s->type == PT_NOTE &&
		    notes_find(data + s->offset, s->filesz, s->align == 8 ? 8 : 4, entry))
			return true;
	}
	return false;
}

int elf_need(struct boot_bytes *b, struct err *e)
{
	struct elf_file f;
	uint64_t at, len;
	bool is64;
	int r = boot_bytes_need(b, 0, ELF64_HEADER, e);

	if (r || b->size < ELF64_HEADER || !elf_is(b->data, b->size))
		return r;
	is64 = b->data[ELF_CLASS] == 2;
	at = is64 ? get64(b->data + 32) : get32(b->data + 28);
	len = is64 ? (uint64_t)get16(b->data + 54) * get16(b->data + 56) : (uint64_t)get16(b->data + 42) * get16(b->data + 44);
	r = boot_bytes_need(b, at, len, e);
	if (r || elf_parse(&f, b->data, b->size, NULL))
		return r;
	for (unsigned i = 0; i < f.nsegments && !r; i++)
		if (f.segment[i].type == PT_NOTE)
			r = boot_bytes_need(b, f.segment[i].offset, f.segment[i].filesz, e);
	return r;
}

bool elf_holds(const struct elf_file *f, uint64_t at)
{
	for (unsigned i = 0; i < f->nsegments; i++) {
		const struct elf_segment *s = &f->segment[i];

		if (s->type == PT_LOAD && at >= s->paddr && at - s->paddr < s->memsz)
			return true;
	}
	return false;
}

int elf_plan_segments(const struct elf_file *f, const struct boot_input *in, struct boot_plan *p,
		      struct boot_space *space, uint64_t *end, struct err *e)
{
	unsigned loaded = 0;

	*end = 0;
	for (unsigned i = 0; i < f->nsegments; i++) {
		const struct elf_segment *s = &f->segment[i];
		int r;

		if (s->type != PT_LOAD || !s->memsz)
			continue;
		r = boot_space_take(space, s->paddr, s->memsz);
		if (r == -EBUSY)
			return err_set(e, ENOEXEC, "has ELF segments that overlap at %#llx; build it again",
				       (unsigned long long)s->paddr);
		if (r)
			return err_set(e, ENOMEM,
				       "needs RAM at %#llx-%#llx, which a machine of %llu MiB does not have there; give it more --memory",
				       (unsigned long long)s->paddr,
				       (unsigned long long)(s->paddr + s->memsz - 1),
				       (unsigned long long)boot_map_mib(in->map));
		r = boot_plan_add(p, s->paddr, in->data + s->offset, s->filesz, s->memsz - s->filesz, e);
		if (r)
			return r;
		*end = MAX(*end, s->paddr + s->memsz);
		loaded++;
	}
	if (!loaded)
		return err_set(e, ENOEXEC, "has nothing to load (no loadable segments); give a linked kernel");
	return 0;
}
