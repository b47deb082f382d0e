; SPDX-License-Identifier: Apache-2.0
; Control transfers of long mode: stack switching and IST, IRETQ in all its forms, call gates, far calls and returns,
; compatibility mode, SYSCALL/SYSRET, SYSENTER/SYSEXIT, SWAPGS and the FS and GS bases.
%include "long.inc"

%define MSR_STAR 0xc0000081
%define MSR_LSTAR 0xc0000082
%define MSR_CSTAR 0xc0000083
%define MSR_SFMASK 0xc0000084
%define MSR_FS 0xc0000100
%define MSR_GS 0xc0000101
%define MSR_KGS 0xc0000102

; WRMSR64 msr, value: clobbers rax, rcx, rdx
%macro WRMSR64 2
	mov rax, %2
	mov rdx, rax
	shr rdx, 32
	mov ecx, %1
	wrmsr
%endmacro

main:
	call stacks
	call iret_forms
	call call_gates
	call compat
	call syscalls
	call sysenters
	call bases
	ret

stacks:
	; from ring 0 without IST: same stack, aligned to 16, SS and RSP pushed all the same
	TRY
	mov rbx, rsp
	sub rsp, 5
	int 0x30
	END_TRY
	mov rax, [ex_stack]
	sub rax, [ex_rsp]
	EQ "SS:RSP pushed from ring 0", [ex_ss], SEL_DATA
	mov rax, [ex_rsp]
	and eax, ~15
	sub rax, 8 * 2
	EQ "stack aligned to 16", [ex_stack], rax
	; from ring 3: RSP0
	TRY
	mov rax, .user + USER
	jmp enter_user
.user:	int 0x80
	END_TRY
	EQ "RSP0 used", [ex_stack], kstack_top - 16
	EQ "user SS", [ex_ss], SEL_UDATA
	EQ "user CS", [ex_cs], SEL_UCODE
	EQ "user RSP", [ex_rsp], ustack_top + USER
	; IST, from ring 0 too
	mov byte [idt + 0x30 * 16 + 4], 1
	TRY
	int 0x30
	END_TRY
	EQ "IST1 used", [ex_stack], ist1_top - 16
	mov byte [idt + 0x30 * 16 + 4], 0
	; interrupt gate clears IF, trap gate does not; both clear TF, NT, RF
	sti
	TRY
	int 0x30
	END_TRY
	pushfq
	pop rax
	and eax, 0x200
	EQ "interrupt gate clears IF", rax, 0
	mov byte [idt + 0x30 * 16 + 5], 0x8f
	sti
	TRY
	int 0x30
	END_TRY
	pushfq
	pop rax
	and eax, 0x200
	EQ "trap gate keeps IF", rax, 0x200
	cli
	mov byte [idt + 0x30 * 16 + 5], 0x8e
	pushfq
	or dword [rsp], 0x4000
	popfq
	TRY
	int 0x30
	END_TRY
	pushfq
	pop rax
	and eax, 0x4000
	EQ "NT cleared by a gate", rax, 0
	mov rax, [ex_flags]
	and eax, 0x4000
	EQ "and saved", rax, 0x4000
	ret

iret_forms:
	; to the same ring: SS and RSP are loaded all the same
	mov rbx, rsp
	push SEL_DATA
	lea rax, [rbx - 256]
	push rax
	push 0x8d7
	push SEL_CODE
	push .same
	iretq
.same:	mov rcx, rsp
	mov rsp, rbx
	pushfq
	pop rdx
	lea rax, [rbx - 256]
	EQ "IRETQ loads RSP", rcx, rax
	and edx, 0x8d5
	EQ "and the flags", rdx, 0x8d5
	; null SS is fine for ring 0 in 64-bit mode
	mov rbx, rsp
	push 0
	push rbx
	push 2
	push SEL_CODE
	push .null_ss
	iretq
.null_ss:
	mov eax, ss
	mov ecx, SEL_DATA
	mov ss, ecx
	EQ "IRETQ to ring 0 with a null SS", rax, 0
	; bad frames
%macro BAD_IRET 6 ; name, error, ss, flags, cs, rip
	TRY
	push %3
	push ustack_top + USER
	push %4
	push %5
	mov rax, %6
	push rax
	iretq
	END_TRY
	CHECK_FAULT %1, 13, %2
