; SPDX-License-Identifier: Apache-2.0
; Vector instructions on memory that is none: where nothing answers (all ones), a device's registers (the HPET's), and over the
; border from RAM to either. Masked moves, expansions, compressions, gathers and scatters, of AVX2 and of AVX-512 where there is any.
%include "long.inc"

%define NOWHERE 0xcf000000 ; nothing answers here
%define HPET 0xfed00000
%define COMPARATOR 0x108   ; of its first timer: as it was written

; Quadwords of ymm0 and zmm0: YWORDS "what", q0 .. q3
%macro WORDS 2-*
	%xdefine %%what %1
	%assign %%n 0
	%rep %0 - 1
		%rotate 1
		mov rax, %1
		EQ {%%what, ", ", '0' + %%n}, [out + 8 * %%n], rax
		%assign %%n %%n + 1
	%endrep
%endmacro
%macro YWORDS 5
	vmovdqu [out], ymm0
	WORDS %{1:-1}
%endmacro
%macro ZWORDS 9
	vmovdqu64 [out], zmm0
	WORDS %{1:-1}
%endmacro
%define ONES 0xffffffffffffffff
%define MINE 0x1111111111111111

main:
	mov eax, 1
	cpuid
	and ecx, 1 << 28 | 1 << 26 ; AVX, XSAVE
	cmp ecx, 1 << 28 | 1 << 26
	jne .none
	mov rax, cr4
	or eax, 1 << 18
	mov cr4, rax
	xor ecx, ecx
	xor edx, edx
	mov eax, 7
	xsetbv
	; pages: RAM full of MINE, nothing, RAM again, the HPET, none
	PAGE 0, P | W
	mov rax, NOWHERE | P | W
	mov [test_pt + 8], rax
	mov rax, TEST_PHYS | P | W
	mov [test_pt + 16], rax
	mov rax, HPET | P | W
	mov [test_pt + 24], rax
	mov rdi, TEST_VA
	mov rax, MINE
	mov ecx, 512
	rep stosq
	mov r8, NOWHERE
	mov r9, TEST_VA + 4096
	mov r10, HPET
	call plain
	mov eax, 7
	xor ecx, ecx
	cpuid
	bt ebx, 5
	jnc .none
	call avx2
	mov eax, 7
	xor ecx, ecx
	cpuid
	mov ecx, 1 << 16 | 1 << 17 | 1 << 30 | 1 << 31 ; F, DQ, BW, VL
	and ebx, ecx
	cmp ebx, ecx
	jne .none
	xor ecx, ecx
	xor edx, edx
	mov eax, 0xe7
	xsetbv
	call avx512
	jmp .end
.none:	mov esi, .text
	call put_string
	call put_line
.end:	EQ "there was a processor", 0, 0
	ret
.text:	db "no more vectors in this processor", 0

plain:
	movups xmm0, [r8]
	vinsertf128 ymm0, ymm0, [r8], 1
	YWORDS "MOVUPS, VINSERTF128 of nothing", ONES, ONES, ONES, ONES
	vmovups ymm0, [r8 + 4]
	YWORDS "VMOVUPS of nothing, not aligned", ONES, ONES, ONES, ONES
	vmovups ymm0, [r9 - 12]
	YWORDS "VMOVUPS from RAM to nothing", MINE, 0xffffffff11111111, ONES, ONES
	movaps [r8], xmm0
	vmovups ymm0, [r8]
	vmovups [r9 - 12], ymm0
	mov rax, ONES
	EQ "VMOVUPS to RAM and nothing", [r9 - 12], rax
	mov [r9 - 4], r8
	mov rax, MINE
	mov [r9 - 12], rax
	mov [r9 - 8], rax
	; a device's registers
	mov rax, 0x0123456789abcdef
	mov [r10 + COMPARATOR], rax
	mov rbx, [r10 + COMPARATOR]
	vmovups ymm0, [r10 + COMPARATOR - 8]
	mov rcx, [r10 + COMPARATOR - 8]
	YWORDS "VMOVUPS of a device", rcx, rbx, [r10 + COMPARATOR + 8], [r10 + COMPARATOR + 16]
	ret

