/* SPDX-License-Identifier: Apache-2.0 */
/* The interpreter on a small machine: modes, faults, written code, pauses of repeated instructions,
 * atomicity. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "guest.h"
#include "x86/event.h"

static int setup(void **state)
{
	static struct guest g;
	struct err e = { 0 };

	*state = &g;
	return guest_create(&g, 2, &engine_interp, &e);
}
static int teardown(void **state)
{
	guest_destroy(*state);
	return 0;
}
#define LOAD(g, at, ...)                                                                           \
	guest_load(g, at, (const uint8_t[]){ __VA_ARGS__ }, sizeof((uint8_t[]){ __VA_ARGS__ }))

static void test_loop(void **state)
{
	struct guest *g = *state;
	struct cpu *c = &g->cpus[0];

	guest_long(g, 0);
	/* xor eax,eax; mov ecx,1000; l: add rax,rcx; dec ecx; jnz l; hlt */
	LOAD(g, GUEST_CODE, 0x31, 0xc0, 0xb9, 0xe8, 3, 0, 0, 0x48, 1, 0xc8, 0xff, 0xc9, 0x75, 0xf9,
	     0xf4);
	assert_int_equal(guest_run(g, 0), STOP_HLT);
	assert_int_equal(c->s.gpr[RAX], 500500);
	assert_int_equal(c->s.rip, GUEST_CODE + 15);
	assert_true(c->s.rflags & FLAG_ZF);
}

static void test_real_mode(void **state)
{
	struct guest *g = *state;
	struct cpu *c = &g->cpus[0];

	guest_real(g, 0);
	/* es=ds=2000h; rep stosb 5 x 'A'; lodsw; mov bx,ax; 79h+35h, daa, setc ah; mov dx,ax;
	   0305h, aad; mov bp,ax; call f; hlt; f: push 1234h; pop cx; ret */
	LOAD(g, GUEST_CODE, 0xb8, 0, 0x20, 0x8e, 0xc0, 0x8e, 0xd8, 0x31, 0xff, 0xb9, 5, 0, 0xb0,
	     0x41, 0xfc, 0xf3, 0xaa, 0x31, 0xf6, 0xad, 0x89, 0xc3, 0xb0, 0x79, 4, 0x35, 0x27, 0x0f,
	     0x92, 0xc4, 0x89, 0xc2, 0xb8, 5, 3, 0xd5, 0x0a, 0x89, 0xc5, 0xe8, 1, 0, 0xf4, 0x68,
	     0x34, 0x12, 0x59, 0xc3);
	assert_int_equal(guest_run(g, 0), STOP_HLT);
	assert_int_equal((uint16_t)c->s.gpr[RBX], 0x4141);
	assert_int_equal((uint16_t)c->s.gpr[RDX], 0x0114);
	assert_int_equal(c->s.gpr[RBP], 0x0023);
	assert_int_equal(c->s.gpr[RCX], 0x1234);
	assert_int_equal(c->s.gpr[RSI], 2);
	assert_int_equal(c->s.gpr[RDI], 5);
	assert_int_equal(c->s.gpr[RSP], 0x8000);
}

static void test_protected_mode(void **state)
{
	struct guest *g = *state;
	struct cpu *c = &g->cpus[0];

	guest_protected(g, 0);
	/* eax..edi = 1..7; pusha; clear two; popa; enter 16,2; mov ecx,esp; leave; push 77h; pop
	 * edx; hlt */
	LOAD(g, GUEST_CODE, 0xb8, 1, 0, 0, 0, 0xb9, 2, 0, 0, 0, 0xba, 3, 0, 0, 0, 0xbb, 4, 0, 0, 0,
	     0xbd, 5, 0, 0, 0, 0xbe, 6, 0, 0, 0, 0xbf, 7, 0, 0, 0, 0x60, 0x31, 0xc0, 0x31, 0xff,
	     0x61, 0xc8, 0x10, 0, 2, 0x89, 0xe1, 0xc9, 0x6a, 0x77, 0x5a, 0xf4);
	assert_int_equal(guest_run(g, 0), STOP_HLT);
	assert_int_equal(c->s.gpr[RAX], 1);
	assert_int_equal(c->s.gpr[RBX], 4);
	assert_int_equal(c->s.gpr[RBP], 5);
	assert_int_equal(c->s.gpr[RDI], 7);
	assert_int_equal(c->s.gpr[RCX], GUEST_STACK - 28);
	assert_int_equal(c->s.gpr[RDX], 0x77);
	assert_int_equal(c->s.gpr[RSP], GUEST_STACK);
}

