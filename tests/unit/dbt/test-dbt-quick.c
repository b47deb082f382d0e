/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instructions that the translator does in C of its own (quick-*.c, far.c) against the interpreter: random programs of them,
 * made from a seed, leave the same registers and memory in both.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "../interp/guest.h"
#include "engine/dbt/dbt.h"

#define IMAGES 0x50000ull /* 32 of 8 KiB */
#define IMAGE_STEP 0x2000u
#define NIMAGES 32u

/* Across the end of a page here and there. */
static uint32_t image_at(unsigned n)
{
	return (uint32_t)IMAGES + IMAGE_STEP * n + 0x1000 - 64 * (n * 7 % 50);
}

struct code {
	uint8_t byte[4096];
	unsigned n;
	uint64_t seed;
};

static unsigned roll(struct code *k, unsigned sides)
{
	k->seed = k->seed * 6364136223846793005ull + 1442695040888963407ull;
	return (unsigned)(k->seed >> 33) % sides;
}

static void put(struct code *k, const char *bytes, unsigned n)
{
	assert_true(k->n + n <= sizeof(k->byte));
	memcpy(k->byte + k->n, bytes, n);
	k->n += n;
}
#define PUT(k, bytes) put(k, bytes, sizeof(bytes) - 1)

static void put32(struct code *k, uint32_t v)
{
	put(k, (const char *)&v, 4);
}

/* op [rbx], of 0f NN /digit */
static void family(struct code *k, uint8_t opcode, unsigned digit, bool wide)
{
	if (wide)
		PUT(k, "\x48");
	PUT(k, "\x0f");
	put(k, (const char *)&opcode, 1);
	put(k, (const char[]){ (char)(digit << 3 | 3) }, 1);
}

/* Something that changes the registers to be saved. */
static void disturb(struct code *k, const struct cpuid_model *m)
{
	static const char *const x87[] = { "\xd9\xe8", "\xdb\xe3", "\xdd\xd8", "\xd9\xeb", "\xde\xc1", "\x0f\x77", "\xd9\xff" };
	const unsigned a = roll(k, 8), b = roll(k, 8);

	switch (roll(k, 9)) {
	case 0:
		put(k, x87[roll(k, ARRAY_LEN(x87))], 2);
		break;
	case 1: /* paddq xmm, xmm */
		put(k, (const char[]){ 0x66, 0x0f, (char)0xd4, (char)(0xc0 | a << 3 | b) }, 4);
		break;
	case 2: /* pxor */
		put(k, (const char[]){ 0x66, 0x0f, (char)0xef, (char)(0xc0 | a << 3 | a) }, 4);
		break;
	case 3: /* vpxor ymm */
		if (m->has_avx2)
			put(k, (const char[]){ (char)0xc5, (char)(0x85 | (~a & 7) << 3), (char)0xef, (char)(0xc0 | a << 3 | b) }, 4);
		break;
	case 4:
		if (m->has_avx)
			put(k, roll(k, 4) ? "\xc5\xf8\x77" : "\xc5\xfc\x77", 3); /* vzeroupper, vzeroall */
		break;
	case 5: /* ldmxcsr [rsp]: exceptions stay masked */
		PUT(k, "\xc7\x04\x24");
		put32(k, 0x1f80u | roll(k, 64) | roll(k, 4) << 13 | roll(k, 2) << 15);
		PUT(k, "\x0f\xae\x14\x24");
		break;
	case 6: /* vmovdqu64 zmm16 + a, [rbx - 64], and back */
		if (m->has_avx512) {
			put(k, (const char[]){ 0x62, (char)0xe1, (char)0xfe, 0x48, 0x6f, (char)(0x43 | a << 3), (char)-1 }, 7);
			put(k, (const char[]){ 0x62, (char)0xe1, (char)0xfe, 0x48, 0x7f, (char)(0x43 | b << 3), 1 }, 7);
		}
		break;
	case 7: /* kmovq k, rcx */
		if (m->has_avx512)
			put(k, (const char[]){ (char)0xc4, (char)0xe1, (char)0xfb, (char)0x92, (char)(0xc1 | a << 3) }, 5);
		break;
	default: /* vpternlogq zmm16+: all zeros or ones */
		if (m->has_avx512)
			put(k, (const char[]){ 0x62, (char)0xa3, (char)0xfd, 0x40, 0x25, (char)(0xc0 | a << 3 | b),
					       (char)(roll(k, 2) - 1) }, 7);
		break;
	}
}

