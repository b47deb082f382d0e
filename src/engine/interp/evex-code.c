/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Host code for one AVX-512 instruction: load what it reads, the instruction itself with its memory operand at
 * [RAX] and its general register in RCX, store what it wrote. RDI is the frame, RSI the guest's registers.
 *
 * The buffer is mapped twice, writable and executable, and filled from front to back. When it is full all is forgotten; before
 * code is executed where other code was, the processor is serialised.
 *
 * The encodings have passed libzydis, which knows the rules; should the host see it differently its SIGILL must not be
 * ours: the handler goes on behind the instruction with `refused` set.
 */
#include <cpuid.h>
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#undef REG_RIP /* an enumerator of <ucontext.h> too */
#include <unistd.h>
#include "base/err.h"
#include "engine/interp/evex.h"
#include "engine/interp/interp.h"

#define BUFFER_SIZE 65536u
#define CODE_MAX 512u
#define SLOTS 512u
#define KEPT 256u
enum { UC_RIP = REG_CR2 - 6 };

struct evex_unit {
	int fd;
	uint8_t *rw, *rx;
	uint32_t used;
	unsigned nkept;
	uint16_t slot[SLOTS]; /* by hash: index in kept[] + 1 */
	struct evex kept[KEPT];
};

/* Signal dispositions are the process's: what this thread is executing here. */
static _Thread_local struct {
	uintptr_t at, resume; /* the instruction; where to go on when it is refused */
} underway;

bool evex_recover(void *ucontext)
{
	greg_t *g = ((ucontext_t *)ucontext)->uc_mcontext.gregs;

	if (!underway.at || (uintptr_t)g[UC_RIP] != underway.at)
		return false;
	g[UC_RIP] = (greg_t)underway.resume;
	return true;
}

static void on_illegal(int number, siginfo_t *info, void *ucontext)
{
	if (evex_recover(ucontext))
		return;
	signal(number, SIG_DFL);
	raise(number);
}

/* An engine that handles SIGILL itself asks evex_recover() first. */
static int handler_install(struct err *e)
{
	struct sigaction old, sa = { .sa_sigaction = on_illegal, .sa_flags = SA_SIGINFO | SA_ONSTACK };

	if (sigaction(SIGILL, NULL, &old))
		return err_errno(e, "interpreter: cannot look at a signal");
	if (old.sa_flags & SA_SIGINFO || old.sa_handler != SIG_DFL)
		return 0;
	return sigaction(SIGILL, &sa, NULL) ? err_errno(e, "interpreter: cannot handle a signal") : 0;
}

struct evex_unit *evex_unit_create(struct err *e)
{
	struct evex_unit *u = calloc(1, sizeof(*u));

	if (!u) {
		err_set(e, ENOMEM, "interpreter: out of memory");
		return NULL;
	}
	u->rw = u->rx = MAP_FAILED;
	u->fd = memfd_create("ospite-evex", MFD_CLOEXEC);
	if (u->fd >= 0 && !ftruncate(u->fd, BUFFER_SIZE)) {
		u->rw = mmap(NULL, BUFFER_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, u->fd, 0);
		u->rx = mmap(NULL, BUFFER_SIZE, PROT_READ | PROT_EXEC, MAP_SHARED, u->fd, 0);
	}
	if (u->rw == MAP_FAILED || u->rx == MAP_FAILED) {
		err_errno(e, "interpreter: no memory for AVX-512 code");
		evex_unit_destroy(u);
		return NULL;
	}
	if (handler_install(e)) {
		evex_unit_destroy(u);
		return NULL;
	}
	u->used = 64; /* 0 means no code */
	return u;
}

void evex_unit_destroy(struct evex_unit *u)
{
	if (!u)
		return;
	if (u->rw != MAP_FAILED)
		munmap(u->rw, BUFFER_SIZE);
	if (u->rx != MAP_FAILED)
		munmap(u->rx, BUFFER_SIZE);
	if (u->fd >= 0)
		close(u->fd);
	free(u);
}

static void forget_all(struct evex_unit *u)
{
	unsigned a, b, c, d;

	memset(u->slot, 0, sizeof(u->slot));
	u->nkept = 0;
	u->used = 64;
	__cpuid(0, a, b, c, d); /* serialises */
}

