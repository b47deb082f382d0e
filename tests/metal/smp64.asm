; SPDX-License-Identifier: Apache-2.0
; Four CPUs: start-up by INIT and SIPI, IPIs, waking from HLT, counters with every kind of locked instruction (across cache lines
; and pages too), spin locks, store ordering, TLB shootdown, cross-modifying code, one TSC.
%include "long.inc"
%include "apic.inc"

%define OTHERS 3
%define ROUNDS 600
%define TRAMPOLINE 0x8000

main:
	call apic_enable
	call start_others
	cmp dword [alive], OTHERS
	jne .end
	call locked
	call spin_lock
	call ordering
	call clocks
	call ipis
	call shootdown
	call modify
	call rewrite
.end:	ret

; RUN job: on all CPUs at once; waits for all
%macro RUN 1
	mov rax, %1
	call run_everywhere
%endmacro
run_everywhere:
	mov [job], rax
	mov dword [done], 0
	mfence
	lock inc dword [generation]
	xor r14d, r14d
	call rax
.wait:	pause
	cmp dword [done], OTHERS
	jne .wait
	ret

start_others:
	mov esi, trampoline
	mov edi, TRAMPOLINE
	mov ecx, trampoline_end - trampoline
	rep movsb
	APIC_WRITE LAPIC_ICR, 0xc4500 ; INIT to all but self
	mov ecx, 100000
.pause:	pause
	dec ecx
	jnz .pause
	APIC_WRITE LAPIC_ICR, 0xc4600 | (TRAMPOLINE >> 12)
	call .wait_alive
	; a second one finds them running
	APIC_WRITE LAPIC_ICR, 0xc4600 | (TRAMPOLINE >> 12)
	mov ecx, 100000
.pause2:
	pause
	dec ecx
	jnz .pause2
	mov eax, [alive]
	EQ "others started, once", rax, OTHERS
	ret
.wait_alive:
	rdtsc
	shl rdx, 32
	or rax, rdx
	mov rbx, 20000000000
	add rbx, rax
.again:	cmp dword [alive], OTHERS
	je .out
	pause
	rdtsc
	shl rdx, 32
	or rax, rdx
	cmp rax, rbx
	jb .again
.out:	ret

	bits 16
trampoline:
	cli
	xor ax, ax
	mov ds, ax
	o32 lgdt [TRAMPOLINE + .gdt - trampoline]
	mov eax, cr0
	or al, 1
	mov cr0, eax
	jmp dword SEL_CODE32:ap32
.gdt:	dw gdt_end - gdt - 1
	dd gdt
trampoline_end:
	bits 32
ap32:	mov eax, SEL_DATA
	mov ds, eax
	mov es, eax
	mov ss, eax
	mov eax, 1
	lock xadd [next_id], eax
	mov ebp, eax
	shl eax, 12
	lea esp, [ap_stacks + 4096 + eax]
	call enter_long
	bits 64
	lidt [idt_pointer]
	call apic_enable
	lea r14d, [rbp + 1]
	xor r15d, r15d
	lock inc dword [alive]
.wait:	pause
	cmp [generation], r15d
	je .wait
	inc r15d
	call [job]
	lock inc dword [done]
	jmp .wait

; ---- counters
locked:
	RUN .work
	mov eax, [counters]
	EQ "LOCK INC", rax, ROUNDS * (OTHERS + 1)
	EQ "LOCK ADD", [counters + 8], 3 * ROUNDS * (OTHERS + 1)
	EQ "LOCK XADD, 8 bytes", [counters + 16], ROUNDS * (OTHERS + 1)
	EQ "LOCK CMPXCHG", [counters + 24], ROUNDS * (OTHERS + 1)
	EQ "LOCK DEC", [counters + 32], -ROUNDS * (OTHERS + 1)
	EQ "LOCK SUB of a byte beside others", [counters + 40], 0
	EQ "LOCK CMPXCHG16B, low", [counters + 48], ROUNDS * (OTHERS + 1)
	EQ "LOCK CMPXCHG16B, high", [counters + 56], 2 * ROUNDS * (OTHERS + 1)
	EQ "LOCK CMPXCHG8B", [counters + 64], ROUNDS * (OTHERS + 1)
	EQ "XCHG passes a token", [counters + 72], 0
	EQ "over two cache lines", [split_line + 60], ROUNDS * (OTHERS + 1)
	EQ "over two pages", [split_page + 4092], ROUNDS * (OTHERS + 1)
	EQ "LOCK NEG, an even number of times", [counters + 80], 5
	EQ "LOCK NOT", [counters + 88], 7
	EQ "LOCK BTC", [counters + 96], 0
	ret
