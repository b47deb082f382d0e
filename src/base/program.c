/* SPDX-License-Identifier: Apache-2.0 */
/* See program.h. Only segments that nobody has ever been able to write to: relocations are in the others. */
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/program.h"

static int give_back(struct dl_phdr_info *info, size_t size, void *opaque)
{
	const uintptr_t page = *(const uintptr_t *)opaque;

	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];
		uintptr_t from = (info->dlpi_addr + p->p_vaddr) & -page, to = (info->dlpi_addr + p->p_vaddr + p->p_memsz + page - 1) & -page;

		if (p->p_type == PT_LOAD && !(p->p_flags & PF_W))
			madvise((void *)from, to - from, MADV_DONTNEED);
	}
	return 0;
}

void program_give_back(void)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);

	dl_iterate_phdr(give_back, &page);
}