struct evex *evex_find(struct evex_unit *u, const struct insn *i)
{
	uint64_t h[2] = { 0 };
	struct evex *e;
	uint16_t *slot;

	memcpy(h, i->bytes, sizeof(i->bytes));
	h[0] = (h[0] ^ h[1] * 0x9e3779b97f4a7c15ull) * 0xff51afd7ed558ccdull;
	slot = &u->slot[h[0] >> 55 & (SLOTS - 1)];
	if (*slot) {
		e = &u->kept[*slot - 1];
		if (e->mode == i->mode && !memcmp(e->bytes, i->bytes, sizeof(e->bytes)))
			return e;
	}
	if (u->nkept == KEPT || u->used + CODE_MAX > BUFFER_SIZE)
		forget_all(u);
	e = &u->kept[u->nkept++];
	*slot = (uint16_t)u->nkept;
	evex_shape(e, i);
	return e;
}

/* ---- code ---- */

struct code {
	uint8_t *at;
};

static void put(struct code *k, const void *bytes, unsigned n)
{
	memcpy(k->at, bytes, n);
	k->at += n;
}

static void put1(struct code *k, unsigned byte)
{
	*k->at++ = (uint8_t)byte;
}

/* opcode ModRM with [RDI + disp32] (base 7) or [RSI + disp32] (base 6) */
static void put_field(struct code *k, unsigned opcode, unsigned reg, unsigned base, size_t offset)
{
	uint32_t disp = (uint32_t)offset;

	put1(k, opcode);
	put1(k, 0x80 | (reg & 7) << 3 | base);
	put(k, &disp, 4);
}

/* VMOVDQU64 of ZMM reg */
static void put_zmm(struct code *k, bool store, unsigned reg, unsigned base, size_t offset)
{
	put1(k, 0x62);
	put1(k, 0x61 | (reg & 8 ? 0 : 0x80) | (reg & 16 ? 0 : 0x10));
	put1(k, 0xfe);
	put1(k, 0x48);
	put_field(k, store ? 0x7f : 0x6f, reg, base, offset);
}

/* KMOVQ */
static void put_mask(struct code *k, bool store, unsigned reg, unsigned base, size_t offset)
{
	put(k, "\xc4\xe1\xf8", 3);
	put_field(k, store ? 0x91 : 0x90, reg, base, offset);
}

/* MOV of RCX */
static void put_general(struct code *k, bool store, size_t offset)
{
	put1(k, 0x48);
	put_field(k, store ? 0x89 : 0x8b, 1, 7, offset);
}

/* LDMXCSR (2), STMXCSR (3) */
static void put_mxcsr(struct code *k, unsigned which, size_t offset)
{
	put1(k, 0x0f);
	put_field(k, 0xae, which, 7, offset);
}

static void put_evex_prefix(struct code *k, const struct evex *e, const struct insn *i, unsigned reg, unsigned rm)
{
	const uint8_t *p = i->bytes + i->opcode_at - 3;
	unsigned vvvv = e->has_vvvv ? i->vvvv : 0;

	put1(k, 0x62);
	put1(k, (p[0] & 0x0f) | (reg & 8 ? 0 : 0x80) | (rm & 16 ? 0 : 0x40) | (rm & 8 ? 0 : 0x20) | (reg & 16 ? 0 : 0x10));
	put1(k, (p[1] & (e->narrow ? 0x07 : 0x87)) | (~vvvv & 15) << 3);
	put1(k, (p[2] & 0xf7) | (vvvv & 16 ? 0 : 8));
}

static void put_vex_prefix(struct code *k, const struct evex *e, const struct insn *i)
{
	const uint8_t *last = i->bytes + i->opcode_at - 1;
	bool two = i->bytes[i->opcode_at - 2] == 0xc5;
	unsigned vvvv = e->has_vvvv ? i->vvvv : 0;

	put1(k, 0xc4);
	put1(k, 0xe0 | i->opmap);
	put1(k, (two || (e->narrow && i->mode != MODE_64) ? 0 : *last & 0x80) | (~vvvv & 15) << 3 | (*last & 7));
}

