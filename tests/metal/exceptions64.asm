; SPDX-License-Identifier: Apache-2.0
; Every exception of 64-bit mode with its error code and the address it reports, from ring 0 and ring 3.
; QEMU 7.2 (TCG) is known to differ: error codes of IDT entries in long mode, LOCK on MOV and BT, an access
; that straddles the canonical hole, #SS by RBP, a non-canonical handler. The manuals, and hardware, say what is here.
%include "long.inc"

main:
	; 0 #DE
	xor edx, edx
	mov eax, 1
	xor ecx, ecx
	FAULTS "#DE div by zero", 0, 0, div ecx
	mov edx, 5
	mov ecx, 5
	FAULTS "#DE quotient too big", 0, 0, div ecx
	mov eax, 0x80000000
	cdq
	mov ecx, -1
	FAULTS "#DE idiv overflow", 0, 0, idiv ecx
	mov eax, 0x1000
	mov cl, 2
	FAULTS "#DE 8 bit", 0, 0, div cl
	xor ecx, ecx
	UFAULTS "#DE user", 0, 0, div ecx

	; 3 #BP: a trap
	TRY
	int3
.after_bp:
	END_TRY
	CHECK_FAULT "#BP", 3, 0
	EQ "#BP rip is behind", [ex_rip], .after_bp
	TRY
	db 0xcd, 3
.after_cd3:
	END_TRY
	CHECK_FAULT "int 3, long form", 3, 0
	EQ "int 3 rip", [ex_rip], .after_cd3

	; INT n: error code names the IDT entry where the gate may not be used
	UFAULTS "int 0x30 from ring 3", 13, 0x30 * 8 + 2, int 0x30
	UFAULTS "int 0x0d from ring 3", 13, 0x0d * 8 + 2, int 0x0d
	TRY
	int 0x30
