; SPDX-License-Identifier: Apache-2.0
; Code that changes: in the same block, through another mapping, by string and vector stores, across pages, by a new page under
; the same address, the same page at two addresses, code on its own stack, and what a device writes is in other tests.
%include "long.inc"

main:
	PAGE 0, P | W
	PAGE 1, P | W
	call same_block
	call other_mapping
	call stores
	call across
	call remapped
	call modes
	call many
	ret

same_block:
	; the very next instruction
	mov byte [.imm + 1], 5
	mov ecx, 20
	xor ebx, ebx
.again:	inc byte [.imm + 1]
.imm:	mov eax, 5
	add ebx, eax
	dec ecx
	jnz .again
	EQ "the next instruction, in a loop", rbx, 20 * 5 + 210
	; an instruction overwrites itself behind its own start
	mov rax, .victim
	mov word [rax], 0x9090
	jmp .victim
.victim:
	ud2
	EQ "overwritten just before", 1, 1
	; rep stosb over what follows it
	mov rdi, .fill + 2
	mov al, 0x90
	mov ecx, 6
	jmp .fill
	align 16
.fill:	rep stosb
	ud2
	ud2
	ud2
	nop
	nop
	EQ "REP STOSB over the code behind it", rcx, 0
	ret

other_mapping:
	mov dword [TEST_PHYS], 0x000001b8 ; mov eax, 1
	mov word [TEST_PHYS + 4], 0xc300
	mov rbx, TEST_VA
	call rbx
	EQ "first", rax, 1
	mov byte [TEST_PHYS + 1], 2 ; the identity mapping
	call rbx
	EQ "written through another mapping", rax, 2
	mov ecx, 50
	xor edx, edx
.loop:	mov [TEST_PHYS + 1], cl
	call rbx
	cmp eax, ecx
	je .fine
	inc edx
.fine:	dec ecx
	jnz .loop
	EQ "fifty times", rdx, 0
	ret

stores:
	; x87, MMX, SSE, string, locked, cmpxchg16b, xsave-like stores into code
	mov rbx, TEST_VA
%macro CALL_OLD 0 ; the old code runs once, so that it is known
	mov byte [TEST_PHYS + 1], 0
	call rbx
%endmacro
%macro CALL_NEW 2 ; name, expected
	call rbx
	EQ %1, rax, %2
%endmacro
	mov dword [room], 0x000011b8
	mov dword [room + 4], 0x9090c300
	CALL_OLD
	movq xmm0, [room]
	movq [rbx], xmm0
	CALL_NEW "MOVQ", 0x11
	mov byte [room + 1], 0x12
	CALL_OLD
	fild qword [room]
	fistp qword [rbx]
	CALL_NEW "FISTP", 0x12
	mov byte [room + 1], 0x13
	CALL_OLD
	mov rsi, room
	mov rdi, rbx
	movsq
	CALL_NEW "MOVSQ", 0x13
	CALL_OLD
	mov byte [rbx + 1], 0x10
	mov al, 4
	lock xadd [rbx + 1], al
	CALL_NEW "LOCK XADD", 0x14
	CALL_OLD
	lock or byte [rbx + 1], 0x18
	CALL_NEW "LOCK OR", 0x18
	mov byte [room + 1], 0x15
	CALL_OLD
	mov rcx, rsp
	lea rsp, [rbx + 8]
	push qword [room]
	mov rsp, rcx
	CALL_NEW "PUSH", 0x15
	CALL_OLD
	mov eax, [rbx]
	mov edx, [rbx + 4]
	push rbx
	mov ecx, edx
	mov r8, rbx
	mov ebx, 0x000016b8
	lock cmpxchg8b [r8]
	pop rbx
	CALL_NEW "CMPXCHG8B", 0x16
	CALL_OLD
	bts dword [rbx], 13
	CALL_NEW "BTS", 0x20
	ret

across:
	; an instruction over two pages; its second half is written
	mov rbx, TEST_VA + 0xffe
	mov word [TEST_PHYS + 0xffe], 0x01b8 ; mov eax, imm32: 2 bytes here
	mov dword [TEST_PHYS + 0x1000], 0xc3000000
	call rbx
	EQ "over two pages", rax, 1
	mov byte [TEST_PHYS + 0x1000], 2
	call rbx
	EQ "second half written", rax, 0x201
	mov byte [TEST_PHYS + 0xfff], 3
	call rbx
	EQ "first half written", rax, 0x203
	; the second page becomes another
	mov dword [TEST_PHYS + 0x5000], 0xc3000007
	PAGE 1, P | W
	mov rax, TEST_PHYS + 0x5000 + 3
	mov [test_pt + 8], rax
	invlpg [TEST_VA + 0x1000]
	call rbx
	EQ "second page remapped", rax, 0x703
	mov qword [test_pt + 8], 0
	invlpg [TEST_VA + 0x1000]
	TRY
	call rbx
	END_TRY
	CHECK_FAULT "second page gone", 14, 0x10
	PAGE 1, P | W
	ret

