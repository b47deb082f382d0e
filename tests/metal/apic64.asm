; SPDX-License-Identifier: Apache-2.0
; Interrupts of one CPU: local APIC priorities, TPR, IRR, ISR, EOI, nesting; shadows of STI and MOV SS; NMI; timer one-shot,
; periodic and TSC-deadline; HLT; the 8259 in virtual wire mode with the PIT; the IOAPIC with the UART; x2APIC.
%include "long.inc"
%include "apic.inc"

main:
	GATE 0x40, on40
	GATE 0x50, on50
	GATE 0x60, on60
	GATE 0x61, on61
	GATE 0xff, on_spurious
	call apic_enable
	call priorities
	call shadows
	call nmis
	call timers
	call pic
	call ioapic
	call clocks
	call x2apic
	ret

NOTING on40, 0x40, apic
NOTING on50, 0x50, apic
NOTING on61, 0x61, apic
NOTING on_spurious, 0xff, none
on60:	; a slow handler: lets others in
	push rax
	mov eax, [note_count]
	mov byte [notes + rax], 0x60
	inc dword [note_count]
	sti
	APIC_WRITE LAPIC_ICR, 0x40000 | 0x50
	APIC_WRITE LAPIC_ICR, 0x40000 | 0x61 ; same class: not before EOI either
	nop
	nop
	mov eax, [note_count]
	mov [nested], eax
	cli
	APIC_WRITE LAPIC_EOI, 0
	pop rax
	iretq

%macro SELF_IPI 1
	APIC_WRITE LAPIC_ICR, 0x40000 | %1
%endmacro

priorities:
	FORGET
	cli
	SELF_IPI 0x40
	SELF_IPI 0x50
	APIC_READ LAPIC_IRR + 0x20
	EQ "IRR holds both", rax, 0x00010001
	EQ "none taken with IF clear", [note_count], 0
	sti
	nop
	nop
	cli
	EQ "both taken", [note_count], 2
	EQ "the higher first", [notes], 0x4050
	APIC_READ LAPIC_IRR + 0x20
	EQ "IRR empty", rax, 0
	APIC_READ LAPIC_ISR + 0x20
	EQ "ISR empty after EOI", rax, 0
	; TPR
	FORGET
	APIC_WRITE LAPIC_TPR, 0x50
	SELF_IPI 0x40
	SELF_IPI 0x50
	sti
	nop
	nop
	cli
	EQ "TPR holds its class and below back", [note_count], 0
	SELF_IPI 0x61
	sti
	nop
	nop
	cli
	EQ "above the TPR", [notes], 0x61
	mov rax, cr8
	EQ "CR8 is the TPR", rax, 5
	FORGET
	mov eax, 4
	mov cr8, rax
	sti
	nop
	nop
	cli
	EQ "lowered through CR8: one of them", [notes], 0x50
	APIC_READ LAPIC_TPR
	EQ "TPR is CR8", rax, 0x40
	FORGET
	xor eax, eax
	mov cr8, rax
	sti
	nop
	cli
	EQ "and the other", [notes], 0x40
	; while one is in service its class waits
	FORGET
	SELF_IPI 0x60
	sti
	nop
	nop
	nop
	cli
	EQ "nothing of its class or below during service", [nested], 1
	EQ "then by priority", [notes], 0x506160
	; illegal vector
	APIC_WRITE LAPIC_ESR, 0
	SELF_IPI 5
	APIC_WRITE LAPIC_ESR, 0
	APIC_READ LAPIC_ESR
	and eax, 0x60
	TRUE "vector below 16 shows in ESR", nz
	APIC_WRITE LAPIC_ESR, 0
	ret

shadows:
	FORGET
	cli
	SELF_IPI 0x40
	sti
	cli
	nop
	EQ "STI; CLI: no interrupt between", [note_count], 0
	xor ebx, ebx
	sti
	inc ebx
	mov ecx, [note_count]
	cli
	EQ "after STI one instruction runs first", rbx, 1
	EQ "then it comes", rcx, 1
	FORGET
	SELF_IPI 0x40
	mov eax, ss
	pushfq
	or dword [rsp], 0x200
	popfq
	mov ecx, [note_count]
	cli
	EQ "POPF has no shadow", rcx, 1
	; sti; hlt cannot miss
	FORGET
	SELF_IPI 0x40
	sti
	hlt
	cli
	EQ "STI; HLT wakes", [note_count], 1
	; MOV SS holds an interrupt back too
	FORGET
	SELF_IPI 0x40
	sti
	mov ss, eax
	mov ecx, [note_count]
	nop
	cli
	EQ "it came in the end", [note_count], 1
	ret

