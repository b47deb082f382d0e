// SPDX-License-Identifier: Apache-2.0
/*
 * The oracle: cases run on the host's CPU, in a child process that can do nothing but compute. It has its arena at the
 * fixed addresses, and a seccomp filter that lets only the two system calls of the runner's own
 * code through. One signal a case: the handler stores what the frame says (all registers, the XSAVE image,
 * the fault), puts the next case's state into the same frame and returns into it.
 *
 * While a case runs, FS and GS base, segment registers, AC and MXCSR are its own. The handler therefore
 * uses no thread-local data (no stack protector, no errno) and puts the flags right first. It finds its data at
 * a fixed address.
 */
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/ucontext.h>
#include <sys/wait.h>
#include <unistd.h>
#include "diff.h"

#define CONTROL 0x5f0000000000ull
#define ALT_STACK (256u << 10)
#define TICK_US 5000
#define VECTOR_BP 3

/* Lies at CONTROL in the child. cases and results are shared with the parent. */
struct control {
	const struct diff_case *cases;
	struct diff_result *results;
	const bool *skip;
	unsigned n;
	volatile int cur; /* case that runs */
	volatile bool started; /* cur is one, not the one before the first */
	volatile int last_tick;
	const uint8_t *images;
	uint8_t *code;  /* writable views of the arena */
	uint8_t *pages[IMAGE_PAGES];
	uint32_t code_dirty_from, code_dirty_to; /* what the last case left in the code pages */
	bool fsgsbase, code_all_dirty;
	unsigned xsave_avx; /* offset of the AVX part, 0: none */
};

struct native {
	struct diff_case *cases; /* shared */
	struct diff_result *results;
	bool *skip;
	volatile int *cur;
	uint8_t *images;
	bool fsgsbase, writable_code;
};

static inline struct control *control(void)
{
	return (struct control *)CONTROL;
}

void native_entry(int sig, siginfo_t *si, void *uc);
void native_restorer(void);
void native_handler(int sig, siginfo_t *si, ucontext_t *uc);
void native_leave(void);

/*
 * Entry: AC, NT, ID and DF may be the case's. native_restorer is the only place from which rt_sigreturn passes
 * the filter, native_leave the only one for exit_group.
 */
__asm__(".pushsection .text\n"
	".globl native_entry, native_restorer, native_leave\n"
	"native_entry:\n"
	"	pushfq\n"
	"	andq $~0x244400, (%rsp)\n"
	"	popfq\n"
	"	subq $8, %rsp\n"
	"	call native_handler\n"
	"	addq $8, %rsp\n"
	"	ret\n"
	"native_restorer:\n"
	"	movl $15, %eax\n"
	"	syscall\n"
	"native_restorer_end:\n"
	"	ud2\n"
	"native_leave:\n"
	"	movl $231, %eax\n"
	"	xorl %edi, %edi\n"
	"	syscall\n"
	"native_leave_end:\n"
	"	ud2\n"
	".popsection\n");
extern const uint8_t native_restorer_end[], native_leave_end[];

static void copy(void *to, const void *from, size_t n)
{
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}
static void fill(void *to, int byte, size_t n)
{
	__asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(byte) : "memory");
}

struct fx { /* FXSAVE image, as in the signal frame */
	uint16_t fcw, fsw;
	uint8_t ftw, pad0;
	uint16_t fop;
	uint64_t fip, fdp;
	uint32_t mxcsr, mxcsr_mask;
	struct {
		uint64_t mantissa;
		uint16_t exponent, pad[3];
	} st[8];
	uint64_t xmm[16][2];
	uint8_t rest[96];
	uint64_t xstate_bv, xcomp_bv, header[6];
};

static const uint8_t gpr_order[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
				       REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
				       REG_R12, REG_R13, REG_R14, REG_R15 };

