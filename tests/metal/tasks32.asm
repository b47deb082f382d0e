; SPDX-License-Identifier: Apache-2.0
; Hardware task switches: by JMP, CALL, IRET and interrupt through TSS and task gates, busy bits, NT, back link, CR0.TS, the
; registers that are kept, a task gate for double faults and for #TS, and the errors. 16-bit TSS too.
%include "prot.inc"

%define SEL_TSS2 0x48
%define SEL_GATE 0x50
%define SEL_TSS16 0x58
%define SEL_TSS3 0x60
%define SEL_TSS16B 0x68

; NEW_TSS label, entry, stack top
%macro NEW_TSS 3
	mov edi, %1
	mov ecx, 0x68 / 4
	xor eax, eax
	rep stosd
	mov dword [%1 + 0x20], %2
	mov dword [%1 + 0x24], 2
	mov dword [%1 + 0x38], %3
	mov dword [%1 + 0x48], SEL_DATA
	mov dword [%1 + 0x4c], SEL_CODE
	mov dword [%1 + 0x50], SEL_DATA
	mov dword [%1 + 0x54], SEL_DATA
	mov dword [%1 + 0x58], SEL_DATA
	mov dword [%1 + 0x5c], SEL_DATA
	mov dword [%1 + 0x64], 0x680000
%endmacro
%macro ACCESS 2 ; selector's access byte into eax
	movzx eax, byte [gdt + %1 + 5]
	EQ %2
%endmacro

main:
	call by_jump
	call by_call
	call by_gate
	call by_interrupt
	call faults
	call double_fault
	call old_tss
	ret

by_jump:
	NEW_TSS tss2, .task, task_stack
	mov dword [tss2 + 0x28], 0x11111111 ; eax
	mov dword [tss2 + 0x40], 0x22222222 ; esi
	DESCRIPTOR SEL_TSS2, tss2, 0x67, 0x89, 0
	mov ebx, 0x33333333
	stc
	jmp SEL_TSS2:0
	EQ "back in the first task", ebx, 0x33333333
	EQ "it ran", [ran], 1
	EQ "with its registers", [ran + 4], 0x11111111
	EQ "and its stack", [ran + 8], task_stack
	EQ "TS was set", [ran + 12], 8
	EQ "NT was not", [ran + 16], 0
	movzx eax, byte [gdt + SEL_TSS + 5]
	EQ "first TSS is busy", eax, 0x8b
	movzx eax, byte [gdt + SEL_TSS2 + 5]
	EQ "second is not any more", eax, 0x89
	str eax
	EQ "TR", eax, SEL_TSS
	clts
	mov eax, [tss2 + 0x20]
	EQ "EIP saved in the second", eax, .resume
	EQ "and its ESI", [tss2 + 0x40], 0x44444444
	ret
.task:	mov [ran + 4], eax
	mov [ran + 8], esp
	mov eax, cr0
	and eax, 8
	mov [ran + 12], eax
	clts
	pushfd
	pop eax
	and eax, 0x4000
	mov [ran + 16], eax
	inc dword [ran]
	mov esi, 0x44444444
	jmp SEL_TSS:0
.resume:
	ud2

by_call:
	NEW_TSS tss2, .task, task_stack
	DESCRIPTOR SEL_TSS2, tss2, 0x67, 0x89, 0
	mov dword [ran], 0
	call SEL_TSS2:0
	clts
	EQ "returned by IRET", [ran], 1
	EQ "NT in the called task", [ran + 4], 0x4000
	EQ "back link", [ran + 8], SEL_TSS
	EQ "caller stays busy", [ran + 12], 0x8b
	movzx eax, byte [gdt + SEL_TSS2 + 5]
	EQ "called one is free again", eax, 0x89
	mov eax, [tss2 + 0x24]
	and eax, 0x4000
	EQ "NT cleared in what IRET saved", eax, 0
	; a second call goes on behind the IRET
	call SEL_TSS2:0
	clts
	EQ "goes on behind its IRET", [ran], 2
	ret
.task:	pushfd
	pop eax
	and eax, 0x4000
	mov [ran + 4], eax
	movzx eax, word [tss2]
	mov [ran + 8], eax
	movzx eax, byte [gdt + SEL_TSS + 5]
	mov [ran + 12], eax
.again:	inc dword [ran]
	iret
	jmp .again

by_gate:
	NEW_TSS tss2, .task, task_stack
	DESCRIPTOR SEL_TSS2, tss2, 0x67, 0x89, 0
	mov dword [gdt + SEL_GATE], SEL_TSS2 << 16
	mov dword [gdt + SEL_GATE + 4], 0xe500 ; task gate, DPL 3
	mov dword [ran], 0
	call SEL_GATE:0
	clts
	EQ "call through a task gate", [ran], 1
	; from ring 3, whose stack and segments are kept in its TSS
	TRY
	mov eax, .user
	jmp enter_user
.user:	mov ebx, 0x77
	call SEL_GATE + 3:0
	mov ecx, cs
	int 0x80
	END_TRY
	clts
	CHECK_FAULT "task gate from ring 3", 0x80, 0
	EQ "ran", [ran], 2
	EQ "back in ring 3", ecx, SEL_UCODE
	EQ "EBX kept", ebx, 0x77
	ret
.task:	inc dword [ran]
	iret
	jmp .task

