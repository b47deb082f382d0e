; SPDX-License-Identifier: Apache-2.0
; Four-level paging: the permission matrix (ring x access x W x U x NX x WP x SMEP x SMAP x AC), permissions of the upper
; levels, reserved bits, 2 MiB and 1 GiB pages, accessed and dirty bits, and what the TLB may and must not keep.
%include "long.inc"

%define CR4_SMEP (1 << 20)
%define CR4_SMAP (1 << 21)

main:
	call need_features
	call matrix
	call upper_levels
	call reserved
	call large
	call accessed
	call invalidation
	ret

need_features:
	mov eax, 7
	xor ecx, ecx
	cpuid
	bt ebx, 7
	TRUE "SMEP offered", c
	bt ebx, 20
	TRUE "SMAP offered", c
	mov eax, 0x80000001
	cpuid
	bt edx, 20
	TRUE "NX offered", c
	bt edx, 26
	TRUE "1 GiB pages offered", c
	ret

; Case number in r15: bit 0 W, 1 U, 2 NX, 3 user mode, 4-5 access (read, write, execute), 6 WP, 7 SMEP, 8 SMAP, 9 AC
matrix:
	mov byte [TEST_PHYS], 0xc3 ; ret
	mov word [TEST_PHYS + 16], 0x80cd ; int 0x80
	xor r15d, r15d
	xor r14d, r14d ; mismatches
.next:	mov eax, r15d
	shr eax, 4
	and eax, 3
	cmp eax, 3
	je .skip
	call set_case
	call run_case
	call expect_case
	mov rax, [ex_vec]
	cmp rax, 0x80
	jne .raw
	mov eax, NONE
.raw:	shl rax, 32
	or rax, [ex_err]
	cmp rax, rbx
	je .skip
	inc r14
	cmp r14, 4
	ja .skip
	mov rcx, rax
	mov esi, .text
	call put_string
	mov rax, r15
	call put_hex
	mov rdx, rcx
	EQ " vector:error", rdx, rbx
.skip:	inc r15d
	cmp r15d, 1024
	jb .next
	mov rax, cr0
	or rax, 0x10000
	mov cr0, rax
	mov rax, cr4
	and rax, ~(CR4_SMEP | CR4_SMAP)
	mov cr4, rax
	EQ "permission matrix, cases wrong", r14, 0
	ret
.text:	db "matrix case ", 0

set_case:
	mov eax, r15d
	and eax, 3
	shl eax, 1 ; W U
	or eax, TEST_PHYS | P
	mov edx, r15d
	and edx, 4
	shl rdx, 61 ; NX
	or rax, rdx
	mov [test_pt], rax
	invlpg [TEST_VA]
	mov rax, cr0
	and rax, ~0x10000
	bt r15d, 6
	jnc .no_wp
	or rax, 0x10000
.no_wp:	mov cr0, rax
	mov rax, cr4
	and rax, ~(CR4_SMEP | CR4_SMAP)
	bt r15d, 7
	jnc .no_smep
	or rax, CR4_SMEP
.no_smep:
	bt r15d, 8
	jnc .no_smap
	or rax, CR4_SMAP
.no_smap:
	mov cr4, rax
	ret

run_case:
	mov r13, TEST_VA
	mov ecx, r15d
	shr ecx, 4
	and ecx, 3
	bt r15d, 3
	jc .user
	bt r15d, 9
	jnc .no_ac
	pushfq
	or dword [rsp], 0x40000
	popfq
.no_ac:	TRY
	cmp ecx, 1
	jb .read
	je .write
	call r13
	jmp .ran
.read:	mov rax, [r13 + 32]
	jmp .ran
.write:	mov [r13 + 40], rax
.ran:
	END_TRY
	pushfq
	and dword [rsp], ~0x40000
	popfq
	ret
.user:	TRY
	mov rax, .user_code + USER
	cmp ecx, 2
	jne .enter
	mov rax, TEST_VA + 16
.enter:	jmp enter_user
	END_TRY
	ret
.user_code:
	cmp ecx, 1
	je .uwrite
	mov rax, [r13 + 32]
	int 0x80
.uwrite:
	mov [r13 + 40], rax
	int 0x80

