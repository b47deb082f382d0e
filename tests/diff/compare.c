// SPDX-License-Identifier: Apache-2.0
/* What must agree between two runs of a case, and how a difference is shown. */
#include <math.h>
#include <stdarg.h>
#include <string.h>
#include <Zydis/Zydis.h>
#include "diff.h"

#define FLAGS_COMPARED 0x3f7fd5u

static const char *const gpr_names[16] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					   "r8",  "r9",	 "r10", "r11", "r12", "r13", "r14", "r15" };
static const char *const sel_names[6] = { "es", "cs", "ss", "ds", "fs", "gs" };

static void differ(struct difference *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void differ(struct difference *d, const char *fmt, ...)
{
	va_list ap;

	if (d->differs)
		return;
	d->differs = true;
	va_start(ap, fmt);
	vsnprintf(d->text, sizeof(d->text), fmt, ap);
	va_end(ap);
}

static const struct diff_insn *insn_at(const struct diff_case *c, uint64_t rip)
{
	for (unsigned k = 0; k < c->ninsns; k++)
		if (rip == ARENA_CODE + c->code_at + c->insn[k].at)
			return &c->insn[k];
	return NULL;
}

/* What is undefined at the end: EFLAGS bits and UNDEFINED_C1. */
static uint64_t undefined_at_end(const struct diff_case *c, const struct diff_result *want)
{
	const struct diff_insn *i = insn_at(c, want->out.rip);
	uint64_t undefined = c->undefined_any;

	if (i)
		undefined = i->undefined;
	else if (want->vector == 3 && want->out.rip == ARENA_CODE + c->code_at + c->code_len + 1u)
		undefined = c->undefined_end;
	if (c->relaxed && want->vector != 3)
		undefined |= 0x8d5;
	return undefined;
}

/* Instructions that may have stored part of their result when they fault; the manuals leave it open. */
static bool stores_before_fault(const struct diff_case *c, const struct diff_result *want)
{
	const struct diff_insn *i = insn_at(c, want->out.rip);

	if (!i || want->vector == 3)
		return false;
	switch (i->mnemonic) {
	case ZYDIS_MNEMONIC_ENTER:
	case ZYDIS_MNEMONIC_PUSHA:
	case ZYDIS_MNEMONIC_PUSHAD:
	case ZYDIS_MNEMONIC_FXSAVE:
	case ZYDIS_MNEMONIC_FXSAVE64:
	case ZYDIS_MNEMONIC_FNSAVE:
	case ZYDIS_MNEMONIC_FNSTENV:
		return true;
	default:
		return false;
	}
}

/* Instructions that access memory piece by piece: which piece faults first is the processor's affair. */
static bool faults_anywhere(const struct diff_case *c, const struct diff_result *want)
{
	const struct diff_insn *i = insn_at(c, want->out.rip);

	return i && want->vector == 14 && (stores_before_fault(c, want) || i->mnemonic == ZYDIS_MNEMONIC_FLDENV ||
		     i->mnemonic == ZYDIS_MNEMONIC_FRSTOR);
}

/*
 * Faults that processors find in different orders: #AC and #PF of one access; #AC of operands over 8 bytes; the several
 * accesses and checks of far transfers; #GP for alignment and #SS.
 */
static bool has_large_operand(const struct diff_case *c, const struct diff_insn *i, ZydisDecodedInstruction *z)
{
	ZydisDecoder decoder;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	bool wide = c->mode == DIFF_64, large = false;

	memset(z, 0, sizeof(*z));
	ZydisDecoderInit(&decoder, wide ? ZYDIS_MACHINE_MODE_LONG_64 : ZYDIS_MACHINE_MODE_LONG_COMPAT_32,
			 wide ? ZYDIS_STACK_WIDTH_64 : ZYDIS_STACK_WIDTH_32);
	if (!i || !ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, c->code + i->at, i->len, z, ops)))
		return false;
	for (unsigned k = 0; k < z->operand_count; k++)
		large |= ops[k].type == ZYDIS_OPERAND_TYPE_MEMORY && ops[k].size > 64;
	return large;
}

