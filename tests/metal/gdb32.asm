; SPDX-License-Identifier: Apache-2.0
; A guest to be debugged (see the script gdb): calls `work` for ever, which counts. Its addresses are fixed, because a flat
; binary has no symbols. It ends when the debugger sets `stop`.
%include "start.inc"

start32: ; 0x100020
	mov esp, stack_top
	xor ecx, ecx
.loop:	inc ecx
	call work
	cmp dword [stop], 0
	je .loop
	mov eax, 0
	out 0xf4, al
.halt:	hlt
	jmp .halt

	times 0x100 - ($ - image_start) db 0x90
work: ; 0x100100
	mov [counter], ecx ; 6 bytes
	mov eax, [counter] ; 5 bytes
	ret

	times 0x200 - ($ - image_start) db 0x90
counter: ; 0x100200
	dd 0
stop: ; 0x100204
	dd 0

	section .bss
	resb 4096
stack_top:
bss_end:
