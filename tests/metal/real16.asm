; SPDX-License-Identifier: Apache-2.0
; Real mode, unreal mode and virtual-8086 mode. The 16-bit parts run at LOW (they are copied there) and leave what they found in
; an array, which the 32-bit part judges.
%include "prot.inc"

%define LOW 0x8000
%define FOUND 0x7000 ; dwords
%define LOWSEG (LOW >> 4)
%define IN_LOW(label) (label - low_start)

main:
	mov esi, low_start
	mov edi, LOW
	mov ecx, low_end - low_start
	rep movsb
	call real_mode
	call v86
	call v86_more
	ret

; ---- real mode

real_mode:
	mov edi, FOUND
	mov ecx, 64
	mov eax, 0xdeadbeef
	rep stosd
	mov [saved_esp], esp
	DESCRIPTOR SEL_SPARE, LOW, 0xffff, 0x9b, 0
	lidt [real_idt]
	mov eax, SEL_DATA ; 4 GiB limits stay in FS: unreal mode
	mov fs, eax
	mov eax, SEL_DATA16
	mov ds, eax
	mov es, eax
	mov gs, eax
	mov ss, eax
	mov esp, 0x6ff0
	jmp SEL_SPARE:IN_LOW(low_start)

back_from_real:
	mov eax, SEL_DATA
	mov ds, eax
	mov es, eax
	mov ss, eax
	mov fs, eax
	mov gs, eax
	mov esp, [saved_esp]
	lidt [idt_pointer]
	EQ "real: CS:IP after a far jump", [FOUND], LOWSEG
	EQ "real: segment base is selector * 16", [FOUND + 4], 0x12345678
	EQ "real: 32-bit operands", [FOUND + 8], 0x11112222
	EQ "real: 32-bit addresses", [FOUND + 12], 0x12345678
	EQ "real: 16-bit addresses wrap", [FOUND + 16], 0x12345678
	EQ "real: INT pushes IP behind it", [FOUND + 20], IN_LOW(low_start.after_int)
	EQ "real: INT pushes CS", [FOUND + 24], LOWSEG
	EQ "real: INT pushes the flags", [FOUND + 28], 0x201
	EQ "real: INT clears IF", [FOUND + 32], 0
	EQ "real: IRET restores it", [FOUND + 36], 0x201
	EQ "real: #DE by the IVT, at the instruction", [FOUND + 40], IN_LOW(low_start.divide)
	EQ "real: word at 0xffff: #GP", [FOUND + 44], IN_LOW(low_start.straddle)
	EQ "real: dword far beyond: #GP", [FOUND + 48], IN_LOW(low_start.beyond)
	EQ "real: #UD", [FOUND + 52], IN_LOW(low_start.invalid)
	EQ "real: far call pushes CS:IP", [FOUND + 56], LOWSEG << 16 | IN_LOW(low_start.after_call)
	EQ "real: PUSHA and POPA of words", [FOUND + 60], 0x1234
	EQ "real: LDS", [FOUND + 64], 0x4321
	EQ "real: loop counts CX", [FOUND + 68], 0x5a000000
	EQ "real: any selector loads", [FOUND + 72], 0xfff8
	EQ "unreal: FS reaches above 1 MiB", [FOUND + 76], 0xcafe1234
	EQ "real: SMSW shows no PE", [FOUND + 80], 0
	EQ "real: #BR", [FOUND + 84], IN_LOW(low_start.bound)
	EQ "real: INTO is a trap", [FOUND + 88], IN_LOW(low_start.after_into)
	EQ "real: push wraps the stack", [FOUND + 92], 0xfffe
	EQ "real: single step", [FOUND + 96], IN_LOW(low_start.stepped)
	EQ "real: LLDT does not exist", [FOUND + 100], IN_LOW(low_start.lldt)
	EQ "real: string by 32-bit registers", [FOUND + 104], 0x12345678
	ret

	bits 16
low_start:
	mov eax, cr0
	and al, 0xfe
	mov cr0, eax
	jmp LOWSEG:IN_LOW(.real)