static void xsaves(struct code *k, const struct cpuid_model *m)
{
	const uint32_t all = (uint32_t)m->xcr0_allowed;

	*k = (struct code){ .seed = k->seed };
	PUT(k, "\xb9"); /* mov ecx */
	put32(k, roll(k, 2) * 0x1234567u);
	for (unsigned steps = 40; steps; steps--) {
		bool wide = roll(k, 2);
		uint32_t mask = roll(k, 3) ? 0xffffffffu : roll(k, 256);

		PUT(k, "\xbb"); /* mov ebx, edx, eax */
		put32(k, image_at(roll(k, NIMAGES)) + (roll(k, 500) ? 0 : 8));
		PUT(k, "\xba");
		put32(k, roll(k, 2) ? 0xffffffffu : 0);
		PUT(k, "\xb8");
		put32(k, mask & (roll(k, 2) ? all : 0xffffffffu));
		switch (roll(k, 10)) {
		case 0: /* xsave */
			family(k, 0xae, 4, wide);
			break;
		case 1:
		case 2:
			family(k, 0xae, 6, wide); /* xsaveopt */
			break;
		case 3:
		case 4:
			family(k, 0xc7, 4, wide); /* xsavec */
			break;
		case 5:
			family(k, 0xc7, 5, wide); /* xsaves */
			break;
		case 6:
		case 7:
			family(k, 0xae, 4, wide); /* there and back: xrstor */
			disturb(k, m);
			PUT(k, "\xb8\xff\xff\xff\xff");
			family(k, 0xae, 5, wide);
			break;
		case 8:
			family(k, 0xc7, 5, wide);
			disturb(k, m);
			family(k, 0xc7, 3, wide); /* xrstors */
			break;
		default:
			family(k, 0xae, 5, wide); /* whatever lies there: faults, now and then */
			break;
		}
		/* no exceptions of the x87: what it points at then only the interpreter remembers. fnclex; fldcw [rsp] */
		PUT(k, "\xdb\xe2\xc7\x04\x24\x7f\x03\0\0\xd9\x2c\x24");
		for (unsigned n = roll(k, 4); n; n--)
			disturb(k, m);
	}
	PUT(k, "\xf4");
}

static void start(struct guest *g, const struct engine_ops *engine, const char *model, const struct code *k)
{
	struct err e;
	struct cpu *c;
	uint64_t v = 88172645463325252ull;
	uint8_t *ram;

	assert_int_equal(guest_create_as(g, 1, engine, model, &e), 0);
	c = &g->cpus[0];
	guest_long(g, 0);
	c->s.cr0 = (c->s.cr0 & ~(CR0_EM | CR0_TS)) | CR0_NE | CR0_MP;
	c->s.cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
	c->s.xcr0 = g->model.xcr0_allowed;
	c->s.mxcsr = 0x1f80;
	c->s.fpu.cw = 0x37f;
	engine->state_set(c);
	ram = mem_ram_base(g->machine.mem);
	for (uint64_t at = IMAGES; at < IMAGES + NIMAGES * IMAGE_STEP; at += 8) {
		v ^= v << 13;
		v ^= v >> 7;
		v ^= v << 17;
		memcpy(ram + at, &v, 8);
	}
	for (unsigned n = 0; n < NIMAGES; n++) { /* which can be restored */
		memset(ram + image_at(n) + 24, 0, 4);
		memset(ram + image_at(n) + 512, 0, 64);
	}
	guest_load(g, GUEST_CODE, k->byte, k->n);
}

static void run(const struct engine_ops *engine, const char *model, const struct code *k, struct x86_state *s, uint8_t *images)
{
	struct guest g;

	start(&g, engine, model, k);
	assert_int_equal(guest_run(&g, 0), STOP_HLT);
	engine->state_get(&g.cpus[0]);
	*s = g.cpus[0].s;
	guest_read(&g, IMAGES, images, NIMAGES * IMAGE_STEP);
	if (engine == &engine_dbt)
		assert_true(g.cpus[0].s.rip != GUEST_CODE);
	guest_destroy(&g);
}

static void same(const struct x86_state *want, const struct x86_state *got)
{
	assert_memory_equal(want->gpr, got->gpr, sizeof(want->gpr));
	assert_int_equal(want->rip, got->rip);
	assert_int_equal(want->mxcsr, got->mxcsr);
	assert_memory_equal(want->v, got->v, sizeof(want->v));
	assert_memory_equal(want->k, got->k, sizeof(want->k));
	assert_int_equal(want->fpu.cw, got->fpu.cw);
	assert_int_equal(want->fpu.sw, got->fpu.sw);
	assert_int_equal(want->fpu.tag, got->fpu.tag);
	assert_memory_equal(want->fpu.reg, got->fpu.reg, sizeof(want->fpu.reg));
}

static void xsave_with(const char *model)
{
	static uint8_t images[2][NIMAGES * IMAGE_STEP];
	struct code k = { .seed = 1 };
	struct x86_state want, got;
	struct cpuid_model m;
	struct err e;

	if (cpuid_build(&m, model, 1, 1000000, &e))
		return; /* not on this host */
	for (unsigned n = 0; n < 60; n++) {
		xsaves(&k, &m);
		run(&engine_interp, model, &k, &want, images[0]);
		run(&engine_dbt, model, &k, &got, images[1]);
		same(&want, &got);
		assert_memory_equal(images[0], images[1], sizeof(images[0]));
	}
}

#define PROGRAM(name, code) \
	extern const uint8_t name[], name##_end[]; \
	__asm__(".pushsection .rodata\n.global " #name ", " #name "_end\n" #name ":\n.intel_syntax noprefix\n" code \
		"\n.att_syntax\n" #name "_end:\n.popsection\n")

/*
 * Page faults whose handler goes on at rbx: reads, writes, both, vectors, in loops with exchanged registers, with flags and vector
 * registers alive, several accesses checked at once.
 */
PROGRAM(prog_faults, "mov ebx, 0x1010e0\n lea rax, [rip+9f]\n mov [rbx], ax\n shr eax, 16\n mov [rbx+6], ax\n"
		     "mov ecx, 40\n cvtsi2sd xmm1, ecx\n movsd xmm2, xmm1\n mov r12, 0x7000000000\n"
		     "1: mov r13, r12\n mov r14d, ecx\n mov r15d, 9\n"
		     "2: lea rbx, [rip+3f]\n mov [r13+r14*8], r15\n 3: add r14, 5\n lea r13, [r13+r14]\n dec r15\n jnz 2b\n"
		     "lea rbx, [rip+3f]\n add rax, r14\n adc rdx, [r12+rcx]\n 3: adc rdx, 3\n setc al\n"
		     "lea rbx, [rip+3f]\n stc\n lock adc [r12], rcx\n 3: sbb rdx, 0\n"
		     "addsd xmm1, xmm2\n lea rbx, [rip+3f]\n addsd xmm1, [r12+8]\n 3: addsd xmm2, xmm1\n"
		     "lea rbx, [rip+3f]\n movaps xmm1, [r12+16]\n 3: lea rbx, [rip+3f]\n mov r9, [r12+24]\n mov r10, [r12+32]\n"
		     "mov [r12+40], r9\n 3: lea rbx, [rip+3f]\n call [r12]\n 3: mov r8, rsi\n mov rsi, r12\n lea rbx, [rip+3f]\n movsq\n 3: add rsi, r8\n dec ecx\n jnz 1b\n"
		     "cvttsd2si r11, xmm2\n hlt\n"
		     "9: pop rax\n shl rsi, 1\n lea rsi, [rsi+rax]\n mov rax, cr2\n add rdi, rax\n xor rdi, rsp\n mov [rsp], rbx\n iretq\n");

/* A large page that leads to one of two places, with data and code; INVLPG tells. Bases by MSR, the last of them no address. */
PROGRAM(prog_remap, "mov dword ptr [0x400008], 3\n mov dword ptr [0x600008], 5\n mov rax, 0xc300000007b8\n mov [0x400010], rax\n"
		    "mov rax, 0xc300000009b8\n mov [0x600010], rax\n mov ebx, 0x104000\n mov r12d, 50\n mov r13d, 0x400087\n"
		    "mov r9d, 0x200000\n mov r10d, 0x400010\n"
		    "1: xor r13, r9\n cmp r13d, 0x200087\n cmovz r13, r9\n cmovz r13, [rip+8f]\n mov [rbx+16], r13\n cmp r12, r13\n"
		    "invlpg [0x401234]\n adc r14, [0x400008]\n call r10\n add r15, rax\n dec r12d\n jnz 1b\n"
		    "mov ecx, 0xc0000100\n mov eax, 0x400000\n xor edx, edx\n wrmsr\n mov rsi, fs:[8]\n mov eax, 0x600000\n wrmsr\n"
		    "add rsi, fs:[8]\n inc ecx\n wrmsr\n add rsi, gs:[8]\n inc ecx\n sub eax, 8\n wrmsr\n swapgs\n add rsi, gs:[16]\n"
		    "mov edx, 0xffff8000\n wrmsr\n dec ecx\n wrmsr\n mov edx, 0x8000\n wrmsr\n hlt\n 8: .quad 0x400087\n");

static uint64_t both(const uint8_t *code, const uint8_t *end, struct x86_state s[2])
{
	uint64_t quick = 0;

	for (unsigned n = 0; n < 2; n++) {
		const struct engine_ops *engine = n ? &engine_dbt : &engine_interp;
		struct code k = { .seed = 1 };
		struct guest g;

		put(&k, (const char *)code, (unsigned)(end - code));
		start(&g, engine, "v3", &k);
		assert_int_equal(guest_run(&g, 0), STOP_HLT);
		engine->state_get(&g.cpus[0]);
		s[n] = g.cpus[0].s;
		if (n)
			quick = dbt_cpu(&g.cpus[0])->counters.quick_faults;
		guest_destroy(&g);
	}
	same(&s[0], &s[1]);
	return quick;
}

static void faults(void **state)
{
	struct x86_state s[2];

	assert_true(both(prog_faults, prog_faults_end, s) > 300);
	assert_int_equal(s[1].gpr[RCX], 0);
}

static void remap(void **state)
{
	struct x86_state s[2];

	both(prog_remap, prog_remap_end, s);
	assert_int_equal(s[1].gpr[R15], 25 * 7 + 25 * 9);
	assert_int_equal(s[1].gpr[RSI], 3 + 5 + 5 + 5);
	assert_true(s[1].rip >> 4 == (GUEST_FAULTS >> 4) + VEC_GP);
	assert_true(s[1].kernel_gs_base == s[0].kernel_gs_base && s[1].seg[SEG_GS].base == s[0].seg[SEG_GS].base);
}

/* A port that gives and takes a sequence, as many at once as it likes, and now and then has the CPU look up. */
struct sequence {
	struct cpu *c;
	uint64_t given, taken, hash;
};

static uint64_t sequence_read(void *opaque, uint64_t offset, unsigned size)
{
	struct sequence *q = opaque;
	uint64_t v = ++q->given * 0x9e3779b97f4a7c15ull;

	if (!(q->given % 97))
		cpu_notify(q->c, ATT_IRQ);
	return v >> 32 & (~0ull >> (64 - 8 * size));
}

static void sequence_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
	struct sequence *q = opaque;

	q->hash = (q->hash ^ value ^ size) * 0x9e3779b97f4a7c15ull;
	if (!(++q->taken % 89))
		cpu_notify(q->c, ATT_IRQ);
}

