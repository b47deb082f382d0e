/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does the decoder refuse what the host's processor refuses, and nothing else? All one- to
 * three-byte opcodes with every ModRM byte (without displacements) and one prefix, and all with VEX, are executed
 * natively, registers zero, at the end of a page: only whether that is #UD counts. What would leave
 * (branches, system calls) or upset this process (segment loads) is left out. For AMD's processors,
 * whose choices the decoder follows.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <cpuid.h>

enum { GREG_RIP = REG_RIP }; /* the host's name for an index, ours for a base register */
#undef REG_RIP
#include "isa/insn.h"

#define SKIP 77

static uint8_t *code; /* one page, and nothing behind it */
static sigjmp_buf back;
static volatile sig_atomic_t got_signal;
static uint8_t *volatile got_rip;

static void on_signal(int number, siginfo_t *info, void *context)
{
	got_signal = number;
	got_rip = (uint8_t *)((ucontext_t *)context)->uc_mcontext.gregs[GREG_RIP];
	siglongjmp(back, 1);
}

/* Registers zero; comes back by a signal only. */
static void __attribute__((noinline, noreturn)) execute(uint8_t *at)
{
	register uint64_t target __asm__("r8") = (uint64_t)at;

	__asm__ volatile(
		"xorl %%eax, %%eax; xorl %%ebx, %%ebx; xorl %%ecx, %%ecx; xorl %%edx, %%edx\n\t"
		"xorl %%esi, %%esi; xorl %%edi, %%edi; xorl %%ebp, %%ebp; xorl %%esp, %%esp\n\t"
		"jmp *%%r8"
		:
		: "r"(target)
		: "memory");
	__builtin_unreachable();
}

static bool host_refuses(uint8_t *at)
{
	if (!sigsetjmp(back, 1))
		execute(at);
	return got_signal == SIGILL && got_rip == at;
}

/* Not to be executed here. */
static bool leaves(const struct insn *i)
{
	if (i->class == CLASS_BRANCH)
		return true;
	if (i->class == CLASS_FAR)
		return i->op != OP_RSM && (i->op < OP_UD0 || i->op > OP_UD2);
	return i->op == OP_MOV_SREG || i->op == OP_POP_SREG || i->op == OP_WRFSBASE ||
	       i->op == OP_WRGSBASE || (i->op >= OP_LDS && i->op <= OP_LSS) ||
	       (i->op >= OP_POPF && i->op <= OP_POPFQ);
}

/* Differences on purpose: features not offered, instructions that CPL 3 may not use, AMD's LOCK MOV
 * CR0. */
static bool known(const uint8_t *b, unsigned len)
{
	static const char *const list[] = {
		"\x0f\x01\xc8", "\x0f\x01\xc9",
		"\x0f\x01\xca", "\x0f\x01\xcb", /* MONITOR MWAIT CLAC STAC */
		"\x0f\x01\xfa", "\x0f\x01\xfb",
		"\x0f\x01\xfc", "\x0f\x01\xfd", /* MONITORX MWAITX CLZERO RDPRU */
		"\x0f\x01\xff", "\x0f\x01\xd8",
		"\x0f\x01\xd9", "\x0f\x01\xda",
		"\x0f\x01\xdb", "\x0f\x01\xdc",
		"\x0f\x01\xdd", "\x0f\x01\xde",
		"\x0f\x01\xdf", "\x0f\x01\xc1",
		"\x0f\x01\xc2", "\x0f\x01\xc3",
		"\x0f\x01\xc4", "\x0f\x78",
		"\x0f\x79", /* virtualization; hypervisors differ in what they let through */
		"\x0f\x20",	"\x0f\x22",
		"\x0f\x38\xf8", "\x0f\x38\xf9", /* MOVDIR64B, MOVDIRI */
	};

	for (unsigned n = 0; n < ARRAY_LEN(list); n++) {
		size_t size = strlen(list[n]);

		for (unsigned at = 0; at + size <= len && at < 2; at++) {
			if (!memcmp(b + at, list[n], size))
				return true;
		}
	}
	return false;
}

static bool is_prefix_or_vector(uint8_t b)
{
	return b == 0x0f || (b & 0xf0) == 0x40 || (b >= 0x64 && b <= 0x67) || b == 0xf0 ||
	       b == 0xf2 || b == 0xf3 || b == 0x26 || b == 0x2e || b == 0x36 || b == 0x3e ||
	       b == 0xc4 || b == 0xc5 || b == 0x62 || b == 0x8f;
}

static unsigned failures, compared;

