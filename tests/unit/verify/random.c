/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random code that writes over itself, jumps into its own instructions and across its pages, runs in all modes at two
 * addresses with page tables that change under it, in machines under engine=verify: at every step translator and
 * interpreter must agree.
 *
 *	verify-random [--seed N] [--count N] [--avx512] [--protected] [--verbose]
 *
 * --protected: a 32-bit system instead.
 *
 * A case is a function of its seed but for where the clock interrupts it. All registers are pointers or small numbers
 * again after each exception, and a pseudo-random place and mode are chosen to go on. Nothing keeps a case from
 * destroying its own tables: then it ends in a triple fault, early.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "../interp/guest.h"
#include "base/kick.h"
#include "engine/interp/evex.h"

#define CODE 0x200000ull /* four pages of it, */
#define PAGES 4u
#define ALIAS 0x40000000ull /* and eight through 4 KiB mappings that change */
#define ALIASES 8u
#define DATA 0x300000ull
#define STACK 0x380000ull
#define STUB 0x60000ull
#define VARS 0x61000ull
#define TSS 0x62000ull
#define PT 0x63000ull
#define PD2 0x64000ull
#define GDT_AT 0x65000ull
#define IDT_AT 0x66000ull
#define PD32 0x67000ull
#define ROUNDS 60u /* exceptions until a case has been seen enough of */
#define KICKS 12u  /* and milliseconds */

#define P 1ull
#define W 2ull
#define U 4ull

struct rng {
	uint64_t s;
};