static void test_faults(void **state)
{
	struct guest *g = *state;
	struct cpu *c = &g->cpus[0];
	uint64_t rip;

	guest_long(g, 0);
	/* xor ecx,ecx; mov eax,5; xor edx,edx; div ecx */
	LOAD(g, GUEST_CODE, 0x31, 0xc9, 0xb8, 5, 0, 0, 0, 0x31, 0xd2, 0xf7, 0xf1, 0xf4);
	assert_int_equal(guest_run(g, 0), STOP_HLT);
	assert_int_equal(guest_vector(g, 0), VEC_DE);
	guest_read(g, c->s.gpr[RSP], &rip, 8);
	assert_int_equal(rip, GUEST_CODE + 9);
	assert_int_equal(c->s.gpr[RAX], 5);

	guest_long(g, 0);
	LOAD(g, GUEST_CODE, 0x90, 0x0f, 0x0b); /* ud2 */
	assert_int_equal(guest_run(g, 0), STOP_HLT);
	assert_int_equal(guest_vector(g, 0), VEC_UD);

	guest_long(g, 0);
	LOAD(g, GUEST_CODE, 0xcc); /* int3: rip after it */
	assert_int_equal(guest_run(g, 0), STOP_HLT);
	assert_int_equal(guest_vector(g, 0), VEC_BP);
	guest_read(g, c->s.gpr[RSP], &rip, 8);
	assert_int_equal(rip, GUEST_CODE + 1);

	guest_long(g, 0);
	LOAD(g, GUEST_CODE, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0,
	     0x40); /* mov rax,[40000000h]: not mapped */
	assert_int_equal(guest_run(g, 0), STOP_HLT);
	assert_int_equal(guest_vector(g, 0), VEC_PF);
	assert_int_equal(c->s.cr2, 0x40000000);

	guest_long(g, 0); /* fifteen prefixes and an opcode */
	LOAD(g, GUEST_CODE, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
	     0x66, 0x66, 0x66, 0x90);
	assert_int_equal(guest_run(g, 0), STOP_HLT);
	assert_int_equal(guest_vector(g, 0), VEC_GP);

	guest_long(g, 0); /* push with a non-canonical stack pointer: #SS */
	c->s.gpr[RSP] = 0x8000000000000000;
	LOAD(g, GUEST_CODE, 0x50);
	c->s.idtr.limit = 0; /* the frame would go there too: only look at what is raised */
	assert_int_equal(guest_run(g, 0), STOP_SHUTDOWN);
}

/* Stores into the very next instructions take effect at once. */
static void test_written_code(void **state)
{
	struct guest *g = *state;
	struct cpu *c = &g->cpus[0];

	guest_long(g, 0);
	/* mov byte [p+1],7; p: mov al,1; mov bl,al; mov ecx,3; l: mov [q+1],cl; q: mov dl,0; shl
	   rsi,8; movzx edi,dl; or rsi,rdi; dec ecx; jnz l; hlt */
	LOAD(g, GUEST_CODE, 0xc6, 5, 1, 0, 0, 0, 7, 0xb0, 1, 0x88, 0xc3, 0xb9, 3, 0, 0, 0, 0x88,
	     0x0d, 1, 0, 0, 0, 0xb2, 0, 0x48, 0xc1, 0xe6, 8, 0x0f, 0xb6, 0xfa, 0x48, 9, 0xfe, 0xff,
	     0xc9, 0x75, 0xea, 0xf4);
	assert_int_equal(guest_run(g, 0), STOP_HLT);
	assert_int_equal(c->s.gpr[RBX] & 0xff, 7);
	assert_int_equal(c->s.gpr[RSI], 0x030201);
	/* and what a device writes */
	guest_long(g, 0);
	LOAD(g, GUEST_CODE, 0xb8, 1, 0, 0, 0, 0xf4);
	assert_int_equal(guest_run(g, 0), STOP_HLT);
	assert_int_equal(c->s.gpr[RAX], 1);
	LOAD(g, GUEST_CODE + 1, 2);
	c->s.rip = GUEST_CODE;
	c->s.activity = ACTIVITY_RUN;
	assert_int_equal(guest_run(g, 0), STOP_HLT);
	assert_int_equal(c->s.gpr[RAX], 2);
}