.real:	xor ax, ax
	mov ds, ax
	mov es, ax
	mov ss, ax
	mov gs, ax
	mov sp, 0x6ff0
	; vectors: 0 #DE, 1 #DB, 4 #OF, 5 #BR, 6 #UD, 13 #GP note IP; 0x30 is a service
	mov word [0 * 4], IN_LOW(.note)
	mov word [0 * 4 + 2], LOWSEG
	mov word [1 * 4], IN_LOW(.note)
	mov word [1 * 4 + 2], LOWSEG
	mov word [4 * 4], IN_LOW(.note)
	mov word [4 * 4 + 2], LOWSEG
	mov word [5 * 4], IN_LOW(.note)
	mov word [5 * 4 + 2], LOWSEG
	mov word [6 * 4], IN_LOW(.note)
	mov word [6 * 4 + 2], LOWSEG
	mov word [13 * 4], IN_LOW(.note)
	mov word [13 * 4 + 2], LOWSEG
	mov word [0x30 * 4], IN_LOW(.service)
	mov word [0x30 * 4 + 2], LOWSEG
	xor eax, eax
	mov ax, cs
	mov [FOUND], eax
	mov dword [0x7890], 0x12345678
	mov ax, 0x0700
	mov es, ax
	mov eax, [es:0x890]
	mov [FOUND + 4], eax
	mov eax, 0x11110000
	add eax, 0x2222
	mov [FOUND + 8], eax
	mov ebx, 0x7000
	mov ecx, 0x890
	mov eax, [ebx + ecx]
	mov [FOUND + 12], eax
	mov bx, 0x9000
	mov si, 0xe890
	mov eax, [bx + si] ; 0x17890, that is 0x7890
	mov [FOUND + 16], eax
	; INT
	stc
	sti
	int 0x30
.after_int:
	pushf
	cli
	pop ax
	and eax, 0x201
	mov [FOUND + 36], eax
	; exceptions: .note goes on at BP and stores IP at [DI]
	mov di, FOUND + 40
	mov bp, IN_LOW(.a)
	xor dx, dx
	xor cx, cx
.divide:
	div cx
.a:	mov di, FOUND + 44
	mov bp, IN_LOW(.b)
.straddle:
	mov ax, [0xffff]
.b:	mov di, FOUND + 48
	mov bp, IN_LOW(.c)
	mov ebx, 0x10000
.beyond:
	mov eax, [ebx]
.c:	mov di, FOUND + 52
	mov bp, IN_LOW(.d)
.invalid:
	ud2
.d:	; far call
	call LOWSEG:IN_LOW(.far)
.after_call:
	mov ax, 0x1234
	pusha
	mov ax, 0
	popa
	movzx eax, ax
	mov [FOUND + 60], eax
	mov word [0x7900], 0x4321
	mov word [0x7902], 0x0700
	lds si, [0x7900]
	xor ax, ax
	mov ds, ax
	movzx eax, si
	mov [FOUND + 64], eax
	mov ecx, 0x5a000003
.loop:	loop .loop
	mov [FOUND + 68], ecx
	mov ax, 0xfff8
	mov gs, ax
	xor eax, eax
	mov ax, gs
	mov [FOUND + 72], eax
	mov ebx, 0x500000
	mov dword [fs:ebx], 0xcafe1234
	mov eax, [fs:ebx]
	mov [FOUND + 76], eax
	smsw ax
	and eax, 1
	mov [FOUND + 80], eax
	mov di, FOUND + 84
	mov bp, IN_LOW(.e)
	mov word [0x7900], 0
	mov word [0x7902], 3
	mov ax, 4
.bound:	bound ax, [0x7900]
.e:	mov di, FOUND + 88
	mov bp, IN_LOW(.f)
	mov al, 0x7f
	inc al
	into
.after_into:
	nop
.f:	mov sp, 0
	push ax
	xor eax, eax
	mov ax, sp
	mov [FOUND + 92], eax
	mov sp, 0x6ff0
	mov di, FOUND + 96
	mov bp, IN_LOW(.g)
	pushf
	pop ax
	or ax, 0x100
	push ax
	popf
	nop
.stepped:
	nop
.g:	mov di, FOUND + 100
	mov bp, IN_LOW(.h)