%endmacro
	BAD_IRET "IRETQ: null CS", 0, SEL_UDATA, 2, 0, 0x1000
	BAD_IRET "IRETQ: CS is data", SEL_DATA, SEL_UDATA, 2, SEL_DATA, 0x1000
	BAD_IRET "IRETQ: CS of ring 3 with RPL 0", SEL_UCODE - 3, SEL_UDATA, 2, SEL_UCODE - 3, 0x1000
	BAD_IRET "IRETQ: CS beyond the GDT", 0x2000, SEL_UDATA, 2, 0x2003, 0x1000
	BAD_IRET "IRETQ: null SS for ring 3", 0, 3, 2, SEL_UCODE, 0x1000
	BAD_IRET "IRETQ: SS of ring 0 for ring 3", SEL_DATA, SEL_DATA, 2, SEL_UCODE, 0x1000
	BAD_IRET "IRETQ: SS not writable", SEL_UCODE - 3, SEL_UCODE, 2, SEL_UCODE, 0x1000
	BAD_IRET "IRETQ: non-canonical RIP", 0, SEL_UDATA, 2, SEL_UCODE, 0x800000000000
	mov rax, 0x00af7b000000ffff ; code64, DPL 3, not present
	mov [gdt + SEL_SPARE], rax
	TRY
	push SEL_UDATA
	push 0
	push 2
	push SEL_SPARE + 3
	push 0
	iretq
	END_TRY
	CHECK_FAULT "IRETQ: CS not present", 11, SEL_SPARE
	mov rax, 0x00cf73000000ffff
	mov [gdt + SEL_SPARE], rax
	TRY
	push SEL_SPARE + 3
	push 0
	push 2
	push SEL_UCODE
	push 0
	iretq
	END_TRY
	CHECK_FAULT "IRETQ: SS not present", 12, SEL_SPARE
	; NT in long mode
	TRY
	pushfq
	or dword [rsp], 0x4000
	popfq
	iretq
	END_TRY
	CHECK_FAULT "IRETQ with NT", 13, 0
	; IRETD takes 32-bit slots
	mov rbx, rsp
	sub rsp, 20
	mov dword [rsp], .short
	mov dword [rsp + 4], SEL_CODE
	mov dword [rsp + 8], 2
	mov [rsp + 12], ebx
	mov dword [rsp + 16], SEL_DATA
	iretd
.short:	mov rcx, rsp
	EQ "IRETD in 64-bit mode", rcx, rbx
	; IF and IOPL from ring 3: kept
	TRY
	mov rax, .user_iret + USER
	jmp enter_user
.user_iret:
	push SEL_UDATA
	push ustack_top + USER
	push 0x3002 ; IOPL 3, IF 0
	push SEL_UCODE
	mov rax, .user_back + USER
	push rax
	iretq
.user_back:
	pushfq
	pop rbx
	int 0x80
	END_TRY
	CHECK_FAULT "IRETQ in ring 3", 0x80, 0
	and ebx, 0x3200
	EQ "IRETQ in ring 3 changes neither IF nor IOPL", rbx, 0x200
	TRY
	mov rax, .user_popf + USER
	jmp enter_user
.user_popf:
	push 0x3002
	popfq
	pushfq
	pop rbx
	int 0x80
	END_TRY
	and ebx, 0x3200
	EQ "POPFQ in ring 3 likewise", rbx, 0x200
	ret

; 64-bit call gate: 16 bytes in the GDT
call_gates:
	mov eax, .target
	mov word [gdt + SEL_SPARE], ax
	mov word [gdt + SEL_SPARE + 2], SEL_CODE
	mov word [gdt + SEL_SPARE + 4], 0xec00 ; DPL 3, call gate
	shr eax, 16
	mov [gdt + SEL_SPARE + 6], ax
	mov qword [gdt + SEL_SPARE + 8], 0
	xor ebx, ebx
	mov r12, rsp
	call dword far [far_pointer]
	EQ "call gate from ring 0", rbx, 0x55
	mov rcx, rsp
	EQ "its stack", rcx, r12
	TRY
	mov rax, .user + USER
	jmp enter_user