static bool open_fault(const struct diff_case *c, const struct diff_result *want, const struct diff_result *got)
{
	unsigned both = 1u << (want->vector & 31) | 1u << (got->vector & 31);
	const struct diff_insn *w = insn_at(c, want->out.rip), *g = insn_at(c, got->out.rip);
	ZydisDecodedInstruction zw, zg;
	bool large = has_large_operand(c, w, &zw);
	const ZydisDecodedInstruction *z = want->vector == 3 ? &zg : &zw;
	bool both_fault = want->vector != 3 && got->vector != 3 && want->out.rip == got->out.rip;

	large = has_large_operand(c, g, &zg) || large;
	if (both == 1u << 3)
		return false;
	if (both & 1u << 17 && large && w != g)
		return true;
	/* AMD's gathers can be interrupted half-way, by a single step too, and their elements need no alignment */
	if (want->vector == 1 && w && strstr(mnemonic_name(w->mnemonic), "gather"))
		return true;
	if (got->vector == 17 && g && strstr(mnemonic_name(g->mnemonic), "gather"))
		return true;
	if (z->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR || z->meta.category == ZYDIS_CATEGORY_RET ||
	    z->meta.category == ZYDIS_CATEGORY_CALL)
		return both_fault;
	if (both_fault && (z->mnemonic == ZYDIS_MNEMONIC_BOUND || z->mnemonic == ZYDIS_MNEMONIC_FLDENV || z->mnemonic == ZYDIS_MNEMONIC_FRSTOR ||
			   stores_before_fault(c, want)))
		return true;
	if (both & 1u << 17)
		return (large && (both != 1u << 17 || w != g)) || both == (1u << 17 | 1u << 14) ||
		       z->mnemonic == ZYDIS_MNEMONIC_ENTER || z->meta.category == ZYDIS_CATEGORY_SEGOP;
	if (both == (1u << 6 | 1u << 14)) /* how much is fetched to see that it is nothing */
		return !w || !w->mnemonic;
	if (both == (1u << 3 | 1u << 13)) /* nothing stored, but by way of a segment that could not take it */
		return c->mode == DIFF_32 && strstr(mnemonic_name((uint16_t)z->mnemonic), "maskmov");
	return large && both == (1u << 12 | 1u << 13);
}

static bool close_float(uint32_t a, uint32_t b)
{
	float x, y;

	if (a == b)
		return true;
	memcpy(&x, &a, 4);
	memcpy(&y, &b, 4);
	if (isnan(x) || isnan(y) || isinf(x) || isinf(y))
		return false;
	return fabsf(x - y) <= fabsf(x) * 0x1p-10f;
}

static bool close_lane(uint64_t a, uint64_t b)
{
	return close_float((uint32_t)a, (uint32_t)b) && close_float((uint32_t)(a >> 32), (uint32_t)(b >> 32));
}

static bool close_extended(uint64_t m1, uint16_t e1, uint64_t m2, uint16_t e2)
{
	uint64_t d = m1 > m2 ? m1 - m2 : m2 - m1;

	if (e1 == e2 && d <= 8)
		return true;
	/* across a power of two, or next to zero */
	return (e1 == e2 + 1 && m1 - BIT(63) < 4 && ~m2 < 8) || (e2 == e1 + 1 && m2 - BIT(63) < 4 && ~m1 < 8);
}

static void compare_x87(const struct diff_case *c, const struct diff_regs *w, const struct diff_regs *g,
			bool c1_open, struct difference *d)
{
	uint16_t sw = c->approx ? (uint16_t)~0x0232 : 0xffff; /* PE, UE and C1 follow the last digit */

	if (c1_open)
		sw &= (uint16_t)~0x200;

	if (w->fcw != g->fcw)
		differ(d, "fcw: want %04x, got %04x", w->fcw, g->fcw);
	if ((w->fsw & sw) != (g->fsw & sw))
		differ(d, "fsw: want %04x, got %04x", w->fsw, g->fsw);
	if (w->ftw != g->ftw)
		differ(d, "ftw: want %02x, got %02x", w->ftw, g->ftw);
	for (unsigned i = 0; i < 8; i++) {
		if (w->st[i].mantissa == g->st[i].mantissa && w->st[i].exponent == g->st[i].exponent)
			continue;
		if (c->approx && close_extended(w->st[i].mantissa, w->st[i].exponent, g->st[i].mantissa,
						g->st[i].exponent))
			continue;
		differ(d, "st%u: want %04x:%016llx, got %04x:%016llx", i, w->st[i].exponent,
		       (unsigned long long)w->st[i].mantissa, g->st[i].exponent,
		       (unsigned long long)g->st[i].mantissa);
	}
}