static unsigned sequence_read_many(void *opaque, uint64_t offset, unsigned size, void *buf, unsigned count)
{
	struct sequence *q = opaque;
	unsigned n = MIN(count, (unsigned)(q->given * 7 % 50));

	for (unsigned k = 0; k < n; k++) {
		uint64_t v = sequence_read(q, offset, size);

		memcpy((uint8_t *)buf + k * size, &v, size);
	}
	return n;
}

static unsigned sequence_write_many(void *opaque, uint64_t offset, unsigned size, const void *buf, unsigned count)
{
	struct sequence *q = opaque;
	unsigned n = MIN(count, (unsigned)(q->taken * 7 % 50));

	for (unsigned k = 0; k < n; k++) {
		uint64_t v = 0;

		memcpy(&v, (const uint8_t *)buf + k * size, size);
		sequence_write(q, offset, v, size);
	}
	return n;
}

/* Over page ends at odd places, backwards, of no length, and into a page that is not there. */
PROGRAM(prog_ports, "mov dx, 0x333\n mov edi, 0x20ff1\n mov ecx, 3000\n rep insw\n mov ecx, 5000\n rep insb\n mov ecx, 1500\n rep insd\n"
		    "xor ecx, ecx\n rep insb\n insw\n mov esi, 0x20ff3\n mov ecx, 3000\n rep outsw\n mov ecx, 4999\n rep outsb\n"
		    "mov ecx, 1501\n rep outsd\n outsb\n std\n mov ecx, 40\n rep insw\n mov ecx, 33\n rep outsd\n cld\n"
		    "mov rbx, rdi\n mov edi, 0xfff001\n mov ecx, 5000\n rep insw\n hlt\n");