.after_int:
	END_TRY
	CHECK_FAULT "int 0x30 from ring 0", 0x30, 0
	EQ "int 0x30 rip", [ex_rip], .after_int

	; 6 #UD
	FAULTS "#UD ud2", 6, 0, ud2
	FAULTS "#UD lock on nop", 6, 0, db 0xf0, 0x90
	FAULTS "#UD lock on register", 6, 0, db 0xf0, 0x01, 0xc0
	FAULTS "#UD lock on mov", 6, 0, db 0xf0, 0x89, 0x00
	FAULTS "#UD lock on cmp", 6, 0, db 0xf0, 0x39, 0x00
	FAULTS "#UD lock on bt", 6, 0, db 0xf0, 0x0f, 0xa3, 0x00
	FAULTS "#UD push es", 6, 0, db 0x06
	FAULTS "#UD aam", 6, 0, db 0xd4, 0x0a
	FAULTS "#UD pusha", 6, 0, db 0x60
	FAULTS "#UD into", 6, 0, db 0xce
	FAULTS "#UD lea with register", 6, 0, db 0x8d, 0xc0
	FAULTS "#UD mov to cs", 6, 0, db 0x8e, 0xc8
	FAULTS "#UD mov cr1", 6, 0, db 0x0f, 0x20, 0xc8
	FAULTS "#UD far jump immediate", 6, 0, db 0xea, 0, 0, 0, 0, 8, 0
	FAULTS "#UD user", 6, 0, ud2
	UFAULTS "#UD user", 6, 0, ud2

	; 7 #NM
	mov rax, cr0
	or eax, 8
	mov cr0, rax
	FAULTS "#NM x87", 7, 0, fld1
	FAULTS "#NM sse", 7, 0, addps xmm0, xmm1
	FAULTS "#NM mmx", 7, 0, paddb mm0, mm1
	FAULTS "#NM wait with MP and TS", 7, 0, wait
	UFAULTS "#NM user", 7, 0, fld1
	mov rax, cr0
	and eax, ~2
	mov cr0, rax
	NOFAULT "wait with TS alone", wait
	clts
	NOFAULT "after clts", fld1
	fninit
	mov rax, cr0
	or eax, 4
	mov cr0, rax
	FAULTS "#NM x87 under EM", 7, 0, fld1
	FAULTS "#UD sse under EM", 6, 0, addps xmm0, xmm1
	FAULTS "#UD mmx under EM", 6, 0, paddb mm0, mm1
	and eax, ~4
	or eax, 2
	mov cr0, rax
	mov rax, cr4
	and eax, ~0x200
	mov cr4, rax
	FAULTS "#UD sse without OSFXSR", 6, 0, addps xmm0, xmm1
	or eax, 0x200
	mov cr4, rax
	NOFAULT "sse again", addps xmm0, xmm1

	; 8 #DF: no gate for #GP, then none for #NP either
	mov rbx, [idt + 13 * 16]
	mov rcx, [idt + 11 * 16]
	and byte [idt + 13 * 16 + 5], 0x7f
	mov eax, 0x1238
	FAULTS "#GP without gate: #DF of #GP and #NP", 8, 0, mov ds, eax
	and byte [idt + 11 * 16 + 5], 0x7f
	FAULTS "#DF likewise", 8, 0, mov ds, eax
	mov [idt + 13 * 16], rbx
	mov [idt + 11 * 16], rcx
	; a page fault while a page fault is delivered: gate's handler selector is fine, its stack is not
	mov rbx, [tss64 + 4]
	mov rax, TEST_VA + 0x1000
	mov [tss64 + 4], rax
	mov byte [idt + 8 * 16 + 4], 1 ; the #DF handler has a stack of its own
	UFAULTS "#PF on the #PF's stack: #DF", 8, 0, mov rax, [abs 0x1000]
	mov [tss64 + 4], rbx
	mov byte [idt + 8 * 16 + 4], 0
	; a benign exception first: the second is served on its own
	and byte [idt + 6 * 16 + 5], 0x7f
	FAULTS "#UD without gate: #NP, EXT", 11, 6 * 8 + 2 + 1, ud2
	or byte [idt + 6 * 16 + 5], 0x80
	and byte [idt + 0x31 * 16 + 5], 0x7f
	FAULTS "int 0x31 without gate: #NP", 11, 0x31 * 8 + 2, int 0x31
	or byte [idt + 0x31 * 16 + 5], 0x80
	; gate with a null selector, with a data segment, of a wrong type
	mov word [idt + 0x31 * 16 + 2], 0
	FAULTS "gate selector null", 13, 0, int 0x31
	mov word [idt + 0x31 * 16 + 2], SEL_DATA
	FAULTS "gate to data", 13, SEL_DATA, int 0x31
	mov word [idt + 0x31 * 16 + 2], SEL_CODE32
	FAULTS "gate to 32-bit code", 13, SEL_CODE32, int 0x31
	mov word [idt + 0x31 * 16 + 2], 0x3e8
	FAULTS "gate to an empty descriptor", 13, 0x3e8, int 0x31
	mov word [idt + 0x31 * 16 + 2], 0x8000
	FAULTS "gate beyond the GDT", 13, 0x8000, int 0x31
	mov word [idt + 0x31 * 16 + 2], SEL_CODE
	mov byte [idt + 0x31 * 16 + 5], 0x85
	FAULTS "task gate in long mode", 13, 0x31 * 8 + 2, int 0x31
	mov byte [idt + 0x31 * 16 + 5], 0x8e
	; beyond the limit of the IDT
	sub rsp, 16
	mov word [rsp], 0x30 * 16 + 15
	mov qword [rsp + 2], idt
	lidt [rsp]
	FAULTS "beyond the IDT", 13, 0x31 * 8 + 2, int 0x31
	lidt [idt_pointer]
	add rsp, 16
	; non-canonical handler
	mov dword [idt + 0x31 * 16 + 8], 0x00008000
	FAULTS "gate to a non-canonical address", 13, 0, int 0x31
	mov dword [idt + 0x31 * 16 + 8], 0

	; 11 #NP, 12 #SS, 13 #GP of segment loads
	mov rax, 0x00cf13000000ffff ; data, not present
	mov [gdt + SEL_SPARE], rax
	mov eax, SEL_SPARE
	FAULTS "#NP data segment", 11, SEL_SPARE, mov ds, eax
	FAULTS "#SS stack segment not present", 12, SEL_SPARE, mov ss, eax
	mov eax, SEL_CODE + 4
	FAULTS "#GP LDT selector without LDT", 13, SEL_CODE + 4, mov ds, eax
	mov eax, 0x400
	FAULTS "#GP beyond GDT", 13, 0x400, mov es, eax
	mov eax, 0x403
	FAULTS "#GP error code without RPL", 13, 0x400, mov fs, eax
	mov eax, SEL_UDATA
	FAULTS "#GP ss DPL differs", 13, SEL_UDATA - 3, mov ss, eax
	mov eax, SEL_TSS
	FAULTS "#GP system segment to ds", 13, SEL_TSS, mov ds, eax
	mov eax, SEL_CODE
	NOFAULT "readable code to ds", mov ds, eax
	mov eax, SEL_DATA
	mov ds, eax
	mov rax, 0x00af99000000ffff ; execute only
	mov [gdt + SEL_SPARE], rax
	mov eax, SEL_SPARE
	FAULTS "#GP execute-only to ds", 13, SEL_SPARE, mov ds, eax
	TRY
	mov rax, .user_ds + USER
	jmp enter_user
