; SPDX-License-Identifier: Apache-2.0
; 32-bit paging with and without PSE, and PAE: permissions, error codes, accessed and dirty bits, large pages, reserved bits,
; PDPTE loads, and a TSS and GDT behind the page tables.
%include "prot.inc"

%define TEST 0x400000 ; linear, 4 KiB pages by pt1
%define PHYS 0x500000

main:
	call classic
	call pse
	call pae
	ret

paging_off:
	mov eax, cr0
	and eax, 0x7fffffff
	mov cr0, eax
	xor eax, eax
	mov cr3, eax
	ret

; 0..4 MiB by pt0, user too, so that ring 3 runs; 4..8 MiB by pt1
classic:
	mov edi, pd
	mov ecx, 1024
	xor eax, eax
	rep stosd
	mov ecx, 0
.fill:	mov eax, ecx
	shl eax, 12
	or eax, 7
	mov [pt0 + ecx * 4], eax
	mov dword [pt1 + ecx * 4], 0
	inc ecx
	cmp ecx, 1024
	jb .fill
	mov dword [pd], pt0 + 7
	mov dword [pd + 4], pt1 + 7
	mov dword [pt1], PHYS + 7
	mov dword [pt1 + 4], PHYS + 0x1000 + 5
	mov dword [pt1 + 8], PHYS + 0x2000 + 3
	mov eax, cr4
	and eax, ~0xb0
	mov cr4, eax
	mov eax, pd
	mov cr3, eax
	mov eax, cr0
	or eax, 0x80010000
	mov cr0, eax
	mov dword [TEST], 0x1234
	mov eax, [pt1]
	and eax, 0x60
	EQ "A and D set", eax, 0x60
	mov eax, [pd + 4]
	and eax, 0x20
	EQ "A of the PDE", eax, 0x20
	FAULTS "not present, read", 14, 0, mov eax, [TEST + 0x3000]
	EQ "cr2", [ex_cr2], TEST + 0x3000
	FAULTS "not present, write", 14, 2, mov [TEST + 0x3004], eax
	FAULTS "read-only with WP", 14, 3, mov [TEST + 0x1000], eax
	UFAULTS "ring 3: supervisor page", 14, 5, mov eax, [TEST + 0x2000]
	UFAULTS "ring 3: read-only page", 14, 7, mov [TEST + 0x1000], eax
	UNOFAULT "ring 3: its own", mov [TEST], eax
	UFAULTS "ring 3: not present", 14, 4, mov eax, [TEST + 0x3000]
	mov eax, cr0
	and eax, ~0x10000
	mov cr0, eax
	NOFAULT "read-only without WP", mov [TEST + 0x1000], eax
	or eax, 0x10000
	mov cr0, eax
	; there is no NX here: everything readable runs
	mov byte [TEST], 0xc3
	mov ebx, TEST
	NOFAULT "fetch", call ebx
	TRY
	mov ebx, TEST + 0x3000
	call ebx
	END_TRY
	CHECK_FAULT "fetch of a missing page: no I bit", 14, 0
	; PS is ignored without PSE
	mov dword [pd + 8], pt1 + 0x87
	mov eax, [TEST + 0x400000]
	mov ecx, [TEST]
	EQ "PS means nothing without PSE", eax, ecx
	mov dword [pd + 8], 0
	mov eax, cr3
	mov cr3, eax
	; the GDT behind paging
	mov eax, SEL_UDATA
	mov fs, eax
	NOFAULT "segment load through paging", mov gs, eax
	; no PDE at all
	FAULTS "no page table", 14, 0, mov eax, [0x80000000]
	call paging_off
	ret

