/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this room share: descriptors, stacks, modes. */
#ifndef X86_PRIVATE_H
#define X86_PRIVATE_H

#include "x86/access.h"
#include "x86/segment.h"

static inline bool mode_real(const struct cpu *c)
{
	return !(c->s.cr0 & CR0_PE);
}
static inline bool mode_v86(const struct cpu *c)
{
	return c->s.rflags & FLAG_VM;
}
static inline unsigned mode_iopl(const struct cpu *c)
{
	return (c->s.rflags & FLAG_IOPL) >> FLAG_IOPL_SHIFT;
}
static inline bool is_canonical(uint64_t at)
{
	return (uint64_t)((int64_t)(at << 16) >> 16) == at;
}
static inline int raise_gp0(struct cpu *c)
{
	return cpu_raise_error(c, VEC_GP, 0);
}

/* System descriptor types */
enum {
	DESC_TSS16 = 1,
	DESC_LDT = 2,
	DESC_TSS16_BUSY = 3,
	DESC_CALL16 = 4,
	DESC_TASK = 5,
	DESC_INT16 = 6,
	DESC_TRAP16 = 7,
	DESC_TSS32 = 9,
	DESC_TSS32_BUSY = 11,
	DESC_CALL32 = 12,
	DESC_INT32 = 14,
	DESC_TRAP32 = 15,
};

/* Type bits of code and data */
#define TYPE_ACCESSED 1u
#define TYPE_WRITE 2u  /* data */
#define TYPE_DOWN 4u   /* data: expands down */
#define TYPE_READ 2u   /* code */
#define TYPE_CONFORM 4u
#define TYPE_CODE 8u

/* A descriptor as it lies in memory, and where. */
struct desc {
	uint64_t low, high; /* high: second half of a system descriptor in long mode */
	gva_t at;
	uint16_t selector;
};

static inline uint16_t desc_attr(const struct desc *d)
{
	return (uint16_t)(d->low >> 40 & 0xf0ff);
}
static inline unsigned desc_type(const struct desc *d)
{
	return d->low >> 40 & 15;
}
static inline bool desc_is_segment(const struct desc *d) /* code or data */
{
	return d->low >> 44 & 1;
}
static inline bool desc_is_code(const struct desc *d)
{
	return desc_is_segment(d) && desc_type(d) & TYPE_CODE;
}
static inline bool desc_is_conforming(const struct desc *d)
{
	return (desc_type(d) & (TYPE_CODE | TYPE_CONFORM)) == (TYPE_CODE | TYPE_CONFORM);
}
static inline bool desc_is_writable(const struct desc *d)
{
	return desc_is_segment(d) && (desc_type(d) & (TYPE_CODE | TYPE_WRITE)) == TYPE_WRITE;
}
static inline unsigned desc_dpl(const struct desc *d)
{
	return d->low >> 45 & 3;
}
static inline bool desc_present(const struct desc *d)
{
	return d->low >> 47 & 1;
}
static inline bool desc_is_64(const struct cpu *c, const struct desc *d)
{
	return x86_long_mode(&c->s) && d->low >> 53 & 1;
}
static inline uint32_t desc_base(const struct desc *d)
{
	return (uint32_t)(d->low >> 16 & 0xffffff) | (uint32_t)(d->low >> 56) << 24;
}
static inline uint32_t desc_limit(const struct desc *d)
{
	uint32_t limit = (uint32_t)(d->low & 0xffff) | (uint32_t)(d->low >> 32 & 0xf0000);

	return d->low >> 55 & 1 ? limit << 12 | 0xfff : limit;
}

/* Read a descriptor (for system ones in long mode: both halves). Outside of its table: false in *ok, or a fault. */
int desc_find(struct cpu *c, uint16_t selector, struct desc *d, bool *ok);
/* The same; outside of its table raises `vector` with the selector, and `ext` in the error code. */
int desc_read(struct cpu *c, uint16_t selector, enum x86_vector vector, unsigned ext, struct desc *d);
int desc_read_high(struct cpu *c, struct desc *d, enum x86_vector vector, unsigned ext);
int desc_set_accessed(struct cpu *c, struct desc *d);
int desc_set_busy(struct cpu *c, struct desc *d, bool busy);
struct x86_segment desc_segment(const struct desc *d, uint16_t selector);
static inline int raise_selector(struct cpu *c, enum x86_vector vector, uint16_t selector, unsigned ext)
{
	return cpu_raise_error(c, vector, (selector & 0xfffcu) | ext);
}

/* A code segment that a transfer leads to: its own checks are done, and where in it is checked here. */
int code_check_offset(struct cpu *c, const struct desc *d, uint64_t offset);
int code_load(struct cpu *c, struct desc *d, unsigned cpl, uint64_t rip);
/* The code segment of RET and IRET: privilege by the selector's RPL. */
int code_return_check(struct cpu *c, uint16_t selector, struct desc *d);
/* SS of another privilege level: RET and IRET (vector GP), stack switches (vector TS). Sets no state. */
int stack_segment_check(struct cpu *c, uint16_t selector, unsigned cpl, enum x86_vector vector, unsigned ext,
			struct desc *d);
struct x86_segment stack_segment_null(unsigned cpl);
/* Data segments that the outer level may not use become null. */
void data_segments_drop(struct cpu *c, unsigned cpl);
void segment_load_v86(struct cpu *c, enum x86_seg seg, uint16_t selector);

/* A stack underway: nothing of the CPU changes until stack_commit. */
struct stack {
	struct cpu *c;
	struct x86_segment ss;
	uint64_t sp;
	unsigned width; /* of sp, in bytes */
	unsigned cpl;
	uint32_t error; /* of #SS: 0, or the selector of a stack being switched to; EXT */
};
struct stack stack_current(struct cpu *c);
int stack_push(struct stack *k, unsigned size, uint64_t v);
int stack_pop(struct stack *k, unsigned size, uint64_t *v);
int stack_peek(const struct stack *k, uint64_t offset, unsigned size, uint64_t *v);
void stack_commit(const struct stack *k); /* the stack pointer only */
static inline uint64_t stack_merge(uint64_t old, uint64_t sp, unsigned width)
{
	return width == 2 ? (old & ~0xffffull) | (uint16_t)sp : width == 4 ? (uint32_t)sp : sp;
}

/* The stack of an inner level, from the TSS; ist: 0, or 1..7 in long mode. */
int stack_from_tss(struct cpu *c, unsigned cpl, unsigned ist, unsigned ext, struct stack *k, struct desc *ss);

/* Of the quick forms (seg-quick.c): flat segments as they stand in a descriptor table, for level 0: present, accessed, 4 GiB by granularity. */
#define RAW_CODE64 0x00af9b000000ffffull
#define RAW_CODE32 0x00cf9b000000ffffull
#define RAW_DATA 0x00cf93000000ffffull
#define RAW_DPL_SHIFT 45
bool descriptor_is(struct cpu *c, uint64_t selector, uint64_t raw); /* in the GDT, with the selector's RPL for its level */
struct x86_segment flat_segment(uint64_t selector, uint16_t type);

/* The task switch's part of a CR3 write: no checks are left. */
void cr3_load(struct cpu *c, uint64_t value);

#define RFLAGS_IMPLEMENTED 0x3f7fd5ull

#endif
