/* SPDX-License-Identifier: Apache-2.0 */
/* See native.h. The page of code: save host registers, load state, instruction, store state,
 * restore, return. */
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ucontext.h>
#include "native.h"

#define CODE_SIZE 4096u
#define GPR_AT offsetof(struct native_state, gpr)
#define RFLAGS_AT offsetof(struct native_state, rflags)

struct native {
	struct native_state in, out;
	uint8_t *code;
	size_t insn_at, tail_at;
	uint8_t tail[512];
	size_t tail_len;
};

/* A signal handler has nothing else to find its way by. */
static sigjmp_buf back;
static volatile sig_atomic_t running;
static uint8_t fault_image[512];

static void on_signal(int sig, siginfo_t *info, void *context)
{
	const ucontext_t *uc = context;

	if (!running) {
		signal(sig, SIG_DFL);
		raise(sig);
		return;
	}
	running = 0;
	memcpy(fault_image, uc->uc_mcontext.fpregs, sizeof(fault_image));
	siglongjmp(back, sig);
}

struct emit {
	uint8_t *to;
	size_t len;
};

static void emit(struct emit *e, const void *bytes, size_t n)
{
	memcpy(e->to + e->len, bytes, n);
	e->len += n;
}

#define EMIT(e, ...)                                                                               \
	emit(e, (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))

static void emit_address(struct emit *e, const void *p)
{
	emit(e, &p, sizeof(p));
}

/* mov reg, [base + disp32] or the other way round; base is RAX or RBX */
static void emit_gpr(struct emit *e, unsigned reg, unsigned base, size_t disp, bool store)
{
	uint32_t d = (uint32_t)disp;

	EMIT(e, (uint8_t)(0x48 | (reg >> 3) << 2), store ? 0x89 : 0x8b,
	     (uint8_t)(0x80 | (reg & 7) << 3 | base));
	emit(e, &d, 4);
}

static void emit_head(struct native *n, struct emit *e)
{
	const uint32_t rflags = RFLAGS_AT;

	EMIT(e, 0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41,
	     0x57);	     /* push rbx rbp r12..r15 */
	EMIT(e, 0x48, 0xbb); /* mov rbx, &in */
	emit_address(e, &n->in);
	EMIT(e, 0xb8, 7, 0, 0, 0, 0x31, 0xd2); /* mov eax, 7; xor edx, edx */
	EMIT(e, 0x48, 0x0f, 0xae, 0x2b);       /* xrstor64 [rbx] */
	EMIT(e, 0xff, 0xb3);		       /* push qword [rbx + rflags] */
	emit(e, &rflags, 4);
	EMIT(e, 0x9d); /* popfq */
	for (unsigned k = 0; k < 16; k++) {
		if (k != 4 && k != 3)
			emit_gpr(e, k, 3, GPR_AT + 8 * k, false);
	}
	emit_gpr(e, 3, 3, GPR_AT + 8 * 3, false);
}

static void emit_tail(struct native *n, struct emit *e)
{
	const uint32_t rflags = RFLAGS_AT;

	EMIT(e, 0x48, 0xa3); /* mov [&out.gpr[RAX]], rax */
	emit_address(e, &n->out.gpr[0]);
	EMIT(e, 0x48, 0xb8); /* mov rax, &out */
	emit_address(e, &n->out);
	for (unsigned k = 1; k < 16; k++) {
		if (k != 4)
			emit_gpr(e, k, 0, GPR_AT + 8 * k, true);
	}
	EMIT(e, 0x9c, 0x8f, 0x80); /* pushfq; pop qword [rax + rflags] */
	emit(e, &rflags, 4);
	EMIT(e, 0x48, 0x89, 0xc3, 0xb8, 7, 0, 0, 0, 0x31,
	     0xd2);				     /* mov rbx, rax; mov eax, 7; xor edx, edx */
	EMIT(e, 0x48, 0x0f, 0xae, 0x23);	     /* xsave64 [rbx] */
	EMIT(e, 0xfc, 0xdb, 0xe3, 0xc5, 0xf8, 0x77); /* cld; fninit; vzeroupper */
	EMIT(e, 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3); /* pops, ret */
}

struct native *native_create(void)
{
	struct native *n = aligned_alloc(64, (sizeof(*n) + 63) & ~63ul);
	struct sigaction act = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_NODEFER };
	struct emit e;

	memset(n, 0, sizeof(*n));
	n->code = mmap(NULL, CODE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (n->code == MAP_FAILED) {
		free(n);
		return NULL;
	}
	e = (struct emit){ n->code, 0 };
	emit_head(n, &e);
	n->insn_at = e.len;
	e = (struct emit){ n->tail, 0 };
	emit_tail(n, &e);
	n->tail_len = e.len;
	sigaction(SIGFPE, &act, NULL);
	sigaction(SIGILL, &act, NULL);
	sigaction(SIGSEGV, &act, NULL);
	sigaction(SIGBUS, &act, NULL);
	return n;
}

void native_destroy(struct native *n)
{
	munmap(n->code, CODE_SIZE);
	free(n);
}

uint64_t native_rip(const struct native *n)
{
	return (uint64_t)(n->code + n->insn_at);
}

enum native_result native_run(struct native *n, const uint8_t *insn, size_t len,
			      const struct native_state *in, struct native_state *out)
{
	const uint32_t mxcsr = 0x1f80;
	int sig;

	memcpy(n->code + n->insn_at, insn, len);
	memcpy(n->code + n->insn_at + len, n->tail, n->tail_len);
	n->in = *in;
	memset(&n->out, 0, sizeof(n->out));
	sig = sigsetjmp(back, 1);
	if (!sig) {
		running = 1;
		((void (*)(void))n->code)();
		running = 0;
	} else {
		memcpy(n->out.xsave, fault_image, sizeof(fault_image));
	}
	__asm__ volatile("fninit\n\tldmxcsr %0" : : "m"(mxcsr) : "memory");
	*out = n->out;
	switch (sig) {
	case 0:
		return NATIVE_DONE;
	case SIGILL:
		return NATIVE_ILLEGAL;
	case SIGFPE:
		return NATIVE_ARITHMETIC;
	case SIGBUS:
		return NATIVE_ALIGNMENT;
	default:
		return NATIVE_MEMORY;
	}
}
