; SPDX-License-Identifier: Apache-2.0
; A boot sector that uses the BIOS: prints, reads sector 2 by cylinder/head/sector and sector 3 by linear address, writes
; sector 4 and reads it back, and ends by the exit port (0xf4): 0 when all went well, else the number of the step.
	bits 16
	org 0x7c00

start:
	cli
	xor ax, ax
	mov ds, ax
	mov es, ax
	mov ss, ax
	mov sp, 0x7c00
	sti
	mov [drive], dl
	mov si, hello
	call print

	mov bl, 1		; sector 2 is 0/0/2
	mov ax, 0x0201
	mov cx, 0x0002
	mov dh, 0
	mov dl, [drive]
	mov di, bx
	mov bx, 0x8000
	int 0x13
	mov bx, di
	jc fail
	cmp dword [0x8000], 'two!'
	jne fail

	mov bl, 2		; sector 3 is block 2
	mov si, packet
	mov ah, 0x42
	mov dl, [drive]
	int 0x13
	jc fail
	cmp dword [0x8200], 'thre'
	jne fail

	mov bl, 3		; write block 3
	mov dword [0x8200], 'four'
	mov byte [packet + 8], 3
	mov ax, 0x4300
	mov si, packet
	mov dl, [drive]
	int 0x13
	jc fail
	mov dword [0x8200], 0
	mov ah, 0x42
	mov si, packet
	mov dl, [drive]
	int 0x13
	jc fail
	cmp dword [0x8200], 'four'
	jne fail

	mov bl, 4		; memory map: at least one entry of RAM
	pusha
	xor ebx, ebx
	mov eax, 0xe820
	mov edx, 0x534d4150
	mov ecx, 20
	mov di, 0x9000
	int 0x15
	popa
	jc fail
	cmp dword [0x9010], 1
	jne fail

	mov bl, 5		; the timer ticks
	mov ah, 0
	int 0x1a
	mov si, dx
.tick:
	mov ah, 0
	int 0x1a
	cmp dx, si
	je .tick

	mov si, good
	call print
	xor bl, bl
fail:
	mov al, bl
	out 0xf4, al
	hlt
	jmp fail

print:
	lodsb
	test al, al
	jz .end
	mov ah, 0x0e
	mov bx, 7
	int 0x10
	jmp print
.end:
	ret

drive:	db 0
hello:	db "boot sector here", 13, 10, 0
good:	db "disk, memory and timer work", 13, 10, 0
	align 4
packet:	db 16, 0
	dw 1, 0x8200, 0
	dq 2
	times 510 - ($ - $$) db 0
	dw 0xaa55
	db "two!"
	times 1024 - ($ - $$) db 0
	db "three"
	times 65536 - ($ - $$) db 0
