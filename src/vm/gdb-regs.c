/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Registers as the debugger sees them: one table gives order, sizes and the target description. Segment selectors,
 * control registers and model-specific ones can be read only: a value that no instruction could have loaded
 * would bring the CPU into states that do not exist.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "vm/gdb-private.h"
#include "x86/access.h"

enum reg_kind {
	REG_GPR, REG_PC, REG_FLAGS, REG_SEG, REG_ST, REG_FPU, REG_XMM, REG_MXCSR, REG_FS_BASE, REG_GS_BASE, REG_SYS,
};
enum { FPU_CW, FPU_SW, FPU_TAG, FPU_CS, FPU_IP, FPU_DS, FPU_DP, FPU_OP };
enum { SYS_KGS, SYS_CR0, SYS_CR2, SYS_CR3, SYS_CR4, SYS_EFER };

/* A run of registers of one kind; %u in the name is its number, from `first` on. */
struct reg_run {
	const char *feature, *name, *type;
	uint8_t kind, first, count, bits;
};

#define CORE "org.gnu.gdb.i386.core"
#define SSE "org.gnu.gdb.i386.sse"
#define SEGMENTS "org.gnu.gdb.i386.segments"
#define SYSTEM "org.ospite.system"
#define R(feature, name, type, kind, first, count, bits) { feature, name, type, kind, first, count, bits }

static const struct reg_run regs[] = {
	R(CORE, "rax", "int64", REG_GPR, RAX, 1, 64),
	R(CORE, "rbx", "int64", REG_GPR, RBX, 1, 64),
	R(CORE, "rcx", "int64", REG_GPR, RCX, 1, 64),
	R(CORE, "rdx", "int64", REG_GPR, RDX, 1, 64),
	R(CORE, "rsi", "int64", REG_GPR, RSI, 1, 64),
	R(CORE, "rdi", "int64", REG_GPR, RDI, 1, 64),
	R(CORE, "rbp", "data_ptr", REG_GPR, RBP, 1, 64),
	R(CORE, "rsp", "data_ptr", REG_GPR, RSP, 1, 64),
	R(CORE, "r%u", "int64", REG_GPR, 8, 8, 64),
	R(CORE, "rip", "code_ptr", REG_PC, 0, 1, 64),
	R(CORE, "eflags", "i386_eflags", REG_FLAGS, 0, 1, 32),
	R(CORE, "cs", "int32", REG_SEG, SEG_CS, 1, 32),
	R(CORE, "ss", "int32", REG_SEG, SEG_SS, 1, 32),
	R(CORE, "ds", "int32", REG_SEG, SEG_DS, 1, 32),
	R(CORE, "es", "int32", REG_SEG, SEG_ES, 1, 32),
	R(CORE, "fs", "int32", REG_SEG, SEG_FS, 1, 32),
	R(CORE, "gs", "int32", REG_SEG, SEG_GS, 1, 32),
	R(CORE, "st%u", "i387_ext", REG_ST, 0, 8, 80),
	R(CORE, "fctrl", "int", REG_FPU, FPU_CW, 1, 32),
	R(CORE, "fstat", "int", REG_FPU, FPU_SW, 1, 32),
	R(CORE, "ftag", "int", REG_FPU, FPU_TAG, 1, 32),
	R(CORE, "fiseg", "int", REG_FPU, FPU_CS, 1, 32),
	R(CORE, "fioff", "int", REG_FPU, FPU_IP, 1, 32),
	R(CORE, "foseg", "int", REG_FPU, FPU_DS, 1, 32),
	R(CORE, "fooff", "int", REG_FPU, FPU_DP, 1, 32),
	R(CORE, "fop", "int", REG_FPU, FPU_OP, 1, 32),
	R(SSE, "xmm%u", "vec128", REG_XMM, 0, 16, 128),
	R(SSE, "mxcsr", "i386_mxcsr", REG_MXCSR, 0, 1, 32),
	R(SEGMENTS, "fs_base", "int64", REG_FS_BASE, 0, 1, 64),
	R(SEGMENTS, "gs_base", "int64", REG_GS_BASE, 0, 1, 64),
	R(SYSTEM, "k_gs_base", "int64", REG_SYS, SYS_KGS, 1, 64),
	R(SYSTEM, "cr0", "int64", REG_SYS, SYS_CR0, 1, 64),
	R(SYSTEM, "cr2", "int64", REG_SYS, SYS_CR2, 1, 64),
	R(SYSTEM, "cr3", "int64", REG_SYS, SYS_CR3, 1, 64),
	R(SYSTEM, "cr4", "int64", REG_SYS, SYS_CR4, 1, 64),
	R(SYSTEM, "efer", "int64", REG_SYS, SYS_EFER, 1, 64),
};

