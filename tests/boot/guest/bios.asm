; SPDX-License-Identifier: Apache-2.0
; A real-mode program on a disk that uses what the BIOS offers: disk (geometry, cylinder/head/sector, extensions), video (text,
; pixels, VBE), clock, keyboard. It ends by the exit port (0xf4): 0 when all went well, else the number of the step.
; For the keyboard it asks for keys on the screen: q, F5, shift-a.
	bits 16
	org 0x7c00

SECTORS	equ 4			; of this program
BUFFER	equ 0x9000

%macro STEP 1
	mov byte [step], %1
%endmacro

start:
	cli
	xor ax, ax
	mov ds, ax
	mov es, ax
	mov ss, ax
	mov sp, 0x7c00
	sti
	cld
	mov [drive], dl
	STEP 1			; the rest of the program, by cylinder, head and sector
	mov ax, 0x0200 | (SECTORS - 1)
	mov bx, 0x7e00
	mov cx, 2
	mov dh, 0
	int 0x13
	jc fail
	jmp 0:main

fail:
	mov al, [step]
	out 0xf4, al
	hlt
	jmp fail

drive:	db 0
step:	db 0
	times 510 - ($ - $$) db 0
	dw 0xaa55

main:
	STEP 10			; drive type: a hard disk, with its size
	mov ah, 0x15
	mov dl, [drive]
	int 0x13
	jc fail
	cmp ah, 3
	jne fail
	or cx, dx
	jz fail

	STEP 11			; geometry: the last sector is read by it
	mov ah, 8
	mov dl, [drive]
	xor di, di
	mov es, di
	int 0x13
	jc fail
	push ds
	pop es
	mov [last_cx], cx
	mov [last_dh], dh
	cmp dl, 1		; number of drives
	jb fail

	STEP 12			; extensions: version, packet calls
	mov ah, 0x41
	mov bx, 0x55aa
	mov dl, [drive]
	int 0x13
	jc fail
	cmp bx, 0xaa55
	jne fail
	test cl, 1
	jz fail

	STEP 13			; and what they say about the drive: 512 bytes a sector, 8064 sectors (4 MiB less 64 KiB)
	mov ah, 0x48
	mov dl, [drive]
	mov si, BUFFER
	mov word [si], 0x1a
	int 0x13
	jc fail
	cmp word [BUFFER + 24], 512
	jne fail
	cmp dword [BUFFER + 16], 8064
	jne fail

	STEP 14			; the geometry's last sector, written by cylinder, head, sector
	mov dword [BUFFER], 'last'
	mov ax, 0x0301
	call chs
	jc fail
	mov dword [BUFFER], 0
	mov ax, 0x0201
	call chs
	jc fail
	cmp dword [BUFFER], 'last'
	jne fail

	STEP 15			; behind the end: an error, no data
	mov ah, 0x42
	mov dl, [drive]
	mov dword [packet + 8], 8064
	mov si, packet
	int 0x13
	jnc fail
	mov ah, 0		; reset
	mov dl, [drive]
	int 0x13
	jc fail

	STEP 16			; many sectors by block number
	mov dword [packet + 8], 0
	mov word [packet + 2], 16
	mov ah, 0x42
	mov dl, [drive]
	mov si, packet
	int 0x13
	jc fail
	cmp word [BUFFER + 510], 0xaa55
	jne fail
	cmp dword [BUFFER + 15 * 512], 'sect'
	jne fail

	STEP 20			; text mode, 80 columns
	mov ax, 3
	int 0x10
	mov ah, 0x0f
	int 0x10
	cmp ax, 80 << 8 | 3
	jne failed
	STEP 21			; cursor, character with attribute, and back
	mov ah, 2
	mov bh, 0
	mov dx, 5 << 8 | 10
	int 0x10
	mov ax, 0x0900 | 'Z'
	mov bx, 0x004e
	mov cx, 3
	int 0x10
	mov ah, 8
	mov bh, 0
	int 0x10
	cmp ax, 0x4e00 | 'Z'
	jne failed
	mov ah, 3
	mov bh, 0
	int 0x10
	cmp dx, 5 << 8 | 10
	jne failed
	STEP 22			; the same in memory, where it belongs
	mov ax, 0xb800
	mov fs, ax
	cmp dword [fs:(5 * 80 + 11) * 2], 'Z' | 0x4e00 | 'Z' << 16 | 0x4e000000
	jne failed
	STEP 23			; scrolled up a line
	mov ax, 0x0601
	mov bh, 7
	xor cx, cx
	mov dx, 24 << 8 | 79
	int 0x10
	cmp word [fs:(4 * 80 + 10) * 2], 'Z' | 0x4e00
	jne failed
	STEP 24			; a pixel of 256 colours
	mov ax, 0x13
	int 0x10
	mov ax, 0x0c2a
	mov bh, 0
	mov cx, 319
	mov dx, 199
	int 0x10
	mov ax, 0x0d00
	int 0x10
	cmp al, 0x2a
	jne failed
	mov ax, 0xa000
	mov fs, ax
	cmp byte [fs:63999], 0x2a
	jne failed
	STEP 25			; 16 colours in planes
	mov ax, 0x12
	int 0x10
	mov ax, 0x0c0b
	mov bh, 0
	mov cx, 639
	mov dx, 479
	int 0x10
	mov ax, 0x0d00
	int 0x10
	cmp al, 0x0b
	jne failed
	STEP 26			; VBE: version, a mode with its linear frame buffer
	mov dword [BUFFER], 'VBE2'
	mov di, BUFFER
	mov ax, 0x4f00
	int 0x10
	cmp ax, 0x4f
	jne failed
	cmp dword [BUFFER], 'VESA'
	jne failed
	mov ax, 0x4f01
	mov cx, 0x118
	mov di, BUFFER
	int 0x10
	cmp ax, 0x4f
	jne failed
	cmp dword [BUFFER + 0x12], 768 << 16 | 1024
	jne failed
	cmp dword [BUFFER + 0x28], 0
	je failed
	mov ax, 0x4f02
	mov bx, 0x4118
	int 0x10
	cmp ax, 0x4f
	jne failed
	mov ax, 3
	int 0x10

	STEP 30			; ticks since midnight go on
	mov ah, 0
	int 0x1a
	mov si, dx
