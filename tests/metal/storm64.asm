; SPDX-License-Identifier: Apache-2.0
; Interrupts at any point must leave no trace: a computation with carries, string instructions, calls, x87 and vector registers
; gives the same result undisturbed, under a timer interrupt every few microseconds whose handler spoils everything it then restores,
; under NMIs, with a page fault at every access, and under single step.
%include "long.inc"
%include "apic.inc"

%define work TEST_VA ; a page of its own, for ring 3 too

main:
	call apic_enable
	PAGE 0, P | W | U
	GATE 0x40, on_timer
	GATE 2, on_nmi
	call quiet
	call timer_storm
	call user_storm
	call fault_storm
	call stepped
	ret

; r8: number of rounds. Result in rax; registers below r8 are lost.
%macro COMPUTE 0
	xor eax, eax
	mov ecx, r8d
	mov ebx, 0x9e3779b9
	xor edx, edx
	pxor xmm1, xmm1
	movq xmm2, rbx
	fninit
	fldz
%%round:
	add rax, rbx
	adc rdx, rax
	rol rbx, 7
	sbb rax, rdx
	lea rsi, [rax + rdx * 4]
	xor rbx, rsi
	bt rsi, 5
	adc rdx, 3
	push rax
	push rdx
	paddq xmm1, xmm2
	pshufd xmm2, xmm2, 0x39
	movq xmm3, rax
	pxor xmm2, xmm3
	fld1
	faddp
	stc
	rcl rbx, 1
	lahf
	xor dl, ah
	pop rsi
	pop rdi
	add rsi, rdi
	adc rbx, 0
	mov rdi, work
	mov rsi, work + 64
	mov [rsi + 8], rbx
	push rcx
	mov ecx, 5
	cld
	rep movsq
	pop rcx
	add rbx, [work + 8]
	call %%sub
	dec ecx
	jnz %%round
	movq rsi, xmm1
	xor rax, rsi
	fistp qword [work]
	add rax, [work]
	jmp %%over
%%sub:	cmp rbx, rax
	jbe %%less
	xadd rax, rdx
	ret
%%less:	mul rbx
	neg rdx
	sbb rax, 0
	ret
%%over:
%endmacro

compute:
	COMPUTE
	ret

quiet:
	mov r8d, 20000
	call compute
	mov [want], rax
	call compute
	EQ "the same twice", rax, [want]
	mov r8d, 300
	call compute
	mov [want_short], rax
	ret

timer_storm:
	mov r12d, 200
	xor r13d, r13d
	mov dword [note_count], 0
	APIC_WRITE LAPIC_DIVIDE, 0xb
	APIC_WRITE LAPIC_LVT_TIMER, 0x20040
	APIC_WRITE LAPIC_INITIAL, 20000
.again:	mov r8d, 20000
	sti
	call compute
	cli
	cmp rax, [want]
	je .fine
	inc r13d
.fine:	cmp dword [note_count], 20
	jae .enough
	dec r12d
	jnz .again
.enough:
	APIC_WRITE LAPIC_INITIAL, 0
	EQ "under timer interrupts", r13, 0
	cmp dword [note_count], 3
	TRUE "there were some", ae
	ret

; Saves by hand, spoils, restores.
on_timer:
	push rax
	push rbx
	push rcx
	push rdx
	push rsi
	push rdi
	push rbp
	mov rbp, rsp
	and rsp, ~15
	sub rsp, 512
	fxsave [rsp]
	inc dword [note_count]
	cmp dword [note_count + 4], 0
	je .no_nmi
	push rdi
	mov edi, LAPIC
	mov dword [rdi + LAPIC_ICR], 0x4400
	pop rdi
.no_nmi:
	mov eax, -1
	add eax, 1 ; all flags other than they were
	std
	fninit
	fld1
	fldpi
	pcmpeqd xmm1, xmm1
	pcmpeqd xmm2, xmm2
	mov ebx, eax
	mov esi, eax
	mov edi, eax
	mov edx, eax
	cld
	APIC_WRITE LAPIC_EOI, 0
	fxrstor [rsp]
	mov rsp, rbp
	pop rbp
	pop rdi
	pop rsi
	pop rdx
	pop rcx
	pop rbx
	pop rax
	iretq
on_nmi:
	push rax
	mov eax, 5
	cmp eax, 7
	inc dword [nmis]
	pop rax
	iretq

; The computation in ring 3, timer and NMI on top.
user_storm:
	mov r12d, 200
	xor r13d, r13d
	mov dword [nmis], 0
	mov dword [note_count + 4], 1
	APIC_WRITE LAPIC_LVT_TIMER, 0x20040
	APIC_WRITE LAPIC_INITIAL, 30000
.again:	TRY
	mov r8d, 20000
	mov rax, .user + USER
	jmp enter_user
.user:	COMPUTE
	mov r10, rax
	int 0x80
	END_TRY
	cmp r10, [want]
	je .fine
	inc r13d
.fine:	cmp dword [nmis], 20
	jae .enough
	dec r12d
	jnz .again
.enough:
	APIC_WRITE LAPIC_INITIAL, 0
	mov dword [note_count + 4], 0
	EQ "in ring 3, with NMIs", r13, 0
	cmp dword [nmis], 0
	TRUE "there were NMIs", a
	ret

; Every access to the work area faults first; the handler makes it present for one, the timer takes it away again.
fault_storm:
	mov rax, [idt + 14 * 16]
	mov [keep], rax
	mov rax, [idt + 14 * 16 + 8]
	mov [keep + 8], rax
	GATE 14, on_fault
	GATE 0x40, on_thief
	mov dword [faults], 0
	APIC_WRITE LAPIC_LVT_TIMER, 0x20040
	APIC_WRITE LAPIC_INITIAL, 10000
	mov r12d, 200
	xor r13d, r13d
.again:	mov r8d, 20000
	sti
	call compute
	cli
	cmp rax, [want]
	je .fine
	inc r13d
.fine:	cmp dword [faults], 20
	jae .enough
	dec r12d
	jnz .again
.enough:
	APIC_WRITE LAPIC_INITIAL, 0
	mov rax, [keep]
	mov [idt + 14 * 16], rax
	mov rax, [keep + 8]
	mov [idt + 14 * 16 + 8], rax
	call give_back
	EQ "with pages taken away at any time", r13, 0
	cmp dword [faults], 2
	TRUE "they were", ae
	ret
give_back:
	or byte [test_pt], 1
	invlpg [work]
	ret
on_thief:
	and byte [test_pt], ~1
	invlpg [work]
	inc dword [note_count]
	APIC_WRITE LAPIC_EOI, 0
	iretq
on_fault:
	add rsp, 8
	or byte [test_pt], 1
	inc dword [faults]
	iretq

stepped:
	GATE 1, on_step
	mov dword [steps], 0
	mov r8d, 300
	pushfq
	or dword [rsp], 0x100
	popfq
	call compute
	pushfq
	and dword [rsp], ~0x100
	popfq
	EQ "one instruction at a time", rax, [want_short]
	cmp dword [steps], 300 * 30
	TRUE "it was", a
	ret
on_step:
	push rax
	mov eax, 5
	cmp eax, 7
	inc dword [steps]
	pop rax
	iretq

	section .data
	align 16
want:	dq 0
want_short: dq 0
keep:	dq 0, 0
faults:	dq 0
nmis:	dq 0
steps:	dq 0
	section .bss
	METAL_END