nmis:
	GATE 2, on_nmi
	mov dword [nmi_count], 0
	APIC_READ LAPIC_ID
	push rdi
	mov edi, LAPIC
	mov [rdi + LAPIC_ICR2], eax
	mov dword [rdi + LAPIC_ICR], 0x4400 ; NMI to ourselves
	pop rdi
	mov ecx, 1000
.wait:	pause
	dec ecx
	jnz .wait
	EQ "NMI with IF clear", [nmi_count], 2
	EQ "the second only after IRET", [nmi_nested], 1
	ret
on_nmi:	inc dword [nmi_count]
	cmp dword [nmi_count], 1
	jne .out
	push rdi
	mov edi, LAPIC
	mov dword [rdi + LAPIC_ICR], 0x4400
	pop rdi
	push rcx
	mov ecx, 1000
.wait:	pause
	dec ecx
	jnz .wait
	pop rcx
	push qword [nmi_count]
	pop qword [nmi_nested]
.out:	iretq

timers:
	FORGET
	APIC_WRITE LAPIC_DIVIDE, 0xb ; by 1
	APIC_WRITE LAPIC_LVT_TIMER, 0x40
	APIC_WRITE LAPIC_INITIAL, 100000
	sti
	WAIT_NOTES 1
	cli
	EQ "one-shot", [note_count], 1
	APIC_READ LAPIC_CURRENT
	EQ "it stops at 0", rax, 0
	; masked
	FORGET
	APIC_WRITE LAPIC_LVT_TIMER, 0x10040
	APIC_WRITE LAPIC_INITIAL, 1000
	mov ecx, 200000
.spin:	dec ecx
	jnz .spin
	sti
	nop
	nop
	cli
	EQ "masked timer", [note_count], 0
	; periodic, with HLT
	FORGET
	APIC_WRITE LAPIC_LVT_TIMER, 0x20050
	APIC_WRITE LAPIC_INITIAL, 1000000
.more:	sti
	hlt
	cli
	cmp dword [note_count], 4
	jb .more
	APIC_WRITE LAPIC_INITIAL, 0
	sti ; one more may have come before that
	nop
	nop
	cli
	cmp dword [note_count], 4
	TRUE "periodic, waited for by HLT", ae
	; counts down
	APIC_WRITE LAPIC_LVT_TIMER, 0x10040
	APIC_WRITE LAPIC_INITIAL, 0x40000000
	APIC_READ LAPIC_CURRENT
	mov ebx, eax
	mov ecx, 100000
.spin2:	dec ecx
	jnz .spin2
	APIC_READ LAPIC_CURRENT
	cmp eax, ebx
	TRUE "current count goes down", b
	APIC_WRITE LAPIC_INITIAL, 0
	; TSC deadline
	mov eax, 1
	cpuid
	bt ecx, 24
	jnc .none
	FORGET
	APIC_WRITE LAPIC_LVT_TIMER, 0x40061
	rdtsc
	shl rdx, 32
	or rax, rdx
	add rax, 30000000 ; 10 ms: not over before it is read back
	mov rdx, rax
	shr rdx, 32
	mov ecx, 0x6e0
	wrmsr
	mov ebx, eax
	rdmsr
	EQ "deadline reads back", rax, rbx
	sti
	hlt
	cli
	EQ "TSC deadline", [note_count], 1
	rdtsc
	cmp eax, ebx
	TRUE "not before its time", ns
	mov ecx, 0x6e0
	rdmsr
	EQ "deadline is disarmed", rax, 0
	; in the past: at once
	FORGET
	mov ecx, 0x6e0
	mov eax, 1
	xor edx, edx
	wrmsr
	sti
	WAIT_NOTES 1
	cli
	EQ "deadline in the past", [note_count], 1
.none:	APIC_WRITE LAPIC_LVT_TIMER, 0x10000
	ret

%define PIC1 0x20
%define PIC2 0xa0
%macro OUT8 2
	mov al, %2
	out %1, al