pse:
	mov eax, cr4
	or eax, 0x10
	mov cr4, eax
	mov dword [pd + 8], 0x400000 + 0x87 ; 8..12 MiB show 4..8 MiB
	mov eax, pd
	mov cr3, eax
	mov eax, cr0
	or eax, 0x80000000
	mov cr0, eax
	mov dword [TEST], 0x5678
	mov eax, [0x800000 + PHYS - 0x400000]
	EQ "4 MiB page", eax, 0x5678
	mov eax, [pd + 8]
	and eax, 0x60
	EQ "A of it", eax, 0x20
	mov dword [0x800000 + PHYS - 0x400000], 0x9abc
	EQ "written through it", [TEST], 0x9abc
	mov eax, [pd + 8]
	and eax, 0x60
	EQ "D of it", eax, 0x60
	; a bit that must be 0 when there is no 40-bit PSE address above: bit 21
	mov dword [pd + 8], 0x600000 + 0x87
	mov eax, cr3
	mov cr3, eax
	FAULTS "reserved bit of a 4 MiB page", 14, 9, mov eax, [0x800000]
	mov dword [pd + 8], 0
	call paging_off
	ret

pae:
	mov edi, pdpt
	mov ecx, 1024 * 4
	xor eax, eax
	rep stosd
	mov dword [pdpt], pd_pae + 1
	mov dword [pd_pae], 0x87
	mov dword [pd_pae + 8], 0x200087 ; to 4 MiB by 2 MiB pages
	mov dword [pd_pae + 16], pt_pae + 7
	mov dword [pt_pae], PHYS + 7
	mov dword [pt_pae + 8], PHYS + 0x1000 + 7
	mov dword [pt_pae + 12], 0x80000000 ; NX
	mov dword [pt_pae + 16], PHYS + 0x2000 + 7
	mov dword [pt_pae + 20], 0x40000000 ; reserved
	mov ecx, 0xc0000080
	rdmsr
	or eax, 0x800
	wrmsr
	mov eax, cr4
	or eax, 0x20
	mov cr4, eax
	mov eax, pdpt
	mov cr3, eax
	mov eax, cr0
	or eax, 0x80010000
	mov cr0, eax
	mov dword [TEST], 0x1111
	EQ "PAE reads", [TEST], 0x1111
	mov eax, [pt_pae]
	and eax, 0x60
	EQ "A and D", eax, 0x60
	mov byte [TEST + 0x1000], 0xc3
	TRY
	mov ebx, TEST + 0x1000
	call ebx
	END_TRY
	CHECK_FAULT "NX", 14, 0x11
	FAULTS "reserved bit", 14, 9, mov eax, [TEST + 0x2000]
	FAULTS "not present", 14, 0, mov eax, [TEST + 0x3000]
	FAULTS "no PDPTE", 14, 0, mov eax, [0x40000000]
	; (whether PDPTEs are read at the load of CR3 only is Intel's or AMD's affair; after it they hold)
	mov dword [pdpt + 8], pd_pae + 1
	mov eax, cr3
	mov cr3, eax
	mov eax, [0x40000000 + TEST]
	EQ "loaded", eax, 0x1111
	; reserved bits of a PDPTE: #GP at the load, and all stays as it was
	mov dword [pdpt + 16], pd_pae + 0x7
	mov eax, cr3
	FAULTS "PDPTE with reserved bits", 13, 0, mov cr3, eax
	mov dword [pdpt + 16], 0
	NOFAULT "CR3 again", mov cr3, eax
	; 2 MiB page
	mov dword [pd_pae + 24], 0x400000 + 0x87
	mov eax, [0x600000 + PHYS - 0x400000]
	EQ "2 MiB page", eax, [TEST]
	UNOFAULT "ring 3", mov eax, [TEST]
	mov dword [pd_pae + 16], pt_pae + 3
	mov eax, cr3
	mov cr3, eax
	UFAULTS "ring 3 without U in the PDE", 14, 5, mov eax, [TEST]
	call paging_off
	mov eax, cr4
	and eax, ~0x20
	mov cr4, eax
	ret

	section .bss
	alignb 4096
pd:	resb 4096
pt0:	resb 4096
pt1:	resb 4096
pdpt:	resb 4096
pd_pae:	resb 4096
pt_pae:	resb 4096
	resb 4096
	METAL_END