/* An instruction over a page's end, run twice, then changed on its second page. */
static void test_page_crossing(void **state)
{
	struct guest *g = *state;
	struct cpu *c = &g->cpus[0];

	for (unsigned k = 0; k < 3; k++) {
		guest_long(g, 0);
		if (k == 0)
			LOAD(g, GUEST_CODE + 0xffc, 0x48, 0xb8, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33,
			     0x22, 0x11, 0xf4);
		if (k == 2)
			LOAD(g, GUEST_CODE + 0x1005, 0x99);
		c->s.rip = GUEST_CODE + 0xffc;
		assert_int_equal(guest_run(g, 0), STOP_HLT);
		assert_int_equal(c->s.gpr[RAX], k < 2 ? 0x1122334455667788 : 0x9922334455667788);
	}
}

static void *notify_soon(void *opaque)
{
	struct cpu *c = opaque;

	usleep(100);
	cpu_notify(c, ATT_CALLER);
	return NULL;
}

/* A long REP is left when asked and goes on from where it was. */
static void test_rep_pauses(void **state)
{
	struct guest *g = *state;
	struct cpu *c = &g->cpus[0];
	enum cpu_stop stop;
	unsigned pauses = 0;

	guest_long(g, 0);
	LOAD(g, GUEST_CODE, 0xfc, 0xf3, 0xa4, 0xf4); /* cld; rep movsb; hlt */
	c->s.gpr[RSI] = 0x400000;
	c->s.gpr[RDI] = 0x800000;
	c->s.gpr[RCX] = 0x400000;
	guest_load(g, 0x7ffff0, "0123456789abcdef", 16);
	do {
		pthread_t t;

		atomic_store(&c->run_state, CPU_READY);
		assert_int_equal(pthread_create(&t, NULL, notify_soon, c), 0);
		atomic_store(&c->run_state, CPU_RUNNING);
		stop = guest_run(g, 0);
		atomic_store(&c->run_state, CPU_READY);
		pthread_join(t, NULL);
		atomic_store(&c->attention, 0);
		if (stop == STOP_KICK) {
			assert_int_equal(c->s.gpr[RSI] + c->s.gpr[RCX], 0x800000);
			pauses++;
		}
	} while (stop == STOP_KICK && pauses < 10000);
	assert_int_equal(stop, STOP_HLT);
	assert_int_equal(c->s.gpr[RCX], 0);
	assert_int_equal(c->s.gpr[RDI], 0xc00000);
	char end[16];
	guest_read(g, 0xbffff0, end, 16);
	assert_memory_equal(end, "0123456789abcdef", 16);
}

/* Overlapping moves replicate, as byte-by-byte copying does. */
static void test_rep_overlap(void **state)
{
	struct guest *g = *state;
	struct cpu *c = &g->cpus[0];
	char out[16];

	guest_long(g, 0);
	LOAD(g, GUEST_CODE, 0xfc, 0xf3, 0xa4, 0xf4);
	guest_load(g, GUEST_DATA, "abc.............", 16);
	c->s.gpr[RSI] = GUEST_DATA;
	c->s.gpr[RDI] = GUEST_DATA + 3;
	c->s.gpr[RCX] = 13;
	assert_int_equal(guest_run(g, 0), STOP_HLT);
	guest_read(g, GUEST_DATA, out, 16);
	assert_memory_equal(out, "abcabcabcabcabca", 16);
}

#define ROUNDS 100000

static void *run_cpu(void *opaque)
{
	struct cpu *c = opaque;

	c->machine->engine->run(c);
	return NULL;
}