; rbx = vector << 32 | error as the manual has it
expect_case:
	mov ecx, r15d
	shr ecx, 4
	and ecx, 3
	mov eax, 1 ; error code: P
	cmp ecx, 1
	jne .not_w
	or eax, 2
.not_w:	cmp ecx, 2
	jne .not_x
	or eax, 16
.not_x:	bt r15d, 3
	jnc .super
	or eax, 4
	bt r15d, 1
	jnc .fault
	cmp ecx, 1
	jb .fine
	je .uw
	bt r15d, 2
	jc .fault
	jmp .fine
.uw:	bt r15d, 0
	jnc .fault
	jmp .fine
.super:	cmp ecx, 2
	je .sx
	bt r15d, 1
	jnc .no_user_page
	bt r15d, 8
	jnc .no_user_page
	bt r15d, 9
	jnc .fault
.no_user_page:
	cmp ecx, 1
	jne .fine
	bt r15d, 0
	jc .fine
	bt r15d, 6
	jc .fault
	jmp .fine
.sx:	bt r15d, 2
	jc .fault
	bt r15d, 1
	jnc .fine
	bt r15d, 7
	jc .fault
.fine:	mov rbx, NONE << 32
	ret
.fault:	mov rbx, 14 << 32
	or rbx, rax
	ret

; Permissions are the least of all levels. The upper entries are those of the user alias and TEST_VA.
upper_levels:
	PAGE 1, P | W | U
	and byte [pdpt + 8], ~W
	mov rax, cr3
	mov cr3, rax
	FAULTS "PDPTE without W", 14, 3, mov [abs TEST_VA + 4096], eax
	NOFAULT "PDPTE without W, read", mov eax, [abs TEST_VA + 4096]
	or byte [pdpt + 8], W
	and byte [pd_user + 511 * 8], ~U
	mov rax, cr3
	mov cr3, rax
	UFAULTS "PDE without U", 14, 5, mov eax, [abs TEST_VA + 4096]
	or byte [pd_user + 511 * 8], U
	mov rax, NX
	or [pd_user + 511 * 8], rax
	mov rax, cr3
	mov cr3, rax
	mov rbx, TEST_VA + 4096
	mov byte [TEST_PHYS + 4096], 0xc3
	TRY
	call rbx
	END_TRY
	CHECK_FAULT "PDE with NX", 14, 0x11
	mov rax, NX
	xor [pd_user + 511 * 8], rax
	and byte [pd_user + 511 * 8], ~P
	mov rax, cr3
	mov cr3, rax
	FAULTS "PDE not present", 14, 2, mov [abs TEST_VA + 4096], eax
	EQ "its cr2", [ex_cr2], TEST_VA + 4096
	or byte [pd_user + 511 * 8], P
	mov rax, cr3
	mov cr3, rax
	NOFAULT "and again", mov [abs TEST_VA + 4096], eax
	; one access over two pages of which the second is missing: nothing is written
	mov dword [TEST_PHYS + 0x1ffc], 0x11223344
	mov qword [test_pt + 2 * 8], 0
	invlpg [TEST_VA + 0x2000]
	mov rax, -1
	FAULTS "write into a missing second page", 14, 2, mov [abs TEST_VA + 0x1ffc], rax
	EQ "cr2 is the second page", [ex_cr2], TEST_VA + 0x2000
	mov eax, [TEST_PHYS + 0x1ffc]
	EQ "the first is unchanged", rax, 0x11223344
	; code over two pages of which the second is missing
	mov byte [TEST_PHYS + 0x1fff], 0xb8 ; mov eax, imm32
	mov rbx, TEST_VA + 0x1fff
	TRY
	jmp rbx
	END_TRY
	CHECK_FAULT "fetch into a missing page", 14, 0x10
	EQ "fetch cr2", [ex_cr2], TEST_VA + 0x2000
	EQ "fetch rip", [ex_rip], TEST_VA + 0x1fff
	ret

reserved:
	mov eax, 0x80000008
	cpuid
	movzx ecx, al
	cmp ecx, 52
	jae .wide
	mov rax, 1
	shl rax, cl
	or rax, TEST_PHYS | P | W | U
	mov [test_pt], rax
	invlpg [TEST_VA]
	FAULTS "PTE bit above the physical width, read", 14, 9, mov eax, [abs TEST_VA]
	FAULTS "PTE bit above the physical width, write", 14, 11, mov [abs TEST_VA], eax
	UFAULTS "the same from ring 3", 14, 13, mov eax, [abs TEST_VA]
