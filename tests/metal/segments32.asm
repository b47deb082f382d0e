; SPDX-License-Identifier: Apache-2.0
; Protected-mode segmentation: limits of every kind (byte, page, expand-down 16 and 32 bits), types, loads and their errors,
; exceptions with their codes, call gates with parameters to 16- and 32-bit code, conforming code, LAR, LSL, VERR, VERW,
; ARPL, BOUND, INTO. QEMU 7.2 (TCG) checks no limits.
%include "prot.inc"

main:
	call limits
	call expand_down
	call types
	call loads
	call exceptions
	call gates
	call inspect
	ret

limits:
	DESCRIPTOR SEL_SPARE, room, 0xff, 0x93, 4
	mov eax, SEL_SPARE
	mov gs, eax
	NOFAULT "last byte", mov al, [gs:0xff]
	FAULTS "beyond by one", 13, 0, mov al, [gs:0x100]
	FAULTS "word over the limit", 13, 0, mov ax, [gs:0xff]
	NOFAULT "dword up to it", mov eax, [gs:0xfc]
	FAULTS "dword over it", 13, 0, mov eax, [gs:0xfd]
	FAULTS "far beyond", 13, 0, mov eax, [gs:0xffffffff]
	FAULTS "write over it", 13, 0, mov [gs:0xfd], eax
	FAULTS "read-modify-write over it", 13, 0, inc dword [gs:0xfd]
	FAULTS "x87 over it", 13, 0, fld qword [gs:0xf9]
	FAULTS "16 bytes over it", 13, 0, movups xmm0, [gs:0xf1]
	mov eax, SEL_DATA
	mov gs, eax
	; the stack segment: #SS
	DESCRIPTOR SEL_SPARE, room, 0xff, 0x93, 4
	mov ebx, esp
	mov ecx, SEL_SPARE
	mov edx, SEL_DATA
	TRY
	mov gs, ecx
	mov eax, [gs:0x100]
	END_TRY
	CHECK_FAULT "through GS: #GP", 13, 0
	; the handler cannot run on a broken stack: it is read through SS with EBP
	DESCRIPTOR SEL_SPARE + 8, 0, 0x3ff, 0x93, 0xc ; 4 MiB, page granular
	mov ecx, SEL_SPARE + 8
	mov ss, ecx
	mov esp, ebx
	mov ebp, 0x400000
	TRY
	mov eax, [ebp]
	END_TRY
	CHECK_FAULT "EBP beyond the stack segment: #SS", 12, 0
	mov ecx, SEL_SPARE + 8
	mov ss, ecx
	NOFAULT "page granularity fills the last page", mov eax, [ebp - 4]
	FAULTS "and ends there", 12, 0, mov eax, [ebp - 3]
	mov edx, SEL_DATA
	mov ss, edx
	; a string instruction counts up to the limit
	DESCRIPTOR SEL_SPARE, room, 0xff, 0x93, 4
	mov ecx, SEL_SPARE
	mov es, ecx
	mov edi, 0xf0
	mov ecx, 0x20
	cld
	TRY
	rep stosb
	END_TRY
	CHECK_FAULT "REP STOSB stops at the limit", 13, 0
	EQ "EDI there", edi, 0x100
	EQ "ECX there", ecx, 0x10
	mov edx, SEL_DATA
	mov es, edx
	; code: running into the limit of CS
	DESCRIPTOR SEL_SPARE, room, 0x0f, 0x9b, 4
	mov dword [room], 0x90909090
	mov dword [room + 4], 0x90909090
	mov dword [room + 8], 0x90909090
	mov dword [room + 12], 0xb8909090 ; mov eax, imm32 crosses the limit
	TRY
	jmp SEL_SPARE:0
	END_TRY
	CHECK_FAULT "code over the limit of CS", 13, 0
	EQ "its EIP", [ex_rip], 15
	TRY
	jmp SEL_SPARE:0x10
	END_TRY
	CHECK_FAULT "far jump beyond the limit", 13, 0
	ret