/* ---- values */

static uint64_t fpu_value(const struct x86_fpu *f, unsigned which)
{
	unsigned i;
	uint64_t tags = 0;

	switch (which) {
	case FPU_CW:
		return f->cw;
	case FPU_SW:
		return f->sw;
	case FPU_TAG: /* two bits each: 0 in use, 3 empty; by physical register */
		for (i = 0; i < 8; i++)
			tags |= (f->tag >> i & 1 ? 0ull : 3ull) << (2 * i);
		return tags;
	case FPU_CS:
		return f->cs;
	case FPU_IP:
		return (uint32_t)f->ip;
	case FPU_DS:
		return f->ds;
	case FPU_DP:
		return (uint32_t)f->dp;
	default:
		return f->opcode;
	}
}

static uint64_t system_value(const struct x86_state *s, unsigned which)
{
	const uint64_t values[] = { s->kernel_gs_base, s->cr0, s->cr2, s->cr3, s->cr4, s->efer };

	return values[which];
}

static unsigned st_index(const struct x86_fpu *f, unsigned i)
{
	return ((f->sw >> 11 & 7) + i) & 7;
}

static void reg_get(const struct x86_state *s, const struct reg_run *r, unsigned i, uint8_t out[16])
{
	uint64_t v = 0;

	memset(out, 0, 16);
	switch ((enum reg_kind)r->kind) {
	case REG_GPR:
		v = s->gpr[r->first + i];
		break;
	case REG_PC:
		v = s->rip;
		break;
	case REG_FLAGS:
		v = s->rflags;
		break;
	case REG_SEG:
		v = s->seg[r->first].selector;
		break;
	case REG_ST:
		memcpy(out, &s->fpu.reg[st_index(&s->fpu, i)].mantissa, 8);
		memcpy(out + 8, &s->fpu.reg[st_index(&s->fpu, i)].exponent, 2);
		return;
	case REG_FPU:
		v = fpu_value(&s->fpu, r->first);
		break;
	case REG_XMM:
		memcpy(out, s->v[i].b, 16);
		return;
	case REG_MXCSR:
		v = s->mxcsr;
		break;
	case REG_FS_BASE:
		v = s->seg[SEG_FS].base;
		break;
	case REG_GS_BASE:
		v = s->seg[SEG_GS].base;
		break;
	case REG_SYS:
		v = system_value(s, r->first);
		break;
	}
	memcpy(out, &v, 8);
}

/* Status and control flags a program can have; the rest stays as it is. */
#define FLAGS_WRITABLE (FLAGS_ARITH | FLAG_TF | FLAG_IF | FLAG_DF | FLAG_IOPL | FLAG_NT | FLAG_RF | FLAG_AC | FLAG_ID)

static bool canonical(uint64_t v)
{
	return (uint64_t)((int64_t)(v << 16) >> 16) == v;
}

/* False: this one cannot be written. */
static bool reg_put(struct x86_state *s, const struct reg_run *r, unsigned i, const uint8_t in[16])
{
	uint64_t v;

	memcpy(&v, in, 8);
	switch ((enum reg_kind)r->kind) {
	case REG_GPR:
		s->gpr[r->first + i] = v;
		return true;
	case REG_PC:
		if (!canonical(v))
			return false;
		s->rip = v;
		return true;
	case REG_FLAGS:
		s->rflags = (s->rflags & ~FLAGS_WRITABLE) | (v & FLAGS_WRITABLE);
		return true;
	case REG_ST:
		memcpy(&s->fpu.reg[st_index(&s->fpu, i)].mantissa, in, 8);
		memcpy(&s->fpu.reg[st_index(&s->fpu, i)].exponent, in + 8, 2);
		return true;
	case REG_XMM:
		memcpy(s->v[i].b, in, 16);
		return true;
	case REG_FS_BASE:
	case REG_GS_BASE:
		if (!canonical(v))
			return false;
		s->seg[r->kind == REG_FS_BASE ? SEG_FS : SEG_GS].base = v;
		return true;
	default:
		return false;
	}
}

/* ---- packets */

static const struct reg_run *reg_find(unsigned n, unsigned *i)
{
	unsigned k;

	for (k = 0; k < ARRAY_LEN(regs); k++) {
		if (n < regs[k].count) {
			*i = n;
			return &regs[k];
		}
		n -= regs[k].count;
	}
	return NULL;
}