/* Two CPUs on the same counters, one of them across two lines. */
static void test_lock(void **state)
{
	struct guest *g = *state;
	pthread_t t[2];
	uint64_t v[3] = { 0 };
	uint32_t split;

	/* l: lock inc [rsi]; lock xadd [rsi+8],rdx; mov rdx,1; c: mov rax,[rsi+16]; lea
	   rbx,[rax+1]; lock cmpxchg [rsi+16],rbx; jne c; lock add dword [rsi+61],1; dec ecx; jnz l;
	   hlt */
	LOAD(g, GUEST_CODE, 0xf0, 0x48, 0xff, 6, 0xf0, 0x48, 0x0f, 0xc1, 0x56, 8, 0x48, 0xc7, 0xc2,
	     1, 0, 0, 0, 0x48, 0x8b, 0x46, 0x10, 0x48, 0x8d, 0x58, 1, 0xf0, 0x48, 0x0f, 0xb1, 0x5e,
	     0x10, 0x75, 0xf0, 0xf0, 0x83, 0x46, 0x3d, 1, 0xff, 0xc9, 0x75, 0xd6, 0xf4);
	guest_load(g, GUEST_DATA, (uint8_t[128]){ 0 }, 128);
	for (unsigned n = 0; n < 2; n++) {
		guest_long(g, n);
		g->cpus[n].s.gpr[RSP] -= 4096 * n;
		g->cpus[n].s.gpr[RSI] = GUEST_DATA;
		g->cpus[n].s.gpr[RCX] = ROUNDS;
		g->cpus[n].s.gpr[RDX] = 1;
	}
	for (unsigned n = 0; n < 2; n++)
		assert_int_equal(pthread_create(&t[n], NULL, run_cpu, &g->cpus[n]), 0);
	for (unsigned n = 0; n < 2; n++)
		pthread_join(t[n], NULL);
	guest_read(g, GUEST_DATA, v, sizeof(v));
	guest_read(g, GUEST_DATA + 61, &split, 4);
	assert_int_equal(v[0], 2 * ROUNDS);
	assert_int_equal(v[1], 2 * ROUNDS);
	assert_int_equal(v[2], 2 * ROUNDS);
	assert_int_equal(split, 2 * ROUNDS);
}

/* One CPU calls a function in a loop until another has rewritten it. */
static void test_written_by_other(void **state)
{
	struct guest *g = *state;
	pthread_t t[2];

	for (unsigned round = 0; round < 50; round++) {
		for (unsigned n = 0; n < 2; n++) {
			guest_long(g, n);
			g->cpus[n].s.gpr[RSP] -= 4096 * n;
		}
		/* CPU 0, w: call f; cmp eax,1; je w; hlt */
		LOAD(g, GUEST_CODE, 0xe8, 0xfb, 0, 0, 0, 0x83, 0xf8, 1, 0x74, 0xf6, 0xf4);
		LOAD(g, GUEST_CODE + 0x100, 0xb8, 1, 0, 0, 0, 0xc3); /* f: mov eax,1; ret */
		/* CPU 1: mov ecx,20000; l: dec ecx; jnz l; mov byte [f+1],2; hlt */
		LOAD(g, GUEST_CODE + 0x2000, 0xb9, 0x20, 0x4e, 0, 0, 0xff, 0xc9, 0x75, 0xfc, 0xc6,
		     4, 0x25, 1, 1, 1, 0, 2, 0xf4);
		g->cpus[1].s.rip = GUEST_CODE + 0x2000;
		for (unsigned n = 0; n < 2; n++)
			assert_int_equal(pthread_create(&t[n], NULL, run_cpu, &g->cpus[n]), 0);
		for (unsigned n = 0; n < 2; n++)
			pthread_join(t[n], NULL);
		assert_int_equal(g->cpus[0].s.gpr[RAX], 2);
	}
}

/* TF: the trap comes after the instruction that follows POPF. */
static void test_single_step(void **state)
{
	struct guest *g = *state;
	struct cpu *c = &g->cpus[0];
	uint64_t rip;

	guest_long(g, 0);
	/* pushf; or dword [rsp],100h; popf; nop; nop; hlt */
	LOAD(g, GUEST_CODE, 0x9c, 0x81, 0x0c, 0x24, 0, 1, 0, 0, 0x9d, 0x90, 0x90, 0xf4);
	assert_int_equal(guest_run(g, 0), STOP_HLT);
	assert_int_equal(guest_vector(g, 0), VEC_DB);
	guest_read(g, c->s.gpr[RSP], &rip, 8);
	assert_int_equal(rip, GUEST_CODE + 10);
	assert_true(c->s.dr[6] & BIT(14));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_loop),	       cmocka_unit_test(test_real_mode),
		cmocka_unit_test(test_protected_mode), cmocka_unit_test(test_faults),
		cmocka_unit_test(test_written_code),   cmocka_unit_test(test_page_crossing),
		cmocka_unit_test(test_rep_pauses),     cmocka_unit_test(test_rep_overlap),
		cmocka_unit_test(test_lock),	       cmocka_unit_test(test_written_by_other),
		cmocka_unit_test(test_single_step),
	};

	return cmocka_run_group_tests_name("interp", tests, setup, teardown);
}