remapped:
	; other code at the same address
	mov dword [TEST_PHYS + 0x2000], 0x000041b8
	mov word [TEST_PHYS + 0x2004], 0xc300
	mov dword [TEST_PHYS + 0x3000], 0x000042b8
	mov word [TEST_PHYS + 0x3004], 0xc300
	mov rbx, TEST_VA + 0x2000
	mov r12d, 20
	xor r13d, r13d
.loop:	PAGE 2, P | W
	call rbx
	cmp eax, 0x41
	setne al
	movzx eax, al
	add r13d, eax
	mov rax, TEST_PHYS + 0x3000 + 3
	mov [test_pt + 16], rax
	invlpg [TEST_VA + 0x2000]
	call rbx
	cmp eax, 0x42
	setne al
	movzx eax, al
	add r13d, eax
	dec r12d
	jnz .loop
	EQ "two pages taking turns at an address", r13, 0
	; the same page at two addresses, relative to where it runs
	mov dword [TEST_PHYS + 0x2000], 0xf9058d48 ; lea rax, [rip - 7]
	mov dword [TEST_PHYS + 0x2004], 0xc3ffffff
	PAGE 2, P | W
	mov rax, TEST_PHYS + 0x2000 + 3
	mov [test_pt + 24], rax
	invlpg [TEST_VA + 0x3000]
	call rbx
	EQ "code knows where it runs, here", rax, TEST_VA + 0x2000
	mov rcx, TEST_VA + 0x3000
	call rcx
	EQ "and there", rax, TEST_VA + 0x3000
	mov ecx, TEST_PHYS + 0x2000
	call rcx
	EQ "and at its physical address", rax, TEST_PHYS + 0x2000
	; no longer executable
	mov rax, TEST_PHYS + 0x2000 + 3
	mov rdx, NX
	or rax, rdx
	mov [test_pt + 16], rax
	invlpg [TEST_VA + 0x2000]
	TRY
	call rbx
	END_TRY
	CHECK_FAULT "made NX", 14, 0x11
	ret

; The same bytes mean other things in 32- and 64-bit code.
modes:
	mov dword [TEST_PHYS + 0x4000], 0xc0ffc031 ; xor eax, eax; inc eax
	mov dword [TEST_PHYS + 0x4004], 0x90909040 ; 40: inc eax, or a REX prefix
	mov word [TEST_PHYS + 0x4008], 0xcbc0 ; ... 
	mov byte [TEST_PHYS + 0x4008], 0x90
	mov byte [TEST_PHYS + 0x4009], 0xcb ; retf
	mov r12d, 10
	xor r13d, r13d
.loop:	push SEL_CODE
	push .back
	mov eax, TEST_PHYS + 0x4000
	mov ecx, SEL_CODE
	push rcx
	push rax
	jmp .enter64
.enter64:
	pop rax
	pop rcx
	mov rsi, rsp
	mov dword [rsp], .back
	mov dword [rsp + 4], SEL_CODE ; RETF pops dwords by default
	call .jump
.back:	mov rsp, rsi
	add rsp, 16
	add r13d, eax
	; and as 32-bit code
	mov rsi, rsp
	sub rsp, 16
	mov dword [rsp], .back32
	mov dword [rsp + 4], SEL_CODE
	mov eax, TEST_PHYS + 0x4000
	mov [room + 16], eax
	mov dword [room + 20], SEL_CODE32
	jmp dword far [room + 16]
.back32:
	mov rsp, rsi
	add r13d, eax
	dec r12d
	jnz .loop
	EQ "bytes decoded by mode", r13, 10 * (1 + 2)
	ret
.jump:	add rsp, 8 ; the frame for RETF lies above
	jmp rax

; More code than one would keep: a page of functions, rewritten again and again.
many:
	xor r13d, r13d
	mov r12d, 30
.round:	mov ecx, 255
.write:	mov eax, ecx
	shl eax, 4
	mov byte [TEST_PHYS + 0x6000 + rax], 0xb8
	lea edx, [rcx + r12]
	mov [TEST_PHYS + 0x6001 + rax], edx
	mov byte [TEST_PHYS + 0x6005 + rax], 0xc3
	dec ecx
	jns .write
	mov ecx, 255
.call:	mov edx, ecx
	shl edx, 4
	add edx, TEST_PHYS + 0x6000
	call rdx
	lea edx, [rcx + r12]
	cmp eax, edx
	je .fine
	inc r13d
.fine:	dec ecx
	jns .call
	dec r12d
	jnz .round
	EQ "a page of functions, rewritten", r13, 0
	ret

	section .data
	align 16
room:	dq 0, 0, 0, 0
	METAL_END