%endmacro
pic:
	GATE 0x70, on_irq0
	GATE 0x77, on_irq7
	OUT8 PIC1, 0x11
	OUT8 PIC1 + 1, 0x70
	OUT8 PIC1 + 1, 4
	OUT8 PIC1 + 1, 1
	OUT8 PIC2, 0x11
	OUT8 PIC2 + 1, 0x78
	OUT8 PIC2 + 1, 2
	OUT8 PIC2 + 1, 1
	OUT8 PIC2 + 1, 0xff
	OUT8 PIC1 + 1, 0xfe
	in al, PIC1 + 1
	movzx eax, al
	EQ "mask reads back", rax, 0xfe
	APIC_WRITE LAPIC_LVT0, 0x700 ; ExtINT
	FORGET
	OUT8 0x43, 0x34 ; channel 0, rate generator
	OUT8 0x40, 0x00
	OUT8 0x40, 0x10 ; 4096 / 1193182 s
	sti
	WAIT_NOTES 3
	cli
	cmp dword [note_count], 3
	TRUE "PIT through the 8259", ae
	; masked in the PIC: requests show in the IRR
	OUT8 PIC1 + 1, 0xff
	FORGET
	mov ecx, 3
.wait:	OUT8 0x43, 0
	in al, 0x40
	mov bl, al
	in al, 0x40
	mov bh, al
	cmp bh, 0x0f
	jb .wait
.wait2:	OUT8 0x43, 0
	in al, 0x40
	in al, 0x40
	cmp al, 0x0f
	jae .wait2
	dec ecx
	jnz .wait
	OUT8 PIC1, 0x0a ; read IRR
	in al, PIC1
	and eax, 1
	EQ "masked request waits in the IRR", rax, 1
	sti
	nop
	nop
	cli
	EQ "and is not delivered", [note_count], 0
	OUT8 PIC1 + 1, 0xfe
	sti
	nop
	nop
	cli
	cmp dword [note_count], 1
	TRUE "until it is unmasked", ae
	; LVT0 masked
	APIC_WRITE LAPIC_LVT0, 0x10700
	OUT8 PIC1 + 1, 0xff
	; one-shot mode: one interrupt
	APIC_WRITE LAPIC_LVT0, 0x700
	FORGET
	OUT8 0x43, 0x30
	OUT8 PIC1 + 1, 0xfe
	sti
	nop
	cli
	FORGET ; what the mode change may have left
	OUT8 0x40, 0x00
	OUT8 0x40, 0x04
	sti
	WAIT_NOTES 1
	mov ecx, 300000
.spin:	dec ecx
	jnz .spin
	cli
	EQ "PIT mode 0 fires once", [note_count], 1
	OUT8 PIC1 + 1, 0xff
	APIC_WRITE LAPIC_LVT0, 0x10700
	ret
NOTING on_irq0, 0x70, pic
NOTING on_irq7, 0x77, none

%define IOAPIC 0xfec00000
%macro IO_WRITE 2
	push rdi
	mov edi, IOAPIC
	mov dword [rdi], %1
	mov dword [rdi + 0x10], %2
	pop rdi
%endmacro
%macro IO_READ 1
	push rdi
	mov edi, IOAPIC
	mov dword [rdi], %1
	mov eax, [rdi + 0x10]
	pop rdi
%endmacro
ioapic:
	IO_READ 1
	shr eax, 16
	and eax, 0xff
	EQ "24 pins", rax, 23
	APIC_READ LAPIC_ID
	push rdi
	mov edi, IOAPIC
	mov dword [rdi], 0x19
	mov [rdi + 0x10], eax
	pop rdi
	; pin 4: the UART, as an edge
	FORGET
	IO_WRITE 0x18, 0x50
	mov edx, 0x3fc ; OUT2 lets its interrupt through
	mov al, 8
	out dx, al
	mov edx, 0x3f9
	mov al, 2 ; transmitter empty
	out dx, al
	sti
	WAIT_NOTES 1
	cli
	mov edx, 0x3fa
	in al, dx
	and eax, 0xf
	mov ebx, eax
	xor eax, eax ; no more: the lines below go through this UART
	mov edx, 0x3f9
	out dx, al
	EQ "UART through the IOAPIC", [notes], 0x50
	EQ "its cause", rbx, 2
	; masked pin
	FORGET
	IO_WRITE 0x18, 0x10050
	mov al, 2
	mov edx, 0x3f9
	out dx, al
	sti
	nop
	nop
	cli
	mov edx, 0x3fa
	in al, dx
	xor eax, eax
	mov edx, 0x3f9
	out dx, al
	EQ "masked pin", [note_count], 0
	; level: comes again after EOI as long as the line is high, Remote IRR in between
	FORGET
	GATE 0x51, on_level
	IO_WRITE 0x18, 0x8051
	mov al, 2
	mov edx, 0x3f9
	out dx, al
	sti
	WAIT_NOTES 3
	cli
	EQ "level-triggered: again until the line falls", [note_count], 3
	EQ "Remote IRR during service", [remote_irr], 0x4000
	IO_READ 0x18
	and eax, 0x4000
	EQ "and not after", rax, 0
	IO_WRITE 0x18, 0x10000
	mov edx, 0x3f9
	xor eax, eax
	out dx, al
	ret
