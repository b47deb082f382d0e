; SPDX-License-Identifier: Apache-2.0
; Control registers and MSRs: what may not be written, what reads back, mode changes that are refused, UMIP, TSD, XCR0,
; unknown MSRs.
%include "long.inc"

main:
	call cr0s
	call cr4s
	call cr_others
	call msrs
	call umip
	call xsave
	call tsc
	ret

; BAD_CR "what", crN, value
%macro BAD_CR 3
	mov rax, %3
	FAULTS %1, 13, 0, mov %2, rax
%endmacro

cr0s:
	mov r12, cr0
	mov rax, r12
	btr rax, 0
	FAULTS "CR0.PE off with PG", 13, 0, mov cr0, rax
	mov rax, r12
	bts rax, 29
	FAULTS "CR0.NW without CD", 13, 0, mov cr0, rax
	mov rax, r12
	bts rax, 32
	FAULTS "upper half of CR0", 13, 0, mov cr0, rax
	mov rax, r12
	btr rax, 4
	mov cr0, rax
	mov rax, cr0
	and eax, 0x10
	EQ "CR0.ET is always set", rax, 0x10
	mov rax, r12
	or eax, 0x40000000
	mov cr0, rax
	mov rax, cr0
	EQ "CR0.CD", rax, [keep_cd]
	mov cr0, r12
	; LMSW sets PE, cannot clear it
	smsw rax
	and al, ~1
	lmsw ax
	mov rax, cr0
	EQ "LMSW cannot leave protected mode", rax, r12
	mov rax, 8
	or eax, 1
	lmsw ax
	mov rax, cr0
	and eax, 0xe
	EQ "LMSW sets TS, clears MP and EM", rax, 8
	mov cr0, r12
	ret

cr4s:
	mov r12, cr4
	mov rax, r12
	btr rax, 5
	FAULTS "CR4.PAE off in long mode", 13, 0, mov cr4, rax
	mov rax, r12
	bts rax, 12
	FAULTS "CR4.LA57 changed in long mode", 13, 0, mov cr4, rax
	mov rax, r12
	bts rax, 15
	FAULTS "reserved bit 15 of CR4", 13, 0, mov cr4, rax
	mov rax, r12
	bts rax, 31
	FAULTS "reserved bit 31 of CR4", 13, 0, mov cr4, rax
	mov rax, r12
	bts rax, 40
	FAULTS "upper half of CR4", 13, 0, mov cr4, rax
	mov rax, cr4
	EQ "CR4 unchanged by all that", rax, r12
	ret

cr_others:
	FAULTS "CR1", 6, 0, db 0x0f, 0x20, 0xc8
	FAULTS "CR5", 6, 0, db 0x0f, 0x20, 0xe8
	FAULTS "CR9", 6, 0, db 0x44, 0x0f, 0x20, 0xc8
	mov r12, cr3
	mov rax, r12
	bts rax, 60
	FAULTS "CR3 above the physical width", 13, 0, mov cr3, rax
	mov rax, 0x1122334455667788
	mov cr2, rax
	mov rcx, cr2
	EQ "CR2 holds 64 bits", rcx, rax
	mov eax, 5
	mov cr8, rax
	mov rax, cr8
	EQ "CR8", rax, 5
	mov eax, 0x10
	FAULTS "CR8 above 15", 13, 0, mov cr8, rax
	xor eax, eax
	mov cr8, rax
	; the operand size of MOV CR is always 64, the mode bits are ignored
	db 0x0f, 0x20, 0x00 ; mod 0: still cr0 to rax
	mov rcx, cr0
	EQ "MOV CR with mod 0", rax, rcx
	ret

msrs:
	mov ecx, 0xc0000080
	rdmsr
	mov r12d, eax
	and eax, ~0x100
	FAULTS "EFER.LME off with paging", 13, 0, wrmsr
	mov eax, r12d
	or eax, 2
	FAULTS "EFER reserved bit", 13, 0, wrmsr
	mov eax, r12d
	mov edx, 1
	FAULTS "EFER upper half", 13, 0, wrmsr
	rdmsr
	EQ "EFER unchanged", rax, r12
	mov ecx, 0x12345
	FAULTS "RDMSR unknown", 13, 0, rdmsr
	FAULTS "WRMSR unknown", 13, 0, wrmsr
	mov ecx, 0xc0000102
	mov eax, 0x89abcdef
	mov edx, 0xffff8123
	wrmsr
	xor eax, eax
	xor edx, edx
	rdmsr
	EQ "MSR reads back, low", rax, 0x89abcdef
	EQ "MSR reads back, high", rdx, 0xffff8123
	mov ecx, 0x277 ; PAT
	rdmsr
	EQ "PAT after reset, low", rax, 0x00070406
	mov eax, 0x00070402 ; type 2 does not exist
	FAULTS "PAT with a reserved type", 13, 0, wrmsr
	mov ecx, 0x176
	mov eax, 0
	mov edx, 0x8000
	FAULTS "SYSENTER_EIP non-canonical", 13, 0, wrmsr
	mov ecx, 0x1b
	rdmsr
	and eax, 0x900
	EQ "APIC base: boot processor, enabled", rax, 0x900
	ret