.work:	mov r8d, ROUNDS
	mov r9d, 1
.next:	lock inc dword [counters]
	lock add qword [counters + 8], 3
	mov rax, r9
	lock xadd [counters + 16], rax
	mov rax, [counters + 24]
.cas:	lea rcx, [rax + 1]
	lock cmpxchg [counters + 24], rcx
	jne .cas
	lock dec qword [counters + 32]
	; four bytes of one word, a CPU each: 256 rounds of 1 come to 0
	mov ecx, r14d
	lock sub byte [counters + 40 + rcx], 1
	mov rax, [counters + 48]
	mov rdx, [counters + 56]
.cas16:	lea rbx, [rax + 1]
	lea rcx, [rdx + 2]
	lock cmpxchg16b [counters + 48]
	jne .cas16
	mov eax, [counters + 64]
	mov edx, [counters + 68]
.cas8:	mov ebx, eax
	mov ecx, edx
	add ebx, 1
	adc ecx, 0
	lock cmpxchg8b [counters + 64]
	jne .cas8
	lock inc dword [split_line + 62]
	lock dec dword [split_line + 62]
	lock inc qword [split_line + 60]
	lock inc qword [split_page + 4092]
	lock neg qword [counters + 80]
	lock not qword [counters + 88]
	lock btc qword [counters + 96], 17
	dec r8d
	jnz .next
	; the bytes: as many again as make 256 * n
	mov ecx, (256 - ROUNDS % 256) % 256
	mov eax, r14d
.rest:	jrcxz .out
	lock sub byte [counters + 40 + rax], 1
	dec ecx
	jmp .rest
.out:	ret

spin_lock:
	mov dword [plain], 0
	RUN .work
	mov eax, [plain]
	EQ "XCHG lock", rax, ROUNDS * (OTHERS + 1)
	mov eax, [plain + 4]
	EQ "LOCK BTS lock", rax, ROUNDS * (OTHERS + 1)
	mov eax, [plain + 8]
	EQ "ticket lock", rax, 300 * (OTHERS + 1)
	ret
.work:	mov r8d, ROUNDS
.next:	mov eax, 1
.take:	xchg eax, [lock_word]
	test eax, eax
	jz .got
	pause
	jmp .take
.got:	mov eax, [plain]
	inc eax
	mov [plain], eax
	mov dword [lock_word], 0
.bts:	lock bts dword [lock_word + 64], 3
	jnc .got2
	pause
	jmp .bts
.got2:	mov eax, [plain + 4]
	inc eax
	mov [plain + 4], eax
	mov dword [lock_word + 64], 0
	dec r8d
	jnz .next
	mov r8d, 300
.ticket:
	mov eax, 1
	lock xadd [lock_word + 128], eax
.turn:	cmp [lock_word + 132], eax
	je .mine
	pause
	jmp .turn
.mine:	inc dword [plain + 8]
	inc dword [lock_word + 132]
	dec r8d
	jnz .ticket
	ret

; Two CPUs store and look at the other's: with MFENCE, or a locked instruction, never do both miss.
ordering:
	mov dword [both_missed], 0
	RUN .work
	EQ "store buffering is ordered by MFENCE and LOCK", [both_missed], 0
	ret
.work:	cmp r14d, 1
	ja .out
	mov r8d, 400
.next:	; meet
	lock inc dword [meet]
	mov eax, 801
	sub eax, r8d
	sub eax, r8d
	add eax, eax
.here:	mov ecx, [meet]
	mov edx, 401
	sub edx, r8d
	shl edx, 2
	sub edx, 2
	cmp ecx, edx
	jb .here
	mov ecx, r14d
	xor ecx, 1
	mov dword [flags2 + r14 * 4], 1
	test r8d, 1
	jz .locked
	mfence
	jmp .look
.locked:
	lock add dword [rsp - 8], 0
.look:	mov eax, [flags2 + rcx * 4]
	mov [saw + r14 * 4], eax
	lock inc dword [meet]
.there:	mov ecx, [meet]
	mov edx, 401
	sub edx, r8d
	shl edx, 2
	cmp ecx, edx
	jb .there
	test r14d, r14d
	jnz .clear
	mov eax, [saw]
	or eax, [saw + 4]
	jnz .clear
	inc dword [both_missed]
.clear:	mov dword [flags2 + r14 * 4], 0
	dec r8d
	jnz .next
.out:	ret

; Every CPU's TSC is not behind what another has read before it.
clocks:
	mov dword [backwards], 0
	RUN .work
	EQ "TSC never goes back between CPUs", [backwards], 0
	ret
.work:	mov r8d, ROUNDS
.next:	mov eax, 1
.take:	xchg eax, [lock_word]
	test eax, eax
	jz .got
	pause
	jmp .take