.lldt:	lldt ax
.h:	mov esi, 0x7890
	xor ax, ax
	mov ds, ax
	cld
	a32 lodsd
	mov [FOUND + 104], eax
	; back
	mov eax, cr0
	or al, 1
	mov cr0, eax
	jmp dword SEL_CODE:back_from_real
.far:	mov bx, sp
	mov eax, [bx]
	mov [FOUND + 56], eax
	retf
.service:
	push bp
	mov bp, sp
	xor eax, eax
	mov ax, [bp + 2]
	mov [FOUND + 20], eax
	mov ax, [bp + 4]
	mov [FOUND + 24], eax
	mov ax, [bp + 6]
	and eax, 0x201
	mov [FOUND + 28], eax
	pushf
	pop ax
	and eax, 0x200
	mov [FOUND + 32], eax
	pop bp
	iret
.note:	; IP to [DI], go on at BP
	pop ax
	movzx eax, ax
	mov [di], eax
	add sp, 2
	pop ax
	and ax, ~0x100
	push ax
	popf
	jmp bp
; ---- virtual-8086 programs; each ends in INT 0x80 or a fault
v86_segments:
	mov ax, 0x0700
	mov ds, ax
	mov ebx, [0x890]
	xor ecx, ecx
	mov cx, ds
	mov edx, esp
	int 0x80
v86_cli:
	cli
	int 0x80
v86_sti:
	sti
	int 0x80
v86_pushf:
	pushf
	pop bx
	int 0x80
v86_popf:
	push word 0x3202
	popf
	pushf
	pop bx
	int 0x80
v86_int:
	int 0x21
	nop
v86_iret:
	iret
v86_in:	in al, 0x80
	int 0x80
v86_in_bad:
	in al, 0x81
v86_hlt:
	hlt
v86_cr:	mov eax, cr0
v86_lmsw: lmsw ax
v86_limit:
	mov al, 1
	mov bx, 0xffff
	mov ax, [bx]
v86_arpl:
	arpl ax, bx
v86_sldt:
	sldt ax
v86_far:
	jmp 0x0900:0x10 ; 0x9010
v86_into:
	mov al, 0x7f
	inc al
	into
	nop
v86_int3:
	int3
	nop
low_end:
	bits 32

; V86 label: run it with the flags in [v86_flags]
%macro V86 1
	TRY
	mov eax, IN_LOW(%1)
	jmp enter_v86
	END_TRY
%endmacro
enter_v86:
	push 0 ; gs
	push 0 ; fs
	push 0 ; ds
	push 0 ; es
	push 0 ; ss
	push 0x6f00
	push dword [v86_flags]
	push LOWSEG
	push eax
	iret