avx2:
	vpxor ymm0, ymm0, ymm0
	vmovdqu ymm1, [sign_even]
	vpmaskmovd ymm0, ymm1, [r8]
	YWORDS "VPMASKMOVD of nothing", 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff
	vmaskmovpd ymm0, ymm1, [r8]
	YWORDS "VMASKMOVPD of nothing, no mask", 0, 0, 0, 0
	vpmaskmovd ymm0, ymm1, [r9 - 12]
	YWORDS "VPMASKMOVD from RAM to nothing", 0x11111111, 0x11111111, 0xffffffff, 0xffffffff
	vpmaskmovd [r9 - 12], ymm1, ymm0
	vpmaskmovd [r8], ymm1, ymm0
	mov rax, MINE
	EQ "VPMASKMOVD to RAM and nothing", [r9 - 8], rax
	vpcmpeqd ymm1, ymm1, ymm1
	vpxor ymm0, ymm0, ymm0
	vmovdqu ymm2, [steps]
	vpgatherdd ymm0, [r8 + ymm2 * 4], ymm1
	YWORDS "VPGATHERDD of nothing", ONES, ONES, ONES, ONES
	vpcmpeqd ymm1, ymm1, ymm1
	vpgatherdd ymm0, [r9 - 16 + ymm2 * 4], ymm1
	YWORDS "VPGATHERDD from RAM and nothing", MINE, MINE, ONES, ONES
	vmovdqu ymm1, [sign_even]
	vpxor ymm0, ymm0, ymm0
	vpmaskmovd ymm0, ymm1, [r10 + COMPARATOR]
	mov eax, [r10 + COMPARATOR]
	mov ebx, [r10 + COMPARATOR + 8]
	mov ecx, [r10 + COMPARATOR + 16]
	mov edx, [r10 + COMPARATOR + 24]
	mov rsi, rax
	YWORDS "VPMASKMOVD of a device", rsi, rbx, rcx, rdx
	ret

