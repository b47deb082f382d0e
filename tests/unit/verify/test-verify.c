/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does the engine that looks for differences find one, and none where there is none? A difference is made by writing into
 * guest memory behind everybody's back: the machine reads it, the reference's copy has not got it.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "../interp/guest.h"

#define PROGRAM(name, code) \
	extern const uint8_t name[], name##_end[]; \
	__asm__(".pushsection .rodata\n.global " #name ", " #name "_end\n" #name ":\n.intel_syntax noprefix\n" code \
		"\n.att_syntax\n" #name "_end:\n.popsection\n")

/* Calls, stores, strings in both directions, time, undefined flags that are kept, a page-crossing store; then again. */
PROGRAM(prog_all, "0: mov rbx, 0x20000\n mov r12d, 500\n"
		  "1: mov [rbx+r12*8], r12\n imul rax, r12\n pushfq\n pop rdx\n mov [rbx+16], rdx\n rdtsc\n mov [rbx+24], rax\n"
		  "call 2f\n mov rdi, 0x22000\n mov ecx, 40\n rep stosb\n std\n mov ecx, 9\n rep stosq\n cld\n mov [0x23ffc], rdi\n"
		  "in al, 0x80\n xor ecx, ecx\n cmp ecx, r12d\n sbb r13, rax\n cpuid\n dec r12d\n jnz 1b\n hlt\n jmp 0b\n"
		  "2: bt [rbx], r12\n adc r14, 3\n ret\n");

/* Writes its own code, twice in a row within a block, and a function elsewhere. */
PROGRAM(prog_smc, "lea rbx, [rip+1f]\n mov esi, 0x50000\n mov byte ptr [rsi+5], 0xc3\n mov byte ptr [rsi], 0xb8\n mov ecx, 300\n"
		  "0: mov [rbx+1], ecx\n 1: mov edx, 0x11111111\n add rax, rdx\n mov [rsi+1], ecx\n call rsi\n dec ecx\n jnz 0b\n hlt\n");

PROGRAM(prog_load, "mov rbx, 0x20000\n 1: mov rax, [rbx]\n hlt\n jmp 1b\n");

/* Waits for a word to change, adding up the area all the time. */
PROGRAM(prog_wait, "mov rbx, 0x20000\n 1: mov ecx, 64\n 2: add rax, [rbx+rcx*8]\n dec ecx\n jnz 2b\n cmp dword ptr [rbx], 1000\n jb 1b\n hlt\n");

static void start(struct guest *g, const uint8_t *code, const uint8_t *end)
{
	struct err e;

	assert_int_equal(guest_create(g, 1, &engine_verify, &e), 0);
	guest_long(g, 0);
	g->cpus[0].s.cr0 = (g->cpus[0].s.cr0 & ~(CR0_EM | CR0_TS)) | CR0_NE;
	engine_verify.state_set(&g->cpus[0]);
	guest_load(g, GUEST_CODE, code, (uint64_t)(end - code));
}

static enum cpu_stop again(struct guest *g)
{
	g->cpus[0].s.activity = ACTIVITY_RUN;
	return guest_run(g, 0);
}

static void take_counter(void *opaque, const char *name, uint64_t value)
{
	if (!strcmp(name, "verify.instructions"))
		*(uint64_t *)opaque = value;
}

static uint64_t compared(struct guest *g)
{
	uint64_t n = 0;

	engine_verify.stats(&g->machine, take_counter, &n);
	return n;
}

static void test_agree(void **state)
{
	struct guest g;

	start(&g, prog_all, prog_all_end);
	assert_int_equal(guest_run(&g, 0), STOP_HLT);
	assert_int_equal(guest_vector(&g, 0), -1);
	assert_true(compared(&g) > 500 * 15);
	assert_int_equal(again(&g), STOP_HLT);
	assert_true(compared(&g) > 1000 * 15);
	guest_destroy(&g);
}

static void test_written_code(void **state)
{
	struct guest g;

	start(&g, prog_smc, prog_smc_end);
	assert_int_equal(guest_run(&g, 0), STOP_HLT);
	assert_int_equal(g.cpus[0].s.gpr[RAX], 1);
	guest_destroy(&g);
}

static void test_differ(void **state)
{
	struct guest g;
	uint64_t v = 7;

	start(&g, prog_load, prog_load_end);
	assert_int_equal(guest_run(&g, 0), STOP_HLT);
	guest_load(&g, GUEST_DATA, &v, sizeof(v)); /* as a device would */
	assert_int_equal(again(&g), STOP_HLT);
	assert_int_equal(g.cpus[0].s.gpr[RAX], 7);
	mem_ram_base(g.machine.mem)[GUEST_DATA] = 8;
	assert_int_equal(again(&g), STOP_ERROR);
	assert_non_null(g.cpus[0].error);
	guest_destroy(&g);
}

/* The machine's memory once more after a reset, whatever has happened to it. */
static void test_state_set(void **state)
{
	struct guest g;

	start(&g, prog_load, prog_load_end);
	assert_int_equal(guest_run(&g, 0), STOP_HLT);
	mem_ram_base(g.machine.mem)[GUEST_DATA] = 8;
	engine_verify.state_set(&g.cpus[0]);
	assert_int_equal(again(&g), STOP_HLT);
	assert_int_equal(g.cpus[0].s.gpr[RAX], 8);
	guest_destroy(&g);
}

static void *device(void *opaque)
{
	struct guest *g = opaque;

	for (uint32_t n = 1; n <= 1000; n++) {
		uint64_t v = n * 0x9e3779b97f4a7c15ull;

		mem_dma_write(g->machine.mem, GUEST_DATA + 8 + n % 64 * 8, &v, sizeof(v));
		mem_dma_write(g->machine.mem, GUEST_DATA, &n, sizeof(n));
	}
	return NULL;
}

static void test_device_writes(void **state)
{
	struct guest g;
	pthread_t t;

	start(&g, prog_wait, prog_wait_end);
	assert_int_equal(pthread_create(&t, NULL, device, &g), 0);
	assert_int_equal(guest_run(&g, 0), STOP_HLT);
	pthread_join(t, NULL);
	guest_destroy(&g);
}

static void test_one_cpu(void **state)
{
	struct guest g = { 0 };
	struct err e = { 0 };

	assert_true(guest_create(&g, 2, &engine_verify, &e));
	assert_non_null(strstr(e.text, "--cpus 1"));
	clock_destroy(g.machine.clock);
	ports_destroy(g.machine.ports);
	mem_destroy(g.machine.mem);
	free(g.cpus);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_agree),
		cmocka_unit_test(test_written_code),
		cmocka_unit_test(test_differ),
		cmocka_unit_test(test_state_set),
		cmocka_unit_test(test_device_writes),
		cmocka_unit_test(test_one_cpu),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