v86:
	mov dword [0x7890], 0x12345678
	mov dword [0x9010], 0x80cd43 ; inc bx; int 0x80
	mov dword [v86_flags], 0x23202 ; VM, IOPL 3, IF
	V86 v86_segments
	CHECK_FAULT "v86: INT with IOPL 3 goes to the IDT", 0x80, 0
	EQ "v86: segment base", ebx, 0x12345678
	EQ "v86: DS reads", ecx, 0x0700
	EQ "v86: DS was pushed", [ex_v86_ds], 0x0700
	EQ "v86: and is null in the handler", [ex_ds], 0
	EQ "v86: SS:ESP pushed", [ex_rsp], 0x6f00
	EQ "v86: CS pushed", [ex_cs], LOWSEG
	mov eax, [ex_flags]
	and eax, 0x23000
	EQ "v86: VM and IOPL in the flags", eax, 0x23000
	V86 v86_cli
	CHECK_FAULT "v86: CLI with IOPL 3", 0x80, 0
	mov eax, [ex_flags]
	and eax, 0x200
	EQ "v86: it clears IF", eax, 0
	V86 v86_popf
	and ebx, 0x3200
	EQ "v86: POPF sets IF, keeps IOPL", ebx, 0x3200
	V86 v86_int
	CHECK_FAULT "v86: INT 0x21, gate of DPL 0", 13, 0x21 * 8 + 2
	V86 v86_hlt
	CHECK_FAULT "v86: HLT", 13, 0
	V86 v86_cr
	CHECK_FAULT "v86: MOV from CR0", 13, 0
	V86 v86_lmsw
	CHECK_FAULT "v86: LMSW", 13, 0
	V86 v86_limit
	CHECK_FAULT "v86: limit of 64 KiB", 13, 0
	V86 v86_arpl
	CHECK_FAULT "v86: ARPL is #UD", 6, 0
	V86 v86_sldt
	CHECK_FAULT "v86: SLDT is #UD", 6, 0
	V86 v86_far
	CHECK_FAULT "v86: far jump", 0x80, 0
	EQ "v86: where to", [ex_cs], 0x0900
	V86 v86_into
	CHECK_FAULT "v86: INTO", 4, 0
	V86 v86_int3
	CHECK_FAULT "v86: INT3", 3, 0
	; IOPL 0: all of these are the monitor's
	mov dword [v86_flags], 0x20202
	V86 v86_cli
	CHECK_FAULT "v86: CLI with IOPL 0", 13, 0
	EQ "v86: its IP", [ex_rip], IN_LOW(v86_cli)
	V86 v86_sti
	CHECK_FAULT "v86: STI", 13, 0
	V86 v86_pushf
	CHECK_FAULT "v86: PUSHF", 13, 0
	V86 v86_popf
	CHECK_FAULT "v86: POPF", 13, 0
	V86 v86_int
	CHECK_FAULT "v86: INT", 13, 0
	V86 v86_iret
	CHECK_FAULT "v86: IRET", 13, 0
	V86 v86_int3
	CHECK_FAULT "v86: INT3 does not ask IOPL", 3, 0
	; ports by the bitmap only, whatever IOPL
	mov word [gdt + SEL_TSS], 0x68 + 32
	mov byte [gdt + SEL_TSS + 5], 0x89
	mov eax, SEL_TSS
	ltr ax
	mov word [tss + 0x66], 0x68
	mov edi, tss + 0x68
	mov ecx, 33
	mov al, 0xff
	rep stosb
	mov dword [v86_flags], 0x23202
	V86 v86_in
	CHECK_FAULT "v86: IN, forbidden by the bitmap", 13, 0
	mov byte [tss + 0x68 + 16], 0xfe
	V86 v86_in
	CHECK_FAULT "v86: IN, allowed", 0x80, 0
	V86 v86_in_bad
	CHECK_FAULT "v86: IN of the next port", 13, 0
	ret

; With CR4.VME: interrupts by the redirection bitmap, virtual IF.
v86_more:
	mov eax, 1
	cpuid
	bt edx, 1
	jnc .none
	mov eax, cr4
	or eax, 1
	mov cr4, eax
	; the redirection bitmap lies in the 32 bytes below the I/O bitmap
	mov word [tss + 0x66], 0x68 + 32
	mov word [gdt + SEL_TSS], 0x68 + 64
	mov byte [gdt + SEL_TSS + 5], 0x89
	mov eax, SEL_TSS
	ltr ax
	mov edi, tss + 0x68
	mov ecx, 65
	mov al, 0xff
	rep stosb
	and byte [tss + 0x68 + (0x21 >> 3)], ~2 ; INT 0x21 stays in the program
	mov word [0x21 * 4], IN_LOW(v86_hlt)
	mov word [0x21 * 4 + 2], LOWSEG
	mov dword [v86_flags], 0x20202
	V86 v86_int
	CHECK_FAULT "VME: INT 0x21 through the program's own IVT, then HLT", 13, 0
	EQ "VME: at the HLT", [ex_rip], IN_LOW(v86_hlt)
	mov dword [v86_flags], 0xa0202 ; VIF
	V86 v86_cli
	mov eax, [ex_flags]
	and eax, 0x80200
	EQ "VME: CLI clears VIF, not IF", eax, 0x200
	V86 v86_pushf
	and ebx, 0x3200
	EQ "VME: PUSHF shows VIF as IF, IOPL 3", ebx, 0x3200
	mov eax, cr4
	and eax, ~1
	mov cr4, eax
.none:	ret

	section .data
	align 8
real_idt: dw 0x3ff
	dd 0
saved_esp: dd 0
v86_flags: dd 0
	section .bss
	resb 128 ; behind the TSS's I/O bitmap
	METAL_END