static void compare(const uint8_t *bytes, unsigned shortest)
{
	struct insn i;
	enum insn_status status = insn_decode(&i, bytes, 15, MODE_64);
	bool ours = status == INSN_UD || (i.op >= OP_UD0 && i.op <= OP_UD2) || i.op == OP_RSM, host;
	uint8_t *at = code + 4096 - (status == INSN_OK ? i.len : 15);
	char text[96];

	if ((status == INSN_OK && leaves(&i)) || known(bytes, shortest))
		return;
	memcpy(at, bytes, (size_t)(code + 4096 - at));
	host = host_refuses(at);
	compared++;
	if (host == ours || failures++ > 20)
		return;
	insn_format(&i, 0, text, sizeof(text));
	printf("%02x%02x%02x%02x%02x: the host %s it, we %s: %s\n", bytes[0], bytes[1], bytes[2],
	       bytes[3], bytes[4], host ? "refuses" : "takes", ours ? "refuse" : "take", text);
}

static void compare_opcode(unsigned map, uint8_t prefix, uint8_t opcode, uint8_t modrm)
{
	uint8_t bytes[15] = { 0 };
	unsigned n = 0;

	if (map == 0 &&
	    (is_prefix_or_vector(opcode) || (opcode >= 0xca && opcode <= 0xcf) || opcode == 0xf1))
		return;
	if (map == 1 && (opcode == 0x38 || opcode == 0x3a || opcode == 0x05 || opcode == 0x34 ||
			 opcode == 0x0f))
		return;
	if (prefix)
		bytes[n++] = prefix;
	if (map)
		bytes[n++] = 0x0f;
	if (map >= 2)
		bytes[n++] = map == 2 ? 0x38 : 0x3a;
	bytes[n++] = opcode;
	bytes[n++] = modrm;
	compare(bytes, n);
}

/*
 * Opmask instructions are told apart only when they are executed (evex-shape.c). Not compared: AVX-VNNI, which is not offered, and
 * VPERMQ and VPERMPD with W clear, which AMD's processors take.
 */
static void compare_vex(unsigned map, unsigned pp, unsigned wl, unsigned vvvv, uint8_t opcode, uint8_t modrm)
{
	uint8_t bytes[15] = { 0xc4, (uint8_t)(0xe0 | map), (uint8_t)((wl & 2) << 6 | (~vvvv & 15) << 3 | (wl & 1) << 2 | pp), opcode,
			      modrm };
	struct insn i;

	if (pp == 1 && ((map == 2 && wl < 2 && opcode >= 0x50 && opcode <= 0x53) || (map == 3 && wl == 1 && opcode < 2)))
		return;
	if (insn_decode(&i, bytes, 15, MODE_64) != INSN_OK || i.op != OP_AVX512)
		compare(bytes, 0);
}

static bool host_is_amd(void)
{
	unsigned a, b, c, d;

	return __get_cpuid(0, &a, &b, &c, &d) && b == signature_AMD_ebx && c == signature_AMD_ecx &&
	       d == signature_AMD_edx && __get_cpuid_count(7, 0, &a, &b, &c, &d) && b & bit_AVX2 &&
	       b & bit_SHA;
}

int main(void)
{
	static const uint8_t prefixes[] = { 0, 0x66, 0xf2, 0xf3, 0xf0, 0x48 };
	static const int signals[] = { SIGILL, SIGSEGV, SIGFPE, SIGBUS, SIGTRAP };
	static uint8_t stack[65536];
	stack_t alternate = { .ss_sp = stack, .ss_size = sizeof(stack) };
	struct sigaction action = { .sa_sigaction = on_signal,
				    .sa_flags = SA_ONSTACK | SA_NODEFER | SA_SIGINFO };

	if (!host_is_amd())
		return SKIP;
	code = mmap((void *)0x20000000, 8192, PROT_READ | PROT_WRITE | PROT_EXEC,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (code == MAP_FAILED || mprotect(code + 4096, 4096, PROT_NONE))
		return SKIP;
	sigaltstack(&alternate, NULL);
	for (unsigned n = 0; n < ARRAY_LEN(signals); n++)
		sigaction(signals[n], &action, NULL);
	for (unsigned map = 0; map < 4; map++)
		for (unsigned p = 0; p < ARRAY_LEN(prefixes); p++)
			for (unsigned opcode = 0; opcode < 256; opcode++)
				for (unsigned modrm = 0; modrm < 256;
				     modrm += modrm == 0x3f ? 0x81 : 1)
					compare_opcode(map, prefixes[p], (uint8_t)opcode,
						       (uint8_t)modrm);
	for (unsigned map = 1; map < 4; map++)
		for (unsigned k = 0; k < 256 * 16 * 6; k++) {
			static const uint8_t modrm[] = { 0x00, 0xc1, 0xf9 };

			compare_vex(map, k & 3, k >> 2 & 3, k & 16 ? 2 : 0, (uint8_t)(k / 96), modrm[k / 32 % 3]);
		}
	printf("%u encodings compared, %u differ\n", compared, failures);
	return failures != 0;
}