.user_ds:
	mov ebx, SEL_DATA
	mov ds, ebx
	int 0x80
	END_TRY
	CHECK_FAULT "user loads kernel data", 13, SEL_DATA
	xor eax, eax
	NOFAULT "null to ds", mov ds, eax
	NOFAULT "null to ss in ring 0", mov ss, eax
	mov eax, SEL_DATA
	mov ds, eax
	mov ss, eax

	; non-canonical addresses: #GP, through the stack #SS
	mov rbx, 0x0000800000000000
	FAULTS "#GP non-canonical read", 13, 0, mov rax, [rbx]
	FAULTS "#GP non-canonical write", 13, 0, mov [rbx], rax
	mov rbx, 0x00007ffffffffffc
	FAULTS "#GP straddles the hole", 13, 0, mov rax, [rbx]
	mov rbp, 0x0000800000000000
	FAULTS "#SS non-canonical by rbp", 12, 0, mov rax, [rbp]
	mov byte [idt + 12 * 16 + 4], 1 ; a stack that is there
	mov byte [idt + 13 * 16 + 4], 1
	TRY
	mov rsp, 0xffff7ffffffffff8
	push rax
	END_TRY
	CHECK_FAULT "#SS non-canonical push", 12, 0
	mov byte [idt + 12 * 16 + 4], 0
	mov byte [idt + 13 * 16 + 4], 0
	mov rbx, 0x0000800000000000
	FAULTS "#GP jump to non-canonical", 13, 0, jmp rbx
	FAULTS "#GP call to non-canonical", 13, 0, call rbx

	; 13 #GP: privileged in ring 3
	UFAULTS "user cli", 13, 0, cli
	UFAULTS "user hlt", 13, 0, hlt
	UFAULTS "user in", 13, 0, in al, 0x40
	UFAULTS "user out", 13, 0, out 0x80, al
	UFAULTS "user lgdt", 13, 0, lgdt [rsp]
	UFAULTS "user lidt", 13, 0, lidt [rsp]
	UFAULTS "user lldt", 13, 0, lldt ax
	UFAULTS "user ltr", 13, 0, ltr ax
	UFAULTS "user mov cr0", 13, 0, mov rax, cr0
	UFAULTS "user mov to cr3", 13, 0, mov cr3, rax
	UFAULTS "user mov dr7", 13, 0, mov rax, dr7
	UFAULTS "user clts", 13, 0, clts
	UFAULTS "user lmsw", 13, 0, lmsw ax
	UFAULTS "user rdmsr", 13, 0, rdmsr
	UFAULTS "user wrmsr", 13, 0, wrmsr
	UFAULTS "user invd", 13, 0, invd
	UFAULTS "user wbinvd", 13, 0, wbinvd
	UFAULTS "user invlpg", 13, 0, invlpg [rsp]
	UFAULTS "user swapgs", 13, 0, swapgs
	UFAULTS "user sysretq", 13, 0, o64 sysret
	UFAULTS "user rdpmc", 13, 0, rdpmc
	; too long
	FAULTS "#GP sixteen bytes", 13, 0, db 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90

	; 14 #PF
	mov rbx, TEST_VA + 0x123
	FAULTS "#PF read", 14, 0, mov rax, [rbx]
	EQ "#PF cr2", [ex_cr2], TEST_VA + 0x123
	FAULTS "#PF write", 14, 2, mov [rbx], rax
	TRY
	jmp rbx
	END_TRY
	CHECK_FAULT "#PF fetch", 14, 0x10
	EQ "#PF fetch cr2", [ex_cr2], TEST_VA + 0x123
	EQ "#PF fetch rip", [ex_rip], TEST_VA + 0x123

	; 16 #MF: at the next waiting instruction
	fninit
	mov word [word_room], 0x037b ; divide by zero unmasked
	fldcw [word_room]
	fld1
	fldz
	fdivp
	FAULTS "#MF at the next x87 instruction", 16, 0, fld1
	FAULTS "#MF at wait", 16, 0, wait
	NOFAULT "fnstsw does not wait", fnstsw ax
	NOFAULT "fnclex", fnclex
	NOFAULT "after fnclex", fld1
	fninit

	; 17 #AC: ring 3 only, AM and AC
	mov rax, cr0
	or eax, 1 << 18
	mov cr0, rax
	mov qword [user_flags], 0x40202
	UFAULTS "#AC user dword", 17, 0, mov eax, [rsp - 9]
	UFAULTS "#AC user qword", 17, 0, mov rax, [rsp - 12]
	UNOFAULT "aligned word", mov ax, [rsp - 10]
	mov qword [user_flags], 0x202
	UNOFAULT "without AC", mov eax, [rsp - 9]
	pushfq
	or dword [rsp], 0x40000
	popfq
	NOFAULT "ring 0 is exempt", mov eax, [rsp - 9]
	pushfq
	and dword [rsp], ~0x40000
	popfq

	; 19 #XM
	mov dword [word_room], 0x1d80 ; divide by zero unmasked
	ldmxcsr [word_room]
	mov eax, 0x3f800000
	movd xmm0, eax
	xorps xmm1, xmm1
	FAULTS "#XM", 19, 0, divss xmm0, xmm1
	stmxcsr [word_room]
	EQ "#XM flag", [word_room], 0x1d84
	movd eax, xmm0
	mov [word_room], rax
	EQ "#XM destination unchanged", [word_room], 0x3f800000
	mov rax, cr4
	and eax, ~0x400
	mov cr4, rax
	FAULTS "#UD without OSXMMEXCPT", 6, 0, divss xmm0, xmm1
	or eax, 0x400
	mov cr4, rax
	mov dword [word_room], 0x11f80
	FAULTS "#GP reserved bit of MXCSR", 13, 0, ldmxcsr [word_room]
	mov dword [word_room], 0x1f80
	ldmxcsr [word_room]
	FAULTS "#GP movaps misaligned", 13, 0, movaps xmm0, [word_room + 1]
	FAULTS "#GP sse operand misaligned", 13, 0, addps xmm0, [word_room + 4]
	NOFAULT "movups misaligned", movups xmm0, [word_room + 1]
	FAULTS "#GP cmpxchg16b misaligned", 13, 0, cmpxchg16b [word_room + 8]

	; RF in the image: set for faults, clear for traps
	TRY
	ud2
	END_TRY
	mov rax, [ex_flags]
	and eax, 0x10000
	mov [word_room], rax
	EQ "fault pushes RF", [word_room], 0x10000
	TRY
	int3
	END_TRY
	mov rax, [ex_flags]
	and eax, 0x10000
	mov [word_room], rax
	EQ "trap pushes no RF", [word_room], 0
	ret

	section .data
	align 16
word_room: dq 0, 0, 0, 0
	METAL_END