.tick:
	mov ah, 0
	int 0x1a
	cmp dx, si
	je .tick
	STEP 31			; time and date, BCD: 20xx, month 1 to 12, less than 60 minutes
	mov ah, 2
	int 0x1a
	jc failed
	cmp cl, 0x59
	ja failed
	mov ah, 4
	int 0x1a
	jc failed
	cmp ch, 0x20
	jne failed
	dec dh
	cmp dh, 0x12
	jae failed

	STEP 40			; the keyboard
	mov si, ask_q
	call print
	mov ah, 0
	int 0x16
	cmp ax, 0x1000 | 'q'
	jne failed
	mov si, ask_f5
	call print
	mov ah, 0
	int 0x16
	cmp ax, 0x3f00
	jne failed
	mov si, ask_a
	call print
.wait:
	mov ah, 1
	int 0x16
	jz .wait
	cmp ax, 0x1e00 | 'A'
	jne failed
	mov ah, 0
	int 0x16
	cmp ax, 0x1e00 | 'A'
	jne failed
	mov si, done
	call print
	STEP 0
failed:
	jmp fail

chs:				; one sector: the last of the geometry
	mov bx, BUFFER
	mov cx, [last_cx]
	mov dh, [last_dh]
	mov dl, [drive]
	int 0x13
	ret

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

last_cx: dw 0
last_dh: db 0
ask_q:	db "press q", 13, 10, 0
ask_f5:	db "press F5", 13, 10, 0
ask_a:	db "press shift-a", 13, 10, 0
done:	db "the BIOS works", 13, 10, 0
	align 4
packet:	db 16, 0
	dw 1, BUFFER, 0
	dq 0
	times SECTORS * 512 - ($ - $$) db 0
	times 15 * 512 - ($ - $$) db 0
	db "sector 15"
	times 8064 * 512 - ($ - $$) db 0