static uint64_t rng(struct rng *r)
{
	uint64_t z = (r->s += 0x9e3779b97f4a7c15ull);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static unsigned below(struct rng *r, unsigned n)
{
	return (unsigned)(rng(r) % n);
}

/*
 * Exceptions and SYSCALL come here, in ring 0. VARS: 0 rounds left, 8 random number, 16 temporary. Registers are set up, a
 * frame is made for a random place in a random mode: 64-bit ring 0 (twice as often), ring 3, 32-bit ring 3.
 */
extern const uint8_t stub[], stub_end[];
__asm__(".pushsection .rodata\n.global stub, stub_end\nstub:\n.intel_syntax noprefix\n"
	"cld\n mov esp, 0x37f000\n dec qword ptr [0x61000]\n jnz 1f\n hlt\n"
	"1: mov rax, [0x61008]\n mov rcx, 6364136223846793005\n imul rax, rcx\n mov rcx, 1442695040888963407\n"
	"add rax, rcx\n mov [0x61008], rax\n shr rax, 20\n"
	"mov ebx, 0x300800\n mov ebp, 0x300100\n mov r8, rax\n mov esi, 0x200000\n mov edi, 0x40000000\n"
	"mov ecx, eax\n and ecx, 15\n mov edx, eax\n shr edx, 7\n and edx, 4095\n lea esi, [rsi+rdx]\n lea edi, [rdi+rdx*2]\n"
	"mov r15d, 0x40000000\n mov r14d, 0x200000\n mov r13d, 0x300400\n mov r12, rax\n shr r12, 13\n"
	"mov r9, rax\n shr r9, 22\n mov r10, r9\n and r9d, 16383\n test r10d, 0x10000\n jz 2f\n add r9d, 0x40000000\n jmp 3f\n"
	"2: add r9d, 0x200000\n 3: shr r10, 17\n and r10d, 3\n cmp r10d, 2\n jae 4f\n"
	"push 0x10\n push 0x380000\n push 2\n push 8\n push r9\n iretq\n"
	"4: push 0x2b\n push 0x380000\n push 0x202\n jne 5f\n push 0x33\n push r9\n iretq\n"
	"5: push 0x23\n push r9\n iretq\n"
	/* Entry r11 & 7 of the aliases := r11 & ~0xfff | r11 >> 3 & 7, from ring 0. INVLPG comes first, because a single step may end all this between
	 * the two; nothing reads there meanwhile.
	 */
	".org stub + 0x800\n mov eax, cs\n test al, 3\n jnz 6f\n mov eax, r11d\n and eax, 7\n mov edx, r11d\n shr edx, 3\n"
	"and edx, 7\n and r11d, 0xfffff000\n or r11d, edx\n mov edx, eax\n shl edx, 12\n add edx, 0x40000000\n"
	"invlpg [rdx]\n mov [0x63000+rax*8], r11\n 6: ret\n"
	"\n.att_syntax\nstub_end:\n.popsection\n");

/*
 * The same for a 32-bit system. Interrupts find segments and stack as the code has left them. FS is data of 4 GiB, GS null or
 * data that begins just below 4 GiB.
 */
extern const uint8_t stub32[], stub32_end[];
__asm__(".pushsection .rodata\n.global stub32, stub32_end\nstub32:\n.code32\n.intel_syntax noprefix\n"
	"cld\n mov eax, 0x2b\n mov ds, eax\n mov es, eax\n mov eax, 0x10\n mov ss, eax\n mov esp, 0x37f000\n mov eax, 0x3b\n mov fs, eax\n"
	"dec dword ptr [0x61000]\n jnz 1f\n hlt\n"
	"1: imul eax, dword ptr [0x61008], 1664525\n add eax, 1013904223\n mov [0x61008], eax\n"
	"mov ecx, eax\n shr ecx, 27\n and ecx, 1\n imul ecx, ecx, 0x43\n mov gs, ecx\n"
	"mov ebx, 0x300800\n mov ebp, 0x300100\n mov ecx, eax\n shr ecx, 3\n and ecx, 15\n mov edx, eax\n shr edx, 7\n and edx, 4095\n"
	"lea esi, [edx+0x200000]\n lea edi, [edx*2+0x40000000]\n"
	"shr eax, 8\n mov edx, eax\n and eax, 16383\n add eax, 0x200000\n test edx, 0x10000\n jz 2f\n add eax, 0x3fe00000\n"
	"2: test edx, 0x60000\n jnz 3f\n mov esp, 0x380000\n push 2\n push 8\n push eax\n iretd\n"
	"3: push 0x2b\n push 0x380000\n push 0x202\n push 0x23\n push eax\n iretd\n"
	/* entry edx & 7 of the aliases, from ring 0 */
	".org stub32 + 0x800\n mov eax, cs\n test al, 3\n jnz 6f\n mov eax, edx\n and eax, 7\n mov ecx, edx\n shr ecx, 3\n"
	"and ecx, 7\n and edx, 0x3000\n or edx, 0x200000\n or edx, ecx\n mov ecx, eax\n shl ecx, 12\n add ecx, 0x40000000\n"
	"invlpg [ecx]\n mov [0x63000+eax*4], edx\n invlpg [ecx]\n 6: ret\n"
	"\n.att_syntax\n.code64\nstub32_end:\n.popsection\n");

struct code {
	uint8_t b[PAGES * 4096 + 64];
	unsigned n;
	bool m32;
};

static void byte(struct code *c, unsigned v)
{
	c->b[c->n++] = (uint8_t)v;
}

static void dword(struct code *c, uint32_t v)
{
	memcpy(c->b + c->n, &v, 4);
	c->n += 4;
}

static const uint8_t prefixes[] = { 0x66, 0xf2, 0xf3, 0x2e, 0x64, 0x65, 0xf0, 0x67 };

/* REX, opcode, ModRM: registers, or memory by a register that is usually a pointer. */
static void modrm(struct rng *r, struct code *c, unsigned map, unsigned opcode, int ext)
{
	static const uint8_t pointers[] = { 3, 3, 5, 6, 7, 7, 13, 14, 15 };
	unsigned reg = ext >= 0 ? (unsigned)ext : below(r, 16), rm = below(r, 16), mode = below(r, 4);
	unsigned rex = 0x40 | (rng(r) & 8) | (reg >> 3) << 2;

	if (c->m32) {
		reg &= 7;
		rm &= 7;
	}
	if (reg == 4 && below(r, 8)) /* the stack pointer only now and then */
		reg = 0;
	if (mode < 3)
		rm = pointers[below(r, c->m32 ? 6 : sizeof(pointers))];
	else if (rm == 4 && below(r, 8))
		rm = 1;
	rex |= rm >> 3;
	if (!below(r, 12))
		byte(c, prefixes[below(r, sizeof(prefixes))]);
	if (!c->m32 && (rex != 0x40 || below(r, 2)))
		byte(c, rex);
	if (map)
		byte(c, 0x0f);
	byte(c, opcode);
	if (mode == 3) {
		byte(c, 0xc0 | (reg & 7) << 3 | (rm & 7));
	} else if (mode == 2 || (rm & 7) == 4) {
		byte(c, 0x80 | (reg & 7) << 3 | (rm & 7));
		if ((rm & 7) == 4)
			byte(c, 0x24);
		dword(c, below(r, 0x4000) - (below(r, 8) ? 0 : 0x2000));
	} else {
		byte(c, 0x40 | (reg & 7) << 3 | (rm & 7));
		byte(c, (unsigned)rng(r));
	}
}

static void arithmetic(struct rng *r, struct code *c)
{
	static const uint8_t one[] = { 0x00, 0x01, 0x02, 0x03, 0x09, 0x0b, 0x11, 0x13, 0x19, 0x1b, 0x21, 0x23, 0x28, 0x29, 0x2b,
				       0x31, 0x33, 0x38, 0x39, 0x3b, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8b, 0x8d, 0x63,
				       0xd0, 0xd1, 0xd2, 0xd3, 0xfe, 0xff, 0x8f };
	static const uint8_t two[] = { 0xa3, 0xa4, 0xa5, 0xab, 0xac, 0xad, 0xaf, 0xb0, 0xb1, 0xb3, 0xb6, 0xb7, 0xb8, 0xbb, 0xbc,
				       0xbd, 0xbe, 0xbf, 0xc0, 0xc1, 0xc7, 0x1f, 0x0d };
	unsigned k = below(r, 10);

	if (k < 6)
		modrm(r, c, 0, one[below(r, sizeof(one))], -1);
	else if (k < 7)
		modrm(r, c, 1, below(r, 2) ? 0x40 | below(r, 16) : 0x90 | below(r, 16), -1);
	else
		modrm(r, c, 1, two[below(r, sizeof(two))], -1);
}

static void immediate(struct rng *r, struct code *c)
{
	static const uint8_t ops[] = { 0x83, 0x83, 0x80, 0xc0, 0xc1, 0x6b, 0xc6 };

	if (below(r, 3)) {
		modrm(r, c, 0, ops[below(r, sizeof(ops))], -1);
		byte(c, (unsigned)rng(r));
	} else if (below(r, 2)) {
		modrm(r, c, 0, below(r, 2) ? 0x81 : 0xc7, -1);
		dword(c, (uint32_t)rng(r));
	} else {
		byte(c, 0xb8 | below(r, 4));
		dword(c, below(r, 2) ? (uint32_t)rng(r) : below(r, 64));
	}
}

static void flow(struct rng *r, struct code *c)
{
	uint32_t far = below(r, PAGES * 4096) - c->n;

	switch (below(r, 12)) {
	case 0:
	case 1:
	case 2:
		byte(c, 0x70 | below(r, 16));
		byte(c, below(r, 4) ? below(r, 40) : (unsigned)rng(r));
		break;
	case 3:
		byte(c, 0x0f);
		byte(c, 0x80 | below(r, 16));
		dword(c, far);
		break;
	case 4:
		byte(c, 0xe9);
		dword(c, far);
		break;
	case 5:
	case 6:
		byte(c, 0xe8);
		dword(c, far);
		break;
	case 7:
	case 8:
		byte(c, 0xc3);
		break;
	case 9:
		byte(c, 0xe0 | below(r, 4));
		byte(c, (unsigned)rng(r));
		break;
	case 10:
		byte(c, 0xeb);
		byte(c, below(r, 20));
		break;
	default:
		modrm(r, c, 0, 0xff, 2 + 2 * (int)below(r, 2));
		break;
	}
}

static void stack_and_strings(struct rng *r, struct code *c)
{
	static const uint8_t strings[] = { 0xa4, 0xa5, 0xaa, 0xab, 0xac, 0xa6, 0xae, 0xa7 };

	switch (below(r, 8)) {
	case 0:
	case 1:
	case 2:
		byte(c, 0x50 | below(r, 8));
		break;
	case 3:
	case 4:
		byte(c, 0x58 | below(r, 4));
		break;
	case 5:
		byte(c, below(r, 2) ? 0x9c : 0x9d);
		break;
	case 6:
		byte(c, below(r, 8) ? 0xfc : 0xfd);
		break;
	default:
		byte(c, 0xb9);
		dword(c, below(r, 50));
		byte(c, below(r, 3) ? 0xf3 : 0xf2);
		if (below(r, 2))
			byte(c, below(r, 2) ? 0x48 : 0x66);
		byte(c, strings[below(r, sizeof(strings))]);
		break;
	}
}

static void vector(struct rng *r, struct code *c)
{
	static const uint8_t ops[] = { 0x10, 0x11, 0x28, 0x29, 0x54, 0x57, 0x58, 0x59, 0x6e, 0x6f, 0x7e, 0x7f, 0xd6, 0xef, 0xfe,
				       0x2a, 0x2d, 0x2e, 0x5e };
	static const uint8_t how[] = { 0x66, 0xf2, 0xf3 };

	if (!below(r, 4)) {
		modrm(r, c, 0, 0xd8 | below(r, 8), -1);
		return;
	}
	if (below(r, 4))
		byte(c, how[below(r, 3)]);
	modrm(r, c, 1, ops[below(r, sizeof(ops))], -1);
}

/* Another page at an alias; and what else changes where code leads. */
static void mapping(struct rng *r, struct code *c)
{
	unsigned k = below(r, ALIASES);

	if (c->m32) {
		byte(c, 0xba); /* mov edx, imm32; mov eax, STUB + 0x800; call eax */
		dword(c, (uint32_t)((CODE + below(r, PAGES) * 4096) | k | (below(r, 10) ? P << 3 : 0) | (below(r, 4) ? W << 3 : 0) |
				    (below(r, 5) ? U << 3 : 0)));
		byte(c, 0xb8);
		dword(c, (uint32_t)STUB + 0x800);
		byte(c, 0xff);
		byte(c, 0xd0);
		return;
	}
	switch (below(r, 4)) {
	case 0:
		/* CR3 again; and nobody keeps the address of the tables: writes there without INVLPG are open */
		memcpy(c->b + c->n, "\x0f\x20\xd8\x0f\x22\xd8\x31\xc0", 8);
		c->n += 8;
		break;
	case 1: /* invlpg [alias] */
		memcpy(c->b + c->n, "\x0f\x01\x3c\x25", 4);
		c->n += 4;
		dword(c, (uint32_t)(ALIAS + k * 4096));
		break;
	default: /* mov r11d, imm32; mov eax, STUB + 0x800; call rax */
		byte(c, 0x41);
		byte(c, 0xbb);
		dword(c, (uint32_t)((CODE + below(r, PAGES) * 4096) | k | (below(r, 10) ? P << 3 : 0) | (below(r, 4) ? W << 3 : 0) |
				    (below(r, 5) ? U << 3 : 0)));
		byte(c, 0xb8);
		dword(c, (uint32_t)STUB + 0x800);
		byte(c, 0xff);
		byte(c, 0xd0);
		break;
	}
}

/* Into code: a byte or four at a place that may well be executed. */
static void self_modify(struct rng *r, struct code *c)
{
	uint64_t at = (below(r, 2) ? CODE : ALIAS) + (below(r, 3) ? (c->n + below(r, 64)) % (PAGES * 4096) : below(r, PAGES * 4096));
	bool wide = below(r, 2);

	byte(c, wide ? 0xc7 : 0xc6);
	byte(c, 0x04);
	byte(c, 0x25);
	dword(c, (uint32_t)at);
	if (wide)
		dword(c, (uint32_t)rng(r));
	else
		byte(c, below(r, 2) ? 0x90 : (unsigned)rng(r));
}

static void odd(struct rng *r, struct code *c)
{
	static const uint8_t some[][3] = { { 2, 0x0f, 0xa2 }, { 1, 0xcc }, { 2, 0x0f, 0x0b }, { 2, 0xcd, 0x80 }, { 2, 0x0f, 0x05 },
					   { 1, 0xfa }, { 1, 0xfb }, { 2, 0x48, 0xcf }, { 1, 0xcb }, { 2, 0x0f, 0x31 }, { 1, 0x98 },
					   { 1, 0x99 }, { 1, 0xf5 }, { 1, 0xf8 }, { 1, 0xf9 }, { 1, 0xc9 }, { 1, 0x9b }, { 1, 0xf1 } };
	unsigned k = below(r, ARRAY_LEN(some));

	if (!below(r, 5)) {
		for (unsigned n = 1 + below(r, 4); n > 0; n--)
			byte(c, (unsigned)rng(r));
		return;
	}
	for (unsigned n = 1; n <= some[k][0]; n++)
		byte(c, some[k][n]);
}

/* Several accesses and steps of a register, EBP or ESP, near where addresses wrap. */
static void round_the_end(struct rng *r, struct code *c)
{
	bool stack = !below(r, 4);

	byte(c, stack ? 0xbc : 0xbd);
	dword(c, below(r, 0x60) - 0x30);
	for (unsigned n = 2 + below(r, 7); n > 0; n--) {
		unsigned k = below(r, 8), reg = below(r, 4);

		if (k < 3) { /* [ebp + n], [esp + n] */
			static const uint8_t ops[] = { 0x8b, 0x89, 0x01, 0x03, 0x8a, 0x39 };

			byte(c, ops[below(r, sizeof(ops))]);
			byte(c, (stack ? 0x44 : 0x45) | reg << 3);
			if (stack)
				byte(c, 0x24);
			byte(c, below(r, 0x50) - 0x28);
		} else if (k == 3) { /* by an index */
			byte(c, 0x8b);
			byte(c, 0x44);
			byte(c, 0x4d | below(r, 2) << 6); /* ebp + ecx * 2 or 8 */
			byte(c, (unsigned)rng(r));
		} else if (k == 4) {
			byte(c, 0x83);
			byte(c, (below(r, 2) ? 0xc0 : 0xe8) | (stack ? 4 : 5));
			byte(c, below(r, 0x30) - 0x10);
		} else if (k == 5) {
			byte(c, 0x8d); /* lea */
			byte(c, stack ? 0x64 : 0x6d);
			if (stack)
				byte(c, 0x24);
			byte(c, below(r, 0x50) - 0x28);
		} else if (k == 6 || stack) {
			byte(c, (below(r, 2) ? 0x50 : 0x58) | reg);
		} else {
			byte(c, 0x40 | 5 | below(r, 2) << 3);
		}
	}
}

/* What only 32-bit code has, or has with another meaning. */
static void only32(struct rng *r, struct code *c)
{
	static const uint8_t one[] = { 0x27, 0x2f, 0x37, 0x3f, 0x60, 0x61, 0x06, 0x1e, 0x0e, 0x16, 0x07, 0x1f, 0xd6, 0xce, 0xc9, 0xf1 };
	static const uint8_t memory[] = { 0x62, 0x63, 0xc4, 0xc5, 0x82, 0x8c, 0x8e };
	static const uint16_t selectors[] = { 0x10, 0x2b, 0x2b, 0x3b, 0x43, 0 };

	switch (below(r, 10)) {
	case 0:
		byte(c, one[below(r, sizeof(one))]);
		break;
	case 1:
		modrm(r, c, 0, memory[below(r, sizeof(memory))], -1);
		byte(c, (unsigned)rng(r));
		break;
	case 2: /* a segment register, now and then DS or ES */
		byte(c, 0x66);
		byte(c, 0xb8);
		byte(c, selectors[below(r, ARRAY_LEN(selectors))]);
		byte(c, 0);
		byte(c, 0x8e);
		byte(c, 0xc0 | (below(r, 3) ? 4 + below(r, 2) : below(r, 2) ? 0 : 3) << 3);
		break;
	case 3: /* by FS, GS, CS */
		byte(c, below(r, 4) ? 0x64 + below(r, 2) : 0x2e);
		modrm(r, c, 0, below(r, 2) ? 0x8b : 0x89, -1);
		break;
	case 4: /* absolute */
		if (!below(r, 4))
			byte(c, below(r, 2) ? 0x66 : 0x64);
		byte(c, 0xa0 | below(r, 4));
		dword(c, (below(r, 8) ? (uint32_t)DATA : 0xfffff800) + below(r, 8192));
		break;
	case 5: /* near the end of the 4 GiB, and round it */
		byte(c, 0x8b);
		byte(c, 0x80 | below(r, 8) << 3 | 6);
		dword(c, (uint32_t)(below(r, 2) ? DATA - CODE : 0) - below(r, 0x300000));
		break;
	case 7:
		round_the_end(r, c);
		break;
	case 6: /* mov r, [esp + n] */
		byte(c, below(r, 2) ? 0x8b : 0x89);
		byte(c, 0x44 | below(r, 3) << 3);
		byte(c, 0x24);
		byte(c, (unsigned)rng(r));
		break;
	default:
		byte(c, 0x40 | (below(r, 8) ? below(r, 4) : below(r, 16)) | below(r, 2) << 3);
		break;
	}
}

/* Registers, or memory by a pointer, for an instruction whose prefix can name base registers 0..7 only; a byte or vectors of indices. */
static void avx512_operand(struct rng *r, struct code *c, bool memory)
{
	static const uint8_t pointers[] = { 3, 5, 6, 7 };
	unsigned reg = below(r, 8);

	if (!memory) {
		byte(c, 0xc0 | reg << 3 | below(r, 8));
	} else if (below(r, 12)) {
		byte(c, 0x40 | reg << 3 | pointers[below(r, sizeof(pointers))]);
		byte(c, (unsigned)rng(r));
	} else {
		byte(c, 0x44 | reg << 3);
		byte(c, below(r, 256));
		byte(c, (unsigned)rng(r));
	}
}

static void avx512(struct rng *r, struct code *c)
{
	static const uint8_t one[] = { 0x10, 0x11, 0x28, 0x29, 0x51, 0x54, 0x58, 0x59, 0x5a, 0x5b, 0x5e, 0x64, 0x6e, 0x6f, 0x6f, 0x72, 0x74,
				       0x76, 0x7e, 0x7f, 0x7f, 0xc2, 0xc6, 0xd6, 0xdb, 0xe6, 0xeb, 0xef, 0xfe, 0x2e, 0x79, 0x7b };
	static const uint8_t two[] = { 0x00, 0x13, 0x16, 0x1e, 0x1f, 0x20, 0x26, 0x27, 0x29, 0x2c, 0x30, 0x33, 0x34, 0x36, 0x38, 0x3b, 0x40,
				       0x42, 0x45, 0x46, 0x47, 0x58, 0x59, 0x5a, 0x5b, 0x64, 0x66, 0x75, 0x76, 0x7a, 0x7b, 0x7c, 0x7d, 0x88,
				       0x89, 0x8a, 0x8b, 0x90, 0x91, 0x92, 0x93, 0xa0, 0xa1, 0xa8, 0xb8, 0xc4, 0x31, 0x11, 0x14, 0x28 };
	static const uint8_t three[] = { 0x03, 0x08, 0x0f, 0x16, 0x18, 0x19, 0x1d, 0x1e, 0x1f, 0x20, 0x22, 0x25, 0x26, 0x39, 0x3a, 0x3e,
					 0x3f, 0x42, 0x43, 0x54, 0x56, 0x66 };
	unsigned map = 1 + below(r, 3), vvvv = below(r, 3) ? below(r, 32) : 0, pp = below(r, 4) ? 1 : below(r, 4);
	bool memory = below(r, 3);

	if (!below(r, 4)) { /* opmask registers */
		byte(c, 0xc4);
		byte(c, 0xe0 | (map = below(r, 4) ? 1 : 3));
		byte(c, below(r, 2) << 7 | (~vvvv & 7) << 3 | 0x40 | below(r, 2) << 2 | below(r, 4));
		byte(c, map == 3 ? 0x30 + below(r, 4) : below(r, 3) ? 0x90 + below(r, 10) : 0x41 + below(r, 11));
		avx512_operand(r, c, memory && map == 1);
	} else {
		byte(c, 0x62);
		byte(c, map | below(r, 2) << 7 | 0x40 | (memory ? 1 : below(r, 2)) << 5 | below(r, 2) << 4);
		byte(c, below(r, 2) << 7 | (~vvvv & 15) << 3 | 4 | pp);
		byte(c, (below(r, 8) ? below(r, 3) : 3) << 5 | (vvvv & 16 ? 0 : 8) | (below(r, 2) ? below(r, 8) : 0) |
				(below(r, 4) ? 0 : 0x80) | (below(r, 6) ? 0 : 0x10));
		byte(c, map == 1 ? one[below(r, sizeof(one))] : map == 2 ? two[below(r, sizeof(two))] : three[below(r, sizeof(three))]);
		avx512_operand(r, c, memory);
	}
	if (map == 3)
		byte(c, (unsigned)rng(r));
}

/* One that decodes, nearly always: exceptions come often enough. */
static void avx512_valid(struct rng *r, struct code *c, const struct cpuid_model *m)
{
	unsigned start = c->n;
	struct insn i;

	for (unsigned tries = 0; tries < 100; tries++) {
		struct evex e;

		c->n = start;
		avx512(r, c);
		if (insn_decode(&i, c->b + start, c->n - start, MODE_64) != INSN_OK || i.op != OP_AVX512)
			continue;
		evex_shape(&e, &i);
		if (e.known && evex_offered(m, e.need))
			return;
	}
}

static void generate(struct rng *r, struct code *c, const struct cpuid_model *m)
{
	c->n = 0;
	while (c->n < PAGES * 4096) {
		unsigned k = below(r, 100);

		if (m->has_avx512 && below(r, 2))
			avx512_valid(r, c, m);
		else if (c->m32 && c->n < PAGES * 4096 - 100 && !below(r, 5))
			only32(r, c);
		else if (k < 38)
			arithmetic(r, c);
		else if (k < 52)
			immediate(r, c);
		else if (k < 68)
			flow(r, c);
		else if (k < 80)
			stack_and_strings(r, c);
		else if (k < 87)
			vector(r, c);
		else if (k < 90)
			mapping(r, c);
		else if (k < 95)
			self_modify(r, c);
		else
			odd(r, c);
	}
}

static void put64(struct guest *g, uint64_t at, uint64_t v)
{
	guest_load(g, at, &v, sizeof(v));
}

static void tables(struct guest *g)
{
	static const uint64_t gdt[] = { 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0, 0x00cffb000000ffff, 0x00cff3000000ffff,
					0x00affb000000ffff, 0, 0 };
	struct x86_state *s = &g->cpus[0].s;

	for (unsigned k = 0; k < ARRAY_LEN(gdt); k++)
		put64(g, GDT_AT + 8 * k, gdt[k]);
	for (unsigned k = 0; k < 256; k++) { /* trap gates of DPL 3 through IST 1 */
		put64(g, IDT_AT + 16 * k, (STUB & 0xffff) | 8ull << 16 | 1ull << 32 | 0xeeull << 40 | STUB >> 16 << 48);
		put64(g, IDT_AT + 16 * k + 8, 0);
	}
	put64(g, TSS + 4, STACK - 0x2000);
	put64(g, TSS + 36, STACK - 0x1000);
	for (unsigned k = 0; k < ALIASES; k++)
		put64(g, PT + 8 * k, (CODE + k % PAGES * 4096) | P | W | U);
	put64(g, PD2, PT | P | W | U);
	put64(g, GUEST_TABLES + 0x3000 + 8, PD2 | P | W | U);
	s->gdtr = (struct x86_dtable){ GDT_AT, sizeof(gdt) - 1 };
	s->idtr = (struct x86_dtable){ IDT_AT, 4095 };
	s->seg[SEG_TR] = (struct x86_segment){ .base = TSS, .limit = 103, .selector = 0x38, .attr = 0x8b };
	s->star = 8ull << 32 | 0x1bull << 48;
	s->lstar = STUB;
	s->sfmask = 0x47700;
}

static void put32(struct guest *g, uint64_t at, uint32_t v)
{
	guest_load(g, at, &v, sizeof(v));
}

/* 4 MiB pages for the RAM, and the aliases. */
static void tables32(struct guest *g)
{
	static const uint64_t gdt[] = { 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0, 0x00cffb000000ffff, 0x00cff3000000ffff,
					0, 0x00cff3001000ffff, 0xffcff3fff000ffff };
	struct x86_state *s = &g->cpus[0].s;

	for (unsigned k = 0; k < ARRAY_LEN(gdt); k++)
		put64(g, GDT_AT + 8 * k, gdt[k]);
	for (unsigned k = 0; k < 256; k++)
		put64(g, IDT_AT + 8 * k, (STUB & 0xffff) | 8ull << 16 | 0xefull << 40 | STUB >> 16 << 48);
	put32(g, TSS + 4, (uint32_t)STACK - 0x2000);
	put32(g, TSS + 8, 0x10);
	for (uint32_t k = 0; k < GUEST_RAM >> 22; k++)
		put32(g, PD32 + 4 * k, k << 22 | (uint32_t)(P | W | U) | 0x80);
	for (uint32_t k = 0; k < ALIASES; k++)
		put32(g, PT + 4 * k, (uint32_t)(CODE + k % PAGES * 4096) | (uint32_t)(P | W | U));
	put32(g, PD32 + 4 * 1023, 3u << 22 | (uint32_t)(P | W | U) | 0x80); /* so that what wraps does not fault */
	put32(g, PD32 + 4 * (ALIAS >> 22), (uint32_t)(PT | P | W | U));
	s->gdtr = (struct x86_dtable){ GDT_AT, sizeof(gdt) - 1 };
	s->idtr = (struct x86_dtable){ IDT_AT, 2047 };
	s->seg[SEG_TR] = (struct x86_segment){ .base = TSS, .limit = 103, .selector = 0x30, .attr = 0x8b };
	s->cr4 |= CR4_PSE;
	s->cr3 = PD32;
	s->cr0 |= CR0_PG | CR0_WP;
}

static void place(struct guest *g, uint64_t seed, bool m32)
{
	struct rng r = { seed };
	struct code c = { .m32 = m32 };
	struct x86_state *s = &g->cpus[0].s;

	for (uint64_t at = 0; at < GUEST_RAM; at += 4096) {
		static const uint8_t zero[4096];

		if (memcmp(mem_ram_base(g->machine.mem) + at, zero, 4096))
			guest_load(g, at, zero, 4096); /* tells of code that is gone */
	}
	if (m32) {
		guest_protected(g, 0);
		tables32(g);
		guest_load(g, STUB, stub32, (uint64_t)(stub32_end - stub32));
	} else {
		guest_long(g, 0);
		tables(g);
		guest_load(g, STUB, stub, (uint64_t)(stub_end - stub));
	}
	generate(&r, &c, &g->model);
	guest_load(g, CODE, c.b, PAGES * 4096);
	put64(g, VARS, ROUNDS);
	put64(g, VARS + 8, rng(&r));
	s->cr0 = (s->cr0 & ~(CR0_EM | CR0_TS)) | CR0_NE | CR0_MP | (below(&r, 4) ? 0 : CR0_AM);
	s->cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
	s->xcr0 = g->model.xcr0_allowed;
	s->mxcsr = 0x1f80;
	s->fpu.cw = 0x37f;
	s->rip = STUB;
	s->activity = ACTIVITY_RUN;
	engine_verify.state_set(&g->cpus[0]);
}

struct ticker {
	struct cpu *c;
	_Atomic bool end;
};

static void *tick(void *opaque)
{
	struct ticker *t = opaque;

	while (!atomic_load(&t->end)) {
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
		cpu_notify(t->c, ATT_CALLER);
	}
	return NULL;
}

/* False: the engines differ. */
static bool run_case(struct guest *g, uint64_t seed, bool m32)
{
	struct cpu *c = &g->cpus[0];

	place(g, seed, m32);
	for (unsigned kicks = 0; kicks < KICKS;) {
		enum cpu_stop why;

		atomic_store(&c->run_state, CPU_RUNNING);
		why = guest_run(g, 0);
		atomic_store(&c->run_state, CPU_READY);
		atomic_fetch_and(&c->attention, ~(uint32_t)ATT_CALLER);
		if (why == STOP_ERROR)
			return false;
		if (why == STOP_SHUTDOWN || (why == STOP_HLT && c->s.rip - STUB < 4096))
			break;
		kicks += why == STOP_KICK;
		c->s.activity = ACTIVITY_RUN;
		if (why == STOP_KICK && kicks % 3 == 0 && c->s.rip - STUB >= 4096)
			c->s.rflags |= FLAG_TF; /* out of a loop: a single step ends in the stub */
	}
	return true;
}

static void take_counter(void *opaque, const char *name, uint64_t value)
{
	if (!strcmp(name, "verify.instructions"))
		*(uint64_t *)opaque = value;
}

/*
 * Code that writes over the stub may change the aliases' table without INVLPG after it. What the engines see through them then is
 * theirs to choose, and a difference says nothing.
 */
static bool stub_whole(struct guest *g, bool m32)
{
	const uint8_t *from = m32 ? stub32 : stub, *end = m32 ? stub32_end : stub_end;

	return !memcmp(mem_ram_base(g->machine.mem) + STUB, from, (size_t)(end - from));
}

struct run {
	uint64_t seed, count, done, insns, destroyed;
	bool verbose, avx512, m32, good;
};

/* In one machine: all cases, or until its engines differ. */
static int run_machine(struct run *r)
{
	struct ticker t = { 0 };
	uint64_t insns = 0;
	pthread_t thread;
	struct guest g;
	struct err e = { 0 };

	if (guest_create_as(&g, 1, &engine_verify, r->avx512 ? "v4" : "v3", &e)) {
		fprintf(stderr, "verify-random: %s\n", e.text);
		return r->avx512 ? 77 : 2; /* skipped: this host has no AVX-512 */
	}
	t.c = &g.cpus[0];
	if (pthread_create(&thread, NULL, tick, &t))
		return 2;
	for (bool same = true; r->done < r->count && same; r->done++) {
		if (r->verbose)
			fprintf(stderr, "case %llu\n", (unsigned long long)(r->seed + r->done));
		same = run_case(&g, r->seed + r->done, r->m32);
		if (!same && !stub_whole(&g, r->m32))
			r->destroyed++;
		else if (!same)
			r->good = false;
	}
	atomic_store(&t.end, true);
	pthread_join(thread, NULL);
	engine_verify.stats(&g.machine, take_counter, &insns);
	r->insns += insns;
	guest_destroy(&g);
	return 0;
}

int main(int argc, char **argv)
{
	struct run r = { .seed = 1, .count = 100, .good = true };
	int status = 0;

	for (int k = 1; k < argc; k++) {
		if (!strcmp(argv[k], "--verbose"))
			r.verbose = true;
		else if (!strcmp(argv[k], "--avx512"))
			r.avx512 = true;
		else if (!strcmp(argv[k], "--protected"))
			r.m32 = true;
		else if (!strcmp(argv[k], "--seed") && k + 1 < argc)
			r.seed = strtoull(argv[++k], NULL, 0);
		else if (!strcmp(argv[k], "--count") && k + 1 < argc)
			r.count = strtoull(argv[++k], NULL, 0);
		else
			return fprintf(stderr, "verify-random: unknown option %s\n", argv[k]), 2;
	}
	while (r.good && r.done < r.count && !status)
		status = run_machine(&r);
	if (status)
		return status;
	if (!r.good)
		printf("differs: verify-random%s --seed %llu --count 1\n", r.m32 ? " --protected" : "",
		       (unsigned long long)(r.seed + r.done - 1));
	printf("%llu cases, %llu instructions compared; in %llu they differ after the guest destroyed its own stub\n",
	       (unsigned long long)r.done, (unsigned long long)r.insns, (unsigned long long)r.destroyed);
	/* so that this is no way to let everything pass */
	return !r.good || r.destroyed > 2 + r.done / 100;
}