.wide:	mov rax, [pd_user + 511 * 8]
	mov rbx, rax
	mov rcx, 0x400000 | 0x2000 | 0x87 ; 2 MiB page with bit 13
	mov [pd_user + 511 * 8], rcx
	invlpg [TEST_VA]
	FAULTS "2 MiB page not aligned", 14, 9, mov eax, [abs TEST_VA]
	mov [pd_user + 511 * 8], rbx
	mov rcx, 0x80 + pdpt + 7
	mov [pml4 + 8], rcx
	mov rbx, 0x8000000000
	FAULTS "PML4E with PS", 14, 9, mov eax, [rbx]
	mov qword [pml4 + 8], 0
	; NX is reserved while NXE is off
	mov ecx, 0xc0000080
	rdmsr
	and eax, ~0x800
	wrmsr
	mov rax, NX | TEST_PHYS | P | W | U
	mov [test_pt], rax
	invlpg [TEST_VA]
	FAULTS "NX without NXE", 14, 9, mov eax, [abs TEST_VA]
	mov rbx, TEST_VA
	TRY
	jmp rbx
	END_TRY
	CHECK_FAULT "fetch of it: no I bit either", 14, 9
	mov ecx, 0xc0000080
	rdmsr
	or eax, 0x800
	wrmsr
	ret

large:
	mov qword [pml4 + 8], pdpt2 + 7
	mov qword [pdpt2], 0x87 ; 1 GiB at 0
	mov rbx, 0x8000000000
	mov rax, 0x1122334455667788
	mov [TEST_PHYS + 0x5008], rax
	mov rax, [rbx + TEST_PHYS + 0x5008]
	EQ "1 GiB page reads", rax, [TEST_PHYS + 0x5008]
	mov rax, 0x99
	mov [rbx + TEST_PHYS + 0x5008], rax
	EQ "1 GiB page writes", [TEST_PHYS + 0x5008], 0x99
	mov qword [pdpt2 + 8], 0x40000000 | 0x2000 | 0x87
	mov rbx, 0x8040000000
	FAULTS "1 GiB page not aligned", 14, 9, mov eax, [rbx]
	; an access over the border of two large pages
	mov rax, 0x0102030405060708
	mov [0x600000 - 4], rax
	mov rbx, 0x8000000000 + 0x600000 - 4
	mov rax, [rbx]
	EQ "over a 2 MiB border", rax, [0x600000 - 4]
	ret

accessed:
	mov qword [pml4 + 16], pdpt3 + 7
	mov qword [pdpt3], pd3 + 7
	mov qword [pd3], pt3 + 7
	mov qword [pt3], TEST_PHYS + 0x8000 + 7
	mov qword [pd3 + 8], 0x400000 + 0x87
	mov rbx, 0x10000000000
	mov rax, [rbx]
	mov rax, [pml4 + 16]
	and eax, 0x60
	EQ "A of PML4E after a read", rax, 0x20
	mov rax, [pdpt3]
	and eax, 0x60
	EQ "A of PDPTE", rax, 0x20
	mov rax, [pd3]
	and eax, 0x60
	EQ "A of PDE", rax, 0x20
	mov rax, [pt3]
	and eax, 0x60
	EQ "A of PTE, no D", rax, 0x20
	mov [rbx], rax
	mov rax, [pt3]
	and eax, 0x60
	EQ "A and D after a write", rax, 0x60
	mov rax, [pd3]
	and eax, 0x60
	EQ "no D above", rax, 0x20
	; a write that follows a read through the TLB still sets D
	mov qword [pt3 + 8], TEST_PHYS + 0x9000 + 7
	mov rax, [rbx + 4096]
	mov rax, [rbx + 4096]
	mov [rbx + 4096 + 8], rax
	mov rax, [pt3 + 8]
	and eax, 0x60
	EQ "D by a later write", rax, 0x60
	; locked and read-modify-write accesses
	mov qword [pt3 + 16], TEST_PHYS + 0xa000 + 7
	lock inc dword [rbx + 8192]
	mov rax, [pt3 + 16]
	and eax, 0x60
	EQ "D by a locked write", rax, 0x60
	; a write that faults sets no D
	mov qword [pt3 + 24], TEST_PHYS + 0xb000 + 5
	TRY
	mov [rbx + 3 * 4096], rax
	END_TRY
	CHECK_FAULT "write to a read-only page", 14, 3
	mov rax, [pt3 + 24]
	and eax, 0x40
	EQ "no D by a write that faults", rax, 0
	; large page
	mov rax, [rbx + 0x200000]
	mov rax, [pd3 + 8]
	and eax, 0x60
	EQ "A of a 2 MiB page", rax, 0x20
	mov [rbx + 0x200000 + 0xff8], rax
	mov rax, [pd3 + 8]
	and eax, 0x60
	EQ "D of a 2 MiB page", rax, 0x60
	; cleared by software: set again after INVLPG
	and byte [pt3], ~0x60
	invlpg [rbx]
	mov rax, [rbx]
	mov rax, [pt3]
	and eax, 0x60
	EQ "A again", rax, 0x20
	mov [rbx], rax
	mov rax, [pt3]
	and eax, 0x60
	EQ "D again", rax, 0x60
	; a fetch sets A
	mov qword [pt3 + 32], TEST_PHYS + 0xc000 + 7
	mov byte [TEST_PHYS + 0xc000], 0xc3
	lea rax, [rbx + 4 * 4096]
	call rax
	mov rax, [pt3 + 32]
	and eax, 0x60
	EQ "A by a fetch", rax, 0x20
	ret