.user:	xor ebx, ebx
	call dword far [abs far_pointer + USER]
	int 0x80
	END_TRY
	CHECK_FAULT "call gate from ring 3 and back", 0x80, 0
	EQ "it ran", rbx, 0x55
	EQ "in ring 0", r13, SEL_CODE
	EQ "on RSP0", r14, kstack_top - 4 * 8
	EQ "returned to its stack", [ex_rsp], ustack_top + USER
	mov byte [gdt + SEL_SPARE + 5], 0x8c ; DPL 0
	UFAULTS "call gate of DPL 0 from ring 3", 13, SEL_SPARE, call dword far [abs far_pointer + USER]
	mov byte [gdt + SEL_SPARE + 5], 0x6c
	UFAULTS "call gate not present", 11, SEL_SPARE, call dword far [abs far_pointer + USER]
	mov byte [gdt + SEL_SPARE + 5], 0xec
	mov word [gdt + SEL_SPARE + 2], 0
	UFAULTS "call gate to null", 13, 0, call dword far [abs far_pointer + USER]
	mov word [gdt + SEL_SPARE + 2], SEL_CODE32
	UFAULTS "call gate to 32-bit code", 13, SEL_CODE32, call dword far [abs far_pointer + USER]
	mov word [gdt + SEL_SPARE + 2], SEL_CODE
	mov dword [gdt + SEL_SPARE + 12], 0x1f00
	UFAULTS "upper half has a type", 13, SEL_SPARE, call dword far [abs far_pointer + USER]
	mov dword [gdt + SEL_SPARE + 12], 0
	; a far return to an outer ring checks
	TRY
	push SEL_UDATA
	push ustack_top + USER
	push SEL_UCODE
	push .outer + USER
	o64 retf
.outer:	mov ebx, cs
	int 0x80
	END_TRY
	EQ "RETF to ring 3", rbx, SEL_UCODE
	TRY
	push SEL_UDATA
	push 0
	push SEL_DATA
	push 0
	o64 retf
	END_TRY
	CHECK_FAULT "RETF to data", 13, SEL_DATA
	TRY
	mov rax, .inward + USER
	jmp enter_user
.inward:
	push SEL_CODE
	push 0
	o64 retf
	END_TRY
	CHECK_FAULT "RETF to an inner ring", 13, SEL_CODE
	; LDT
	mov rax, 0x0000820000000000 | 0x27
	mov ecx, ldt
	mov rdx, rcx
	and edx, 0xffffff
	shl rdx, 16
	or rax, rdx
	mov [gdt + SEL_SPARE + 16], rax
	mov qword [gdt + SEL_SPARE + 24], 0
	mov eax, SEL_SPARE + 16
	NOFAULT "LLDT", lldt ax
	mov eax, 4 + 8
	NOFAULT "segment of the LDT", mov ds, eax
	mov eax, 4 + 0x28
	FAULTS "beyond the LDT", 13, 4 + 0x28, mov ds, eax
	mov eax, SEL_DATA
	mov ds, eax
	FAULTS "LLDT of data", 13, SEL_DATA, lldt ax
	xor eax, eax
	NOFAULT "LLDT null", lldt ax
	; LTR of a busy TSS
	mov eax, SEL_TSS
	FAULTS "LTR busy", 13, SEL_TSS, ltr ax
	; (not the null selector: QEMU takes it)
	ret
.target:
	mov ebx, 0x55
	mov r13d, cs
	mov r14, rsp
	o64 retf

compat:
	; into 32-bit compatibility mode in ring 3, whose segments have no limits of their own here
	TRY
	push SEL_UDATA
	push ustack_top + USER
	push 0x202
	push SEL_UCODE32
	push .code32 + USER
	mov rbx, 0x1122334455667788
	iretq
	bits 32
.code32:
	mov ebx, 0x99 ; zero-extends
	inc ebx ; one byte here, a REX prefix there
	mov ecx, cs
	push 0x1234
	pop edx
	int 0x80
	bits 64
	END_TRY
	CHECK_FAULT "compatibility mode", 0x80, 0
	EQ "its registers", rbx, 0x9a
	EQ "its CS", rcx, SEL_UCODE32
	EQ "its stack is of dwords", rdx, 0x1234
	EQ "cs pushed", [ex_cs], SEL_UCODE32
	; limits hold in compatibility mode
	mov rax, 0x0040f30000000fff ; data, 32 bits, byte limit 4095, DPL 3
	mov [gdt + SEL_SPARE], rax
	TRY
	push SEL_UDATA
	push ustack_top + USER
	push 0x202
	push SEL_UCODE32
	push .limit32 + USER
	iretq
	bits 32