avx512:
	mov eax, 0xa5a5
	kmovd k1, eax
	mov eax, 0x0f
	kmovd k2, eax
	mov rax, 0x8421842184218421
	kmovq k3, rax
	kxnorq k4, k4, k4
	kxorq k5, k5, k5
	vmovdqu32 zmm0 {k1}{z}, [r8]
	ZWORDS "VMOVDQU32 of nothing, masked", 0xffffffff, 0xffffffff, 0xffffffff00000000, 0xffffffff00000000, 0xffffffff, 0xffffffff, 0xffffffff00000000, 0xffffffff00000000
	vpbroadcastq zmm0, [mine]
	vmovdqu32 zmm0 {k1}, [r8 + 4]
	ZWORDS "VMOVDQU32 of nothing, merged", 0x11111111ffffffff, 0x11111111ffffffff, 0xffffffff11111111, 0xffffffff11111111, 0x11111111ffffffff, 0x11111111ffffffff, 0xffffffff11111111, 0xffffffff11111111
	vmovdqu64 zmm0, [r8]
	ZWORDS "VMOVDQU64 of nothing", ONES, ONES, ONES, ONES, ONES, ONES, ONES, ONES
	vmovdqa64 zmm0 {k2}{z}, [r8]
	ZWORDS "VMOVDQA64 of nothing, half", ONES, ONES, ONES, ONES, 0, 0, 0, 0
	vmovdqu8 zmm0 {k3}{z}, [r8]
	ZWORDS "VMOVDQU8 of nothing", 0x0000ff00000000ff, 0xff00000000ff0000, 0x0000ff00000000ff, 0xff00000000ff0000, 0x0000ff00000000ff, 0xff00000000ff0000, 0x0000ff00000000ff, 0xff00000000ff0000
	vmovdqu16 zmm0 {k1}{z}, [r8]
	ZWORDS "VMOVDQU16 of nothing", 0x0000ffff0000ffff, 0xffff0000ffff0000, 0x0000ffff0000ffff, 0xffff0000ffff0000, 0, 0, 0, 0
	vmovdqu64 zmm0, [r8]
	vmovdqu64 zmm0 {k5}{z}, [r8]
	ZWORDS "VMOVDQU64 of nothing, nothing asked for", 0, 0, 0, 0, 0, 0, 0, 0
	vpexpandd zmm0 {k1}{z}, [r8]
	ZWORDS "VPEXPANDD of nothing", 0xffffffff, 0xffffffff, 0xffffffff00000000, 0xffffffff00000000, 0xffffffff, 0xffffffff, 0xffffffff00000000, 0xffffffff00000000
	vpexpandq zmm0 {k2}{z}, [r9 - 16]
	ZWORDS "VPEXPANDQ from RAM and nothing", MINE, MINE, ONES, ONES, 0, 0, 0, 0
	vmovdqu32 zmm0 {k1}{z}, [r9 - 28]
	ZWORDS "VMOVDQU32 from RAM to nothing, masked", 0x11111111, 0x11111111, 0x1111111100000000, 0xffffffff00000000, 0xffffffff, 0xffffffff, 0xffffffff00000000, 0xffffffff00000000
	vmovdqu64 zmm0, [r9 - 28]
	ZWORDS "VMOVDQU64 from RAM to nothing", MINE, MINE, MINE, 0xffffffff11111111, ONES, ONES, ONES, ONES
	vpxord zmm1, zmm1, zmm1
	vpord zmm0 {k1}{z}, zmm1, [r8]
	ZWORDS "VPORD of nothing, masked", 0xffffffff, 0xffffffff, 0xffffffff00000000, 0xffffffff00000000, 0xffffffff, 0xffffffff, 0xffffffff00000000, 0xffffffff00000000
	vpord zmm0 {k1}{z}, zmm1, [r8] {1to16}
	ZWORDS "VPORD of nothing, repeated", 0xffffffff, 0xffffffff, 0xffffffff00000000, 0xffffffff00000000, 0xffffffff, 0xffffffff, 0xffffffff00000000, 0xffffffff00000000
	vpmovzxbw zmm0 {k1}{z}, [r8]
	ZWORDS "VPMOVZXBW of nothing, masked", 0x000000ff000000ff, 0x00ff000000ff0000, 0x000000ff000000ff, 0x00ff000000ff0000, 0, 0, 0, 0
	vbroadcasti32x4 zmm0 {k1}{z}, [r8]
	ZWORDS "VBROADCASTI32X4 of nothing", 0xffffffff, 0xffffffff, 0xffffffff00000000, 0xffffffff00000000, 0xffffffff, 0xffffffff, 0xffffffff00000000, 0xffffffff00000000
	kmovq k6, [r8]
	kmovq rax, k6
	mov rbx, ONES
	EQ "KMOVQ of nothing", rax, rbx
	; gathers and scatters
	kmovw k6, k1
	vpxord zmm0, zmm0, zmm0
	vmovdqu32 zmm2, [steps]
	vpgatherdd zmm0 {k6}, [r8 + zmm2 * 4]
	ZWORDS "VPGATHERDD of nothing, masked", 0xffffffff, 0xffffffff, 0xffffffff00000000, 0xffffffff00000000, 0xffffffff, 0xffffffff, 0xffffffff00000000, 0xffffffff00000000
	kmovw k6, k2
	vpgatherdq zmm0 {k6}, [r9 - 16 + ymm2 * 8]
	kmovw eax, k6
	EQ "VPGATHERDQ, its mask", rax, 0
	vextracti64x4 ymm0, zmm0, 0
	YWORDS "VPGATHERDQ from RAM and nothing", MINE, MINE, ONES, ONES
	kmovw k6, k2
	vpbroadcastq zmm0, [mine + 8]
	vpscatterdq [r9 - 16 + ymm2 * 8] {k6}, zmm0
	mov rax, 0x2222222222222222
	EQ "VPSCATTERDQ to RAM and nothing", [r9 - 16], rax
	; stores
	vpbroadcastq zmm0, [mine]
	vmovdqu32 [r9 - 28] {k1}, zmm0
	vmovdqu8 [r8] {k3}, zmm0
	vpcompressd [r9 - 8] {k1}, zmm0
	vpmovqb [r9 - 3] {k2}, zmm0
	vmovdqu64 [r9 - 8], zmm0
	mov rax, 0x1111111122222222
	EQ "masked stores to RAM and nothing", [r9 - 12], rax
	; a device: what is masked is not written
	mov rax, 0x5555555566666666
	mov [r10 + COMPARATOR], rax
	mov eax, 2
	kmovd k6, eax
	vpternlogd zmm0, zmm0, zmm0, 255
	vmovdqu32 zmm0 {k6}{z}, [r10 + COMPARATOR]
	mov eax, [r10 + COMPARATOR + 4]
	shl rax, 32
	mov rbx, rax
	ZWORDS "VMOVDQU32 of a device", rbx, 0, 0, 0, 0, 0, 0, 0
	mov eax, 1
	kmovd k6, eax
	vpbroadcastq zmm0, [mine]
	vmovdqu32 [r10 + COMPARATOR] {k6}, zmm0
	mov eax, [r10 + COMPARATOR]
	EQ "VMOVDQU32 to a device", rax, 0x11111111
	; from nothing into RAM; by an address the translator knows; where only what is masked has no page
	mov eax, 0xa5a5
	kmovd k1, eax
	vmovdqu32 zmm0 {k1}{z}, [r9 + 4096 - 28]
	ZWORDS "VMOVDQU32 from nothing to RAM, masked", 0xffffffff, 0xffffffff, 0xffffffff00000000, 0x1111111100000000, 0x11111111, 0x11111111, 0x1111111100000000, 0x2222222200000000
	vmovdqu32 zmm0 {k1}{z}, [TEST_VA + 4096 + 64]
	ZWORDS "VMOVDQU32 of nothing, address known", 0xffffffff, 0xffffffff, 0xffffffff00000000, 0xffffffff00000000, 0xffffffff, 0xffffffff, 0xffffffff00000000, 0xffffffff00000000
	vmovdqu64 zmm0 {k2}{z}, [TEST_VA + 4 * 4096 - 32]
	vmovdqu64 [TEST_VA + 4 * 4096 - 32] {k2}, zmm0
	mov ebx, 3
