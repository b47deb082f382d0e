; SPDX-License-Identifier: Apache-2.0
; What instructions cost that a kernel executes often: cycles of the TSC for one, in hexadecimal, the least of 40 rounds of 500.
; A loop of nothing but the vector unit's state being live comes with each. By hand:
;	tests/metal/run --verbose --engine dbt --ospite build/ospite build/bench/insns64.bin
%include "long.inc"
%include "apic.inc"

%define ROUNDS 40
%define TIMES 500

; COST "what", one instruction; or COSTING "what" .. COSTED. r8 to r11 are the loop's.
%macro COSTING 1
%push cost
	mov r10d, ROUNDS
	mov r11, -1
%$round:
	rdtsc
	shl rdx, 32
	lea r8, [rax + rdx]
	mov r9d, TIMES
%$next:
[section .data]
%$name:	db %1, " 0x", 0
__?SECT?__
%endmacro
%macro COSTED 0
	dec r9d
	jnz %$next
	rdtsc
	shl rdx, 32
	add rax, rdx
	sub rax, r8
	cmp rax, r11
	cmovb r11, rax
	dec r10d
	jnz %$round
	mov rax, r11
	xor edx, edx
	mov ecx, TIMES
	div rcx
	mov esi, %$name
	call put_string
	call put_hex
	call put_line
%pop
%endmacro
%macro COST 2+
	COSTING %1
	%2
	COSTED
%endmacro

main:
	mov rax, cr4
	or eax, 0x40000 ; OSXSAVE
	mov cr4, rax
	xor ecx, ecx
	mov eax, 0xe7
	xor edx, edx
	xsetbv
	GATE 14, on_fault
	GATE 0x81, on_int
	GATE 0x40, on_tick
	PAGE 0, P | W
	PAGE 3, P | W | U
	movups xmm1, [area]
	COST "nothing", nop
	COST "cli, sti", cli
	COST "rdtsc", rdtsc
	COST "invlpg of an unmapped page", invlpg [TEST_VA + 0x8000]
	COSTING "invlpg and an access"
	invlpg [TEST_VA]
	mov eax, [TEST_VA]
	COSTED
	COSTING "mov cr3"
	mov rax, cr3
	mov cr3, rax
	COSTED
	mov eax, 0xe7
	xor edx, edx
	COSTING "xsave, x87 SSE AVX"
	mov eax, 0xe7
	xor edx, edx
	xsave64 [area]
	COSTED
	COSTING "xsavec"
	mov eax, 0xe7
	xor edx, edx
	xsavec64 [area]
	COSTED
	COSTING "xrstor"
	mov eax, 0xe7
	xor edx, edx
	xrstor64 [area]
	COSTED
	COSTING "xsaves"
	mov eax, 0xe7
	xor edx, edx
	xsaves64 [area]
	COSTED
	COSTING "xrstors"
	mov eax, 0xe7
	xor edx, edx
	xrstors64 [area]
	COSTED
	COST "fxsave", fxsave64 [area]
	COST "ldmxcsr", ldmxcsr [mxcsr]
	COSTING "cpuid"
	mov eax, 0x80000000
	push rbx
	cpuid
	pop rbx
	COSTED
	COST "int, iretq", int 0x81
	COST "page fault, iretq", mov eax, [TEST_VA + 0x1000]
	COST "bts", lock bts qword [area], 3
	call apic_enable
	mov ecx, 0x1b ; x2APIC
	rdmsr
	or eax, 0xc00
	wrmsr
	mov ecx, 0x832
	mov eax, 0x40040 ; TSC deadline, vector 0x40
	xor edx, edx
	wrmsr
	COSTING "wrmsr, x2APIC end of interrupt"
	mov ecx, 0x80b
	xor eax, eax
	xor edx, edx
	wrmsr
	COSTED
	COSTING "wrmsr, TSC deadline far away"
	rdtsc
	add edx, 1000
	mov ecx, 0x6e0
	wrmsr
	COSTED
	COSTING "wrmsr, TSC deadline now; hlt"
	mov ecx, 0x6e0
	mov eax, 1
	xor edx, edx
	wrmsr
	sti
	hlt
	cli
	COSTED
	COSTING "wrmsr, x2APIC IPI to itself"
	mov ecx, 0x83f
	mov eax, 0x40
	xor edx, edx
	wrmsr
	sti
	nop
	cli
	COSTED
	COST "swapgs", swapgs
	COSTING "rdmsr of FS base"
	mov ecx, 0xc0000100
	rdmsr
	COSTED
	COSTING "wrmsr of FS base"
	mov ecx, 0xc0000100
	wrmsr
	COSTED
	COSTING "mov ds"
	mov eax, SEL_DATA
	mov ds, eax
	COSTED
	EQ "all of it", 0, 0
	ret

; Skips the two to seven bytes of the faulting MOV by the frame.
on_fault:
	push rax
	add qword [rsp + 16], 7 ; mov eax, [disp32]
	pop rax
	add rsp, 8
	iretq
on_int:	iretq
on_tick:
	push rcx
	push rdx
	push rax
	mov ecx, 0x80b
	xor eax, eax
	xor edx, edx
	wrmsr
	pop rax
	pop rdx
	pop rcx
	iretq

	section .data
	align 64
area:	times 4096 db 0
mxcsr:	dd 0x1f80
	METAL_END