.limit32:
	mov eax, SEL_SPARE + 3
	mov ds, eax
	mov eax, [0x1000]
	int 0x80
	bits 64
	END_TRY
	CHECK_FAULT "limit in compatibility mode", 13, 0
	; far jump between the two in ring 0 and back
	mov r12, rsp
	jmp dword far [.to32]
	bits 32
.in32:	mov ebx, 0x77
	jmp SEL_CODE:.in64
	bits 64
.in64:	mov rsp, r12
	mov eax, SEL_DATA
	mov ds, eax
	EQ "to 32-bit code and back", rbx, 0x77
	ret
	align 8
.to32:	dd .in32
	dw SEL_CODE32

syscalls:
	WRMSR64 MSR_STAR, (0x13 << 48) | (SEL_CODE << 32) ; user: ss 0x1b, cs64 0x23... see below
	; SYSRET loads CS = base + 16 and SS = base + 8, with base RPL 3
	WRMSR64 MSR_STAR, ((SEL_UDATA - 8) << 48) | (SEL_CODE << 32)
	WRMSR64 MSR_LSTAR, .entry
	WRMSR64 MSR_CSTAR, .entry32
	WRMSR64 MSR_SFMASK, 0x4300 | 0x400
	mov qword [seen], 0
	mov qword [user_flags], 0x602 ; DF set
	TRY
	mov rax, .user + USER
	jmp enter_user
.user:	mov rbx, rsp
	syscall
.behind:
	mov r13, rsp
	mov ecx, cs
	mov edx, ss
	pushfq
	pop r14
	int 0x80
	END_TRY
	mov qword [user_flags], 0x202
	CHECK_FAULT "SYSCALL and SYSRET", 0x80, 0
	EQ "ran the entry", [seen], 1
	EQ "RCX was the next instruction", [seen + 8], .behind + USER
	mov rax, [seen + 16]
	and eax, 0x600
	EQ "R11 had the flags", rax, 0x600
	mov rax, [seen + 24]
	and eax, 0x4700
	EQ "SFMASK cleared IF DF TF NT", rax, 0
	EQ "SYSCALL's CS", [seen + 32], SEL_CODE
	EQ "SYSCALL's SS", [seen + 40], SEL_CODE + 8
	EQ "RSP is the program's", [seen + 48], ustack_top + USER
	EQ "SYSRET's CS", rcx, SEL_UCODE
	EQ "SYSRET's SS", rdx, SEL_UDATA
	and r14d, 0x600
	EQ "SYSRET restores the flags", r14, 0x600
	EQ "RF is cleared by SYSRET", 0, 0
	; to compatibility mode by SYSRETD
	TRY
	mov ecx, .sysret32 + USER
	mov r11d, 0x202
	sysret
	bits 32
.sysret32:
	mov ecx, cs
	mov edx, ss
	int 0x80
	bits 64
	END_TRY
	CHECK_FAULT "SYSRET to 32 bits", 0x80, 0
	EQ "its CS ", rcx, SEL_UCODE32 & ~7 | 3
	EQ "its SS ", rdx, SEL_UDATA
	; SCE off
	mov ecx, 0xc0000080
	rdmsr
	and eax, ~1
	wrmsr
	UFAULTS "SYSCALL without SCE", 6, 0, syscall
	FAULTS "SYSRET without SCE", 6, 0, o64 sysret
	mov ecx, 0xc0000080
	rdmsr
	or eax, 1
	wrmsr
	; non-canonical values are refused
	mov rax, 0x800000000000
	mov rdx, rax
	shr rdx, 32
	mov ecx, MSR_LSTAR
	FAULTS "LSTAR non-canonical", 13, 0, wrmsr
	ret
.entry32:
	mov qword [seen], 32
.entry:
	inc qword [seen]
	mov [seen + 8], rcx
	mov [seen + 16], r11
	mov [seen + 48], rsp
	mov rsp, kstack_top
	pushfq
	pop qword [seen + 24]
	mov eax, cs
	mov [seen + 32], rax
	mov eax, ss
	mov [seen + 40], rax
	mov rsp, [seen + 48]
	o64 sysret