umip:
	; without UMIP a program may look
	UNOFAULT "SGDT in ring 3", sgdt [rsp - 32]
	UNOFAULT "SMSW in ring 3", smsw eax
	mov eax, 7
	xor ecx, ecx
	cpuid
	bt ecx, 2
	jnc .none
	mov rax, cr4
	or eax, 0x800
	mov cr4, rax
	UFAULTS "SGDT under UMIP", 13, 0, sgdt [rsp - 32]
	UFAULTS "SIDT under UMIP", 13, 0, sidt [rsp - 32]
	UFAULTS "SLDT under UMIP", 13, 0, sldt eax
	UFAULTS "STR under UMIP", 13, 0, str eax
	UFAULTS "SMSW under UMIP", 13, 0, smsw eax
	NOFAULT "ring 0 still may", sgdt [rsp - 32]
	mov rax, cr4
	and eax, ~0x800
	mov cr4, rax
.none:	str eax
	EQ "STR", rax, SEL_TSS
	sldt eax
	EQ "SLDT", rax, 0
	sub rsp, 16
	mov qword [rsp], 0
	sidt [rsp]
	mov ax, [rsp]
	movzx eax, ax
	EQ "SIDT limit", rax, 4095
	mov rax, [rsp + 2]
	EQ "SIDT base", rax, idt
	; a limit and base out of range
	mov rax, 0x800000000000
	mov [rsp + 2], rax
	FAULTS "LGDT non-canonical", 13, 0, lgdt [rsp]
	add rsp, 16
	ret

xsave:
	mov eax, 1
	cpuid
	bt ecx, 26
	jnc .none
	FAULTS "XGETBV without OSXSAVE", 6, 0, xgetbv
	mov rax, cr4
	or eax, 0x40000
	mov cr4, rax
	mov eax, 1
	cpuid
	bt ecx, 27
	TRUE "CPUID.OSXSAVE follows CR4", c
	xor ecx, ecx
	xgetbv
	and eax, 1
	EQ "XCR0.x87", rax, 1
	mov eax, 2
	xor edx, edx
	FAULTS "XCR0 without x87", 13, 0, xsetbv
	mov eax, 5
	FAULTS "XCR0: AVX without SSE", 13, 0, xsetbv
	mov eax, 3
	mov edx, 0x40000000
	FAULTS "XCR0: unknown bit", 13, 0, xsetbv
	xor edx, edx
	mov ecx, 1
	FAULTS "XSETBV of XCR1", 13, 0, xsetbv
	xor ecx, ecx
	UFAULTS "XSETBV in ring 3", 13, 0, xsetbv
	mov eax, 1
	cpuid
	bt ecx, 28
	jnc .no_avx
	mov eax, 3
	xor edx, edx
	xor ecx, ecx
	xsetbv
	FAULTS "AVX without XCR0.AVX", 6, 0, vaddps ymm0, ymm1, ymm2
	mov eax, 7
	xsetbv
	NOFAULT "AVX", vaddps ymm0, ymm1, ymm2
	FAULTS "VEX with LOCK", 6, 0, db 0xf0, 0xc5, 0xf4, 0x58, 0xc2
	FAULTS "VEX with 66", 6, 0, db 0x66, 0xc5, 0xf4, 0x58, 0xc2
	FAULTS "VEX with REX", 6, 0, db 0x40, 0xc5, 0xf4, 0x58, 0xc2
	mov rax, cr0
	or eax, 8
	mov cr0, rax
	FAULTS "AVX with TS", 7, 0, vaddps ymm0, ymm1, ymm2
	clts
	; XSAVE area: header, and what is in its initial state
	vpcmpeqd xmm1, xmm1, xmm1
	vinsertf128 ymm1, ymm1, xmm1, 1
	mov eax, 7
	xor edx, edx
	mov edi, area
	xsave [rdi]
	mov eax, [area + 576 + 16]
	EQ "XSAVE: upper half of YMM1", rax, 0xffffffff
	vzeroall
	mov eax, 7
	xrstor [rdi]
	vextractf128 xmm2, ymm1, 1
	vmovd eax, xmm2
	EQ "XRSTOR: upper half", rax, 0xffffffff
	mov byte [area + 512], 3 ; AVX to its initial state
	mov eax, 7
	xrstor [rdi]
	vextractf128 xmm2, ymm1, 1
	vmovd eax, xmm2
	EQ "XRSTOR of the initial state", rax, 0
	mov byte [area + 512 + 16], 1
	mov eax, 7
	FAULTS "XRSTOR with a reserved header byte", 13, 0, xrstor [rdi]
	mov byte [area + 512 + 16], 0
	mov eax, 7
	FAULTS "XSAVE misaligned", 13, 0, xsave [rdi + 8]
.no_avx:
	mov rax, cr4
	and eax, ~0x40000
	mov cr4, rax
	mov rax, cr4
	FAULTS "AVX without OSXSAVE", 6, 0, vaddps ymm0, ymm1, ymm2
.none:	ret

tsc:
	rdtsc
	shl rdx, 32
	or rax, rdx
	mov rbx, rax
	rdtsc
	shl rdx, 32
	or rax, rdx
	cmp rax, rbx
	TRUE "TSC goes forward", ae
	mov rax, cr4
	or eax, 4
	mov cr4, rax
	UFAULTS "RDTSC under TSD", 13, 0, rdtsc
	NOFAULT "RDTSC in ring 0 under TSD", rdtsc
	mov rax, cr4
	and eax, ~4
	mov cr4, rax
	UNOFAULT "RDTSC in ring 3", rdtsc
	mov ecx, 0x10
	mov eax, 0x1000
	xor edx, edx
	wrmsr
	rdtsc
	EQ "TSC written, high", rdx, 0
	mov ecx, 0xc0000103
	mov eax, 0x123
	wrmsr
	rdtscp
	EQ "RDTSCP gives TSC_AUX", rcx, 0x123
	ret

	section .data
	align 8
keep_cd: dq 0xc0010033
	align 64
area:	times 1024 db 0
	METAL_END