expand_down:
	; valid offsets: limit + 1 .. 0xffff (B clear) or 0xffffffff (B set)
	DESCRIPTOR SEL_SPARE, room, 0x0ff, 0x97, 0
	mov eax, SEL_SPARE
	mov gs, eax
	FAULTS "expand-down 16: at the limit", 13, 0, mov al, [gs:0xff]
	NOFAULT "expand-down 16: above it", mov al, [gs:0x100]
	FAULTS "expand-down 16: 0", 13, 0, mov al, [gs:0]
	NOFAULT "expand-down 16: 0xffff", mov al, [gs:0xffff]
	FAULTS "expand-down 16: word at 0xffff", 13, 0, mov ax, [gs:0xffff]
	FAULTS "expand-down 16: 0x10000", 13, 0, mov al, [gs:0x10000]
	DESCRIPTOR SEL_SPARE, room, 0x0ff, 0x97, 4
	mov gs, eax
	mov eax, SEL_SPARE
	mov gs, eax
	NOFAULT "expand-down 32: 0x10000", mov al, [gs:0x10000]
	FAULTS "expand-down 32: below the limit", 13, 0, mov al, [gs:0x80]
	FAULTS "expand-down 32: word over the limit", 13, 0, mov ax, [gs:0xff]
	xor eax, eax
	mov gs, eax
	ret

types:
	; read-only data
	DESCRIPTOR SEL_SPARE, room, 0xfff, 0x91, 4
	mov eax, SEL_SPARE
	mov gs, eax
	NOFAULT "read-only data: read", mov eax, [gs:0]
	FAULTS "read-only data: write", 13, 0, mov [gs:0], eax
	FAULTS "read-only data: rmw", 13, 0, add [gs:0], eax
	FAULTS "write to code", 13, 0, mov [cs:room], eax
	NOFAULT "read of readable code", mov eax, [cs:room]
	DESCRIPTOR SEL_SPARE, 0, 0xfffff, 0x99, 0xc
	TRY
	jmp SEL_SPARE:.xonly
.xonly:	mov eax, [cs:room]
	END_TRY
	CHECK_FAULT "read of execute-only code", 13, 0
	jmp SEL_CODE:.back
.back:	xor eax, eax
	mov gs, eax
	FAULTS "null segment: read", 13, 0, mov eax, [gs:0]
	FAULTS "null segment: write", 13, 0, mov [gs:0], eax
	; accessed bit
	DESCRIPTOR SEL_SPARE, room, 0xfff, 0x92, 4
	mov eax, SEL_SPARE
	mov gs, eax
	movzx eax, byte [gdt + SEL_SPARE + 5]
	EQ "load sets the accessed bit", eax, 0x93
	xor eax, eax
	mov gs, eax
	ret

