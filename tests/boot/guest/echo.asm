; SPDX-License-Identifier: Apache-2.0
; A Multiboot 1 kernel for tests of a machine's life. It says "ready" on the serial line and then obeys it:
; c: count, and show the count; p: power off; t: triple fault; i: ignore the power button from now on; other
; letters come back. The power button powers it off.
bits 32
org 0x100000
head:	dd 0x1badb002
	dd 0x10003, -(0x1badb002 + 0x10003)
	dd head, head, 0, stack, start
start:	mov esp, stack
	mov dword [count], '0'
	mov byte [ignore], 0
	mov esi, ready
hello:	lodsb
	test al, al
	jz poll
	call putc
	jmp hello

poll:	mov dx, 0x600         ; PM1 status
	in ax, dx
	test ax, 0x100        ; the power button
	jz serial
	mov ax, 0x100
	out dx, ax
	cmp byte [ignore], 0
	je off
	mov al, '!'
	call putc
serial:	mov dx, 0x3fd
	in al, dx
	test al, 1
	jz poll
	mov dx, 0x3f8
	in al, dx
	cmp al, 'c'
	je add_one
	cmp al, 'p'
	je off
	cmp al, 't'
	je crash
	cmp al, 'i'
	jne echo
	mov byte [ignore], 1
echo:	call putc
	jmp poll
add_one: inc dword [count]
	mov al, [count]
	jmp echo
off:	mov al, '.'
	call putc
	mov dx, 0x604         ; PM1 control: sleep, type 5
	mov ax, 0x3400
	out dx, ax
	hlt
crash:	mov al, "T"
	call putc
	lidt [no_idt]
	int3

putc:	push eax
.wait:	mov dx, 0x3fd
	in al, dx
	test al, 0x20
	jz .wait
	pop eax
	mov dx, 0x3f8
	out dx, al
	ret

ready:	db "ready", 13, 10, 0
no_idt:	dw 0
	dd 0
bss:
count equ bss
ignore equ bss + 4
stack equ bss + 4096