by_interrupt:
	NEW_TSS tss2, .task, task_stack
	DESCRIPTOR SEL_TSS2, tss2, 0x67, 0x89, 0
	mov dword [idt + 0x32 * 8], SEL_TSS2 << 16
	mov dword [idt + 0x32 * 8 + 4], 0x8500
	mov dword [ran], 0
	int 0x32
	clts
	EQ "interrupt through a task gate", [ran], 1
	; an exception with an error code: pushed on the new task's stack
	NEW_TSS tss2, .fault_task, task_stack
	mov ebx, [idt + 13 * 8]
	mov ecx, [idt + 13 * 8 + 4]
	mov dword [idt + 13 * 8], SEL_TSS2 << 16
	mov dword [idt + 13 * 8 + 4], 0x8500
	mov eax, 0x400
	mov fs, eax ; #GP(0x400)
.after:	mov [idt + 13 * 8], ebx
	mov [idt + 13 * 8 + 4], ecx
	clts
	EQ "#GP through a task gate: error code", [ran + 4], 0x400
	ret
.task:	inc dword [ran]
	iret
	jmp .task
.fault_task:
	pop dword [ran + 4]
	mov eax, .after
	mov [tss + 0x20], eax ; go on behind
	iret

faults:
	FAULTS "jump to the TSS in use", 13, SEL_TSS, jmp SEL_TSS:0
	mov byte [gdt + SEL_TSS2 + 5], 0x09
	FAULTS "TSS not present", 11, SEL_TSS2, jmp SEL_TSS2:0
	mov byte [gdt + SEL_TSS2 + 5], 0x89
	mov word [gdt + SEL_TSS2], 0x66
	FAULTS "TSS too small", 10, SEL_TSS2, jmp SEL_TSS2:0
	mov word [gdt + SEL_TSS2], 0x67
	mov dword [gdt + SEL_GATE], SEL_DATA << 16
	FAULTS "task gate to data", 13, SEL_DATA, jmp SEL_GATE:0
	mov dword [gdt + SEL_GATE], 0
	FAULTS "task gate to null", 13, 0, jmp SEL_GATE:0
	; IRET with NT and a back link that is not busy
	TRY
	mov word [tss], SEL_TSS2
	pushfd
	or dword [esp], 0x4000
	popfd
	iret
	END_TRY
	pushfd
	and dword [esp], ~0x4000
	popfd
	CHECK_FAULT "IRET to a task that is not busy", 10, SEL_TSS2
	UFAULTS "jump to a TSS of DPL 0", 13, SEL_TSS2, jmp SEL_TSS2:0
	ret

; The #DF handler is a task of its own, so that no stack is needed to get there.
double_fault:
	NEW_TSS tss2, .task, task_stack
	DESCRIPTOR SEL_TSS2, tss2, 0x67, 0x89, 0
	mov ebx, [idt + 8 * 8]
	mov ecx, [idt + 8 * 8 + 4]
	mov dword [idt + 8 * 8], SEL_TSS2 << 16
	mov dword [idt + 8 * 8 + 4], 0x8500
	DESCRIPTOR SEL_SPARE, 0, 0xfff, 0x93, 4 ; a stack of 4 KiB
	mov dword [ran], 0
	mov edx, esp
	mov eax, SEL_SPARE
	mov ss, eax
	mov esp, 0x8000 ; outside
	push eax ; #SS, whose frame faults again
.after:	mov eax, SEL_DATA
	mov ss, eax
	mov esp, edx
	clts
	mov [idt + 8 * 8], ebx
	mov [idt + 8 * 8 + 4], ecx
	EQ "double fault by a task gate", [ran], 1
	EQ "its error code is 0", [ran + 4], 0
	ret
.task:	pop dword [ran + 4]
	inc dword [ran]
	mov eax, .after
	mov [tss + 0x20], eax
	iret

; 16-bit TSS: registers of 16 bits, no CR3, no FS and GS
old_tss:
	mov edi, tss16
	mov ecx, 0x2c / 4
	xor eax, eax
	rep stosd
	DESCRIPTOR SEL_SPARE, .task, 0xffff, 0x9b, 0
	DESCRIPTOR SEL_TSS16B, task_stack - 0x1000, 0xffff, 0x93, 0
	mov word [tss16 + 0x0e], 0
	mov word [tss16 + 0x10], 2
	mov word [tss16 + 0x12], 0x1234 ; ax
	mov word [tss16 + 0x1a], 0x0ffc ; sp
	mov word [tss16 + 0x22], SEL_DATA ; es
	mov word [tss16 + 0x24], SEL_SPARE
	mov word [tss16 + 0x26], SEL_TSS16B
	mov word [tss16 + 0x28], SEL_DATA
	DESCRIPTOR SEL_TSS16, tss16, 0x2b, 0x81, 0
	mov dword [ran], 0
	call SEL_TSS16:0
	clts
	EQ "16-bit task ran", [ran], 0x1234
	movzx eax, byte [gdt + SEL_TSS16 + 5]
	EQ "free again", eax, 0x81
	ret
	bits 16
.task:	movzx eax, ax
	mov [dword ran], eax
	iret
	jmp .task
	bits 32

	section .data
	align 8
ran:	times 8 dd 0
	section .bss
	alignb 16
tss2:	resb 0x80
tss16:	resb 0x40
	resb 4096
task_stack:
	resb 16
	METAL_END