loads:
	xor eax, eax
	FAULTS "null to SS", 13, 0, mov ss, eax
	mov eax, 3
	NOFAULT "null with RPL 3 to DS", mov fs, eax
	mov eax, SEL_UDATA & ~3
	FAULTS "SS of other DPL", 13, SEL_UDATA & ~3, mov ss, eax
	mov eax, SEL_DATA + 1
	FAULTS "SS with other RPL", 13, SEL_DATA, mov ss, eax
	mov eax, SEL_CODE
	FAULTS "SS with code", 13, SEL_CODE, mov ss, eax
	DESCRIPTOR SEL_SPARE, room, 0xfff, 0x91, 4
	mov eax, SEL_SPARE
	FAULTS "SS read-only", 13, SEL_SPARE, mov ss, eax
	DESCRIPTOR SEL_SPARE, room, 0xfff, 0x13, 4
	FAULTS "SS not present", 12, SEL_SPARE, mov ss, eax
	FAULTS "DS not present", 11, SEL_SPARE, mov ds, eax
	mov eax, SEL_TSS
	FAULTS "DS with a TSS", 13, SEL_TSS, mov ds, eax
	mov eax, 0x400
	FAULTS "beyond the GDT", 13, 0x400, mov ds, eax
	mov eax, 0x44
	FAULTS "LDT without an LDT", 13, 0x44, mov ds, eax
	; LDS and kin: the register is not changed when the selector is bad
	mov dword [room], 0x11223344
	mov word [room + 4], 0x400
	mov ebx, 5
	FAULTS "LES with a bad selector", 13, 0x400, les ebx, [room]
	EQ "register unchanged", ebx, 5
	mov word [room + 4], SEL_DATA
	NOFAULT "LES", les ebx, [room]
	EQ "LES loads", ebx, 0x11223344
	FAULTS "far jump to null", 13, 0, jmp 0:0
	FAULTS "far jump to data", 13, SEL_DATA, jmp SEL_DATA:0
	FAULTS "far jump to ring 3", 13, SEL_UCODE & ~3, jmp SEL_UCODE:0
	DESCRIPTOR SEL_SPARE, 0, 0xfffff, 0x1b, 0xc
	FAULTS "far jump: not present", 11, SEL_SPARE, jmp SEL_SPARE:0
	FAULTS "far call to null", 13, 0, call 0:0
	; ring 3
	TRY
	mov eax, .user
	jmp enter_user
.user:	mov eax, SEL_DATA
	mov fs, eax
	int 0x80
	END_TRY
	CHECK_FAULT "ring 3 loads ring 0's data", 13, SEL_DATA
	; conforming code: runs with the caller's privilege
	DESCRIPTOR SEL_SPARE, 0, 0xfffff, 0x9f, 0xc
	TRY
	mov eax, .user2
	jmp enter_user
.user2:	jmp SEL_SPARE:.conform
.conform:
	mov ebx, cs
	int 0x80
	END_TRY
	CHECK_FAULT "jump to conforming code", 0x80, 0
	EQ "CPL stays", ebx, SEL_SPARE + 3
	; on return to ring 3 data segments of inner rings become null
	mov eax, SEL_DATA
	mov fs, eax
	mov eax, SEL_UDATA
	mov gs, eax
	TRY
	mov eax, .user3
	jmp enter_user
.user3:	mov ebx, fs
	mov ecx, gs
	int 0x80
	END_TRY
	EQ "IRET to ring 3 nulls FS", ebx, 0
	EQ "but not GS", ecx, SEL_UDATA
	ret

exceptions:
	xor ecx, ecx
	FAULTS "#DE", 0, 0, div ecx
	mov al, 1
	FAULTS "#DE aam 0", 0, 0, db 0xd4, 0
	mov eax, 5
	mov dword [room], 0
	mov dword [room + 4], 4
	FAULTS "#BR", 5, 0, bound eax, [room]
	mov eax, 4
	NOFAULT "BOUND inside", bound eax, [room]
	mov eax, -1
	FAULTS "#BR below", 5, 0, bound eax, [room]
	FAULTS "BOUND with register", 6, 0, db 0x62, 0xc0
	mov al, 0x7f
	add al, 1
	TRY
	into