; The old translation must be gone after each of these.
invalidation:
	mov rbx, 0x10000000000
	mov qword [TEST_PHYS + 0x10000], 0x10
	mov qword [TEST_PHYS + 0x11000], 0x11
	mov qword [pt3 + 40], TEST_PHYS + 0x10000 + 7
	mov rax, [rbx + 5 * 4096]
	EQ "first page", rax, 0x10
	mov qword [pt3 + 40], TEST_PHYS + 0x11000 + 7
	invlpg [rbx + 5 * 4096]
	mov rax, [rbx + 5 * 4096]
	EQ "INVLPG", rax, 0x11
	mov qword [pt3 + 40], TEST_PHYS + 0x10000 + 7
	mov rax, cr3
	mov cr3, rax
	mov rax, [rbx + 5 * 4096]
	EQ "write of CR3", rax, 0x10
	; a global page survives it, not a change of CR4.PGE
	mov qword [pt3 + 40], TEST_PHYS + 0x10000 + 0x107
	invlpg [rbx + 5 * 4096]
	mov rax, [rbx + 5 * 4096]
	mov qword [pt3 + 40], TEST_PHYS + 0x11000 + 0x107
	mov rax, cr4
	xor eax, 0x80
	mov cr4, rax
	xor eax, 0x80
	mov cr4, rax
	mov rax, [rbx + 5 * 4096]
	EQ "toggling CR4.PGE", rax, 0x11
	mov qword [pt3 + 40], TEST_PHYS + 0x10000 + 0x107
	invlpg [rbx + 5 * 4096]
	mov rax, [rbx + 5 * 4096]
	EQ "INVLPG of a global page", rax, 0x10
	; more rights need no invalidation for correctness: the fault walks again
	mov qword [pt3 + 48], TEST_PHYS + 0x10000 + 5
	mov rax, [rbx + 6 * 4096]
	mov qword [pt3 + 48], TEST_PHYS + 0x10000 + 7
	NOFAULT "read-only page made writable", mov [rbx + 6 * 4096], rax
	mov qword [pt3 + 56], 0
	TRY
	mov rax, [rbx + 7 * 4096]
	END_TRY
	mov qword [pt3 + 56], TEST_PHYS + 0x10000 + 7
	NOFAULT "missing page made present", mov rax, [rbx + 7 * 4096]
	; CR0.WP and EFER.NXE take effect at once
	mov qword [pt3 + 64], TEST_PHYS + 0x12000 + 5
	mov rax, cr0
	and rax, ~0x10000
	mov cr0, rax
	NOFAULT "WP off: write", mov [rbx + 8 * 4096], rax
	or rax, 0x10000
	mov cr0, rax
	FAULTS "WP on: fault, although just written", 14, 3, mov [rbx + 8 * 4096], rax
	; INVLPG of a non-canonical address does nothing
	mov rcx, 0x8000000000000000
	NOFAULT "INVLPG non-canonical", invlpg [rcx]
	call pcid
	ret

