/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Into translated code and out of it. While there: GS is struct cpu, the stack pointer is the guest's, guest registers are
 * in the host's (abi.h). These are naked functions so that offsets come from the compiler.
 *
 * The kick signal must not be lost between the last look at hot->kick and the jump into translated code. All state is in
 * cpu->s during that stretch, so the handler sends a thread found there (dbt_enter_check..go, dbt_slow_check..go) to
 * dbt_stub_kicked.
 */
#include "engine/dbt/dbt.h"

#define HOT(f) "i"(offsetof(struct cpu, hot) + offsetof(struct dbt_hot, f))

#define ABI_OPERANDS \
	[host_rsp] HOT(host_rsp), [self] HOT(self), [flags] HOT(flags), [code] HOT(exit_code), [arg] HOT(exit_arg), \
		[resume] HOT(resume), [s1] HOT(s1), [kick] HOT(kick), \
		[gpr] "i"(offsetof(struct cpu, s.gpr)), [tlb] "i"(OFF_TLB_DATA), [bias] "i"(TB_BIAS), [exit_kick] "i"(EXIT_KICK), \
		[exit_link] "i"(EXIT_LINK), [exit_indirect] "i"(EXIT_INDIRECT)

#define LOAD_GUEST \
	"movq %%gs:(%c[gpr]+0), %%rax\n\t" \
	"movq %%gs:(%c[gpr]+8), %%rcx\n\t" \
	"movq %%gs:(%c[gpr]+16), %%rdx\n\t" \
	"movq %%gs:(%c[gpr]+24), %%rbx\n\t" \
	"movq %%gs:(%c[gpr]+40), %%rbp\n\t" \
	"movq %%gs:(%c[gpr]+48), %%rsi\n\t" \
	"movq %%gs:(%c[gpr]+56), %%rdi\n\t" \
	"movq %%gs:(%c[gpr]+64), %%r8\n\t" \
	"movq %%gs:(%c[gpr]+72), %%r9\n\t" \
	"movq %%gs:(%c[gpr]+80), %%r10\n\t" \
	"movq %%gs:(%c[gpr]+88), %%r11\n\t" \
	"movq %%gs:(%c[gpr]+96), %%r12\n\t" \
	"movq %%gs:%c[tlb], %%r15\n\t" \
	"leaq %c[bias](%%r15), %%r15\n\t" \
	"movq %%gs:(%c[gpr]+32), %%rsp\n\t"

#define STORE_GUEST \
	"movq %%rax, %%gs:(%c[gpr]+0)\n\t" \
	"movq %%rcx, %%gs:(%c[gpr]+8)\n\t" \
	"movq %%rdx, %%gs:(%c[gpr]+16)\n\t" \
	"movq %%rbx, %%gs:(%c[gpr]+24)\n\t" \
	"movq %%rsp, %%gs:(%c[gpr]+32)\n\t" \
	"movq %%rbp, %%gs:(%c[gpr]+40)\n\t" \
	"movq %%rsi, %%gs:(%c[gpr]+48)\n\t" \
	"movq %%rdi, %%gs:(%c[gpr]+56)\n\t" \
	"movq %%r8, %%gs:(%c[gpr]+64)\n\t" \
	"movq %%r9, %%gs:(%c[gpr]+72)\n\t" \
	"movq %%r10, %%gs:(%c[gpr]+80)\n\t" \
	"movq %%r11, %%gs:(%c[gpr]+88)\n\t" \
	"movq %%r12, %%gs:(%c[gpr]+96)\n\t"

#define LOAD_FLAGS \
	"movzwl %%gs:%c[flags], %%eax\n\t" \
	"addb $127, %%al\n\t" \
	"sahf\n\t"

__attribute__((naked)) void dbt_enter(struct cpu *c, const void *host)
{
	__asm__ volatile("pushq %%rbp\n\t"
			 "pushq %%rbx\n\t"
			 "pushq %%r12\n\t"
			 "pushq %%r13\n\t"
			 "pushq %%r14\n\t"
			 "pushq %%r15\n\t"
			 "subq $8, %%rsp\n\t"
			 "movq %%rsp, %%gs:%c[host_rsp]\n\t"
			 "movq %%rsi, %%gs:%c[resume]\n\t"
			 ".globl dbt_enter_check\n"
			 "dbt_enter_check:\n\t"
			 "cmpl $0, %%gs:%c[kick]\n\t"
			 "jne dbt_stub_kicked\n\t" LOAD_FLAGS LOAD_GUEST "jmpq *%%gs:%c[resume]\n\t"
			 ".globl dbt_enter_go\n"
			 "dbt_enter_go:\n\t"
			 "int3\n\t" ::ABI_OPERANDS);
}