.again:	vpord zmm0 {k1}{z}, zmm1, [r8 + rbx * 4]
	dec ebx
	jnz .again
	ZWORDS "VPORD of nothing in a loop", 0xffffffff, 0xffffffff, 0xffffffff00000000, 0xffffffff00000000, 0xffffffff, 0xffffffff, 0xffffffff00000000, 0xffffffff00000000
	mov eax, 0x0fff
	kmovd k1, eax
	FAULTS "VMOVDQU32 of a device and of no page", 14, 0, vmovdqu32 zmm0 {k1}{z}, [TEST_VA + 4 * 4096 - 16]
	mov eax, 0xff
	kmovd k1, eax
	; in ring 3 too
	mov rax, NOWHERE | P | W | U
	mov [test_pt + 8], rax
	invlpg [r9]
	vpxord zmm0, zmm0, zmm0
	UNOFAULT "VMOVDQU32 of nothing in ring 3", vmovdqu32 zmm0 {k1}{z}, [r9 + 64]
	ZWORDS "VMOVDQU32 of nothing in ring 3", ONES, ONES, ONES, ONES, 0, 0, 0, 0
	UNOFAULT "VPCOMPRESSD to nothing in ring 3", vpcompressd [r9 + 64] {k1}, zmm0
	UNOFAULT "VPEXPANDD of nothing in ring 3", vpexpandd zmm0 {k1}, [r9 + 60]
	ret

	section .data
	align 64
sign_even:
%rep 4
	dd 0x80000000, 0x7fffffff
%endrep
steps:
%assign n 0
%rep 16
	dd n
%assign n n + 1
%endrep
mine:	dq MINE, 0x2222222222222222
	section .bss
	alignb 64
out:	resb 64
METAL_END
