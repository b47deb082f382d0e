; SPDX-License-Identifier: Apache-2.0
; A hostile program in ring 3: reads, writes and jumps at every kind of address that is not its own, by every kind of access;
; stack pointers to nowhere; jumps into instructions; addresses that wrap; everything must end in the fault the manual has,
; and no byte of the kernel's may change. The same again after the kernel has just touched the address, so that its
; translation is at hand.
%include "long.inc"

main:
	; the kernel's secret, and what must not change
	mov rax, 0x5ec4e75ec4e75ec4
	mov [secret], rax
	mov edi, TEST_PHYS
	mov ecx, 4096 / 8
	rep stosq
	PAGE 0, P | W ; the kernel's own
	PAGE 1, P | W | U
	PAGE 2, P | U
	call reads
	call writes
	call jumps
	call stacks
	call straddles
	call middles
	call after_kernel
	call aliasing
	call locks
	mov rax, 0x5ec4e75ec4e75ec4
	EQ "the secret is as it was", [secret], rax
	EQ "the kernel's page too", [TEST_PHYS], rax
	ret

; Run the code at rax in ring 3 for every address in the table (in rbx); each must fault with #PF, #GP or #SS and give
; nothing away in rcx or xmm0. Mismatches are counted in r15.
try_all:
	mov [code], rax
	xor r15d, r15d
	xor r12d, r12d
.next:	mov rbx, [addresses + r12 * 8]
	xor ecx, ecx
	pxor xmm0, xmm0
	TRY
	mov rax, [code]
	jmp enter_user
	END_TRY
	mov rax, [ex_vec]
	cmp eax, 14
	je .page
	cmp eax, 13
	je .fine
	cmp eax, 12
	je .fine
.bad:	inc r15d
	mov esi, .text
	call put_string
	mov rax, rbx
	call put_hex
	call put_line
	jmp .fine
.page:	mov rax, [ex_err]
	test al, 4 ; it must count as the program's access
	jz .bad
.fine:	movq rax, xmm0
	or rcx, rax
	jz .quiet
	inc r15d
.quiet:	inc r12d
	cmp r12d, (addresses_end - addresses) / 8
	jb .next
	ret
.text:	db "reached ", 0

%macro PROBE 2+
	mov rax, %%code + USER
	call try_all
	EQ %1, r15, 0
	jmp %%over
%%code:	%2
	int 0x80
%%over:
%endmacro

reads:
	PROBE "mov from", mov rcx, [rbx]
	PROBE "byte from", mov cl, [rbx]
	PROBE "movups from", movups xmm0, [rbx]
	PROBE "lodsq", db 0x48, 0x89, 0xde, 0x48, 0xad, 0x48, 0x89, 0xc1 ; mov rsi, rbx; lodsq; mov rcx, rax
	PROBE "by base and index", mov rcx, [rbx + rcx * 8]
	PROBE "through FS", mov rcx, [fs:rbx]
	PROBE "x87", fld qword [rbx]
	PROBE "prefetch, then read", db 0x0f, 0x18, 0x03, 0x48, 0x8b, 0x0b
	PROBE "push from", push qword [rbx]
	PROBE "cmp", cmp [rbx], rcx
	PROBE "bt", bt [rbx], rcx
	PROBE "jmp through", jmp [rbx]
	PROBE "ldmxcsr", ldmxcsr [rbx]
	PROBE "fxrstor", fxrstor [rbx]
	PROBE "cmov that does not move", db 0x48, 0x85, 0xc9, 0x48, 0x0f, 0x45, 0x0b
	ret

writes:
	PROBE "mov to", mov [rbx], rcx
	PROBE "byte to", mov [rbx], cl
	PROBE "lock inc", lock inc qword [rbx]
	PROBE "xchg", xchg [rbx], rcx
	PROBE "cmpxchg that fails", cmpxchg [rbx], rcx
	PROBE "cmpxchg16b", lock cmpxchg16b [rbx]
	PROBE "movups to", movups [rbx], xmm0
	PROBE "movnti", movnti [rbx], rcx
	PROBE "stosb", db 0x48, 0x89, 0xdf, 0xaa
	PROBE "movsb", db 0x48, 0x89, 0xdf, 0x48, 0x89, 0xe6, 0xa4
	PROBE "pop to", db 0x51, 0x8f, 0x03
	PROBE "fxsave", fxsave [rbx]
	PROBE "fnstenv", fnstenv [rbx]
	PROBE "sgdt", sgdt [rbx]
	PROBE "setcc", setc [rbx]
	PROBE "bts", bts qword [rbx], 3
	ret

jumps:
	PROBE "jmp", jmp rbx
	PROBE "call", call rbx
	PROBE "ret", db 0x53, 0xc3
	PROBE "far return", db 0x6a, 0x2b, 0x53, 0x48, 0xcb
	ret

; rsp = address: push, pop, call, ret, enter, leave, iret, int from there
stacks:
	PROBE "push on a wild stack", db 0x48, 0x89, 0xdc, 0x51
	PROBE "pop from a wild stack", db 0x48, 0x89, 0xdc, 0x59
	PROBE "call on a wild stack", db 0x48, 0x89, 0xdc, 0xe8, 0, 0, 0, 0
	PROBE "ret from a wild stack", db 0x48, 0x89, 0xdc, 0xc3
	PROBE "enter on a wild stack", db 0x48, 0x89, 0xdc, 0xc8, 16, 0, 0
	PROBE "leave to a wild frame", db 0x48, 0x89, 0xdd, 0xc9
	PROBE "iret from a wild stack", db 0x48, 0x89, 0xdc, 0x48, 0xcf
	PROBE "pushf on a wild stack", db 0x48, 0x89, 0xdc, 0x9c
	; an interrupt does not care for the program's stack
	TRY
	mov rax, .wild + USER
	jmp enter_user
.wild:	mov rsp, 0x8000000000000000
	int 0x80
	END_TRY
	CHECK_FAULT "INT with a wild stack", 0x80, 0
	mov rax, 0x8000000000000000
	EQ "its RSP", [ex_rsp], rax
	ret

; Own page, then one that is not: nothing of it is read or written, nothing of the own page changes.
straddles:
	mov rax, 0x1111111111111111
	mov [TEST_PHYS + 0x1ff8], rax
	PAGE 3, P | W ; behind page 2, which is read-only
	mov ecx, 0
	UFAULTS "8 bytes into a read-only page", 14, 7, mov [abs TEST_VA + 0x1ffc], rcx
	EQ "cr2", [ex_cr2], TEST_VA + 0x2000
	mov rax, 0x1111111111111111
	EQ "own half unchanged", [TEST_PHYS + 0x1ff8], rax
	UFAULTS "read into the kernel's page", 14, 5, mov rcx, [abs TEST_VA + 0x2ffc]
	EQ "cr2 of it", [ex_cr2], TEST_VA + 0x3000
	UFAULTS "16 bytes", 14, 5, movups xmm0, [abs TEST_VA + 0x2ff8]
	UFAULTS "locked", 14, 7, lock add [abs TEST_VA + 0x1ffd], ecx
	UFAULTS "xchg", 14, 7, xchg [abs TEST_VA + 0x1ffa], rcx
	UFAULTS "x87 store of 10 bytes", 14, 7, fstp tword [abs TEST_VA + 0x1ffa]
	fninit
	; wrap-around at the end of the address space
	TRY
	mov rax, .wrap + USER
	jmp enter_user
.wrap:	mov rbx, -4
	mov rcx, [rbx]
	int 0x80
	END_TRY
	cmp qword [ex_vec], 13
	je .ok
	CHECK_FAULT "read over the end of the address space", 14, 4
.ok:	; 32-bit addresses wrap at 4 GiB instead
	TRY
	mov rax, .wrap32 + USER
	jmp enter_user
.wrap32: mov ebx, 0xffffffff
	mov cl, [ebx + 1] ; address 0: the kernel's
	int 0x80
	END_TRY
	CHECK_FAULT "67 wraps to 0", 14, 5
	EQ "cr2 of that", [ex_cr2], 0
	ret

middles:
	; into the immediate of an instruction that has been executed as a whole
	TRY
	mov rax, .outer + USER
	jmp enter_user
.outer:	mov ecx, 10
.again:	mov rax, 0xc3cccccc_f4f4c390
	dec ecx
	jnz .again
	call .go
	int 0x80
.go:	lea rdx, [rel .hidden + 2]
	jmp rdx
.hidden:
	mov rax, 0xc3cccccc_f4f4c390 ; inside: nop; ret
	ret
	END_TRY
	CHECK_FAULT "code within an immediate", 0x80, 0
	; privileged code hidden in an immediate stays privileged
	TRY
	mov rax, .second + USER
	jmp enter_user
.second: jmp .imm + 1
.imm:	mov eax, 0x90f4fa90 ; nop; cli; hlt
	int 0x80
	END_TRY
	CHECK_FAULT "hidden CLI", 13, 0
	EQ "at the CLI", [ex_rip], middles.imm + 2 + USER
	ret

; What ring 3 sees of the machine is what the bare machine shows: its ring, CR0, the tables, and flags it cannot change.
aliasing:
	TRY
	mov rax, .look + USER
	jmp enter_user
