; SPDX-License-Identifier: Apache-2.0
; Debug registers and single step: code, data and write breakpoints, DR6 and DR7, general detect, TF and what holds it
; back (MOV SS, POP SS), RF, REP under TF, and that faults come before or after as they should.
%include "long.inc"

%define TF 0x100

main:
	call registers
	call single_step
	call code_break
	call data_break
	call shadow
	ret

registers:
	mov rax, 0x123456789abcdef0
	mov dr0, rax
	mov rcx, dr0
	EQ "DR0 holds 64 bits", rcx, rax
	xor eax, eax
	mov dr0, rax
	mov rax, 0x400
	mov dr7, rax
	mov rax, dr7
	EQ "DR7 reset value", rax, 0x400
	xor eax, eax
	mov dr6, rax
	mov rax, dr6
	EQ "DR6 fixed bits", rax, 0xffff0ff0
	mov dr7, rax
	mov rax, dr7
	and eax, 0x400
	EQ "DR7 bit 10 is always set", rax, 0x400
	mov rax, 0x100000000
	FAULTS "upper half of DR7", 13, 0, mov dr7, rax
	FAULTS "upper half of DR6", 13, 0, mov dr6, rax
	; DR4 and DR5 are DR6 and DR7 unless CR4.DE
	mov rax, dr6
	mov rcx, rax
	db 0x0f, 0x21, 0xe0 ; mov rax, dr4
	EQ "DR4 is DR6", rax, rcx
	mov rax, cr4
	or eax, 8
	mov cr4, rax
	FAULTS "DR4 with CR4.DE", 6, 0, db 0x0f, 0x21, 0xe0
	and eax, ~8
	mov cr4, rax
	; general detect
	mov rax, 0x2400
	mov dr7, rax
	FAULTS "general detect", 1, 0, mov rax, dr0
	mov rax, [ex_dr6]
	and eax, 0x2000
	EQ "DR6.BD", rax, 0x2000
	mov rax, dr7
	and eax, 0x2000
	EQ "GD cleared by the exception", rax, 0
	xor eax, eax
	mov dr6, rax
	ret

single_step:
	xor eax, eax
	mov dr6, rax
	TRY
	pushfq
	or dword [rsp], TF
	popfq
	nop ; POPF itself does not trap; this does
.after_nop:
	nop
	END_TRY
	CHECK_FAULT "TF", 1, 0
	EQ "TF: trap after one instruction", [ex_rip], .after_nop
	mov rax, [ex_dr6]
	and eax, 0x4000
	EQ "DR6.BS", rax, 0x4000
	mov rax, [ex_flags]
	and eax, TF
	EQ "TF saved", rax, TF
	pushfq
	pop rax
	and eax, TF
	EQ "TF cleared by delivery", rax, 0
	; a jump: the trap is at its target
	TRY
	pushfq
	or dword [rsp], TF
	popfq
	jmp .target
	nop
.target:
	nop
	END_TRY
	EQ "TF over a jump", [ex_rip], .target
	; one iteration of REP
	mov ecx, 3
	mov edi, scratch
	TRY
	pushfq
	or dword [rsp], TF
	popfq
.rep:	rep stosb
	nop
	END_TRY
	EQ "TF within REP", [ex_rip], .rep
	EQ "one iteration done", rcx, 2
	; IRETQ to code with TF: one instruction there
	TRY
	push SEL_UDATA
	push ustack_top + USER
	push 0x302
	push SEL_UCODE
	mov rax, .user + USER
	push rax
	iretq
.user:	nop
.user2:	nop
	END_TRY
	CHECK_FAULT "TF in ring 3", 1, 0
	EQ "TF in ring 3, rip", [ex_rip], .user2 + USER
	; INT n clears it: no trap in the handler, and the saved flags have it
	TRY
	pushfq
	or dword [rsp], TF
	popfq
	int 0x30
	END_TRY
	CHECK_FAULT "TF and INT n", 0x30, 0
	; a fault is not followed by a trap
	TRY
	pushfq
	or dword [rsp], TF
	popfq
	ud2
	END_TRY
	CHECK_FAULT "TF and a fault", 6, 0
	ret

code_break:
	mov rax, .here
	mov dr0, rax
	mov eax, 0x403 ; L0 G0, execute
	mov dr7, rax
	xor eax, eax
	mov dr6, rax
	xor ebx, ebx
	TRY
	nop
.here:	inc ebx
	END_TRY
	CHECK_FAULT "code breakpoint", 1, 0
	EQ "it is a fault", [ex_rip], .here
	EQ "not executed", rbx, 0
	mov rax, [ex_dr6]
	and eax, 0xf
	EQ "DR6.B0", rax, 1
	mov rax, [ex_flags]
	and eax, 0x10000
	EQ "no RF in the saved flags: the handler is to set it", rax, 0
	; with RF it is passed
	mov eax, 0x400
	mov dr7, rax
	mov rax, .there
	mov dr1, rax
	mov eax, 0x404 ; L1
	mov dr7, rax
	xor ebx, ebx
	TRY
	mov rcx, rsp
	push SEL_DATA
	push rcx
	push 0x10002
	push SEL_CODE
	push .there
	iretq