/* A gather that faults: which elements have arrived by then, and what the rest of the mask looks like, is open. */
static bool gather_faulted(const struct diff_case *c, const struct diff_result *want)
{
	const struct diff_insn *i = insn_at(c, want->out.rip);

	return i && want->vector != 3 && strstr(mnemonic_name(i->mnemonic), "gather");
}

static void compare_regs(const struct diff_case *c, const struct diff_result *want,
			 const struct diff_result *got, struct difference *d)
{
	const struct diff_regs *w = &want->out, *g = &got->out;
	bool wide = c->mode == DIFF_64;
	uint32_t pe = 0;
	uint64_t mask = wide ? ~0ull : 0xffffffff, undefined = undefined_at_end(c, want);
	uint64_t flags = FLAGS_COMPARED & ~undefined;

	for (unsigned i = 0; i < (wide ? 16 : 8); i++)
		if ((w->gpr[i] ^ g->gpr[i]) & mask)
			differ(d, "%s: want %016llx, got %016llx", gpr_names[i], (unsigned long long)w->gpr[i],
			       (unsigned long long)g->gpr[i]);
	if ((w->rflags ^ g->rflags) & flags)
		differ(d, "flags: want %06llx, got %06llx, differing in %06llx",
		       (unsigned long long)(w->rflags & flags), (unsigned long long)(g->rflags & flags),
		       (unsigned long long)((w->rflags ^ g->rflags) & flags));
	for (unsigned i = 0; i < 6; i++)
		if (w->sel[i] != g->sel[i] && (w->sel[i] | g->sel[i]) > 3) /* IRET makes null selectors 0 */
			differ(d, "%s: want %04x, got %04x", sel_names[i], w->sel[i], g->sel[i]);
	if (wide && w->fs_base != g->fs_base)
		differ(d, "fs_base: want %llx, got %llx", (unsigned long long)w->fs_base,
		       (unsigned long long)g->fs_base);
	if (wide && w->gs_base != g->gs_base)
		differ(d, "gs_base: want %llx, got %llx", (unsigned long long)w->gs_base,
		       (unsigned long long)g->gs_base);
	for (unsigned i = 0; i < (wide ? 16 : 8) && !gather_faulted(c, want); i++) {
		for (unsigned k = 0; k < 4; k++) {
			if (w->ymm[i][k] == g->ymm[i][k])
				continue;
			if (c->approx && close_lane(w->ymm[i][k], g->ymm[i][k]))
				continue;
			differ(d, "ymm%u[%u]: want %016llx, got %016llx", i, k, (unsigned long long)w->ymm[i][k],
			       (unsigned long long)g->ymm[i][k]);
		}
	}
	/* unmasked: whether the result, had it been delivered, would have been inexact too */
	if (want->vector == 19)
		pe = 0x20;
	if ((w->mxcsr ^ g->mxcsr) & ~pe)
		differ(d, "mxcsr: want %08x, got %08x", w->mxcsr, g->mxcsr);
	compare_x87(c, w, g, undefined & UNDEFINED_C1, d);
}

static bool is_ignored(const struct diff_case *c, uint64_t at)
{
	for (unsigned k = 0; k < c->nignore; k++)
		if (at - c->ignore[k].at < c->ignore[k].len)
			return true;
	return false;
}

static void compare_memory(const struct diff_case *c, const struct diff_result *want,
			   const struct diff_result *got, struct difference *d)
{
	if (stores_before_fault(c, want))
		return;
	for (unsigned p = 0; p < IMAGE_PAGES; p++) {
		const uint8_t *w = want->memory + p * PAGE, *g = got->memory + p * PAGE;

		if (!memcmp(w, g, PAGE))
			continue;
		for (unsigned i = 0; i < PAGE; i++)
			if (w[i] != g[i] && !is_ignored(c, arena_pages[p].at + i))
				differ(d, "memory at %08x: want %02x, got %02x", arena_pages[p].at + i, w[i], g[i]);
	}
	if (c->writable && memcmp(want->code, got->code, sizeof(want->code)))
		differ(d, "the code pages");
}

