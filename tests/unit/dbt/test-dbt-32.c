/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The translator against the interpreter in 32-bit code: programs written here, in flat segments with and without paging, must
 * leave the same registers and memory in both, and must have been translated.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "../interp/guest.h"
#include "engine/dbt/dbt.h"

#define PROGRAM(name, code) \
	extern const uint8_t name[], name##_end[]; \
	__asm__(".pushsection .rodata\n.global " #name ", " #name "_end\n" #name ":\n.code32\n.intel_syntax noprefix\n" code \
		"\n.att_syntax\n.code64\n" #name "_end:\n.popsection\n")

/* Descriptors: code, data, data from 0x1000 on, data that begins 4 KiB below the end, a short one. */
#define TABLES \
	"mov ebx, 0x5000\n mov dword ptr [ebx+8], 0xffff\n mov dword ptr [ebx+12], 0xcf9b00\n mov dword ptr [ebx+16], 0xffff\n" \
	"mov dword ptr [ebx+20], 0xcf9300\n mov dword ptr [ebx+24], 0x1000ffff\n mov dword ptr [ebx+28], 0xcf9300\n" \
	"mov dword ptr [ebx+32], 0xf000ffff\n mov dword ptr [ebx+36], 0xffcf93ff\n mov dword ptr [ebx+40], 0x0fff\n" \
	"mov dword ptr [ebx+44], 0x409302\n mov word ptr [ebx+100], 63\n mov [ebx+102], ebx\n lgdt [ebx+100]\n"

/* Every kind of operand, what 64-bit code does not have, flags alive between. */
PROGRAM(prog_mixed, "mov ebx, 0x20000\n mov ecx, 700\n xor eax, eax\n mov edi, 0x1234567\n"
		    "1: inc eax\n imul edi, edi, 0x19660d\n add edi, 0x3c6ef35f\n add [ebx+ecx*4], edi\n mov edx, [ebx+8]\n adc eax, edx\n"
		    "sbb [ebx+16], eax\n dec edi\n push edi\n push 7\n push ebx\n pushfd\n pop edx\n and edx, 0x8d5\n add [ebx+24], edx\n"
		    "pop ebx\n pop edx\n adc edx, [esp]\n pop esi\n pusha\n mov [esp+28], edx\n popa\n call 3f\n mov [0x20040], eax\n"
		    "mov edx, eax\n mov al, byte ptr [0x20041]\n mov word ptr [0x20044], ax\n xchg dh, [ebx+3]\n add ah, [ebx+5]\n"
		    "daa\n aam\n cmc\n adc bh, 0\n mov bh, 0\n bt [ebx], edi\n rcl edx, 3\n shld edx, edi, 7\n lea esi, [edx+edi*4+0x7ffffff0]\n"
		    "xadd [ebx+40], esi\n setc dl\n movzx esi, dl\n cmovs esi, edi\n bswap edi\n push ax\n pop dx\n"
		    "enter 16, 0\n mov [ebp-8], edi\n add [ebp-12], esi\n leave\n mov esi, ebx\n lodsd\n scasb\n cmp eax, edx\n"
		    "mov edi, eax\n loop 8f\n jecxz 2f\n hlt\n 8: jmp 1b\n 2: mov esi, [ebx]\n setl al\n hlt\n"
		    "3: cmp eax, edi\n mov edi, [esp+4]\n jb 4f\n rol eax, 5\n 4: stc\n pushfd\n adc eax, 0\n popfd\n mov edi, eax\n"
		    "and edi, 0xfff\n add edi, 0x21000\n ret\n");

/* Strings at page ends, alone and repeated, backwards, and compared. */
PROGRAM(prog_strings, "mov ebp, 600\n mov edx, 0x89abcdef\n"
		      "1: imul edx, edx, 0x19660d\n add edx, 0x3c6ef35f\n mov ecx, edx\n shr ecx, 20\n lea esi, [ecx+0x20000]\n mov ecx, edx\n"
		      "shr ecx, 7\n and ecx, 8191\n lea edi, [ecx+0x20800]\n movzx ecx, dl\n mov eax, edx\n mov ebx, edi\n cmp edx, ecx\n rep stosb\n"
		      "adc eax, esi\n mov ecx, ebp\n and ecx, 63\n rep movsd\n movsb\n stosw\n lodsb\n xor [ebx], al\n lodsw\n scasd\n cmpsb\n"
		      "cmpsw\n adc dl, 0\n mov edi, ebx\n lea esi, [ebx-3]\n mov ecx, 300\n rep movsb\n mov al, 0\n mov ecx, 5000\n repne scasb\n"
		      "add eax, ecx\n mov ecx, 40\n repe cmpsb\n setc al\n add [0x24000], eax\n std\n lea edi, [ebx+64]\n mov ecx, 9\n"
		      "rep movsw\n lodsd\n scasb\n cld\n add edx, edi\n add edx, esi\n dec ebp\n jnz 1b\n hlt\n");

/* FS and GS with bases, one short; DS reloaded within a block, with another base and back. */
PROGRAM(prog_segments, TABLES "mov eax, 0x18\n mov fs, eax\n mov eax, 0x20\n mov gs, eax\n mov ecx, 300\n mov edi, 0x20000\n"
		       "1: mov fs:[edi], ecx\n add eax, [edi+0x1000]\n add dword ptr gs:[ecx*4+0x21000], eax\n mov edx, 0x18\n push ds\n"
		       "mov ds, edx\n mov [edi+4], eax\n add ebx, [edi+4]\n pop ds\n add ebx, [edi+0x1004]\n mov edx, 0x28\n mov gs, edx\n"
		       "mov gs:[ecx], cl\n add ebx, gs:[8]\n mov edx, 0x20\n mov gs, edx\n mov es, edx\n stosd\n mov edx, ds\n mov es, edx\n"
		       "loop 1b\n hlt\n");

/* 4 MiB pages, the last of which is RAM: registers and stack step round the end, near it and in accesses that share a check. */
PROGRAM(prog_wrap, "mov edi, 0x100000\n mov eax, 0x83\n mov ecx, 4\n 1: stosd\n add eax, 0x400000\n loop 1b\n mov dword ptr [0x100ffc], 0xc00083\n"
		   "mov eax, cr4\n or eax, 0x10\n mov cr4, eax\n mov eax, 0x100000\n mov cr3, eax\n mov eax, cr0\n or eax, 0x80000000\n"
		   "mov cr0, eax\n mov edx, esp\n mov ebx, 200\n"
		   "2: mov ebp, 0xfffffff0\n mov [ebp], ebx\n add ebp, 0x18\n mov eax, [ebp-0x18]\n add [ebp-0x14], eax\n add ebp, 4\n"
		   "mov [ebp-0x10], eax\n lea ecx, [ebp-0x20]\n add eax, [ecx+4]\n add [ecx], eax\n mov esp, 0x10\n push eax\n push ebx\n push 5\n"
		   "push 6\n push ebp\n push eax\n add eax, [esp+20]\n pop ecx\n pop esi\n pop esi\n pop ecx\n pop ecx\n sub [esp], eax\n pop eax\n"
		   "mov esp, 8\n call 3f\n mov ecx, ebx\n mov eax, [ebp+ecx*4-0x20]\n xor [ebp+ecx*8-0x40], eax\n mov esi, 0xffffff00\n"
		   "mov edi, 0xfffffe00\n mov ecx, 64\n rep movsd\n stosb\n mov edi, 0xfffffffc\n stosd\n mov [edi+4], eax\n dec ebx\n jnz 2b\n"
		   "mov esp, edx\n hlt\n 3: push ebp\n mov ebp, esp\n add eax, [ebp+4]\n sub esp, 16\n mov [ebp-4], eax\n mov [ebp-12], ebx\n leave\n ret\n");

/* Rewrites an instruction ahead of it in its block, and one in another page. */
PROGRAM(prog_smc, "mov ecx, 500\n xor eax, eax\n 0: mov [0x10041], ecx\n jmp 1f\n .skip 64-(.-prog_smc), 0x90\n"
		  "1: mov edx, 0x11111111\n add eax, edx\n mov [0x11001], ecx\n call 6f\n"
		  "imul eax, eax, 3\n dec ecx\n jnz 0b\n hlt\n .skip 4096-(.-prog_smc), 0x90\n 6: mov edx, 0x22222222\n add eax, edx\n ret\n");

PROGRAM(prog_fp, "mov ebx, 0x20000\n mov ecx, 100\n fld1\n cvtsi2sd xmm0, ecx\n vxorpd ymm5, ymm5, ymm5\n"
		 "1: mov [ebx], ecx\n fild dword ptr [ebx]\n faddp\n fld st(0)\n fsqrt\n fstp qword ptr [ebx+8]\n movsd xmm1, [ebx+8]\n"
		 "addsd xmm0, xmm1\n vbroadcastsd ymm2, [ebx+8]\n vfmadd231pd ymm5, ymm2, [ebx+32]\n vmovupd [ebx+64], ymm5\n cvttsd2si edx, xmm0\n"
		 "add esi, edx\n movd edi, xmm0\n pinsrd xmm3, edi, 1\n movdqu [ebx+0xffa], xmm3\n andn eax, esi, edi\n rorx edi, eax, 7\n"
		 "add [ebx+32], edi\n dec ecx\n jnz 1b\n fstp tbyte ptr [ebx+128]\n hlt\n");

/*
 * Loads across page ends, by every kind of address, in pages one of which is mapped elsewhere (4 KiB pages at 4 MiB); by registers and
 * displacements whose sums go round the end of the address space.
 */
PROGRAM(prog_split, "mov edi, 0x100000\n mov eax, 0x83\n mov ecx, 4\n 1: stosd\n add eax, 0x400000\n loop 1b\n mov dword ptr [0x100ffc], 0xc00083\n"
		    "mov dword ptr [0x100004], 0x101003\n mov edi, 0x101000\n mov eax, 0x800003\n mov ecx, 7\n"
		    "1: stosd\n sub eax, 0x1000\n loop 1b\n mov ecx, 0x4000\n mov edi, 0x7f8000\n 1: imul eax, eax, 0x19660d\n"
		    "add eax, 0x3c6ef35f\n stosd\n loop 1b\n mov eax, cr4\n or eax, 0x210\n mov cr4, eax\n mov eax, 0x100000\n mov cr3, eax\n"
		    "mov eax, cr0\n or eax, 0x80000000\n mov cr0, eax\n mov edx, 100\n"
		    "2: mov ebx, 0x400fc1\n mov ecx, 63\n"
		    "3: mov eax, [ebx]\n add esi, eax\n adc esi, [ebx+0x2000]\n mov eax, 1\n add edi, [ebx+eax*8+0xff8]\n movzx eax, word ptr [ebx]\n"
		    "xor edi, eax\n push [ebx]\n pop eax\n ror eax, 3\n add esi, eax\n movups xmm0, [ebx]\n paddd xmm1, xmm0\n movq xmm2, [ebx+1]\n"
		    "pxor xmm1, xmm2\n fld qword ptr [ebx]\n fstp qword ptr [0x20000]\n cmp esi, [ebx]\n adc edi, 0\n"
		    "inc ebx\n dec ecx\n jnz 3b\n dec edx\n jnz 2b\n"
		    "mov edx, 100\n 4: mov ebx, 0xfffff000\n add esi, [ebx+0x10ffe]\n mov ecx, 0x10ffd\n adc edi, [ebx+ecx]\n mov ebx, 0xfff00000\n"
		    "adc esi, [ebx+0x500fff]\n movups xmm0, [ebx+0x110ff9]\n paddd xmm1, xmm0\n mov ebx, 0x2000\n adc edi, [ebx-3]\n mov ecx, -1\n"
		    "add esi, [ebx+ecx]\n dec edx\n jnz 4b\n movups [0x20010], xmm1\n hlt\n");

/*
 * A page mapped here and there, its entry dropped each time by another kind of address; then its frame of 4 MiB; and the page of the
 * code itself, which goes on in a copy that says something else.
 */
PROGRAM(prog_invlpg, "jmp 9f\n mov al, 3\n add esi, eax\n ror esi, 5\n ret\n 9:\n" TABLES
	"mov edi, 0x100000\n mov eax, 0x83\n mov ecx, 4\n 1: stosd\n add eax, 0x400000\n loop 1b\n"
	"mov dword ptr [0x100004], 0x101003\n mov dword ptr [0x100ffc], 0xc00083\n mov dword ptr [0x101008], 0x801003\n"
	"mov dword ptr [0x10101c], 0x10003\n mov esi, 0x10000\n mov edi, 0x11000\n mov ecx, 0x400\n rep movsd\n"
	"lea eax, [ebx+0xc000]\n mov byte ptr [eax+3], 7\n"
	"mov eax, 0x18\n mov fs, eax\n mov eax, cr4\n or eax, 0x10\n mov cr4, eax\n mov eax, 0x100000\n mov cr3, eax\n"
	"mov eax, cr0\n or eax, 0x80000000\n mov cr0, eax\n mov edx, 0x101000\n mov ecx, 400\n xor esi, esi\n"
	"2: xor dword ptr [edx+8], 0x3000\n invlpg [0x402000]\n add [0x402004], ecx\n adc esi, [0x402004]\n"
	"xor dword ptr [edx+8], 0x3000\n mov ebx, 0x401ff0\n cmp ecx, 100\n invlpg [ebx+0x10]\n adc [0x402008], esi\n add esi, [0x402004]\n"
	"xor dword ptr [edx+8], 0x3000\n mov ebx, 0xffffe000\n mov eax, 0x101\n invlpg [ebx+eax*4+0x403c00]\n adc esi, [0x402008]\n"
	"xor dword ptr [edx+8], 0x3000\n mov ebx, 0xfff02000\n invlpg [ebx+0x500000]\n adc esi, [0x402008]\n"
	"xor dword ptr [edx+8], 0x3000\n mov eax, 0x401000\n invlpg fs:[eax]\n adc esi, [0x402004]\n"
	"xor dword ptr [0x100ffc], 0x400000\n invlpg [0xffffffff]\n adc esi, [0xffc00000]\n mov [0xffc00004], esi\n dec ecx\n jnz 2b\n"
	"mov ecx, 60\n mov edi, 0x407002\n 5: xor dword ptr [edx+0x1c], 0x1000\n invlpg [edi]\n call edi\n dec ecx\n jnz 5b\n"
	"hlt\n");

struct outcome {
	struct x86_state s;
	uint8_t *memory;
	uint64_t blocks, helped, splits;
};

static struct outcome run_in(const struct engine_ops *engine, const uint8_t *code, const uint8_t *end)
{
	struct outcome o = { .memory = malloc(GUEST_RAM) };
	struct guest g;
	struct err e;
	struct cpu *c;

	assert_non_null(o.memory);
	assert_int_equal(guest_create(&g, 1, engine, &e), 0);
	guest_protected(&g, 0);
	c = &g.cpus[0];
	c->s.cr0 = (c->s.cr0 & ~(CR0_EM | CR0_TS)) | CR0_NE | CR0_MP;
	c->s.cr4 |= CR4_OSFXSR | CR4_OSXSAVE;
	c->s.xcr0 = 7;
	c->s.mxcsr = 0x1f80;
	c->s.fpu.cw = 0x37f;
	for (unsigned n = 0; n < 16; n++)
		c->s.gpr[n] |= n == RSP ? 0 : 0x1000ull * n;
	engine->state_set(c);
	guest_load(&g, GUEST_CODE, code, (uint64_t)(end - code));
	assert_int_equal(guest_run(&g, 0), STOP_HLT);
	engine->state_get(c);
	o.s = c->s;
	guest_read(&g, 0, o.memory, GUEST_RAM);
	if (engine == &engine_dbt) {
		o.blocks = dbt_of(c)->counters.blocks;
		o.helped = dbt_cpu(c)->counters.interp_helpers;
		o.splits = dbt_cpu(c)->counters.split_reads;
	}
	guest_destroy(&g);
	return o;
}

/* helped: how often at most the translator may call the interpreter */
static void compare(const uint8_t *code, const uint8_t *end, uint64_t helped)
{
	struct outcome want = run_in(&engine_interp, code, end), got = run_in(&engine_dbt, code, end);

	for (unsigned n = 0; n < 16; n++)
		assert_int_equal(want.s.gpr[n], got.s.gpr[n]);
	assert_int_equal(want.s.rip, got.s.rip);
	assert_int_equal(want.s.rflags, got.s.rflags);
	assert_memory_equal(want.s.seg, got.s.seg, sizeof(want.s.seg));
	for (unsigned n = 0; n < 8; n++)
		assert_memory_equal(want.s.v[n].b, got.s.v[n].b, 32);
	assert_int_equal(want.s.fpu.sw, got.s.fpu.sw);
	assert_memory_equal(want.memory, got.memory, GUEST_RAM);
	assert_in_range(got.blocks, 2, 10000);
	assert_in_range(got.helped, 0, helped);
	free(want.memory);
	free(got.memory);
}

static void mixed(void **state)
{
	compare(prog_mixed, prog_mixed_end, 700 * 12);
}

static void strings(void **state)
{
	compare(prog_strings, prog_strings_end, 600 * 14);
}

static void segments(void **state)
{
	compare(prog_segments, prog_segments_end, 300 * 16);
}

static void invlpg(void **state)
{
	compare(prog_invlpg, prog_invlpg_end, 500);
}

static void split_loads(void **state)
{
	struct outcome o = run_in(&engine_dbt, prog_split, prog_split_end);

	assert_true(o.splits > 500);
	free(o.memory);
	compare(prog_split, prog_split_end, 100000);
}

static void wrap(void **state)
{
	compare(prog_wrap, prog_wrap_end, 200 * 40);
}

static void self_modifying(void **state)
{
	compare(prog_smc, prog_smc_end, 500 * 4);
}

static void floating_point(void **state)
{
	compare(prog_fp, prog_fp_end, 500);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(mixed), cmocka_unit_test(strings), cmocka_unit_test(segments), cmocka_unit_test(wrap), cmocka_unit_test(split_loads), cmocka_unit_test(invlpg),
		cmocka_unit_test(self_modifying), cmocka_unit_test(floating_point),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