.got:	lfence
	rdtsc
	shl rdx, 32
	or rax, rdx
	cmp rax, [last_tsc]
	jae .fine
	inc dword [backwards]
.fine:	mov [last_tsc], rax
	mov dword [lock_word], 0
	dec r8d
	jnz .next
	ret

ipis:
	GATE 0x41, on_ipi
	; all but self, into HLT
	mov dword [ipi_count], 0
	mov dword [ready], 0
	mov rax, .sleep
	mov [job], rax
	mov dword [done], 0
	lock inc dword [generation]
	mov r12d, 50
.round:	mov eax, 51
	sub eax, r12d
	imul eax, OTHERS
.ready:	pause
	cmp [ready], eax
	jne .ready
	APIC_WRITE LAPIC_ICR, 0xc4041
.count:	pause
	cmp [ipi_count], eax
	jb .count
	dec r12d
	jnz .round
.done:	pause
	cmp dword [done], OTHERS
	jne .done
	EQ "IPIs to halted CPUs, none lost", [ipi_count], 50 * OTHERS
	; one at a time by physical destination
	mov dword [ipi_count], 0
	mov rax, .listen
	mov [job], rax
	mov dword [done], 0
	lock inc dword [generation]
	mov r12d, 1
.each:	push rdi
	mov edi, LAPIC
	mov eax, r12d
	shl eax, 24
	mov [rdi + LAPIC_ICR2], eax
	mov dword [rdi + LAPIC_ICR], 0x4041
	pop rdi
.one:	pause
	cmp [ipi_count], r12d
	jb .one
	inc r12d
	cmp r12d, OTHERS
	jbe .each
.done2:	pause
	cmp dword [done], OTHERS
	jne .done2
	EQ "IPI to each", [ipi_count], OTHERS
	; all including self
	mov dword [ipi_count], 0
	mov rax, .listen
	mov [job], rax
	mov dword [done], 0
	lock inc dword [generation]
	APIC_WRITE LAPIC_ICR, 0x84041
	sti
.self:	pause
	cmp dword [ipi_count], OTHERS + 1
	jb .self
	cli
.done3:	pause
	cmp dword [done], OTHERS
	jne .done3
	EQ "IPI to all", [ipi_count], OTHERS + 1
	ret
.sleep:	mov r8d, 50
.again:	lock inc dword [ready]
	sti
	hlt
	cli
	dec r8d
	jnz .again
	ret
.listen:
	mov eax, r14d
	mov dword [got + rax * 4], 0
	sti
.hear:	pause
	cmp dword [got + rax * 4], 0
	je .hear
	cli
	ret
on_ipi:	push rax
	mov eax, r14d
	mov dword [got + rax * 4], 1
	lock inc dword [ipi_count]
	APIC_WRITE LAPIC_EOI, 0
	pop rax
	iretq

; The page under all CPUs changes; after each has acknowledged the IPI none may see the old one.
shootdown:
	GATE 0x42, on_shootdown
	mov qword [TEST_PHYS], 100
	mov qword [TEST_PHYS + 4096], 101
	PAGE 0, P | W
	mov dword [stale], 0
	mov dword [stop], 0
	mov dword [floor], 100
	mov rax, .reader
	mov [job], rax
	mov dword [done], 0
	mov dword [ready], 0
	lock inc dword [generation]
.all:	pause
	cmp dword [ready], OTHERS
	jne .all
	mov r12d, 60
.round:	mov eax, r12d
	and eax, 1
	xor eax, 1 ; which page next
	mov ecx, eax
	shl ecx, 12
	mov edx, 160
	sub edx, r12d
	inc edx
	mov [TEST_PHYS + rcx], rdx ; its value: one more than the other's
	add ecx, TEST_PHYS + 3
	mov [test_pt], rcx
	invlpg [TEST_VA]
	mov dword [acks], 0
	APIC_WRITE LAPIC_ICR, 0xc4042
.acks:	pause
	cmp dword [acks], OTHERS
	jne .acks
	mov [floor], edx ; from here on nothing below may be read
	dec r12d
	jnz .round
	mov dword [stop], 1
.done:	pause
	cmp dword [done], OTHERS
	jne .done
	EQ "no stale translation after a shootdown", [stale], 0
	ret
.reader:
	lock inc dword [ready]
	sti
.read:	mov ebx, [floor]
	mov rax, [abs TEST_VA]
	cmp eax, ebx
	jae .fresh
	lock inc dword [stale]
.fresh:	cmp dword [stop], 0
	je .read
	cli
	ret
