/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A CPU with memory and nothing around it, put into the modes the tests want. Tables lie at fixed places; memory is
 * mapped one to one.
 */
#ifndef TESTS_X86_GUEST_H
#define TESTS_X86_GUEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include "base/err.h"
#include "x86/access.h"
#include "x86/cpuid.h"
#include "x86/event.h"
#include "x86/msr.h"
#include "x86/segment.h"

#define RAM_SIZE (16ull << 20)
#define GDT 0x1000u
#define LDT 0x1800u
#define IDT 0x2000u
#define TSS 0x3000u
#define TSS2 0x3400u
#define STACK0 0x8000u /* tops of stacks */
#define STACK1 0x9000u
#define STACK3 0xb000u
#define CODE 0xc000u
#define TABLES 0x20000u /* page tables */

/* Descriptor types with S: code and data */
#define D_CODE 0x1a
#define D_CODE_X 0x18    /* not readable */
#define D_CONFORM 0x1e
#define D_DATA 0x12
#define D_DATA_RO 0x10
#define D_DOWN 0x16
#define D_32 (1u << 22)
#define D_64 (1u << 21)
#define D_G (1u << 23)
#define FLAT32 (D_32 | D_G)

/* Selectors that every protected mode here has. */
enum {
	S_CODE0 = 0x08,
	S_DATA0 = 0x10,
	S_CODE3 = 0x18 | 3,
	S_DATA3 = 0x20 | 3,
	S_TSS = 0x28, /* 16 bytes in long mode */
	S_LDT = 0x38,
	S_CODE64 = 0x48,
	S_CODE64_3 = 0x50 | 3,
	S_FREE = 0x60, /* the tests' own, from here on */
};

struct guest {
	struct mem *mem;
	struct machine machine;
	struct cpuid_model cpuid;
	struct cpu *c;
};

struct guest *guest_create(void);
void guest_destroy(struct guest *g);
int guest_setup(void **state);
int guest_teardown(void **state);

void put8(struct guest *g, uint64_t at, uint8_t v);
void put16(struct guest *g, uint64_t at, uint16_t v);
void put32(struct guest *g, uint64_t at, uint32_t v);
void put64(struct guest *g, uint64_t at, uint64_t v);
uint64_t get(struct guest *g, uint64_t at, unsigned size);

uint64_t descriptor(uint32_t base, uint32_t limit, unsigned type, unsigned dpl, uint32_t flags);
void set_descriptor(struct guest *g, uint16_t selector, uint64_t d);
uint64_t gate(uint16_t selector, uint32_t offset, unsigned type, unsigned dpl, unsigned count);
void set_gate64(struct guest *g, uint64_t at, uint16_t selector, uint64_t offset, unsigned type, unsigned dpl,
		unsigned ist);
void set_idt(struct guest *g, unsigned vector, uint64_t gate_);

/* Every mode starts at CPL 0, with tables, stack STACK0, rip CODE. */
void enter_real(struct guest *g);
void enter_protected(struct guest *g);
void enter_long(struct guest *g);
void enter_v86(struct guest *g, unsigned iopl);
void go_cpl(struct guest *g, unsigned cpl); /* protected or 64-bit mode: user segments and stack */

#define assert_fault(r, g, vec, err)                                    \
	do {                                                            \
		assert_int_equal(r, CPU_FAULT);                         \
		assert_int_equal((g)->c->fault.vector, vec);            \
		assert_int_equal((g)->c->fault.error, err);             \
	} while (0)

#endif