/*
 * INT1 is a trap, and leaves RIP behind it. A host that is a virtual machine itself may leave it in front: its hypervisor
 * intercepts #DB and delivers it again as a fault.
 */
static bool after_int1(const struct diff_case *c, const struct diff_result *want, const struct diff_result *got)
{
	uint64_t at = want->out.rip - ARENA_CODE - c->code_at;

	return want->vector == 1 && got->vector == 1 && want->out.rip + 1 == got->out.rip && at < c->code_len && c->code[at] == 0xf1;
}

void diff_compare(const struct diff_case *c, const struct diff_result *want, const struct diff_result *got,
		  struct difference *d)
{
	d->differs = false;
	if (got->status != DIFF_DONE) {
		differ(d, "status: want done, got %s",
		       got->status == DIFF_TIMEOUT ? "timeout" : got->status == DIFF_CRASH ? "crash" : "refusal");
		return;
	}
	if (open_fault(c, want, got) || want->out.mxcsr >> 16) /* AMD's MXCSR.MM is not offered */
		return;
	if (want->vector != got->vector)
		differ(d, "exception: want %u, got %u", want->vector, got->vector);
	if (want->out.rip != got->out.rip && !after_int1(c, want, got))
		differ(d, "rip: want %llx, got %llx", (unsigned long long)want->out.rip,
		       (unsigned long long)got->out.rip);
	if (want->vector == 14 && want->cr2 != got->cr2 &&
	    !faults_anywhere(c, want))
		differ(d, "cr2: want %llx, got %llx", (unsigned long long)want->cr2, (unsigned long long)got->cr2);
	/* for kernel addresses Linux hides whether the page is there */
	if (want->has_error && want->error != got->error &&
	    !(want->vector == 14 && (want->cr2 >= 0x7ffffffff000 || faults_anywhere(c, want))))
		differ(d, "error code: want %x, got %x", want->error, got->error);
	compare_regs(c, want, got, d);
	compare_memory(c, want, got, d);
}

unsigned disassemble(const struct diff_case *c, unsigned at, char *text, size_t size)
{
	ZydisDecoder decoder;
	ZydisFormatter formatter;
	ZydisDecodedInstruction i;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	bool wide = c->mode == DIFF_64;

	ZydisDecoderInit(&decoder, wide ? ZYDIS_MACHINE_MODE_LONG_64 : ZYDIS_MACHINE_MODE_LONG_COMPAT_32,
			 wide ? ZYDIS_STACK_WIDTH_64 : ZYDIS_STACK_WIDTH_32);
	ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, c->code + at, c->code_len - at, &i, ops))) {
		snprintf(text, size, "(no instruction)");
		return c->code_len - at;
	}
	ZydisFormatterFormatInstruction(&formatter, &i, ops, i.operand_count_visible, text, size,
					ARENA_CODE + c->code_at + at, NULL);
	return i.length;
}

static void print_pair(FILE *f, const char *name, uint64_t before, uint64_t want, uint64_t got)
{
	fprintf(f, "  %-8s %016llx -> %016llx", name, (unsigned long long)before, (unsigned long long)want);
	if (want != got)
		fprintf(f, "  got %016llx  <---", (unsigned long long)got);
	fputc('\n', f);
}