.after:	nop
	END_TRY
	CHECK_FAULT "INTO with overflow", 4, 0
	EQ "it is a trap", [ex_rip], .after
	xor eax, eax
	NOFAULT "INTO without", into
	FAULTS "#UD", 6, 0, ud2
	UFAULTS "INT n of DPL 0 from ring 3", 13, 0x30 * 8 + 2, int 0x30
	UFAULTS "CLI in ring 3", 13, 0, cli
	UFAULTS "HLT in ring 3", 13, 0, hlt
	UFAULTS "IN in ring 3", 13, 0, in al, 0x80
	mov dword [user_flags], 0x3202
	UNOFAULT "CLI with IOPL 3", cli
	UNOFAULT "IN with IOPL 3", in al, 0x80
	mov dword [user_flags], 0x202
	; the I/O bitmap
	mov word [tss + 0x66], 0x68
	mov word [gdt + SEL_TSS], 0x68 + 17
	mov byte [gdt + SEL_TSS + 5], 0x89
	mov eax, SEL_TSS
	ltr ax
	mov byte [tss + 0x68 + 16], 0xfe ; port 0x80 is free
	mov byte [tss + 0x68 + 17], 0xff
	UNOFAULT "IN by the bitmap", in al, 0x80
	UFAULTS "IN of the next port", 13, 0, in al, 0x81
	UFAULTS "IN of a word needs both bits", 13, 0, in ax, 0x80
	UFAULTS "IN beyond the bitmap", 13, 0, in al, 0x90
	; #NP
	mov eax, SEL_SPARE
	DESCRIPTOR SEL_SPARE, room, 0xfff, 0x13, 4
	FAULTS "#NP", 11, SEL_SPARE, mov ds, eax
	ret

gates:
	; 32-bit call gate with two parameters
	GATE_AT SEL_SPARE, SEL_CODE, gate_target, 0xec, 2
	TRY
	mov eax, .user
	jmp enter_user
.user:	push 0x1111
	push 0x2222
	xor ebx, ebx
	call SEL_SPARE + 3:0
	mov edi, esp
	int 0x80
	END_TRY
	CHECK_FAULT "call gate with parameters", 0x80, 0
	EQ "first parameter", ebx, 0x1111
	EQ "second parameter", ecx, 0x2222
	EQ "CS inside", edx, SEL_CODE
	EQ "RETF n releases them outside too", edi, ustack_top
	; the same ring: no parameters are copied
	push 0x3333
	call SEL_SPARE:0
	pop eax
	EQ "call gate within the ring", edx, SEL_CODE
	; jump through it is only possible within the ring
	UFAULTS "JMP through a gate inwards", 13, SEL_CODE, jmp SEL_SPARE + 3:0
	GATE_AT SEL_SPARE, SEL_CODE, gate_target, 0x8c, 0
	UFAULTS "gate of DPL 0", 13, SEL_SPARE, call SEL_SPARE + 3:0
	GATE_AT SEL_SPARE, SEL_CODE, gate_target, 0x6c, 0
	UFAULTS "gate not present", 11, SEL_SPARE, call SEL_SPARE + 3:0
	GATE_AT SEL_SPARE, SEL_DATA, gate_target, 0xec, 0
	UFAULTS "gate to data", 13, SEL_DATA, call SEL_SPARE + 3:0
	; 16-bit gate, from 16-bit code in ring 3 to 16-bit code in ring 0
	DESCRIPTOR SEL_SPARE + 8, gate_target16, 0xffff, 0x9b, 0
	DESCRIPTOR SEL_SPARE + 16, gate_caller16, 0xffff, 0xfb, 0
	DESCRIPTOR SEL_SPARE + 24, ustack_top - 0x2000, 0xffff, 0xf3, 0
	mov dword [gdt + SEL_SPARE], (SEL_SPARE + 8) << 16
	mov dword [gdt + SEL_SPARE + 4], 0xe401
	xor ebx, ebx
	TRY
	push SEL_SPARE + 24 + 3
	push 0x1ff0
	push 0x202
	push SEL_SPARE + 16 + 3
	push 0
	iret
	END_TRY
	CHECK_FAULT "16-bit call gate", 0x80, 0
	EQ "its parameter", ebx, 0x55
	movzx eax, word [ex_rsp] ; the upper half is left as it was
	EQ "SP after RETF 2", eax, 0x1ff0
	; an interrupt through a 16-bit gate
	DESCRIPTOR SEL_SPARE + 8, int_target16, 0xffff, 0x9b, 0
	mov dword [idt + 0x31 * 8], (SEL_SPARE + 8) << 16
	mov dword [idt + 0x31 * 8 + 4], 0x8600
	mov esi, esp
	int 0x31