on_shootdown:
	invlpg [TEST_VA]
	lock inc dword [acks]
	APIC_WRITE LAPIC_EOI, 0
	iretq

; One CPU rewrites the immediate of an instruction that the others execute all the time.
modify:
	mov dword [stale], 0
	mov dword [stop], 0
	mov dword [floor], 1000
	mov dword [patched + 1], 1000
	mov rax, .runner
	mov [job], rax
	mov dword [done], 0
	mov dword [ready], 0
	lock inc dword [generation]
.all:	pause
	cmp dword [ready], OTHERS
	jne .all
	mov r12d, 1001
.round:	mov [patched + 1], r12d
	mfence
	mov dword [seen + 4], 0
	mov dword [seen + 8], 0
	mov dword [seen + 12], 0
	; each must come to see it
	mov ecx, 1
.each:	pause
	cmp [seen + rcx * 4], r12d
	jne .each
	inc ecx
	cmp ecx, OTHERS
	jbe .each
	inc r12d
	cmp r12d, 1060
	jb .round
	mov dword [stop], 1
.done:	pause
	cmp dword [done], OTHERS
	jne .done
	EQ "cross-modified code: never a mixture", [stale], 0
	ret
.runner:
	lock inc dword [ready]
	mov r13d, 1000
.run:	xor eax, eax
	cpuid ; serialises
	call patched
	cmp eax, r13d ; goes up only
	jb .bad
	cmp eax, 1300
	jae .bad
	mov r13d, eax
	mov [seen + r14 * 4], eax
	jmp .on
.bad:	lock inc dword [stale]
.on:	cmp dword [stop], 0
	je .run
	ret

; A page of functions that all CPUs rewrite, each its own, while all call any: who wrote sees the new one at once, the others a
; whole one, and never an older one than before.
REWRITES equ 4000
rewrite:
	mov dword [stale], 0
	xor ecx, ecx
.fill:	xor eax, eax ; version 0: older than any
	call .encode
	mov [r10], r8
	inc ecx
	cmp ecx, 64
	jb .fill
	RUN .work
	EQ "functions rewritten by all while all call them", [stale], 0
	ret
; ecx: number of a function, eax: its version. r10: where it is, r8: mov eax, number << 16 | version; ret; edi: that value
.encode:
	mov edi, ecx
	shl edi, 16
	or edi, eax
	mov r8d, edi
	shl r8, 8
	or r8, 0xb8
	mov r9, 0xc30000000000
	or r8, r9
	mov r10d, ecx
	shl r10d, 6
	add r10, functions
	ret
.work:	mov r12d, REWRITES
.round:	mov ecx, r12d
	and ecx, 15
	shl ecx, 2
	add ecx, r14d
	mov eax, REWRITES + 1
	sub eax, r12d
	call .encode
	mov [r10], r8 ; aligned: all or nothing
	call r10
	cmp eax, edi
	jne .bad
.other:	imul esi, r12d, 0x9e3779b1
	imul r11d, r14d, 0x85ebca6b
	xor esi, r11d
	shr esi, 13
	and esi, 63
	xor eax, eax
	cpuid ; serialises
	mov r10d, esi
	shl r10d, 6
	add r10, functions
	call r10
	mov edx, eax
	shr edx, 16
	cmp edx, esi
	jne .bad2
	mov r11d, r14d
	shl r11d, 6
	add r11d, esi
	cmp eax, [versions + r11 * 4]
	jb .bad2
	mov [versions + r11 * 4], eax
.on:	dec r12d
	jnz .round
	ret
.bad:	lock inc dword [stale]
	jmp .other
.bad2:	lock inc dword [stale]
	jmp .on

	section .text
	align 64
	times 59 nop
	nop
	nop
	nop
patched: ; the immediate is aligned to 4
	mov eax, 1000
	ret
	align 64

	section .data
	align 64
job:	dq 0
done:	dd 0
generation: dd 0
alive:	dd 0
next_id: dd 0
	align 64
counters: times 10 dq 0
	dq 5, 7, 0, 0, 0, 0
	align 64
lock_word: times 64 dd 0
plain:	times 16 dd 0
flags2:	dd 0, 0
saw:	dd 0, 0
meet:	dd 0, 0
both_missed: dq 0
backwards: dq 0
last_tsc: dq 0
ipi_count: dq 0
ready:	dq 0
stale:	dq 0
stop:	dq 0
floor:	dq 0
acks:	dq 0
got:	times 8 dd 0
seen:	times 8 dd 0
	section .bss
	alignb 4096
split_page: resb 8192
split_line: resb 128
versions: resd 256
	alignb 4096
functions: resb 4096
	alignb 4096
ap_stacks: resb 4096 * 8
	METAL_END
