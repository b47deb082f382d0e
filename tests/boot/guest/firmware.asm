; SPDX-License-Identifier: Apache-2.0
; A 64 KiB firmware: starts at the reset vector in real mode below 4 GiB, jumps to its alias below 1 MiB, checks that
; it is the same there and cannot be written, says so on COM1 and leaves through the exit port.
bits 16
org 0
text:	db "firmware at work", 13, 10, 0
start:	xor ax, ax
	mov ss, ax
	mov sp, 0x7c00
	mov ax, cs
	mov ds, ax
	cmp ax, 0xf000
	jne bad
	cmp word [0xfff0 + 5], 0x5aa5 ; the mark behind the reset vector
	jne bad
	mov word [text], 0x4141       ; ROM: must not stick
	cmp byte [text], 'f'
	jne bad
	push word 0x1234              ; RAM below works
	pop bx
	cmp bx, 0x1234
	jne bad
	mov si, text
next:	lodsb
	test al, al
	jz done
	mov dx, 0x3f8
	out dx, al
	jmp next
done:	mov al, 21
	out 0xf4, al
bad:	mov al, 1
	out 0xf4, al
	hlt
	times 0xfff0 - ($ - $$) db 0xff
	jmp 0xf000:start              ; 5 bytes
	dw 0x5aa5
	times 0x10000 - ($ - $$) db 0