.behind16:
	nop
int_back16:
	mov ax, [esp]
	movzx eax, ax
	mov esp, esi
	EQ "16-bit interrupt gate pushes words", ebx, 6
	EQ "the low half of EIP", eax, gates.behind16 - 0x100000
	; trap gate keeps IF
	mov byte [idt + 0x30 * 8 + 5], 0x8f
	sti
	TRY
	int 0x30
	END_TRY
	pushfd
	pop eax
	cli
	and eax, 0x200
	EQ "trap gate keeps IF", eax, 0x200
	mov byte [idt + 0x30 * 8 + 5], 0x8e
	mov byte [idt + 0x30 * 8 + 5], 0x0e
	FAULTS "interrupt gate not present", 11, 0x30 * 8 + 2, int 0x30
	mov byte [idt + 0x30 * 8 + 5], 0x8c
	FAULTS "call gate in the IDT", 13, 0x30 * 8 + 2, int 0x30
	mov byte [idt + 0x30 * 8 + 5], 0x8e
	; vertical return checks
	TRY
	push SEL_UDATA
	push ustack_top
	push SEL_UCODE
	push .outer
	retf
.outer:	mov ebx, cs
	int 0x80
	END_TRY
	EQ "RETF to ring 3", ebx, SEL_UCODE
	TRY
	push SEL_DATA
	push 0
	push SEL_UCODE
	push 0
	retf
	END_TRY
	CHECK_FAULT "RETF with SS of ring 0", 13, SEL_DATA
	ret

gate_target:
	mov ebx, [esp + 12]
	mov ecx, [esp + 8]
	mov edx, cs
	test dword [esp + 4], 3
	jz .near
	retf 8
.near:	retf

	bits 16
gate_caller16:
	push word 0x55
	call SEL_SPARE + 3:0
	int 0x80
gate_target16:
	mov bx, [esp + 4]
	retf 2
int_target16:
	mov ebx, esi
	sub ebx, esp
	jmp dword SEL_CODE:int_back16
	bits 32

inspect:
	DESCRIPTOR SEL_SPARE, 0x12345678, 0x0abcd, 0x93, 0xc
	mov ecx, SEL_SPARE
	lar eax, ecx
	TRUE "LAR", z
	EQ "LAR value", eax, 0x00c09300
	lsl eax, ecx
	EQ "LSL value", eax, 0x0abcdfff
	mov ecx, 0
	lar eax, ecx
	TRUE "LAR of null", nz
	mov ecx, 0x400
	lsl eax, ecx
	TRUE "LSL beyond", nz
	mov ecx, SEL_TSS
	lar eax, ecx
	TRUE "LAR of a TSS", z
	GATE_AT SEL_SPARE, SEL_CODE, 0, 0x8c, 0
	mov ecx, SEL_SPARE
	lar eax, ecx
	TRUE "LAR of a call gate", z
	lsl eax, ecx
	TRUE "LSL of a call gate", nz
	mov ecx, SEL_DATA
	verr cx
	TRUE "VERR data", z
	verw cx
	TRUE "VERW data", z
	mov ecx, SEL_CODE
	verr cx
	TRUE "VERR code", z
	verw cx
	TRUE "VERW code", nz
	mov ecx, SEL_DATA + 3
	verr cx
	TRUE "VERR by RPL", nz
	mov ecx, SEL_TSS
	verr cx
	TRUE "VERR TSS", nz
	mov eax, 0x10
	mov ecx, 0x23
	arpl ax, cx
	TRUE "ARPL adjusts", z
	EQ "ARPL value", eax, 0x13
	arpl ax, cx
	TRUE "ARPL leaves", nz
	ret

	section .data
	align 16
room:	times 512 db 0
	METAL_END