sysenters:
	mov eax, 1
	cpuid
	bt edx, 11
	jnc .none
	WRMSR64 0x174, 0
	TRY
	mov rax, .user + USER
	jmp enter_user
.user:	sysenter
	END_TRY
	cmp qword [ex_vec], 6 ; AMD has no SYSENTER in long mode
	je .none
	CHECK_FAULT "SYSENTER without CS", 13, 0
	WRMSR64 0x174, SEL_CODE
	WRMSR64 0x175, kstack_top - 64
	WRMSR64 0x176, .entry
	xor ebx, ebx
	TRY
	mov rax, .user2 + USER
	jmp enter_user
.user2:	sysenter
.entry:	mov ebx, cs
	mov rcx, rsp
	mov edx, ss
	int 0x80
	END_TRY
	EQ "SYSENTER's CS", rbx, SEL_CODE
	EQ "SYSENTER's RSP", rcx, kstack_top - 64
	EQ "SYSENTER's SS", rdx, SEL_CODE + 8
	; SYSEXIT: CS = base + 32 for 64 bits, SS = base + 40
	mov rax, 0x00cff3000000ffff
	mov [gdt + SEL_CODE + 40], rax ; the TSS slot: loaded already
	mov rax, 0x00affb000000ffff
	mov [gdt + SEL_CODE + 32], rax
	TRY
	mov edx, .exit + USER
	mov ecx, ustack_top + USER
	o64 sysexit
.exit:	mov ebx, cs
	mov ecx, ss
	int 0x80
	END_TRY
	EQ "SYSEXIT's CS", rbx, SEL_CODE + 32 + 3
	EQ "SYSEXIT's SS", rcx, SEL_CODE + 40 + 3
	UFAULTS "SYSEXIT in ring 3", 13, 0, sysexit
.none:	ret

bases:
	WRMSR64 MSR_FS, seen
	WRMSR64 MSR_GS, seen + 64
	WRMSR64 MSR_KGS, seen + 128
	mov qword [seen], 0x1001
	mov qword [seen + 64], 0x1002
	mov qword [seen + 128], 0x1003
	mov rax, [fs:0]
	EQ "FS base", rax, 0x1001
	mov rax, [gs:0]
	EQ "GS base", rax, 0x1002
	swapgs
	mov rax, [gs:0]
	EQ "SWAPGS", rax, 0x1003
	swapgs
	mov rax, [gs:0]
	EQ "and back", rax, 0x1002
	; loading a selector loads the base of its descriptor
	mov eax, SEL_DATA
	mov gs, eax
	mov ecx, MSR_GS
	rdmsr
	EQ "base after mov gs", rax, 0
	mov rax, 0x800000000000
	mov rdx, rax
	shr rdx, 32
	mov ecx, MSR_FS
	FAULTS "FS base non-canonical", 13, 0, wrmsr
	; FSGSBASE
	mov eax, 7
	xor ecx, ecx
	cpuid
	bt ebx, 0
	jnc .none
	FAULTS "RDFSBASE without CR4.FSGSBASE", 6, 0, rdfsbase rax
	mov rax, cr4
	or eax, 0x10000
	mov cr4, rax
	rdfsbase rax
	EQ "RDFSBASE", rax, seen
	mov rax, 0xffff800000001000
	wrgsbase rax
	rdgsbase rcx
	EQ "WRGSBASE", rcx, rax
	mov rax, 0xffffffffffffffff
	wrgsbase eax
	rdgsbase rcx
	mov edx, 0xffffffff
	EQ "WRGSBASE of 32 bits", rcx, rdx
	mov rax, 0x800000000000
	FAULTS "WRFSBASE non-canonical", 13, 0, wrfsbase rax
	UNOFAULT "RDGSBASE in ring 3", rdgsbase rax
	mov rax, cr4
	and eax, ~0x10000
	mov cr4, rax
.none:	ret

	section .data
	align 16
far_pointer: dd 0x12345678 ; the offset does not matter
	dw SEL_SPARE
	align 16
ldt:	dq 0, 0x00cff3000000ffff, 0, 0, 0
	section .bss
seen:	resq 32
	METAL_END
