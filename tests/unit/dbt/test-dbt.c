/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The translator against the interpreter: small programs, written here as assembly and copied into a guest, must leave the
 * same registers and memory in both. Then what only a translator can get wrong: code that changes, code that does
 * not fit its cache, loops that have to be left.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "../interp/guest.h"
#include "engine/dbt/dbt.h"

#define PROGRAM(name, code) \
	extern const uint8_t name[], name##_end[]; \
	__asm__(".pushsection .rodata\n.global " #name ", " #name "_end\n" #name ":\n.intel_syntax noprefix\n" code \
		"\n.att_syntax\n" #name "_end:\n.popsection\n")

/* Flags that live across memory accesses, all registers, stack, calls, r13..r15 as every kind of operand. */
PROGRAM(prog_mixed, "mov rbx, 0x20000\n mov r12d, 400\n xor r13d, r13d\n mov r14, 0x1234567\n mov r15, rbx\n"
		    "1: mov rax, r12\n imul rax, r14\n add [rbx+r12*8], rax\n mov rcx, [rbx+8]\n adc r13, rcx\n"
		    "sbb [r15+16], r13\n mov rdx, [r15+r12*4]\n lea r14, [r14+r13*2+5]\n setc dl\n movzx esi, dl\n"
		    "add r13d, esi\n xchg r13, r14\n push r14\n push rax\n pushfq\n pop r8\n and r8d, 0x8d5\n"
		    "add [rbx+24], r8\n pop r9\n pop r10\n call 3f\n inc qword ptr [r15+32]\n cmovo r11, r13\n"
		    "bswap r14\n xadd [rbx+40], r14\n mov rdi, 17\n bt [rbx], rdi\n rcl r13, 3\n shld r14, r13, 7\n"
		    "dec r12\n jnz 1b\n cmp r13, r14\n mov rsi, [rbx]\n setl al\n hlt\n"
		    "3: cmp r13, r9\n mov rdi, [rsp]\n jb 4f\n rol r13, 5\n 4: stc\n pushfq\n adc r13, 0\n popfq\n ret\n");

/* A loop whose body lies across a page boundary, an instruction on it, and calls to and fro. */
PROGRAM(prog_straddle, "mov ecx, 3000\n xor eax, eax\n jmp 2f\n .skip 4096-11-(.-prog_straddle), 0x90\n 2: add rax, rcx\n"
		       "add rax, 1\n movabs rdx, 0x1122334455667788\n xor rax, rdx\n call 5f\n dec ecx\n jnz 2b\n hlt\n"
		       ".skip 8192+100-(.-prog_straddle), 0x90\n 5: rol rax, 1\n ret\n");

/* Code that rewrites the immediate of an instruction ahead of it in the same block, and of one in another page. */
PROGRAM(prog_smc, "lea rbx, [rip+1f]\n lea rsi, [rip+6f]\n mov ecx, 500\n xor eax, eax\n"
		  "0: mov [rbx+1], ecx\n 1: mov edx, 0x11111111\n add rax, rdx\n mov [rsi+1], ecx\n call 6f\n"
		  "imul rax, rax, 3\n dec ecx\n jnz 0b\n hlt\n .skip 4096-(.-prog_smc), 0x90\n 6: mov edx, 0x22222222\n add rax, rdx\n ret\n");

/* x87, SSE and AVX state across calls and memory. */
PROGRAM(prog_fp, "mov rbx, 0x20000\n mov ecx, 100\n fld1\n cvtsi2sd xmm0, ecx\n vxorpd ymm5, ymm5, ymm5\n"
		 "1: mov [rbx], rcx\n fild qword ptr [rbx]\n faddp\n fld st(0)\n fsqrt\n fstp qword ptr [rbx+8]\n"
		 "movsd xmm1, [rbx+8]\n addsd xmm0, xmm1\n vbroadcastsd ymm2, [rbx+8]\n vaddpd ymm5, ymm5, ymm2\n"
		 "vmovupd [rbx+64], ymm5\n cvttsd2si r14, xmm0\n add r13, r14\n movq r15, xmm0\n pinsrq xmm3, r15, 1\n"
		 "movdqu [rbx+0xffa], xmm3\n dec ecx\n jnz 1b\n fstp tbyte ptr [rbx+128]\n hlt\n");

/* The first vector instruction is one of several accesses checked at once, and they cross a page; then STI before one. */
PROGRAM(prog_fp_run, "mov ebx, 0x20ff4\n mov dword ptr [rbx+8], 0x3fc00000\n mov dword ptr [rbx+12], 0x40200000\n hlt\n"
		     "mov rax, [rbx]\n mov rcx, [rbx+4]\n movss xmm1, [rbx+8]\n movss xmm4, [rbx+12]\n"
		     "addss xmm1, xmm4\n cvtss2si r8d, xmm1\n cvtps2pi mm3, xmm1\n paddd mm3, mm3\n stmxcsr [rbx+16]\n hlt\n"
		     "sti\n movss xmm2, xmm1\n addss xmm2, xmm1\n sti\n mov [rbx], rax\n mov [rbx+8], rcx\n mov [rbx+4], rax\n hlt\n");

/* The host can, the model cannot. */
PROGRAM(prog_not_offered, "mov eax, 7\n vaesenc xmm1, xmm2, xmm3\n mov eax, 8\n hlt\n");

/* A function written to 400 places, called each time: more than a small cache holds. */
PROGRAM(prog_many, "mov rdi, 0x400000\n mov r12d, 3\n 0: mov rbx, rdi\n mov ecx, 400\n"
		   "1: mov dword ptr [rbx], 0xc0ff48\n mov dword ptr [rbx+3], 0xc3c0ff48\n mov byte ptr [rbx+7], 0xc3\n"
		   "call rbx\n add rbx, 4096+64\n dec ecx\n jnz 1b\n dec r12\n jnz 0b\n hlt\n");

/* Frames of odd sizes over many pages of stack: runs of pushes and pops that cross them. */
PROGRAM(prog_deep, "lea rsp, [rsp-4]\n mov ecx, 1500\n mov r14d, 3\n call 1f\n hlt\n"
		   "1: push rbx\n push r14\n push rcx\n push 7\n push rbp\n mov rbp, rsp\n lea rsp, [rsp-13]\n"
		   "mov [rsp+2], rcx\n lea rbx, [rax+rcx]\n add r14, rbx\n dec rcx\n jz 2f\n call 1b\n"
		   "2: add rax, [rsp+2]\n add rax, r14\n mov rsp, rbp\n pop rbp\n pop rdx\n pop rcx\n pop r14\n pop rbx\n"
		   "ret\n");

/*
 * MOVS and STOS of every size, alone and repeated, at offsets that end at, before and beyond page ends, overlapping, with
 * count 0, too large, and backwards.
 */
PROGRAM(prog_strings, "mov r12d, 700\n xor eax, eax\n mov r13, 0x123456789abcdef\n"
		      "1: imul r13, r13, 0x19660d\n add r13, 0x3c6ef35f\n mov rcx, r13\n shr rcx, 20\n and ecx, 4095\n"
		      "lea rsi, [rcx+0x20000]\n mov rcx, r13\n shr rcx, 33\n and ecx, 8191\n lea rdi, [rcx+0x20800]\n"
		      "mov rcx, r13\n shr rcx, 50\n and ecx, 255\n mov rax, r13\n mov rdx, rsi\n mov rbx, rdi\n cmp r13, rax\n"
		      "rep stosb\n sete r8b\n mov ecx, r12d\n and ecx, 63\n rep movsq\n mov ecx, 5\n rep movsb\n"
		      "stosw\n stosq\n movsb\n movsd\n mov rdi, rbx\n lea rsi, [rbx-3]\n mov ecx, 300\n rep movsb\n"
		      "mov rdi, rbx\n mov ecx, 2000\n rep movsd\n lea rdi, [rbx-1]\n mov ecx, 77\n rep stosd\n"
		      "xor ecx, ecx\n mov rdi, -8\n rep stosq\n lea rdi, [rbx+64]\n mov ecx, 9\n std\n rep movsw\n"
		      "stosd\n cld\n mov ecx, 3\n rep stosw\n add r14, rdi\n add r14, rsi\n add r15, r8\n dec r12\n jnz 1b\n hlt\n");

/* A block of nothing but them, more than fits a translation. */
PROGRAM(prog_many_strings, "mov edi, 0x20000\n mov esi, 0x21000\n mov rdx, 0x555\n cmp rdx, 3\n"
			   ".rept 90\n mov ecx, 3\n rep movsb\n adc rdx, [rdi]\n rep stosb\n push rdx\n .endr\n hlt\n");

/* A copy into a page that is not there, and one that runs into it: the registers say how far it came. */
PROGRAM(prog_string_fault, "mov edi, 0x20ff0\n mov esi, 0x21000\n mov ecx, 9\n rep movsb\n mov rdi, 0x7000000000\n"
			   "mov ecx, 5\n rep movsb\n hlt\n");

PROGRAM(prog_copying, "1: mov esi, 0x20000\n mov edi, 0x30000\n mov ecx, 4096\n rep movsb\n mov rax, rdi\n jmp 1b\n");

/*
 * Accesses that share a check: structures that walk across page ends at odd offsets, bases that are copied and stepped, several at
 * a time, with flags alive between, vector registers among them, and registers that live in memory.
 */
PROGRAM(prog_runs, "mov r12d, 900\n mov rbx, 0x20001\n mov r13, 0x24000\n xor edx, edx\n lea rsp, [rsp-3]\n"
		   "1: mov rax, [rbx]\n add rax, [rbx+8]\n mov rcx, [r13]\n adc [rbx+16], rcx\n mov rsi, rbx\n adc rdx, [rsi+24]\n"
		   "add rsi, 8\n sbb [rsi+24], rdx\n lea r14, [rsi+4]\n mov [r14], r12d\n mov r15, [r13+8]\n adc r15, [rbx+2]\n"
		   "mov [r13+8], r15\n push r15\n mov r8, [rsp+5]\n push rax\n push 7\n pop r9\n adc r9, [rsp]\n pop r10\n"
		   "pop r11\n movups xmm1, [rbx+3]\n paddq xmm1, [rip+3f]\n movups [rbx+33], xmm1\n cvtsi2sd xmm2, r15\n"
		   "movsd [r13+16], xmm2\n mov rcx, [rbx+r12*2]\n adc [rbx+r12*2+8], rcx\n inc qword ptr [rbx+r12*2+4]\n"
		   "add r13, 13\n add rbx, 29\n mov rax, [rbx-29]\n xor [rbx-20], eax\n dec r12\n jnz 1b\n hlt\n"
		   ".balign 16\n 3: .quad 0x1111, 0x2222\n");

/* An address calculation on two registers that live in memory, between accesses that share a check. */
PROGRAM(prog_run_lea, "mov rbx, 0x20000\n mov r14, [rbx]\n mov r13d, 5\n mov [rbx+0x40], rbx\n lea eax, [r13+r14]\n"
		      "mov [rbx+0x48], ax\n lea rcx, [r14+r13*4+3]\n mov [rbx+0x50], rcx\n hlt\n");

/*
 * Loads that cross a page, of all sizes and kinds, with flags alive: general registers and what lives in memory, sources of
 * arithmetic, x87, vectors, stack, jumps through memory. The page's end moves through each of them. The base is loaded anew
 * each time, so that no two are checked together.
 */
#define AT "mov rsi, [0x23000]\n "
PROGRAM(prog_split, "mov rbx, 0x20fc0\n mov r12d, 64\n mov r14, 0x9e3779b97f4a7c15\n lea rdi, [rip+2f]\n"
		    "0: mov [rbx+r12*2], r14\n imul r14, r14, 77\n dec r12\n jnz 0b\n mov ebp, 4\n fninit\n"
		    "3: mov rbx, 0x20fc0\n mov r12d, 66\n"
		    "1: mov [0x23000], rbx\n " AT "mov rax, [rsi]\n bswap rax\n add r13, rax\n " AT "adc ecx, [rsi+1]\n"
		    AT "sbb r15, [rsi+r12]\n " AT "movzx edx, word ptr [rsi]\n adc r13, rdx\n " AT "movsxd r8, dword ptr [rsi]\n"
		    "xor r9, r8\n " AT "imul r10, [rsi], 3\n " AT "cmovo r11, [rsi]\n " AT "cmp [rsi], r10\n setc al\n"
		    AT "test [rsi], r14\n sets ah\n add r15, rax\n " AT "movups xmm1, [rsi]\n paddq xmm2, xmm1\n"
		    AT "vmovdqu ymm3, [rsi-7]\n " AT "vpaddd ymm4, ymm4, [rsi]\n vpxor ymm5, ymm5, ymm3\n"
		    AT "movsd xmm6, [rsi]\n " AT "pinsrd xmm7, [rsi+2], 1\n " AT "movq mm0, [rsi]\n paddw mm1, mm0\n emms\n"
		    AT "fld tbyte ptr [rsi]\n fstp st(0)\n " AT "fild qword ptr [rsi]\n fistp qword ptr [rbx+300]\n"
		    "add r13, [rbx+300]\n " AT "mov rsp, rsi\n pop r9\n add r13, r9\n mov rsp, 0x24000\n mov rsi, 0x21000\n"
		    "lea rsi, [rsi+r12-66]\n push [rsi]\n mov [rsi], rdi\n " AT "jmp [r12+0x21000-66]\n hlt\n"
		    "2: pop qword ptr [r12+0x21000-66]\n inc rbx\n dec r12\n jnz 1b\n dec ebp\n jnz 3b\n hlt\n");

/* What an opmask leaves out, with both pages there, and with the second missing for what is left out, then for what is not. */
PROGRAM(prog_split_masked, "mov rbx, 0x20fc0\n mov r12d, 64\n mov r14, 0x9e3779b97f4a7c15\n"
			   "0: mov [rbx+r12*2], r14\n imul r14, r14, 77\n dec r12\n jnz 0b\n mov r12d, 66\n"
			   "1: mov [0x23000], rbx\n imul r14, r14, 77\n kmovq k1, r14\n cmp r12, 33\n"
			   AT "vmovdqu8 zmm1{k1}{z}, [rsi]\n adc r13, 1\n vpaddb zmm2, zmm2, zmm1\n " AT "vpcmpub k2{k1}, zmm2, [rsi], 1\n"
			   "kmovq rax, k2\n sbb r13, rax\n " AT "vpexpandd zmm3{k1}, [rsi]\n vpxord zmm4, zmm4, zmm3\n"
			   "inc rbx\n dec r12\n jnz 1b\n vmovdqu64 [0x24000], zmm4\n mov rbx, 0x3fffffe0\n mov eax, 0xffff\n"
			   "kmovq k1, rax\n mov rsi, rbx\n vmovdqu8 zmm1{k1}{z}, [rsi]\n mov eax, 3\n kxnorq k1, k1, k1\n mov rsi, rbx\n"
			   "vmovdqu8 zmm1{k1}{z}, [rsi]\n mov eax, 4\n hlt\n");

/* Not aligned. */
PROGRAM(prog_split_aligned, "mov rbx, 0x20ffd\n mov eax, [rbx]\n mov rsi, rbx\n movaps xmm1, [rsi]\n mov eax, 9\n hlt\n");

/* There is no second page. */
PROGRAM(prog_split_fault, "mov rbx, 0x3ffffffc\n stc\n sbb eax, eax\n mov r13d, 7\n adc r13, [rbx]\n mov eax, 9\n hlt\n");
PROGRAM(prog_split_vector, "mov rbx, 0x3fffffe1\n mov eax, 4\n vpaddd ymm1, ymm1, [rbx]\n mov eax, 9\n hlt\n");

/* The second access of several faults, the first has happened; and one that would be checked for nothing. */
PROGRAM(prog_run_fault, "mov rbx, 0x3fffffe8\n mov rcx, 0x20000\n mov [rcx], rbx\n mov rax, [rcx+8]\n mov edx, 5\n"
			"mov [rbx], edx\n mov edx, 6\n mov [rbx+8], edx\n mov rdx, [rbx+16]\n mov [rbx+24], rdx\n mov edx, 7\n hlt\n");

/*
 * Tight loops on r13..r15, which change places with idle registers meanwhile: operands of every kind, side exits taken at odd
 * times, what is interpreted on the way, faults of the host, vector instructions, flags alive round the loop.
 */
PROGRAM(prog_swaps, "mov rbx, 0x20000\n mov r13, rbx\n mov r14d, 5\n mov r15d, 3000\n mov r8d, 0x888\n mov r9d, 0x999\n"
		    "mov r10d, 0x1010\n mov r11d, 0x1111\n mov r12d, 0x1212\n mov esi, 77\n mov edi, 88\n xor ecx, ecx\n"
		    "1: movzx eax, byte ptr [r13]\n add r14, rax\n mov [r13+r14], r14b\n inc r13\n and r14d, 4095\n"
		    "adc [r13+8], r14\n dec r15\n jnz 1b\n push r13\n push r14\n"
		    "mov r15d, 500\n 2: bt [rbx], r15\n adc r14, r15\n xchg r14, r13\n mov edx, 0\n mov rax, r13\n"
		    "div r15\n lea r13, [r14+r15*2+7]\n mov r14, rdx\n test r13b, 3\n jz 4f\n 3: sub r15, 1\n jnz 2b\n"
		    "push r13\n push r14\n push r15\n mov r15d, 300\n jmp 5f\n 4: add r14, 9\n mov r11, r14\n jmp 3b\n"
		    "5: movd xmm1, [rbx+r15*4]\n paddd xmm2, xmm1\n mov r14d, 0x12345678\n add [rbx+r15*8], r14\n"
		    "movups [rbx+r15+0xe80], xmm2\n imul r13, r14, 31\n sub r15d, 1\n jnc 5b\n"
		    "mov r15d, 200\n clc\n 6: adc r13, r14\n lea r15, [r15-1]\n mov rcx, r15\n inc rcx\n rcl r14, 1\n dec ecx\n jnz 6b\n"
		    "hlt\n");

/* Out of such a loop by faults: a page that is not there, a division by zero; all registers are what they should be. */
PROGRAM(prog_swap_fault, "mov r13d, 0xfffff0\n mov r14d, 1\n mov r8d, 8\n mov r9d, 9\n mov r10d, 10\n mov r11d, 11\n"
			 "1: mov [r13], r14\n add r13, 1\n inc r14\n cmp r13, 0\n jne 1b\n hlt\n");
PROGRAM(prog_swap_divide, "mov r15d, 40\n mov r13d, 1\n mov r8d, 8\n mov r9d, 9\n mov r10d, 10\n mov r11d, 11\n"
			  "1: mov eax, 100\n xor edx, edx\n div r15\n add r13, rax\n dec r15\n cmp r13, 0\n jne 1b\n hlt\n");
PROGRAM(prog_swap_forever, "mov r11d, 11\n mov r10d, 10\n xor r13d, r13d\n xor r14d, r14d\n"
			   "1: inc r13\n add r14, 2\n lea rax, [r13+r13]\n mov [rsp-8], r14\n jmp 1b\n");

/*
 * Tables by small index, whose TLB entry is guessed: the same instruction in one page for long, then in others, next to it and far
 * away, reads and writes, at page ends.
 */
PROGRAM(prog_guess, "mov r12d, 3000\n mov ebx, 0x20000\n xor eax, eax\n mov edx, 0x9e3779b9\n"
		    "1: imul edx, edx, 0x19660d\n add edx, 0x3c6ef35f\n mov ecx, edx\n shr ecx, 24\n"
		    "xor eax, [rbx+rcx*4]\n add eax, edx\n movzx esi, al\n mov [rbx+rsi*8+0x1fc], eax\n mov edi, edx\n"
		    "and edi, 0x1ff\n add [rbx+rdi*8+4], rdi\n movzx edi, dh\n adc rax, [rdi*2+0x21f00]\n test r12d, 15\n jnz 2f\n"
		    "mov ebx, edx\n and ebx, 0x7ff0\n add ebx, 0x20000\n 2: test r12d, 127\n jnz 3f\n xor ebx, 0x401000\n"
		    "3: dec r12d\n jnz 1b\n hlt\n");
PROGRAM(prog_guess_wild, "mov ecx, 6\n mov rbx, 0x20000\n 1: movzx esi, cl\n mov [rbx+rsi*8], rcx\n mov rax, [rbx+rsi*8+8]\n"
			 "dec ecx\n jnz 1b\n btc rbx, 63\n xor rbx, 0x1000\n mov ecx, 2\n jmp 1b\n hlt\n");

/*
 * The same code at several addresses: operands relative to RIP, return addresses, calls and jumps within the page and to the next, directly and
 * not, a loop that exchanges registers.
 */
PROGRAM(prog_moved, "mov rax, [0x102000]\n mov [0x102010], rax\n mov [0x102028], rax\n mov rbx, [0x103000]\n and rbx, -4096\n"
		    "mov rax, [rbx]\n mov [rbx+72], rax\n mov rcx, cr3\n mov cr3, rcx\n lea rsi, [rip+8f]\n mov r12d, 6\n"
		    "1: lea rdi, [rip+3f]\n add rdi, [rsi+r12*8-8]\n mov ecx, 20\n 2: call rdi\n dec ecx\n jnz 2b\n"
		    "dec r12\n jnz 1b\n hlt\n"
		    "3: push rcx\n inc qword ptr [rip+9f]\n lea rax, [rip+9f]\n add r14, rax\n push rbx\n lea rbx, [rip+7f]\n"
		    "call 4f\n call 6f\n call rbx\n mov rdx, [rip+9f]\n add [rip+9f+8], rdx\n pop rbx\n mov r13d, 9\n"
		    "5: lea r14, [r14+r13*2]\n add r15, r14\n dec r13\n jnz 5b\n pop rcx\n ret\n"
		    "4: mov rax, [rsp]\n add r14, rax\n cmp r14, 5\n jb 4f\n jmp 6f\n 4: ret\n"
		    ".balign 8\n 8: .quad 0, 0x10000000000, 0x28001200000, 0x10001200000, 0x28000000000, 0x10000000000\n"
		    ".skip 4096-(.-prog_moved), 0x90\n 6: add rax, [rip+9f+8]\n rol rax, 3\n xor r14, rax\n ret\n"
		    "7: pop rax\n sub r14, rax\n jmp rax\n .balign 8\n 9: .quad 1, 2\n");

/* A page fault in the middle of a block. */
PROGRAM(prog_fault, "mov rbx, 0x20000\n mov rax, 5\n add rax, 7\n mov [rbx], rax\n mov rdx, 0x7000000000\n"
		    "push rax\n mov rcx, [rdx+rax]\n mov rax, 99\n hlt\n");

PROGRAM(prog_divide, "mov rbx, 0x20000\n xor edx, edx\n mov eax, 1\n xor ecx, ecx\n mov [rbx], rax\n div rcx\n hlt\n");

PROGRAM(prog_forever, "mov rbx, 0x20000\n 1: add rax, [rbx]\n inc rcx\n jmp 1b\n");

struct outcome {
	uint64_t copied, splits, grows;
	struct x86_state s;
	uint64_t memory;
};

static uint64_t memory_hash(struct guest *g)
{
	const uint8_t *p = mem_ram_base(g->machine.mem);
	uint64_t h = 0, v;

	for (uint64_t at = 0; at < GUEST_RAM; at += 8) {
		/* not the page tables: engines differ in when they set accessed bits */
		if (at >= GUEST_TABLES && at < GUEST_TABLES + 0x10000)
			continue;
		memcpy(&v, p + at, 8);
		h = (h ^ v) * 0x9e3779b97f4a7c15ull;
	}
	return h;
}

static void fp_on(struct cpu *c)
{
	c->s.cr0 = (c->s.cr0 & ~(CR0_EM | CR0_TS)) | CR0_NE | CR0_MP;
	c->s.cr4 |= CR4_OSFXSR | CR4_OSXSAVE;
	c->s.xcr0 = 7;
	c->s.mxcsr = 0x1f80;
	c->s.fpu.cw = 0x37f;
}

static void start(struct guest *g, const struct engine_ops *engine, unsigned cpus)
{
	struct err e;

	assert_int_equal(guest_create(g, cpus, engine, &e), 0);
}

/* again: how often to go on behind a HLT, with the vector registers put by */
static struct outcome run_as(const struct engine_ops *engine, const char *model, const uint8_t *code, const uint8_t *end, unsigned again)
{
	struct outcome o;
	struct guest g;
	struct err e;

	assert_int_equal(guest_create_as(&g, 1, engine, model, &e), 0);
	guest_long(&g, 0);
	fp_on(&g.cpus[0]);
	if (g.model.has_avx512)
		g.cpus[0].s.xcr0 = 0xe7;
	engine->state_set(&g.cpus[0]);
	guest_load(&g, GUEST_CODE, code, (uint64_t)(end - code));
	assert_int_equal(guest_run(&g, 0), STOP_HLT);
	for (unsigned n = 0; n < again; n++) {
		g.cpus[0].s.activity = ACTIVITY_RUN;
		assert_int_equal(guest_run(&g, 0), STOP_HLT);
	}
	engine->state_get(&g.cpus[0]);
	o.copied = engine == &engine_dbt ? dbt_of(&g.cpus[0])->counters.copied : 0;
	o.splits = engine == &engine_dbt ? dbt_cpu(&g.cpus[0])->counters.split_reads : 0;
	o.grows = g.cpus[0].tlb.grows;
	o.s = g.cpus[0].s;
	o.memory = memory_hash(&g);
	guest_destroy(&g);
	return o;
}

static struct outcome run_in(const struct engine_ops *engine, const uint8_t *code, const uint8_t *end, unsigned again)
{
	return run_as(engine, "v3", code, end, again);
}

static void compare_as(const char *model, const uint8_t *code, const uint8_t *end, bool faults, unsigned again)
{
	struct outcome want = run_as(&engine_interp, model, code, end, again), got = run_as(&engine_dbt, model, code, end, again);

	for (unsigned n = 0; n < 16; n++)
		assert_int_equal(want.s.gpr[n], got.s.gpr[n]);
	assert_int_equal(want.s.rip, got.s.rip);
	if (faults) /* flags that nothing reads any more may differ in the frame */
		return;
	assert_int_equal(want.s.rflags, got.s.rflags);
	assert_int_equal(want.memory, got.memory);
	for (unsigned n = 0; n < 16; n++)
		assert_memory_equal(want.s.v[n].b, got.s.v[n].b, 32);
	assert_int_equal(want.s.fpu.sw, got.s.fpu.sw);
	assert_int_equal(want.s.fpu.tag, got.s.fpu.tag);
}

static void compare_again(const uint8_t *code, const uint8_t *end, bool faults, unsigned again)
{
	compare_as("v3", code, end, faults, again);
}

static void compare(const uint8_t *code, const uint8_t *end, bool faults)
{
	compare_again(code, end, faults, 0);
}

static void fp_in_runs(void **state)
{
	compare_again(prog_fp_run, prog_fp_run_end, false, 2);
}

static void not_offered(void **state)
{
	compare(prog_not_offered, prog_not_offered_end, true);
}

static void mixed(void **state)
{
	compare(prog_mixed, prog_mixed_end, false);
}

static void straddling(void **state)
{
	compare(prog_straddle, prog_straddle_end, false);
}

static void self_modifying(void **state)
{
	compare(prog_smc, prog_smc_end, false);
}

static void floating_point(void **state)
{
	compare(prog_fp, prog_fp_end, false);
}

static void strings(void **state)
{
	compare(prog_strings, prog_strings_end, false);
	compare(prog_many_strings, prog_many_strings_end, false);
	compare(prog_string_fault, prog_string_fault_end, true);
}

static void runs(void **state)
{
	compare(prog_runs, prog_runs_end, false);
	compare(prog_run_fault, prog_run_fault_end, true);
}

/* What the guest has in its registers must not become the place in the host that it writes to. */
static void run_lea(void **state)
{
	static uint8_t canary[4096];
	uint64_t r14 = (uint64_t)(uintptr_t)&canary[2048] - 0x20048, got;
	struct guest g;

	for (unsigned way = 0; way < 2; way++) {
		start(&g, &engine_dbt, 1);
		guest_long(&g, 0);
		engine_dbt.state_set(&g.cpus[0]);
		guest_load(&g, 0x20000, &r14, sizeof(r14));
		guest_load(&g, GUEST_CODE, prog_run_lea, (uint64_t)(prog_run_lea_end - prog_run_lea));
		assert_int_equal(guest_run(&g, 0), STOP_HLT);
		for (unsigned i = 0; i < sizeof(canary); i++)
			assert_int_equal(canary[i], 0);
		assert_int_equal(mem_dma_read(g.machine.mem, 0x20048, &got, 8), 0);
		assert_int_equal((uint16_t)got, (uint16_t)(r14 + 5));
		assert_int_equal(mem_dma_read(g.machine.mem, 0x20050, &got, 8), 0);
		assert_int_equal(got, r14 + 5 * 4 + 3);
		guest_destroy(&g);
		r14 = (uint64_t)(uintptr_t)&canary[2048] - 0x20050; /* the second */
	}
}

static void split_loads(void **state)
{
	compare(prog_split, prog_split_end, false);
	if (__builtin_cpu_supports("avx512bw")) {
		compare_as("host", prog_split_masked, prog_split_masked_end, true, 0);
		assert_true(run_as(&engine_dbt, "host", prog_split_masked, prog_split_masked_end, 0).splits > 100);
	}
	compare(prog_split_aligned, prog_split_aligned_end, true);
	compare(prog_split_fault, prog_split_fault_end, true);
	compare(prog_split_vector, prog_split_vector_end, true);
	assert_true(run_in(&engine_dbt, prog_split, prog_split_end, 0).splits > 500);
}

/*
 * The address of the operand, before FS, is what the code of a check ends with, but for the last two bytes: nothing may take it for that.
 * At 0x74f4..., an alias of the code; TLB_STRIDE and OFF_ADDEND are in there.
 */
PROGRAM(prog_split_like_check, "mov rax, cr3\n mov rcx, [rax]\n mov [rax+0xe9*8], rcx\n and rcx, -4096\n mov rdx, [rcx]\n"
			       "mov [rcx+0x1d3*8], rdx\n mov cr3, rax\n mov rax, 0x74f4f7b48b4f\n mov rdx, 0x20ffd\n"
			       "sub rdx, rax\n mov eax, edx\n shr rdx, 32\n mov ecx, 0xc0000100\n wrmsr\n"
			       "mov rax, 0x0123456789abcdef\n mov [0x20ff8], rax\n mov [0x21000], rax\n"
			       "lea rax, [rip+1f]\n mov rcx, 0x74f4c0000000\n add rax, rcx\n jmp rax\n"
			       "1: .byte 0x64, 0x48, 0x8b, 0x1d\n .long 0x37b48b4f - 0x10000 - (2f - prog_split_like_check)\n"
			       "2: hlt\n");

static void split_like_check(void **state)
{
	assert_int_equal(GUEST_CODE, 0x10000);
	assert_int_equal((uint16_t)OFF_ADDEND, 0x74f4);
	compare(prog_split_like_check, prog_split_like_check_end, false);
	assert_int_equal(run_in(&engine_dbt, prog_split_like_check, prog_split_like_check_end, 0).s.gpr[3], 0x6789abcdef012345);
}

/*
 * More pages than a small TLB has entries, twice, with constant addresses and tables in pages whose low entries are others in a grown one;
 * such a page then is mapped elsewhere, and has code that is written to.
 */
PROGRAM(prog_grown, "mov edi, 0x104000\n mov rax, [rdi+4*8]\n mov rdx, [rdi+5*8]\n mov ecx, 16\n"
		    "1: mov [rdi+rcx*8], rax\n xchg rax, rdx\n inc ecx\n cmp ecx, 512\n jne 1b\n mov rax, cr3\n mov cr3, rax\n"
		    "mov r8d, 4\n"
		    "2: mov ebx, 0x2000000\n 3: add [rbx], ebx\n add ebx, 4096\n cmp ebx, 0x8000000\n jne 3b\n mov cr3, rax\n"
		    "mov ecx, 300\n"
		    "4: add qword ptr [0x3004010], rcx\n movzx eax, cl\n mov r9d, [0x3804000+rax*4]\n add [0x7c04800+rax*4], r9d\n"
		    "adc r10, qword ptr [0x3004010]\n mov [0x3e08010], r10\n movups xmm1, [0x3e08010]\n dec ecx\n jnz 4b\n"
		    "mov rdx, [rdi+24*8]\n xor edx, 0xe00000\n mov [rdi+24*8], rdx\n invlpg [0x3004000]\n mov r11, [0x3004010]\n"
		    "mov [0x3004020], rbx\n mov dword ptr [0x3e08000], 0xc301c383\n mov esi, 0x3e08000\n call rsi\n"
		    "inc byte ptr [0x3e08002]\n call rsi\n call rsi\n mov rax, cr3\n dec r8d\n jnz 2b\n mov ecx, [0x3004010]\n hlt\n");

static void grown(void **state)
{
	compare(prog_grown, prog_grown_end, false);
	assert_int_not_equal(run_in(&engine_dbt, prog_grown, prog_grown_end, 0).grows, 0);
	assert_int_not_equal(run_in(&engine_interp, prog_grown, prog_grown_end, 0).grows, 0);
}

static void swaps(void **state)
{
	compare(prog_swaps, prog_swaps_end, false);
	compare(prog_swap_fault, prog_swap_fault_end, true);
	compare(prog_swap_divide, prog_swap_divide_end, true);
}

static void guesses(void **state)
{
	compare(prog_guess, prog_guess_end, false);
	compare(prog_guess_wild, prog_guess_wild_end, true);
}

static void moved(void **state)
{
	compare(prog_moved, prog_moved_end, false);
	assert_true(run_in(&engine_dbt, prog_moved, prog_moved_end, 0).copied > 20);
}

static void deep_stack(void **state)
{
	compare(prog_deep, prog_deep_end, false);
}

static void faults(void **state)
{
	compare(prog_fault, prog_fault_end, true);
	compare(prog_divide, prog_divide_end, true);
}

/* perf looks into its map only for addresses of unnamed memory; ours is still never writable where it is executable. */
static void named_for_perf(void **state)
{
	char path[64], line[512];
	unsigned blocks = 0, executable = 0;
	struct guest g;
	FILE *file;

	snprintf(path, sizeof(path), "/tmp/perf-%d.map", (int)getpid());
	setenv("OSPITE_PERF_MAP", "1", 1);
	start(&g, &engine_dbt, 1);
	unsetenv("OSPITE_PERF_MAP");
	guest_long(&g, 0);
	fp_on(&g.cpus[0]);
	engine_dbt.state_set(&g.cpus[0]);
	guest_load(&g, GUEST_CODE, prog_mixed, (uint64_t)(prog_mixed_end - prog_mixed));
	assert_int_equal(guest_run(&g, 0), STOP_HLT);
	file = fopen("/proc/self/maps", "re");
	while (fgets(line, sizeof(line), file)) {
		if (!strstr(line, "/dev/zero"))
			continue;
		executable += strstr(line, " r-xs ") != NULL;
		assert_null(strstr(line, "rwx"));
	}
	fclose(file);
	assert_int_equal(executable, 1);
	guest_destroy(&g);
	file = fopen(path, "re");
	assert_non_null(file);
	while (fgets(line, sizeof(line), file))
		blocks += strstr(line, " guest_1000") != NULL;
	fclose(file);
	unlink(path);
	assert_true(blocks > 0);
}

static void small_cache(void **state)
{
	setenv("OSPITE_CODE_CACHE", "262144", 1);
	compare(prog_many, prog_many_end, false);
	compare(prog_mixed, prog_mixed_end, false);
	unsetenv("OSPITE_CODE_CACHE");
}

PROGRAM(prog_real, ".code16\n mov cx, 1000\n 1: add ax, cx\n rol ax, 3\n loop 1b\n hlt\n .code64\n");

/* The same of what the interpreter keeps of 16-bit code. */
static void idle_in_real_mode(void **state)
{
	uint64_t sum[2];

	for (unsigned e = 0; e < 2; e++) {
		struct guest g;
		struct cpu *c;

		start(&g, e ? &engine_dbt : &engine_interp, 1);
		c = &g.cpus[0];
		guest_real(&g, 0);
		guest_load(&g, GUEST_CODE, prog_real, (uint64_t)(prog_real_end - prog_real));
		for (unsigned n = 0; n < 3; n++) {
			c->s.activity = ACTIVITY_RUN;
			c->s.rip = 0;
			assert_int_equal(guest_run(&g, 0), STOP_HLT);
			if (e)
				interp_give_back(dbt_cpu(c)->legacy);
		}
		sum[e] = c->s.gpr[RAX];
		guest_destroy(&g);
	}
	assert_int_not_equal(sum[0], 0);
	assert_int_equal(sum[0], sum[1]);
}

/* An idle machine gives everything back, and goes on as if it had not. */
static void idle_gives_back(void **state)
{
	const struct engine_ops *engines[] = { &engine_interp, &engine_dbt };
	uint64_t sum[2], memory[2];

	for (unsigned e = 0; e < 2; e++) {
		struct guest g;
		struct cpu *c;

		start(&g, engines[e], 1);
		c = &g.cpus[0];
		guest_long(&g, 0);
		guest_load(&g, GUEST_CODE, prog_many, (uint64_t)(prog_many_end - prog_many));
		for (unsigned n = 0; n < 3; n++) {
			c->s.activity = ACTIVITY_RUN;
			c->s.rip = GUEST_CODE;
			assert_int_equal(guest_run(&g, 0), STOP_HLT);
			if (!engines[e]->idle)
				continue;
			assert_int_not_equal(dbt_of(c)->regions[0].nblocks, 0);
			assert_int_equal(dbt_of(c)->tables, n ? TABLES_LARGE : TABLES_USUAL);
			assert_int_not_equal(engines[e]->idle(c), UINT64_MAX); /* not yet */
			assert_int_equal(dbt_of(c)->counters.trims, n);
			dbt_cpu(c)->idle_look = 0;
			dbt_cpu(c)->idle_used = UINT64_MAX; /* it has been idle since the year dot */
			dbt_cpu(c)->idle_from = 0;
			dbt_of(c)->busy_at = 0;
			dbt_of(c)->trimmed = false;
			assert_int_equal(engines[e]->idle(c), UINT64_MAX);
			assert_int_equal(dbt_of(c)->counters.trims, n + 1);
			assert_int_equal(dbt_of(c)->regions[0].nblocks, 0);
			assert_null(dbt_of(c)->regions[0].chunks);
			assert_int_equal(dbt_of(c)->tables, TABLES_SMALL);
			dbt_of(c)->small_blocks = 4; /* from now on its tables grow twice on the way */
			dbt_of(c)->usual_blocks = 8;
			dbt_cpu(c)->idle_look = 0;
			dbt_cpu(c)->idle_used = 0; /* busy: from the beginning */
			engines[e]->idle(c);
			assert_false(dbt_of(c)->trimmed);
		}
		sum[e] = c->s.gpr[RAX];
		memory[e] = memory_hash(&g);
		guest_destroy(&g);
	}
	assert_int_equal(sum[0], sum[1]);
	assert_int_equal(memory[0], memory[1]);
}

/* Where an instruction goes on in a page that is not there nothing is translated, nor kept, however often it is tried. */
static void not_translated(void **state)
{
	const uint8_t begun[] = { 0x48, 0xb8 }; /* mov rax, ... */
	const uint64_t at = GUEST_CODE + 4096 - sizeof(begun);
	struct guest g;
	struct cpu *c;
	struct dbt *d;
	char *from;

	start(&g, &engine_dbt, 1);
	c = &g.cpus[0];
	guest_long(&g, 0);
	guest_load(&g, at, begun, sizeof(begun));
	d = dbt_of(c);
	pthread_mutex_lock(&d->lock);
	from = dbt_cache_alloc(d, 8);
	for (unsigned n = 0; n < 20000; n++)
		assert_null(translate(d, c, at, GUEST_CODE, NO_PAGE, mode_of(c)));
	assert_ptr_equal(dbt_cache_alloc(d, 8), from + 8);
	pthread_mutex_unlock(&d->lock);
	guest_destroy(&g);
}

#define TARGETS 20000u
static uint64_t jump_target(unsigned n)
{
	return 0x400000 + n * 0x10000ull; /* each drives the one before into the second cache */
}

/*
 * Little of the second jump cache is in use, then all again: what was made before, when all was, and removed meanwhile, is not found. The
 * CPU comes to its small cache while the machine is idle, or after that.
 */
static void jump_cache_sizes(void **state)
{
	struct guest g;
	struct cpu *c;
	struct dbt *d;

	start(&g, &engine_dbt, 1);
	c = &g.cpus[0];
	guest_long(&g, 0);
	d = dbt_of(c);
	d->idle_after = UINT64_MAX; /* never idle by itself */
	for (unsigned idle = 0; idle < 2; idle++) {
		blocks_size(d, TABLES_SMALL);
		d->trimmed = idle;
		for (unsigned n = 0; n < TARGETS; n++)
			jc_insert(c, jump_target(n), d->rx);
		assert_int_not_equal(jc_find(c, jump_target(TARGETS - 2)), 0);
		dbt_cpu(c)->idle_look = 0;
		dbt_cpu(c)->idle_used = UINT64_MAX;
		dbt_cpu(c)->idle_from = 0;
		engine_dbt.idle(c);
		assert_int_equal(d->trimmed, idle);
		for (unsigned n = 0; n < TARGETS; n++)
			jc_remove(d, jump_target(n));
		d->small_blocks = 0;
		pthread_mutex_lock(&d->lock);
		blocks_fit(d);
		pthread_mutex_unlock(&d->lock);
		assert_int_equal(d->tables, TABLES_USUAL);
		for (unsigned n = 0; n < TARGETS; n++)
			assert_int_equal(jc_find(c, jump_target(n)), 0);
	}
	guest_destroy(&g);
}

static void *notify_later(void *opaque)
{
	nanosleep(&(struct timespec){ .tv_nsec = 3000000 }, NULL);
	cpu_notify(opaque, ATT_CALLER);
	return NULL;
}

/* A loop without an exit is left at an instruction boundary, every time. */
static void kicked(void **state)
{
	struct guest g;
	struct cpu *c;

	start(&g, &engine_dbt, 1);
	c = &g.cpus[0];
	guest_long(&g, 0);
	guest_load(&g, GUEST_CODE, prog_forever, (uint64_t)(prog_forever_end - prog_forever));
	for (unsigned n = 0; n < 30; n++) {
		uint64_t before = c->s.gpr[RCX], inside;
		pthread_t other;

		atomic_store(&c->run_state, CPU_RUNNING);
		pthread_create(&other, NULL, notify_later, c);
		assert_int_equal(guest_run(&g, 0), STOP_KICK);
		pthread_join(other, NULL);
		atomic_store(&c->attention, 0);
		inside = c->s.rip - GUEST_CODE;
		if (!inside) /* before it began */
			continue;
		assert_true(inside == 7 || inside == 10 || inside == 13);
		assert_true(c->s.gpr[RCX] >= before); /* on a busy host the kick may come before the first instruction */
	}
	assert_true(c->s.gpr[RCX] > 0);
	guest_destroy(&g);
}

/* A kick in the middle of a long copy leaves it done or not begun, and soon. */
static void kicked_copying(void **state)
{
	struct guest g;
	struct cpu *c;

	start(&g, &engine_dbt, 1);
	c = &g.cpus[0];
	guest_long(&g, 0);
	guest_load(&g, GUEST_CODE, prog_copying, (uint64_t)(prog_copying_end - prog_copying));
	for (unsigned n = 0; n < 20; n++) {
		pthread_t other;

		atomic_store(&c->run_state, CPU_RUNNING);
		pthread_create(&other, NULL, notify_later, c);
		assert_int_equal(guest_run(&g, 0), STOP_KICK);
		pthread_join(other, NULL);
		atomic_store(&c->attention, 0);
		if (c->s.rip == GUEST_CODE + 15) {
			assert_int_equal(c->s.gpr[RCX], 4096);
			assert_int_equal(c->s.gpr[RSI], 0x20000);
			assert_int_equal(c->s.gpr[RDI], 0x30000);
		} else if (c->s.rip == GUEST_CODE + 17) {
			assert_int_equal(c->s.gpr[RCX], 0);
			assert_int_equal(c->s.gpr[RSI], 0x21000);
			assert_int_equal(c->s.gpr[RDI], 0x31000);
		}
	}
	guest_destroy(&g);
}

/* Kicked out of a loop with registers exchanged: they are back in their places. */
static void kicked_swapped(void **state)
{
	struct guest g;
	struct cpu *c;

	start(&g, &engine_dbt, 1);
	c = &g.cpus[0];
	guest_long(&g, 0);
	guest_load(&g, GUEST_CODE, prog_swap_forever, (uint64_t)(prog_swap_forever_end - prog_swap_forever));
	for (unsigned n = 0; n < 30; n++) {
		uint64_t before = c->s.gpr[R13];
		pthread_t other;

		atomic_store(&c->run_state, CPU_RUNNING);
		pthread_create(&other, NULL, notify_later, c);
		assert_int_equal(guest_run(&g, 0), STOP_KICK);
		pthread_join(other, NULL);
		atomic_store(&c->attention, 0);
		if (c->s.rip < GUEST_CODE + 18) /* still before the loop */
			continue;
		assert_int_equal(c->s.gpr[R10], 10);
		assert_int_equal(c->s.gpr[R11], 11);
		assert_true(c->s.gpr[R13] >= before);
		assert_in_range(2 * c->s.gpr[R13] - c->s.gpr[R14], 0, 2);
	}
	guest_destroy(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(mixed),
		cmocka_unit_test(fp_in_runs),
		cmocka_unit_test(not_offered),	  cmocka_unit_test(straddling), cmocka_unit_test(self_modifying),
		cmocka_unit_test(floating_point), cmocka_unit_test(faults),	cmocka_unit_test(small_cache),
		cmocka_unit_test(idle_gives_back), cmocka_unit_test(idle_in_real_mode),
		cmocka_unit_test(kicked),	  cmocka_unit_test(deep_stack),
		cmocka_unit_test(strings),	  cmocka_unit_test(kicked_copying),
		cmocka_unit_test(runs),		  cmocka_unit_test(run_lea),	cmocka_unit_test(swaps),

		cmocka_unit_test(runs),		  cmocka_unit_test(swaps), cmocka_unit_test(split_loads), cmocka_unit_test(split_like_check), cmocka_unit_test(grown), cmocka_unit_test(not_translated), cmocka_unit_test(jump_cache_sizes), cmocka_unit_test(named_for_perf),
		cmocka_unit_test(kicked_swapped),
		cmocka_unit_test(guesses),	  cmocka_unit_test(moved),
	};
	struct err e;

	if (engine_dbt.probe(&e))
		return 77;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