.there:	inc ebx
	nop
	END_TRY
	CHECK_FAULT "RF passes a code breakpoint", NONE, 0
	EQ "once", rbx, 1
	; disabled: nothing, but for what DR7 does not enable DR6 may show
	mov eax, 0x400
	mov dr7, rax
	NOFAULT "disabled", call .sub
	; misplaced: only the first byte counts
	mov rax, .long + 1
	mov dr1, rax
	mov eax, 0x404
	mov dr7, rax
	TRY
.long:	mov eax, 0x12345678
	END_TRY
	CHECK_FAULT "breakpoint inside an instruction", NONE, 0
	mov eax, 0x400
	mov dr7, rax
	ret
.sub:	ret

; DR7 for breakpoint 0: type and length in bits 16..19, L0
%define WATCH(type, len) (0x401 | (type) << 16 | (len) << 18)
data_break:
	mov rax, watched
	mov dr0, rax
	xor eax, eax
	mov dr6, rax
	mov eax, WATCH(1, 3) ; write, 4 bytes
	mov dr7, rax
	TRY
	mov dword [watched], 5
.w_after:
	nop
	END_TRY
	CHECK_FAULT "write watchpoint", 1, 0
	EQ "it is a trap", [ex_rip], .w_after
	mov eax, [watched]
	EQ "the write is done", rax, 5
	mov rax, [ex_dr6]
	and eax, 0x400f
	EQ "DR6 of it", rax, 1
	NOFAULT "a read does not hit", mov eax, [watched]
	NOFAULT "a write beside", mov dword [watched + 4], 1
	NOFAULT "a write before", mov dword [watched - 4], 1
	TRY
	mov word [watched + 3], 1
	nop
	END_TRY
	CHECK_FAULT "a write that overlaps", 1, 0
	TRY
	mov rax, [watched - 7]
	mov [watched - 7], rax
	nop
	END_TRY
	CHECK_FAULT "a write that overlaps from below", 1, 0
	mov eax, WATCH(3, 0) ; read or write, 1 byte
	mov dr7, rax
	TRY
	mov al, [watched]
	nop
	END_TRY
	CHECK_FAULT "read watchpoint", 1, 0
	TRY
	mov rsi, watched
	lodsb
	nop
	END_TRY
	CHECK_FAULT "string read", 1, 0
	TRY
	push qword [watched]
	pop rax
	nop
	END_TRY
	CHECK_FAULT "push from memory", 1, 0
	TRY
	movups xmm0, [watched - 8]
	nop
	END_TRY
	CHECK_FAULT "vector read", 1, 0
	NOFAULT "an instruction fetch does not hit", nop
	mov eax, WATCH(1, 2) ; 8 bytes
	mov dr7, rax
	TRY
	mov byte [watched + 7], 1
	nop
	END_TRY
	CHECK_FAULT "8-byte watchpoint", 1, 0
	; REP: the trap comes after the iteration that hit
	mov eax, WATCH(1, 0)
	mov dr7, rax
	mov edi, watched - 4
	mov ecx, 8
	TRY
	rep stosb
	nop
	END_TRY
	CHECK_FAULT "watchpoint within REP", 1, 0
	EQ "stopped right after it", rcx, 3
	mov eax, 0x400
	mov dr7, rax
	; both at once: DR6 collects
	mov rax, watched
	mov dr0, rax
	mov dr3, rax
	mov eax, 0x400 | 1 | 0x40 | (1 << 16) | (3 << 28)
	mov dr7, rax
	xor eax, eax
	mov dr6, rax
	TRY
	mov byte [watched], 1
	nop
	END_TRY
	mov rax, [ex_dr6]
	and eax, 0xf
	EQ "two watchpoints hit", rax, 9
	mov eax, 0x400
	mov dr7, rax
	xor eax, eax
	mov dr6, rax
	ret

shadow:
	; MOV SS holds a single-step trap back by one instruction
	mov eax, ss
	TRY
	pushfq
	or dword [rsp], TF
	popfq
	mov ss, eax
	nop
.after:	nop
	END_TRY
	CHECK_FAULT "TF over MOV SS", 1, 0
	EQ "one instruction later", [ex_rip], .after
	; and a data breakpoint on its own operand
	mov rax, ss_room
	mov dr0, rax
	mov eax, WATCH(3, 1)
	mov dr7, rax
	TRY
	mov ss, [ss_room]
	nop
.after2:
	nop
	END_TRY
	CHECK_FAULT "watchpoint by MOV SS", 1, 0
	EQ "held back as well", [ex_rip], .after2
	mov eax, 0x400
	mov dr7, rax
	ret

	section .data
	align 16
	dq 0
watched: dq 0
	dq 0
ss_room: dq SEL_DATA
scratch: dq 0, 0
	METAL_END
