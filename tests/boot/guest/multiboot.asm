; SPDX-License-Identifier: Apache-2.0
; A Multiboot 1 kernel that shows what it was handed: command line, memory sizes, every module's string and its first
; bytes, then leaves through the exit port with 1, or 2 when the state is not that of the specification.
bits 32
%ifdef ELF
section .multiboot align=4
%else
org 0x100000
%endif
head:	dd 0x1badb002
%ifdef ELF
	dd 3, -(0x1badb002 + 3)
section .text
%else
	dd 0x10003, -(0x1badb002 + 0x10003)
	dd head, head, 0, stack, start ; load_end 0: the whole file; bss up to the stack's top
%endif
global start
start:	cmp eax, 0x2badb002
	jne bad
	mov eax, cr0
	and eax, 0x80000001
	cmp eax, 1            ; protected, not paged
	jne bad
	mov esp, stack
	pushfd
	pop eax
	test eax, 0x20200     ; neither IF nor VM
	jnz bad
	mov eax, [ebx]
	and eax, 0x4d         ; memory, command line, modules, map
	cmp eax, 0x4d
	jne bad
	cmp dword [ebx + 4], 639
	jne bad
	cmp dword [ebx + 8], 31 * 1024 ; --memory 32M
	jne bad
	cmp dword [bss], 0    ; the rest of the segment is zero
	jne bad
	mov esi, [ebx + 16]
	call line
	mov ecx, [ebx + 20]
	mov edi, [ebx + 24]
module:	mov esi, [edi + 8]
	call line
	test dword [edi], 0xfff
	jnz bad
	mov esi, [edi]
	call line             ; test modules are short lines with a zero at the end
	add edi, 16
	loop module
	mov al, 1
	out 0xf4, al
bad:	mov al, 2
	out 0xf4, al
	hlt

line:	mov dx, 0x3f8
.next:	lodsb
	test al, al
	jz .end
	out dx, al
	jmp .next
.end:	mov al, 10
	out dx, al
	ret
%ifdef ELF
section .bss
bss:	resd 1024
stack:
%else
bss	equ $
stack	equ bss + 4096
%endif