static void get_regs(const struct control *k, const ucontext_t *uc, struct diff_regs *r)
{
	const greg_t *g = uc->uc_mcontext.gregs;
	const struct fx *fx = (const void *)uc->uc_mcontext.fpregs;
	uint64_t selectors = (uint64_t)g[REG_CSGSFS];

	for (unsigned i = 0; i < 16; i++)
		r->gpr[i] = (uint64_t)g[gpr_order[i]];
	r->rip = (uint64_t)g[REG_RIP];
	r->rflags = (uint64_t)g[REG_EFL];
	r->sel[1] = (uint16_t)selectors;
	r->sel[2] = (uint16_t)(selectors >> 48);
	__asm__ volatile("mov %%es, %0" : "=r"(r->sel[0]));
	__asm__ volatile("mov %%ds, %0" : "=r"(r->sel[3]));
	__asm__ volatile("mov %%fs, %0" : "=r"(r->sel[4]));
	__asm__ volatile("mov %%gs, %0" : "=r"(r->sel[5]));
	if (k->fsgsbase) {
		__asm__ volatile("rdfsbase %0" : "=r"(r->fs_base));
		__asm__ volatile("rdgsbase %0" : "=r"(r->gs_base));
	}
	r->fcw = fx->fcw;
	r->fsw = fx->fsw;
	r->ftw = fx->ftw;
	r->mxcsr = fx->mxcsr;
	for (unsigned i = 0; i < 8; i++) {
		r->st[i].mantissa = fx->st[i].mantissa;
		r->st[i].exponent = fx->st[i].exponent;
	}
	for (unsigned i = 0; i < 16; i++) {
		bool sse = fx->xstate_bv & 2, avx = k->xsave_avx && (fx->xstate_bv & 4);
		const uint64_t *high = (const uint64_t *)((const uint8_t *)fx + k->xsave_avx);

		r->ymm[i][0] = sse ? fx->xmm[i][0] : 0;
		r->ymm[i][1] = sse ? fx->xmm[i][1] : 0;
		r->ymm[i][2] = avx ? high[i * 2] : 0;
		r->ymm[i][3] = avx ? high[i * 2 + 1] : 0;
	}
}

static void set_regs(const struct control *k, ucontext_t *uc, const struct diff_regs *r)
{
	greg_t *g = uc->uc_mcontext.gregs;
	struct fx *fx = (void *)uc->uc_mcontext.fpregs;

	for (unsigned i = 0; i < 16; i++)
		g[gpr_order[i]] = (greg_t)r->gpr[i];
	g[REG_RIP] = (greg_t)r->rip;
	g[REG_EFL] = (greg_t)r->rflags;
	g[REG_CSGSFS] = (greg_t)(r->sel[1] | (uint64_t)r->sel[2] << 48);
	__asm__ volatile("mov %0, %%es\n\tmov %0, %%ds" : : "r"(0x2b));
	__asm__ volatile("mov %0, %%fs\n\tmov %0, %%gs" : : "r"(0));
	if (k->fsgsbase) {
		__asm__ volatile("wrfsbase %0" : : "r"(r->fs_base));
		__asm__ volatile("wrgsbase %0" : : "r"(r->gs_base));
	}
	fx->fcw = r->fcw;
	fx->fsw = r->fsw;
	fx->ftw = r->ftw;
	fx->fop = 0;
	fx->fip = fx->fdp = 0;
	fx->mxcsr = r->mxcsr;
	for (unsigned i = 0; i < 8; i++) {
		fx->st[i].mantissa = r->st[i].mantissa;
		fx->st[i].exponent = r->st[i].exponent;
	}
	/* everything above AVX starts in its initial state */
	fx->xstate_bv = (fx->xstate_bv & BIT(9)) | 3;
	for (unsigned i = 0; i < 16; i++) {
		uint64_t *high = (uint64_t *)((uint8_t *)fx + k->xsave_avx);

		fx->xmm[i][0] = r->ymm[i][0];
		fx->xmm[i][1] = r->ymm[i][1];
		if (k->xsave_avx) {
			high[i * 2] = r->ymm[i][2];
			high[i * 2 + 1] = r->ymm[i][3];
			fx->xstate_bv |= 4;
		}
	}
}