/* The instruction itself. */
static void put_insn(struct code *k, const struct evex *e, const struct insn *i)
{
	bool memory = i->flags & INSN_MEM;
	unsigned reg = e->reg_is_general ? 1 : i->reg, rm = e->rm_is_general ? 1 : memory ? 0 : i->rm;

	if (i->flags & INSN_EVEX)
		put_evex_prefix(k, e, i, reg, rm);
	else
		put_vex_prefix(k, e, i);
	put1(k, i->opcode);
	put1(k, (memory ? 0 : 0xc0) | (reg & 7) << 3 | (rm & 7));
	put(k, i->bytes + i->imm_at, i->imm_at ? i->imm_len : 0);
}

static void put_loads(struct code *k, const struct evex *e)
{
	for (unsigned n = 0; n < 32; n++) {
		if (e->vectors >> n & 1)
			put_zmm(k, false, n, 6, offsetof(struct x86_state, v) + 64 * n);
	}
	for (unsigned n = 0; n < 8; n++) {
		if (e->masks >> n & 1)
			put_mask(k, false, n, 6, offsetof(struct x86_state, k) + 8 * n);
	}
	if (e->general)
		put_general(k, false, offsetof(struct evex_frame, general));
	put_mxcsr(k, 2, offsetof(struct evex_frame, mxcsr));
	put(k, "\x48\x89\xf8", 3); /* mov rax, rdi: the memory operand comes first in the frame */
}

static void put_stores(struct code *k, const struct evex *e)
{
	if (e->flags)
		put(k, "\x9c\x58", 2); /* pushfq; pop rax */
	put_mxcsr(k, 3, offsetof(struct evex_frame, mxcsr));
	if (e->flags) {
		put1(k, 0x48);
		put_field(k, 0x89, 0, 7, offsetof(struct evex_frame, flags));
	}
	if (e->result == RESULT_VECTOR)
		put_zmm(k, true, e->result_at, 7, offsetof(struct evex_frame, vector));
	else if (e->result == RESULT_MASK)
		put_mask(k, true, e->result_at, 7, offsetof(struct evex_frame, mask));
	else if (e->result == RESULT_GENERAL)
		put_general(k, true, offsetof(struct evex_frame, general));
}

struct made {
	unsigned at, resume; /* from the start of the code */
};

static struct made make(uint8_t *to, const struct evex *e, const struct insn *i, unsigned *size)
{
	struct code k = { to };
	struct made m;
	uint32_t one = 1;
	uint8_t *jump;

	put_loads(&k, e);
	m.at = (unsigned)(k.at - to);
	put_insn(&k, e, i);
	put_stores(&k, e);
	put1(&k, 0xeb); /* over what follows */
	jump = k.at;
	put1(&k, 0);
	m.resume = (unsigned)(k.at - to);
	put_field(&k, 0xc7, 0, 7, offsetof(struct evex_frame, refused)); /* mov dword [], 1 */
	put(&k, &one, 4);
	*jump = (uint8_t)(k.at - jump - 1);
	put_mxcsr(&k, 2, offsetof(struct evex_frame, host_mxcsr));
	put(&k, "\xc5\xf8\x77\xc3", 4); /* vzeroupper; ret */
	*size = (unsigned)(k.at - to);
	return m;
}

bool evex_run(struct evex_unit *u, struct evex *e, const struct insn *i, const struct x86_state *s, struct evex_frame *f)
{
	void (*run)(struct evex_frame *f, const struct x86_state *s);
	uint8_t *code;
	unsigned size;

	if (!e->code) {
		struct made m = make(u->rw + u->used, e, i, &size);

		CHECK(size <= CODE_MAX);
		e->code = u->used;
		e->insn_at = (uint16_t)m.at;
		e->resume_at = (uint16_t)m.resume;
		u->used += (size + 63) & ~63u;
	}
	code = u->rx + e->code;
	f->host_mxcsr = 0x1f80;
	f->refused = 0;
	underway.resume = (uintptr_t)code + e->resume_at;
	underway.at = (uintptr_t)code + e->insn_at;
	memcpy(&run, &code, sizeof(run));
	run(f, s);
	underway.at = 0;
	return !f->refused;
}