on_level:
	push rax
	push rdx
	mov eax, [note_count]
	mov byte [notes + rax], 0x51
	inc dword [note_count]
	IO_READ 0x18
	and eax, 0x4000
	mov [remote_irr], eax
	cmp dword [note_count], 3
	jb .eoi
	mov edx, 0x3f9
	xor eax, eax
	out dx, al
.eoi:	APIC_WRITE LAPIC_EOI, 0
	pop rdx
	pop rax
	iretq

; PM timer, PIT and TSC must agree within a third; the RTC must be a clock at all.
clocks:
	mov edx, 0x608
	in eax, dx
	mov r8d, eax
	rdtsc
	shl rdx, 32
	or rax, rdx
	mov r9, rax
	; 20 ms by the PIT's channel 2
	in al, 0x61
	and al, 0xfc
	out 0x61, al
	OUT8 0x43, 0xb0
	OUT8 0x42, 0x38 ; 23864
	OUT8 0x42, 0x5d
	in al, 0x61
	or al, 1
	out 0x61, al
.wait:	in al, 0x61
	test al, 0x20
	jz .wait
	mov edx, 0x608
	in eax, dx
	sub eax, r8d
	and eax, 0xffffff ; 71591 ticks in 20 ms
	mov ebx, eax
	cmp ebx, 60000
	TRUE "PM timer against PIT, not too slow", a
	cmp ebx, 2000000
	TRUE "PM timer against PIT, not too fast", b
	rdtsc
	shl rdx, 32
	or rax, rdx
	cmp rax, r9
	TRUE "TSC went on", a
	; RTC: registers in range
	mov al, 0x0b
	out 0x70, al
	in al, 0x71
	test al, 2
	TRUE "RTC is in 24 hour mode", nz
	mov al, 0x0d
	out 0x70, al
	in al, 0x71
	test al, 0x80
	TRUE "RTC is valid", nz
	ret

x2apic:
	mov eax, 1
	cpuid
	bt ecx, 21
	jnc .none
	APIC_READ LAPIC_ID
	shr eax, 24
	mov r12d, eax
	mov ecx, 0x802
	FAULTS "x2APIC MSR in xAPIC mode", 13, 0, rdmsr
	mov ecx, 0x1b
	rdmsr
	or eax, 0x400
	wrmsr
	mov ecx, 0x802
	rdmsr
	EQ "x2APIC id", rax, r12
	mov ecx, 0x80f
	mov eax, 0x1ff
	xor edx, edx
	wrmsr
	GATE 0x40, on40x
	FORGET
	mov ecx, 0x83f
	mov eax, 0x40
	xor edx, edx
	wrmsr
	sti
	nop
	nop
	cli
	EQ "self IPI", [note_count], 1
	mov ecx, 0x830
	mov eax, 0x40000 | 0x40
	xor edx, edx
	wrmsr
	sti
	nop
	nop
	cli
	EQ "ICR", [note_count], 2
	mov ecx, 0x80b
	mov eax, 1
	FAULTS "EOI must be 0", 13, 0, wrmsr
	mov ecx, 0x802
	FAULTS "the id is read-only", 13, 0, wrmsr
	mov ecx, 0x80c
	FAULTS "a register that is not there", 13, 0, rdmsr
	mov ecx, 0x1b
	rdmsr
	and eax, ~0x800
	FAULTS "x2APIC to disabled in part", 13, 0, wrmsr
.none:	ret
NOTING on40x, 0x40, x2apic

	section .data
	align 8
nested:	dq 0
nmi_count: dq 0
nmi_nested: dq 0
remote_irr: dq 0
	METAL_END