static void store_result(struct control *k, const siginfo_t *si, const ucontext_t *uc, int sig)
{
	struct diff_result *r = &k->results[k->cur];
	const struct diff_case *c = &k->cases[k->cur];

	get_regs(k, uc, &r->out);
	r->vector = (uint8_t)uc->uc_mcontext.gregs[REG_TRAPNO];
	r->error = (uint32_t)uc->uc_mcontext.gregs[REG_ERR];
	r->cr2 = r->vector == 14 ? (uint64_t)uc->uc_mcontext.gregs[REG_CR2] : 0;
	r->has_error = r->vector == 8 || (r->vector >= 10 && r->vector <= 14) || r->vector == 17;
	for (unsigned i = 0; i < IMAGE_PAGES; i++)
		copy(r->memory + i * PAGE, k->pages[i], PAGE);
	if (c->writable)
		copy(r->code, k->code, CODE_PAGES * PAGE);
	r->status = sig == SIGSYS ? DIFF_SYSCALL : DIFF_DONE;
}

static void load_case(struct control *k, ucontext_t *uc)
{
	const struct diff_case *c = &k->cases[k->cur];
	const uint8_t *image = k->images + (size_t)c->image * IMAGE_BYTES;

	for (unsigned i = 0; i < IMAGE_PAGES; i++)
		copy(k->pages[i], image + i * PAGE, PAGE);
	if (k->code_all_dirty)
		fill(k->code, 0xcc, CODE_PAGES * PAGE);
	else
		fill(k->code + k->code_dirty_from, 0xcc, k->code_dirty_to - k->code_dirty_from);
	copy(k->code + c->code_at, c->code, c->code_len);
	k->code_dirty_from = c->code_at;
	k->code_dirty_to = c->code_at + c->code_len;
	k->code_all_dirty = c->writable;
	set_regs(k, uc, &c->in);
}

void native_handler(int sig, siginfo_t *si, ucontext_t *uc)
{
	struct control *k = control();

	if (sig == SIGVTALRM) {
		if (!k->started || k->last_tick != k->cur) {
			k->last_tick = k->cur;
			return;
		}
		k->results[k->cur].status = DIFF_TIMEOUT;
	} else if (k->started) {
		store_result(k, si, uc, sig);
	}
	k->started = true;
	do
		k->cur++;
	while (k->cur < (int)k->n && k->skip[k->cur]);
	if (k->cur >= (int)k->n)
		native_leave();
	load_case(k, uc);
}

static void child_filter(void)
{
	uint64_t sigreturn = (uint64_t)native_restorer_end, leave = (uint64_t)native_leave_end;
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 12),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer) + 4),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(sigreturn >> 32), 0, 10),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)sigreturn, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigreturn, 0, 6),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)leave, 0, 4),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 2),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
	};
	struct sock_fprog prog = { .len = ARRAY_LEN(code), .filter = code };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
		_exit(3);
}

struct kernel_sigaction { /* as the kernel wants it: our own restorer */
	void *handler;
	unsigned long flags;
	void *restorer;
	uint64_t mask;
};