bool gdb_reg_read(const struct cpu *c, unsigned n, struct gdb_text *t)
{
	const struct reg_run *r;
	uint8_t value[16];
	unsigned i;

	r = reg_find(n, &i);
	if (!r)
		return false;
	reg_get(&c->s, r, i, value);
	text_hex(t, value, r->bits / 8);
	return true;
}

bool gdb_reg_write(struct cpu *c, unsigned n, const char *p)
{
	const struct reg_run *r;
	uint8_t value[16] = { 0 };
	unsigned i;

	r = reg_find(n, &i);
	return r && hex_bytes(&p, value, r->bits / 8) && !*p && reg_put(&c->s, r, i, value);
}

void gdb_regs_read(const struct cpu *c, struct gdb_text *t)
{
	unsigned n;

	for (n = 0; gdb_reg_read(c, n, t); n++)
		;
}

/* All of them, as G has it. What cannot be written is passed over. */
bool gdb_regs_write(struct cpu *c, const char *p)
{
	struct x86_state *s = &c->s;
	const struct reg_run *r;
	unsigned n, i;

	for (n = 0; (r = reg_find(n, &i)); n++) {
		uint8_t value[16] = { 0 };

		if (!hex_bytes(&p, value, r->bits / 8))
			return false;
		reg_put(s, r, i, value);
	}
	return !*p;
}

/* ---- target description */

struct xml {
	char data[12288];
	size_t len;
};

static void __attribute__((format(printf, 2, 3))) xml_add(struct xml *x, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	x->len += (size_t)vsnprintf(x->data + x->len, sizeof(x->data) - x->len, fmt, ap);
	va_end(ap);
	CHECK(x->len < sizeof(x->data));
}

static void xml_types(struct xml *x, const char *feature)
{
	unsigned i;

	if (!strcmp(feature, CORE)) {
		xml_add(x, "<flags id=\"i386_eflags\" size=\"4\">");
		for (i = 0; i < 12; i++) {
			static const char *const names[] = { "CF", "", "PF", "", "AF", "", "ZF", "SF", "TF", "IF",
							     "DF", "OF" };

			xml_add(x, "<field name=\"%s\" start=\"%u\" end=\"%u\"/>", names[i], i, i);
		}
		xml_add(x, "</flags>");
	} else if (!strcmp(feature, SSE)) {
		xml_add(x, "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>"
			   "<vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>"
			   "<vector id=\"v16i8\" type=\"int8\" count=\"16\"/>"
			   "<vector id=\"v8i16\" type=\"int16\" count=\"8\"/>"
			   "<vector id=\"v4i32\" type=\"int32\" count=\"4\"/>"
			   "<vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"
			   "<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/>"
			   "<field name=\"v2_double\" type=\"v2d\"/><field name=\"v16_int8\" type=\"v16i8\"/>"
			   "<field name=\"v8_int16\" type=\"v8i16\"/><field name=\"v4_int32\" type=\"v4i32\"/>"
			   "<field name=\"v2_int64\" type=\"v2i64\"/>"
			   "<field name=\"uint128\" type=\"uint128\"/></union>"
			   "<flags id=\"i386_mxcsr\" size=\"4\"><field name=\"IE\" start=\"0\" end=\"0\"/>"
			   "<field name=\"DAZ\" start=\"6\" end=\"6\"/><field name=\"FZ\" start=\"15\" end=\"15\"/>"
			   "</flags>");
	}
}

static void xml_build(struct xml *x)
{
	const char *feature = "";
	unsigned k, i;

	xml_add(x, "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target>"
		   "<architecture>i386:x86-64</architecture>");
	for (k = 0; k < ARRAY_LEN(regs); k++) {
		const struct reg_run *r = &regs[k];

		if (strcmp(feature, r->feature)) {
			xml_add(x, "%s<feature name=\"%s\">", *feature ? "</feature>" : "", r->feature);
			feature = r->feature;
			xml_types(x, feature);
		}
		for (i = 0; i < r->count; i++) {
			char name[16];
			const char *number = strstr(r->name, "%u");

			if (number)
				snprintf(name, sizeof(name), "%.*s%u", (int)(number - r->name), r->name, r->first + i);
			else
				snprintf(name, sizeof(name), "%s", r->name);
			xml_add(x, "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\"/>", name, r->bits, r->type);
		}
	}
	xml_add(x, "</feature></target>");
}

void gdb_target_xml(struct gdb_text *t, uint64_t at, uint64_t len, uint64_t *total)
{
	struct xml x;

	x.len = 0;
	xml_build(&x);
	*total = x.len;
	if (at >= x.len)
		return;
	len = MIN(len, x.len - at);
	text_add(t, "%.*s", (int)len, x.data + at);
}