__attribute__((naked)) void dbt_stub_kicked(void)
{
	__asm__ volatile("movq $%c[exit_kick], %%gs:%c[code]\n\t"
			 "jmp dbt_stub_return\n\t" ::ABI_OPERANDS);
}

__attribute__((naked)) void dbt_stub_return(void)
{
	__asm__ volatile("movq %%gs:%c[host_rsp], %%rsp\n\t"
			 "addq $8, %%rsp\n\t"
			 "popq %%r15\n\t"
			 "popq %%r14\n\t"
			 "popq %%r13\n\t"
			 "popq %%r12\n\t"
			 "popq %%rbx\n\t"
			 "popq %%rbp\n\t"
			 "ret\n\t" ::ABI_OPERANDS);
}

/* Exits: R13 is the code, R14 its argument. */
__attribute__((naked)) void dbt_stub_exit_m(void)
{
	__asm__ volatile("movq %%r13, %%gs:%c[code]\n\t"
			 "movq %%r14, %%gs:%c[arg]\n\t" STORE_GUEST "jmp dbt_stub_return\n\t" ::ABI_OPERANDS);
}

__attribute__((naked)) void dbt_stub_exit_h(void)
{
	__asm__ volatile("movq %%r13, %%gs:%c[code]\n\t"
			 "movq %%rax, %%r13\n\t"
			 "lahf\n\t"
			 "seto %%al\n\t"
			 "movw %%ax, %%gs:%c[flags]\n\t"
			 "movq %%r13, %%rax\n\t"
			 "movq %%gs:%c[code], %%r13\n\t"
			 "jmp dbt_stub_exit_m\n\t" ::ABI_OPERANDS);
}

__attribute__((naked)) void dbt_stub_link_h(void)
{
	__asm__ volatile("movl $%c[exit_link], %%r13d\n\t"
			 "jmp dbt_stub_exit_h\n\t" ::ABI_OPERANDS);
}

__attribute__((naked)) void dbt_stub_link_m(void)
{
	__asm__ volatile("movl $%c[exit_link], %%r13d\n\t"
			 "jmp dbt_stub_exit_m\n\t" ::ABI_OPERANDS);
}

/* rip is not where the jump cache is looked into inline. */
__attribute__((naked)) void dbt_stub_indirect(void)
{
	__asm__ volatile("movq $%c[exit_indirect], %%gs:%c[code]\n\t" STORE_GUEST "movq %%gs:%c[host_rsp], %%rsp\n\t"
			 "movq %%gs:%c[self], %%rdi\n\t"
			 "call dbt_indirect\n\t"
			 "jmp dbt_slow_back\n\t" ::ABI_OPERANDS);
}

/* R13 is an address, R14 a SLOW_PARAM. dbt_slow gives the host address to go on at, or 0 to leave. */
__attribute__((naked)) void dbt_stub_slow(void)
{
	__asm__ volatile(STORE_GUEST "movq %%gs:%c[host_rsp], %%rsp\n\t"
			 "movq %%gs:%c[self], %%rdi\n\t"
			 "movq %%r13, %%rsi\n\t"
			 "movq %%r14, %%rdx\n\t"
			 "call dbt_slow\n"
			 "dbt_slow_back:\n\t"
			 "testq %%rax, %%rax\n\t"
			 "jz dbt_stub_return\n\t"
			 "movq %%rax, %%gs:%c[resume]\n\t"
			 ".globl dbt_slow_check\n"
			 "dbt_slow_check:\n\t"
			 "cmpl $0, %%gs:%c[kick]\n\t"
			 "jne dbt_stub_kicked\n\t" LOAD_FLAGS LOAD_GUEST "movq %%gs:%c[s1], %%r14\n\tjmpq *%%gs:%c[resume]\n\t"
			 ".globl dbt_slow_go\n"
			 "dbt_slow_go:\n\t"
			 "int3\n\t" ::ABI_OPERANDS);
}
