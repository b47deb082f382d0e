; SPDX-License-Identifier: Apache-2.0
; Every kind of interrupt, each waited for in HLT, by two CPUs and with nothing that a simple emulator would lack: start-up by INIT and
; SIPI, IPIs there and back, the 8259s with the PIT, edges and a level interrupt by the IOAPIC, the timer's three modes, x2APIC. For KVM that
; executes guests in software, with local APICs in the kernel and without, and for machines that change their engine on the way: an
; interrupt that is lost is waited for without end.
%include "long.inc"
%include "apic.inc"

%define TRAMPOLINE 0x8000
%define ROUNDS 6
%define IPIS 25
%define PIC1 0x20
%define PIC2 0xa0
%define IOAPIC 0xfec00000
%macro OUT8 2
	mov al, %2
	out %1, al
%endmacro
%macro IO_WRITE 2
	push rdi
	mov edi, IOAPIC
	mov dword [rdi], %1
	mov dword [rdi + 0x10], %2
	pop rdi
%endmacro
; until [note_count] or another counter is at least so high
%macro HALT_UNTIL 2
%%again:
	sti
	hlt
	cli
	cmp dword [%1], %2
	jb %%again
%endmacro

main:
	GATE 0x40, on40
	GATE 0x41, on_ping
	GATE 0x42, on_pong
	GATE 0x51, on_level
	GATE 0x52, on52
	GATE 0x70, on_irq0
	GATE 0x77, on_spurious ; a pulse of the PIT's that ends before it is acknowledged
	GATE 0x44, on44
	GATE 0x45, on45
	call apic_enable
	call start_other
	mov dword [round], 0
.next:	call ipis
	call timers
	call pic
	call edges
	call level
	inc dword [round]
	cmp dword [round], ROUNDS
	jb .next
	EQ "rounds", [round], ROUNDS
	call x2apic
	ret

start_other:
	mov esi, trampoline
	mov edi, TRAMPOLINE
	mov ecx, trampoline_end - trampoline
	rep movsb
	APIC_WRITE LAPIC_ICR, 0xc4500 ; INIT to all but self
	mov ecx, 1000
.pause:	pause
	dec ecx
	jnz .pause
	APIC_WRITE LAPIC_ICR, 0xc4600 | (TRAMPOLINE >> 12)
.wait:	pause
	cmp dword [alive], 1
	jne .wait
	EQ "the other one is up", [alive], 1
	ret

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
	mov esp, ap_stack + 4096
	call enter_long
	bits 64
	lidt [idt_pointer]
	APIC_WRITE LAPIC_SVR, 0x1ff
	APIC_WRITE LAPIC_TPR, 0
	mov dword [alive], 1
.wait:	sti
	hlt
	jmp .wait

; On the other CPU: back to the first one, and by which vector it wants to hear of it
on_ping:
	push rax
	push rdi
	inc dword [pings]
	mov edi, LAPIC
	mov dword [rdi + LAPIC_ICR2], 0
	mov eax, [reply]
	mov [rdi + LAPIC_ICR], eax
	mov dword [rdi + LAPIC_EOI], 0
	pop rdi
	pop rax
	iretq
on_pong:
	inc dword [pongs]
	APIC_WRITE LAPIC_EOI, 0
	iretq
ipis:
	mov dword [reply], 0x42
	mov dword [pings], 0
	mov dword [pongs], 0
	mov r12d, 1
.next:	APIC_WRITE LAPIC_ICR2, 1 << 24
	APIC_WRITE LAPIC_ICR, 0x41
	HALT_UNTIL pongs, r12d
	inc r12d
	cmp r12d, IPIS
	jbe .next
	EQ "IPIs there", [pings], IPIS
	EQ "and back", [pongs], IPIS
	ret

NOTING on40, 0x40, apic
NOTING on44, 0x44, x2apic
NOTING on52, 0x52, apic
NOTING on_irq0, 0x70, pic
on_spurious:
	iretq
timers:
	FORGET
	APIC_WRITE LAPIC_DIVIDE, 0xb ; by 1
	APIC_WRITE LAPIC_LVT_TIMER, 0x40
	APIC_WRITE LAPIC_INITIAL, 3000000
	HALT_UNTIL note_count, 1
	cmp dword [note_count], 1
	TRUE "one-shot", ae ; once more when local APICs came from KVM on the way
	FORGET
	APIC_WRITE LAPIC_LVT_TIMER, 0x20040
	APIC_WRITE LAPIC_INITIAL, 1000000
	HALT_UNTIL note_count, 5
	APIC_WRITE LAPIC_INITIAL, 0
	cmp dword [note_count], 5
	TRUE "periodic", ae
	mov eax, 1
	cpuid
	bt ecx, 24
	jnc .none
	FORGET
	APIC_WRITE LAPIC_LVT_TIMER, 0x40040
	call deadline
	HALT_UNTIL note_count, 1
	EQ "TSC deadline", [note_count], 1
.none:	APIC_WRITE LAPIC_LVT_TIMER, 0x10000
	ret