static void print_regs(FILE *f, const struct diff_case *c, const struct diff_regs *w, const struct diff_regs *g)
{
	const struct diff_regs *in = &c->in;
	char name[16];

	for (unsigned i = 0; i < (c->mode == DIFF_64 ? 16 : 8); i++)
		print_pair(f, gpr_names[i], in->gpr[i], w->gpr[i], g->gpr[i]);
	print_pair(f, "rip", in->rip, w->rip, g->rip);
	print_pair(f, "rflags", in->rflags, w->rflags, g->rflags);
	print_pair(f, "fs_base", in->fs_base, w->fs_base, g->fs_base);
	print_pair(f, "gs_base", in->gs_base, w->gs_base, g->gs_base);
	for (unsigned i = 0; i < 6; i++)
		if (w->sel[i] != g->sel[i] || w->sel[i] != in->sel[i])
			print_pair(f, sel_names[i], in->sel[i], w->sel[i], g->sel[i]);
	for (unsigned i = 0; i < 16; i++) {
		for (unsigned k = 0; k < 4; k++) {
			snprintf(name, sizeof(name), "ymm%u[%u]", i, k);
			if (w->ymm[i][k] != g->ymm[i][k] || w->ymm[i][k] != in->ymm[i][k])
				print_pair(f, name, in->ymm[i][k], w->ymm[i][k], g->ymm[i][k]);
		}
	}
	print_pair(f, "mxcsr", in->mxcsr, w->mxcsr, g->mxcsr);
	print_pair(f, "fcw", in->fcw, w->fcw, g->fcw);
	print_pair(f, "fsw", in->fsw, w->fsw, g->fsw);
	print_pair(f, "ftw", in->ftw, w->ftw, g->ftw);
	for (unsigned i = 0; i < 8; i++) {
		bool same = !memcmp(&w->st[i], &in->st[i], 10) && !memcmp(&w->st[i], &g->st[i], 10);

		if (same)
			continue;
		snprintf(name, sizeof(name), "st%u.exp", i);
		print_pair(f, name, in->st[i].exponent, w->st[i].exponent, g->st[i].exponent);
		snprintf(name, sizeof(name), "st%u.man", i);
		print_pair(f, name, in->st[i].mantissa, w->st[i].mantissa, g->st[i].mantissa);
	}
}

static void print_memory(FILE *f, const struct diff_case *c, const struct diff_result *want,
			 const struct diff_result *got, const uint8_t *images)
{
	const uint8_t *before = images + (size_t)c->image * IMAGE_BYTES;
	unsigned lines = 0;

	for (unsigned at = 0; at < IMAGE_BYTES && lines < 12; at += 8) {
		const uint8_t *w = want->memory + at, *g = got->memory + at, *b = before + at;

		if (!memcmp(w, g, 8) && !memcmp(w, b, 8))
			continue;
		fprintf(f, "  [%08x]", arena_pages[at / PAGE].at + at % PAGE);
		for (unsigned k = 0; k < 8; k++)
			fprintf(f, " %02x", b[k]);
		fputs(" ->", f);
		for (unsigned k = 0; k < 8; k++)
			fprintf(f, " %02x", w[k]);
		if (memcmp(w, g, 8)) {
			fputs("  got", f);
			for (unsigned k = 0; k < 8; k++)
				fprintf(f, " %02x", g[k]);
		}
		fputc('\n', f);
		lines++;
	}
}

static void print_end(FILE *f, const char *who, const struct diff_result *r)
{
	fprintf(f, "  %-5s status %u, exception %u", who, r->status, r->vector);
	if (r->has_error)
		fprintf(f, ", error code %x", r->error);
	if (r->vector == 14)
		fprintf(f, ", cr2 %llx", (unsigned long long)r->cr2);
	fputc('\n', f);
}

void diff_print(FILE *f, const struct diff_case *c, const struct diff_result *want,
		const struct diff_result *got, const uint8_t *images)
{
	char text[128];

	for (unsigned k = 0; k < c->ninsns; k++) {
		if (c->insn[k].skipped || c->insn[k].at >= c->code_len)
			continue;
		disassemble(c, c->insn[k].at, text, sizeof(text));
		fprintf(f, "  %08x ", ARENA_CODE + c->code_at + c->insn[k].at);
		for (unsigned b = 0; b < c->insn[k].len && c->insn[k].at + b < c->code_len; b++)
			fprintf(f, "%02x", c->code[c->insn[k].at + b]);
		fprintf(f, "\n           %s\n", text);
	}
	print_end(f, "want", want);
	print_end(f, "got", got);
	if (got->status != DIFF_DONE)
		return;
	print_regs(f, c, &want->out, &got->out);
	print_memory(f, c, want, got, images);
}