static void child_signals(void)
{
	static const int signals[] = { SIGSEGV, SIGILL, SIGFPE, SIGBUS, SIGTRAP, SIGSYS, SIGVTALRM };
	stack_t alt = { .ss_size = ALT_STACK };
	struct kernel_sigaction sa = { .handler = (void *)native_entry,
				       .flags = SA_SIGINFO | SA_ONSTACK | 0x04000000 /* SA_RESTORER */,
				       .restorer = (void *)native_restorer,
				       .mask = ~0ull };
	struct itimerval tick = { { 0, TICK_US }, { 0, TICK_US } };
	sigset_t none;

	sigemptyset(&none); /* the parent may run an engine, with signals blocked */
	sigprocmask(SIG_SETMASK, &none, NULL);
	alt.ss_sp = mmap((void *)(CONTROL + 0x100000), ALT_STACK, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (alt.ss_sp == MAP_FAILED || sigaltstack(&alt, NULL))
		_exit(3);
	for (unsigned i = 0; i < ARRAY_LEN(signals); i++)
		if (syscall(SYS_rt_sigaction, signals[i], &sa, NULL, 8))
			_exit(3);
	setitimer(ITIMER_VIRTUAL, &tick, NULL);
}

static void *map(uint64_t at, size_t size, int prot, int fd, uint64_t offset)
{
	void *p = mmap((void *)at, size, prot, fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE :
							 MAP_SHARED | MAP_FIXED_NOREPLACE, fd, (off_t)offset);

	if (p != (void *)at)
		_exit(4);
	return p;
}

/* The arena: one memfd, mapped a second time as a whole for writing at CONTROL + 16 MiB. */
static void child_arena(struct control *k, bool writable_code)
{
	int fd = memfd_create("arena", MFD_CLOEXEC);
	size_t size = (CODE_PAGES + IMAGE_PAGES) * PAGE;
	uint8_t *view;

	if (fd < 0 || ftruncate(fd, (off_t)size))
		_exit(4);
	view = map(CONTROL + 0x1000000, size, PROT_READ | PROT_WRITE, fd, 0);
	map(ARENA_CODE, CODE_PAGES * PAGE, PROT_READ | PROT_EXEC | (writable_code ? PROT_WRITE : 0), fd, 0);
	for (unsigned i = 0; i < IMAGE_PAGES; i++) {
		k->pages[i] = view + (CODE_PAGES + i) * PAGE;
		map(arena_pages[i].at, PAGE, PROT_READ | (arena_pages[i].writable ? PROT_WRITE : 0), fd,
		    (CODE_PAGES + i) * PAGE);
	}
	/* Present from the start: a fault must tell of the rights, not of demand paging. */
	for (unsigned i = 0; i < IMAGE_PAGES; i++)
		(void)*(volatile uint8_t *)(uintptr_t)arena_pages[i].at;
	for (unsigned i = 0; i < CODE_PAGES; i++)
		(void)*(volatile uint8_t *)(uintptr_t)(ARENA_CODE + i * PAGE);
	k->code = view;
	k->code_all_dirty = true;
	close(fd);
}

static unsigned avx_offset(void)
{
	unsigned a, b, c, d;

	__asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(1), "c"(0));
	if (!(c & (1u << 27)) || !(c & (1u << 28)))
		return 0;
	__asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(0xd), "c"(2));
	return b;
}

static _Noreturn void child(struct native *n, unsigned count, int first, bool writable_code)
{
	struct control *k = map(CONTROL, sizeof(*k), PROT_READ | PROT_WRITE, -1, 0);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	*k = (struct control){ .cases = n->cases, .results = n->results, .skip = n->skip, .n = count,
			       .cur = first - 1, .last_tick = -2, .images = n->images,
			       .fsgsbase = n->fsgsbase, .xsave_avx = avx_offset() };
	child_arena(k, writable_code);
	child_signals();
	child_filter();
	/* the first signal; its frame becomes that of the first case */
	__asm__ volatile("int3" : : : "memory");
	native_leave();
	__builtin_unreachable();
}