deadline: ; some milliseconds from now
	rdtsc
	shl rdx, 32
	or rax, rdx
	add rax, 9000000
	mov rdx, rax
	shr rdx, 32
	mov ecx, 0x6e0
	wrmsr
	ret

pic:
	OUT8 PIC1, 0x11
	OUT8 PIC1 + 1, 0x70
	OUT8 PIC1 + 1, 4
	OUT8 PIC1 + 1, 1
	OUT8 PIC2, 0x11
	OUT8 PIC2 + 1, 0x78
	OUT8 PIC2 + 1, 2
	OUT8 PIC2 + 1, 1
	OUT8 PIC2 + 1, 0xff
	APIC_WRITE LAPIC_LVT0, 0x700 ; ExtINT
	FORGET
	OUT8 0x43, 0x34 ; channel 0, rate generator
	OUT8 0x40, 0x00
	OUT8 0x40, 0x08 ; 2048 / 1193182 s
	OUT8 PIC1 + 1, 0xfe
	HALT_UNTIL note_count, 5
	OUT8 PIC1 + 1, 0xff
	sti
	nop
	cli
	APIC_WRITE LAPIC_LVT0, 0x10700
	OUT8 0x43, 0x30 ; rests
	cmp dword [note_count], 5
	TRUE "the PIT by the 8259", ae
	ret

; The PIT's edges, often enough to be sent the quick way if there is one.
edges:
	FORGET
	APIC_READ LAPIC_ID
	push rdi
	mov edi, IOAPIC
	mov dword [rdi], 0x15
	mov [rdi + 0x10], eax
	pop rdi
	IO_WRITE 0x14, 0x52
	OUT8 0x43, 0x34
	OUT8 0x40, 0x00
	OUT8 0x40, 0x04 ; 1024 / 1193182 s
	HALT_UNTIL note_count, 40
	OUT8 0x43, 0x30
	IO_WRITE 0x14, 0x10000
	sti
	nop
	cli
	cmp dword [note_count], 40
	TRUE "the PIT by the IOAPIC", ae
	ret

; The UART's line stays up until its cause is gone: the interrupt comes again after each EOI.
level:
	FORGET
	mov dword [unserved], 0
	APIC_READ LAPIC_ID
	push rdi
	mov edi, IOAPIC
	mov dword [rdi], 0x19
	mov [rdi + 0x10], eax
	pop rdi
	IO_WRITE 0x18, 0x8051
	mov edx, 0x3fc ; OUT2 lets its interrupt through
	mov al, 8
	out dx, al
	mov al, 2 ; transmitter empty
	mov edx, 0x3f9
	out dx, al
	HALT_UNTIL note_count, 4
	cmp dword [unserved], 0
	jne .early
	EQ "level-triggered: again until the line falls", [note_count], 4
	jmp .done
.early:	cmp dword [note_count], 4
	TRUE "level-triggered, by an APIC that ends interrupts itself", ae
.done:
	IO_WRITE 0x18, 0x10000
	ret
on_level:
	push rax
	push rdx
	APIC_READ LAPIC_ISR + 0x20 ; a KVM without hardware ends interrupts as it delivers them: then one more may come
	bt eax, 0x51 - 0x40
	jc .served
	inc dword [unserved]
.served:
	inc dword [note_count]
	cmp dword [note_count], 4
	jb .eoi
	mov edx, 0x3f9
	xor eax, eax
	out dx, al
.eoi:	APIC_WRITE LAPIC_EOI, 0
	in al, 0x80 ; a KVM without hardware tells of the end only when it leaves the guest next
	pop rdx
	pop rax
	iretq

; The first CPU's registers become MSRs; the other's stay where they are.
on45:	push rax
	push rcx
	push rdx
	inc dword [pongs]
	mov ecx, 0x80b
	xor eax, eax
	xor edx, edx
	wrmsr
	pop rdx
	pop rcx
	pop rax
	iretq
x2apic:
	mov eax, 1
	cpuid
	bt ecx, 21
	jnc .none
	mov ecx, 0x1b
	rdmsr
	or eax, 0x400
	wrmsr
	mov dword [reply], 0x45
	mov dword [pongs], 0
	mov r12d, 1
.next:	mov ecx, 0x830
	mov eax, 0x41
	mov edx, 1
	wrmsr
	HALT_UNTIL pongs, r12d
	inc r12d
	cmp r12d, IPIS
	jbe .next
	EQ "IPIs by MSR", [pongs], IPIS
	FORGET
	mov ecx, 0x83f
	mov eax, 0x44
	xor edx, edx
	wrmsr
	HALT_UNTIL note_count, 1
	EQ "to itself", [note_count], 1
	mov eax, 1
	cpuid
	bt ecx, 24
	jnc .none
	FORGET
	mov ecx, 0x832
	mov eax, 0x40044
	xor edx, edx
	wrmsr
	call deadline
	HALT_UNTIL note_count, 1
	EQ "TSC deadline of an x2APIC", [note_count], 1
.none:	ret

	section .data
	align 8
round:	dq 0
pings:	dq 0
pongs:	dq 0
alive:	dq 0
reply:	dq 0
unserved: dq 0 ; level interrupts whose handler found them not in service
	align 16
ap_stack: times 4096 db 0

	METAL_END