static void ports(void **state)
{
	static const struct io_ops single = { .read = sequence_read, .write = sequence_write, .min = 1, .max = 4 };
	static const struct io_ops many = { .read = sequence_read, .write = sequence_write, .min = 1, .max = 4,
					    .read_many = sequence_read_many, .write_many = sequence_write_many };
	static uint8_t memory[2][0x10000];
	struct x86_state s[2];
	struct sequence q[2];

	for (unsigned n = 0; n < 4; n++) {
		struct code k = { .seed = 1 };
		unsigned at = n != 0;
		struct guest g;
		struct err e;

		put(&k, (const char *)prog_ports, (unsigned)(prog_ports_end - prog_ports));
		start(&g, n & 2 ? &engine_dbt : &engine_interp, "v3", &k);
		q[at] = (struct sequence){ .c = &g.cpus[0] };
		assert_int_equal(ports_map(g.machine.ports, 0x333, 4, n & 1 ? &many : &single, &q[at], "sequence", &e), 0);
		assert_int_equal(guest_run(&g, 0), STOP_HLT);
		g.machine.engine->state_get(&g.cpus[0]);
		s[at] = g.cpus[0].s;
		guest_read(&g, GUEST_DATA, memory[at], sizeof(memory[at]));
		assert_int_equal(guest_vector(&g, 0), VEC_PF);
		guest_destroy(&g);
		if (!n)
			continue;
		same(&s[0], &s[1]);
		assert_int_equal(q[0].given, q[1].given);
		assert_int_equal(q[0].taken, q[1].taken);
		assert_true(q[0].hash == q[1].hash);
		assert_memory_equal(memory[0], memory[1], sizeof(memory[0]));
	}
	assert_int_equal(s[1].gpr[RCX], 5000 - 0xfff / 2);
}

/* What --stats counts: blocks executed, the accesses in them, and what of it missed. */
PROGRAM(prog_counted, "mov ecx, 1000\n mov ebx, 0x20000\n cmp ecx, 5\n 1: mov rax, [rbx]\n adc [rbx+0x2000], rax\n push rax\n pop rax\n dec ecx\n jnz 1b\n"
		      "mov ebx, 0x400000\n mov ecx, 7\n 2: mov rax, [rbx]\n add rbx, 4096\n dec ecx\n jnz 2b\n hlt\n");

struct counted {
	uint64_t run, accesses, slow, million;
};

static void counted_line(void *opaque, const char *name, uint64_t value)
{
	struct counted *k = opaque;

	k->run = !strcmp(name, "dbt.blocks_run") ? value : k->run;
	k->accesses = !strcmp(name, "dbt.accesses") ? value : k->accesses;
	k->slow = !strcmp(name, "dbt.slow_paths") ? value : k->slow;
	k->million = !strcmp(name, "dbt.tlb_misses_per_million") ? value : k->million;
}

static void counted(void **state)
{
	struct counted n = { 0 };
	struct code k = { .seed = 1 };
	struct guest g;

	put(&k, (const char *)prog_counted, (unsigned)(prog_counted_end - prog_counted));
	start(&g, &engine_dbt, "v3", &k);
	g.machine.sample = true;
	assert_int_equal(guest_run(&g, 0), STOP_HLT);
	engine_dbt.stats(&g.machine, counted_line, &n);
	assert_in_range(n.run, 1000, 1012);
	assert_in_range(n.accesses, 4007, 6000); /* side exits are not known of */
	assert_in_range(n.slow, 9, 12);
	assert_int_equal(n.million, n.slow * 1000000 / n.accesses);
	guest_destroy(&g);
}

static void xsave(void **state)
{
	xsave_with("v2");
	xsave_with("v3");
	xsave_with("v4");
	xsave_with("host");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(xsave),
		cmocka_unit_test(faults),
		cmocka_unit_test(remap),
		cmocka_unit_test(ports),
		cmocka_unit_test(counted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