.look:	mov ecx, cs
	mov [abs TEST_VA + 0x1200], rcx
	mov ecx, ss
	mov [abs TEST_VA + 0x1208], rcx
	smsw rcx
	mov [abs TEST_VA + 0x1210], rcx
	sgdt [abs TEST_VA + 0x1220]
	sidt [abs TEST_VA + 0x1230]
	pushfq
	pop rcx
	mov rdx, rcx
	xor rdx, 0x3200 ; IF and IOPL the other way
	push rdx
	popfq
	pushfq
	pop rdx
	xor rcx, rdx
	mov [abs TEST_VA + 0x1240], rcx
	int 0x80
	END_TRY
	CHECK_FAULT "a look around from ring 3", 0x80, 0
	mov eax, [TEST_PHYS + 0x1200]
	and eax, 3
	EQ "CS shows ring 3", rax, 3
	mov eax, [TEST_PHYS + 0x1208]
	and eax, 3
	EQ "SS shows ring 3", rax, 3
	mov rcx, cr0
	EQ "SMSW shows CR0", [TEST_PHYS + 0x1210], rcx
	sgdt [room]
	mov rcx, [room + 2]
	EQ "SGDT shows the GDT", [TEST_PHYS + 0x1222], rcx
	sidt [room]
	mov rcx, [room + 2]
	EQ "SIDT shows the IDT", [TEST_PHYS + 0x1232], rcx
	EQ "POPF changes neither IF nor IOPL", [TEST_PHYS + 0x1240], 0
	ret

; LOCK where it is illegal: with a register, with what only reads, with what is never locked.
locks:
	UFAULTS "lock add register", 6, 0, db 0xf0, 0x01, 0xc1
	UFAULTS "lock mov", 6, 0, db 0xf0, 0x89, 0x0c, 0x25, 0, 0x10, 0x20, 0
	UFAULTS "lock cmp", 6, 0, db 0xf0, 0x39, 0x0c, 0x25, 0, 0x10, 0x20, 0
	UFAULTS "lock nop", 6, 0, db 0xf0, 0x90
	UFAULTS "lock ret", 6, 0, db 0xf0, 0xc3
	UFAULTS "lock jmp", 6, 0, db 0xf0, 0xeb, 0
	UFAULTS "lock stosb", 6, 0, db 0xf0, 0xaa
	UFAULTS "lock movups", 6, 0, db 0xf0, 0x0f, 0x10, 0x00
	UFAULTS "lock bt", 6, 0, db 0xf0, 0x0f, 0xba, 0x20, 1
	UFAULTS "lock push", 6, 0, db 0xf0, 0x50
	UFAULTS "lock syscall", 6, 0, db 0xf0, 0x0f, 0x05
	UFAULTS "lock fld", 6, 0, db 0xf0, 0xd9, 0x00
	UFAULTS "lock before a stale REX and add", 6, 0, db 0x48, 0xf0, 0x01, 0xc1
	ret

; The kernel has just read, written and executed there: its translations are fresh.
after_kernel:
	xor r13d, r13d
	mov r12d, 40
.round:	mov rax, [abs TEST_VA]
	mov [abs TEST_VA + 8], rax
	mov rcx, [secret]
	xor ecx, ecx
	TRY
	mov rax, .probe + USER
	jmp enter_user
.probe:	mov rcx, [abs TEST_VA]
	int 0x80
	END_TRY
	cmp qword [ex_vec], 14
	jne .bad
	cmp qword [ex_err], 5
	jne .bad
	test rcx, rcx
	jz .fine
.bad:	inc r13d
.fine:	TRY
	mov rax, .probe2 + USER
	jmp enter_user
.probe2: mov [abs TEST_VA + 16], rsp
	int 0x80
	END_TRY
	cmp qword [ex_err], 7
	je .fine2
	inc r13d
.fine2:	; and its own page still works
	TRY
	mov rax, .probe3 + USER
	jmp enter_user
.probe3: mov rcx, [abs TEST_VA + 0x1000]
	int 0x80
	END_TRY
	cmp qword [ex_vec], 0x80
	je .fine3
	inc r13d
.fine3:	dec r12d
	jnz .round
	EQ "fresh supervisor translations are of no use to ring 3", r13, 0
	ret

	section .data
	align 8
secret:	dq 0
room:	dq 0, 0
code:	dq 0
addresses:
	dq 0, 8, 0x1000, secret, TEST_PHYS, TEST_VA + 0x10, TEST_VA + 0xff0, TEST_VA + 0x5000
	dq 0x00007fffffffffff, 0x0000800000000000, 0xffff7fffffffffff, 0xffff800000000000
	dq 0xffffffffffffffff, 0xfffffffffffffff8, 0xfffffffffffff000, 0xffffffff80000000
	dq 0x8000000000000000, 0x4000000000000000, 0x0000010000000000, 0x00007ffffffff000
	dq 0xfee00000, 0xfec00000, 0x1fff8, 0x7fdffff8 + 0x200000, idt, gdt, pml4, test_pt, kstack_top - 8
	dq secret + (1 << 48), TEST_VA + 0x1000 + (1 << 47), 0x3ffffff8
addresses_end:
	METAL_END
