; SPDX-License-Identifier: Apache-2.0
; Plain work for half a second and more, with nothing that a simple emulator would lack: rounds of writing and summing memory,
; each ended by a tick of the local APIC's timer, with page faults in between. For KVM that executes guests in software, and for
; machines that are saved, or change their engine, on the way: what it ends with depends on every register and byte.
; With UNTIL_TOLD it goes on after that until a byte comes in at the serial port.
%include "long.inc"
%include "apic.inc"

%define ROUNDS 24
%define WORDS 1024
%define AREA 0x500000

main:
	GATE 0x40, on40
	call apic_enable
	FORGET
	APIC_WRITE LAPIC_DIVIDE, 0xb ; by 1
	APIC_WRITE LAPIC_LVT_TIMER, 0x20040
	APIC_WRITE LAPIC_INITIAL, 20000000
%ifdef UNTIL_TOLD
	mov edx, 0x3f9
	mov al, 1 ; "I listen": input waits in the host until the receive interrupt is enabled; nothing takes it
	out dx, al
%endif
	xor r12d, r12d ; rounds
	mov r13d, 12345 ; generator
	xor r14d, r14d ; sum written
	xor r15d, r15d ; sum read
.round:	mov edi, AREA
	mov ecx, WORDS
.write:	imul r13, r13, 0x41c64e6d
	add r13, 12345
	mov [rdi], r13
	add r14, r13
	rol r14, 1
	add rdi, 8
	dec ecx
	jnz .write
	FAULTS "a page that is not there", 14, 2, mov [TEST_VA], eax
	mov edi, AREA
	mov ecx, WORDS
.read:	add r15, [rdi]
	rol r15, 1
	add rdi, 8
	dec ecx
	jnz .read
	sti
	hlt
	cli
	inc r12d
	cmp r12d, ROUNDS
	jb .round
	jne .later
	mov [sum], r15
.later:
%ifdef UNTIL_TOLD
	mov edx, 0x3fd
	in al, dx
	test al, 1
	jz .round
%endif
	APIC_WRITE LAPIC_INITIAL, 0
	EQ "sums agree", r14, r15
	cmp dword [note_count], ROUNDS
	TRUE "a tick each round", ae
	EQ "the sum", [sum], [right]
	ret

NOTING on40, 0x40, apic

	section .data
	align 8
sum:	dq 0
right:	dq 0x2a37ac7d6911c7f

	METAL_END