static void *native_create(const char *name)
{
	struct native *n = calloc(1, sizeof(*n));
	struct host h;

	CHECK(n);
	n->cases = mmap(NULL, BATCH * sizeof(*n->cases), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	n->results = mmap(NULL, BATCH * sizeof(*n->results), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	n->skip = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(n->cases != MAP_FAILED && n->results != MAP_FAILED && n->skip != MAP_FAILED);
	n->images = images_create();
	host_probe(&h);
	n->fsgsbase = h.fsgsbase;
	return n;
}

static void native_destroy(void *data)
{
	struct native *n = data;

	munmap(n->cases, BATCH * sizeof(*n->cases));
	munmap(n->results, BATCH * sizeof(*n->results));
	munmap(n->skip, PAGE);
	free(n->images);
	free(n);
}

/* One child for all cases that want the code pages the same way; a new one after each that dies. */
static void run_some(struct native *n, unsigned count, bool writable_code)
{
	for (unsigned at = 0; at < count;) {
		int status;
		pid_t pid;

		while (at < count && n->skip[at])
			at++;
		if (at == count)
			return;
		pid = fork();
		CHECK(pid >= 0);
		if (!pid)
			child(n, count, (int)at, writable_code);
		while (waitpid(pid, &status, 0) < 0)
			;
		if (WIFEXITED(status) && WEXITSTATUS(status) >= 3) {
			fprintf(stderr, "native runner: set-up failed (%d)\n", WEXITSTATUS(status));
			return;
		}
		while (at < count && (n->skip[at] || n->results[at].status != DIFF_NOT_RUN))
			at++;
		if (at < count)
			n->results[at++].status = DIFF_CRASH;
	}
}

static void native_run(void *data, const struct diff_case *cases, struct diff_result *results, unsigned count,
		       const bool *skip)
{
	struct native *n = data;

	CHECK(count <= BATCH);
	memcpy(n->cases, cases, count * sizeof(*cases));
	for (unsigned i = 0; i < count; i++)
		n->results[i].status = DIFF_NOT_RUN;
	for (unsigned writable = 0; writable < 2; writable++) {
		for (unsigned i = 0; i < count; i++)
			n->skip[i] = (skip && skip[i]) || cases[i].writable != writable;
		run_some(n, count, writable);
	}
	for (unsigned i = 0; i < count; i++) {
		if (skip && skip[i])
			continue;
		if (n->results[i].status == DIFF_DONE)
			memcpy(&results[i], &n->results[i],
			       cases[i].writable ? sizeof(*results) : offsetof(struct diff_result, code));
		results[i].status = n->results[i].status;
	}
}

const struct diff_engine diff_native = { "native", native_create, native_destroy, native_run };

/*
 * A wrong engine, to see that the comparison finds what it must: the host's results, spoilt now and then
 * the way a careless implementation would.
 */
static void wrong_run(void *data, const struct diff_case *cases, struct diff_result *results, unsigned count,
		      const bool *skip)
{
	native_run(data, cases, results, count, skip);
	for (unsigned i = 0; i < count; i++) {
		if (results[i].status != DIFF_DONE || (skip && skip[i]))
			continue;
		for (unsigned k = 0; k < cases[i].ninsns; k++) {
			const char *name = cases[i].insn[k].skipped ? "" : mnemonic_name(cases[i].insn[k].mnemonic);

			if (!strcmp(name, "adc"))
				results[i].out.rflags ^= 1;
			else if (!strcmp(name, "pshufb"))
				results[i].out.ymm[3][1] ^= 0x100;
			else if (!strcmp(name, "fadd"))
				results[i].out.fsw ^= 0x200;
			else if (!strcmp(name, "stosb"))
				results[i].memory[5] ^= 1;
			else if (!strcmp(name, "hlt") && results[i].vector == 13)
				results[i].vector = 6;
		}
	}
}

const struct diff_engine diff_wrong = { "wrong", native_create, native_destroy, wrong_run };

/* Does the kernel let a program run 32-bit code beside 64-bit code? */
bool native_runs_compat(void)
{
	struct diff_case *c = calloc(1, sizeof(*c));
	struct diff_result *r = calloc(1, sizeof(*r));
	struct native *n = native_create("native");
	struct rng rng = { 1 };
	bool ok;

	CHECK(c && r);
	random_regs(&rng, DIFF_32, &c->in);
	c->mode = DIFF_32;
	c->in.rflags = 0x202;
	c->in.rip = ARENA_CODE;
	c->code[0] = 0x40; /* inc eax there, a prefix here */
	c->code_len = 1;
	native_run(n, c, r, 1, NULL);
	ok = r->status == DIFF_DONE && r->vector == VECTOR_BP && r->out.sel[1] == 0x23 &&
	     (uint32_t)r->out.gpr[0] == (uint32_t)c->in.gpr[0] + 1;
	native_destroy(n);
	free(r);
	free(c);
	return ok;
}