%define PCIDE (1 << 17)
pcid:
	mov eax, 1
	cpuid
	bt ecx, 17
	jnc .none
	; PCIDE needs CR3[11:0] = 0
	mov rax, cr4
	or rax, PCIDE
	mov r12, cr3
	mov rcx, r12
	or ecx, 0x18 ; PWT and PCD bits count here
	mov cr3, rcx
	FAULTS "PCIDE with CR3[11:0] not 0", 13, 0, mov cr4, rax
	mov cr3, r12
	NOFAULT "PCIDE", mov cr4, rax
	mov qword [pt3 + 40], TEST_PHYS + 0x10000 + 7
	mov rbx, 0x10000000000
	lea rax, [r12 + 1]
	mov cr3, rax
	mov rax, [rbx + 5 * 4096]
	EQ "PCID 1", rax, 0x10
	mov qword [pt3 + 40], TEST_PHYS + 0x11000 + 7
	lea rax, [r12 + 2]
	mov cr3, rax
	mov rax, [rbx + 5 * 4096]
	EQ "PCID 2 sees the new one", rax, 0x11
	lea rax, [r12 + 1]
	mov cr3, rax ; bit 63 clear: flushes PCID 1
	mov rax, [rbx + 5 * 4096]
	EQ "PCID 1 flushed by its load", rax, 0x11
	; INVPCID
	mov eax, 7
	xor ecx, ecx
	cpuid
	bt ebx, 10
	mov rbx, 0x10000000000
	jnc .no_invpcid
	mov qword [pt3 + 40], TEST_PHYS + 0x10000 + 7
	mov qword [descriptor], 1
	lea rax, [rbx + 5 * 4096]
	mov [descriptor + 8], rax
	mov eax, 0
	NOFAULT "INVPCID one address", invpcid rax, [descriptor]
	mov rax, [rbx + 5 * 4096]
	EQ "seen", rax, 0x10
	mov qword [pt3 + 40], TEST_PHYS + 0x11000 + 7
	mov eax, 1
	NOFAULT "INVPCID one PCID", invpcid rax, [descriptor]
	mov rax, [rbx + 5 * 4096]
	EQ "seen too", rax, 0x11
	mov qword [pt3 + 40], TEST_PHYS + 0x10000 + 7
	mov eax, 2
	NOFAULT "INVPCID all", invpcid rax, [descriptor]
	mov rax, [rbx + 5 * 4096]
	EQ "seen as well", rax, 0x10
	mov qword [pt3 + 40], TEST_PHYS + 0x11000 + 7
	mov eax, 3
	NOFAULT "INVPCID all but global", invpcid rax, [descriptor]
	mov rax, [rbx + 5 * 4096]
	EQ "seen again", rax, 0x11
	mov eax, 4
	FAULTS "INVPCID type 4", 13, 0, invpcid rax, [descriptor]
	mov qword [descriptor], 0x1000
	mov eax, 1
	FAULTS "INVPCID with reserved bits", 13, 0, invpcid rax, [descriptor]
	mov qword [descriptor], 1
	mov rax, 0x800000000000
	mov [descriptor + 8], rax
	mov eax, 0
	FAULTS "INVPCID of a non-canonical address", 13, 0, invpcid rax, [descriptor]
	UFAULTS "INVPCID from ring 3", 13, 0, invpcid rax, [abs descriptor + USER]
.no_invpcid:
	; not flushing loads keep what is there: only legal, so only that they do not fault
	lea rax, [r12 + 2]
	bts rax, 63
	NOFAULT "CR3 with bit 63", mov cr3, rax
	mov rax, cr3
	lea rcx, [r12 + 2]
	EQ "bit 63 does not read back", rax, rcx
	; clearing PCIDE is possible at any PCID
	mov cr3, r12
	mov rax, cr4
	and rax, ~PCIDE
	NOFAULT "PCIDE off", mov cr4, rax
	bts r12, 63
	FAULTS "bit 63 without PCIDE", 13, 0, mov cr3, r12
.none:	ret

	section .data
	align 16
descriptor: dq 0, 0
	section .bss
pdpt2:	resb 4096
pdpt3:	resb 4096
pd3:	resb 4096
pt3:	resb 4096
	METAL_END
