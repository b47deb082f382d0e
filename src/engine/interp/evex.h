/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AVX-512. Unlike all other instructions these are executed by the host's own unit, one at a time, out of a small
 * code buffer of each CPU: registers from cpu->s, a memory operand in a buffer, results committed when nothing can fault
 * any more. A CPU model offers AVX-512 only where the host has it, so that is always possible; what a
 * reference for them would be compared with is that unit anyway. Gathers and scatters are done here, element by element.
 */
#ifndef ENGINE_INTERP_EVEX_H
#define ENGINE_INTERP_EVEX_H

#include <Zydis/Zydis.h>
#include "isa/insn.h"
#include "x86/cpu.h"

struct cpuid_model;
struct err;

/* What a clear bit of the opmask says of the memory operand. */
enum evex_masking {
	EVEX_WHOLE,	  /* nothing: all of it is accessed */
	EVEX_ELEMENTS,	  /* the element of this number is not accessed */
	EVEX_REPEATED,	  /* the elements are repeated to fill the register: not accessed if all copies are masked */
	EVEX_PACKED,	  /* one element less is accessed */
	EVEX_ALL_OR_NONE, /* without any bit none is accessed */
};

/* Where the result goes; memory by evex.writes. */
enum evex_result { RESULT_NONE, RESULT_VECTOR, RESULT_MASK, RESULT_GENERAL };

/* An instruction, made ready for the host. */
struct evex {
	uint8_t bytes[15];
	uint8_t len;
	uint8_t mode;	    /* enum insn_mode */
	bool known;	    /* else #UD */
	uint32_t need[3];   /* of CPUID.7: EBX, ECX, EDX */
	bool reads, writes; /* memory */
	bool gather, scatter;
	bool aligned;	       /* memory operand at a multiple of its size, or #GP */
	bool checks_all;       /* also what is not written must be writable */
	bool flags;	       /* writes the arithmetic flags */
	uint8_t masking;       /* enum evex_masking */
	uint8_t element;       /* bytes, of the memory operand; of gathers and scatters that of the data */
	uint8_t lanes;	       /* elements of the destination: bits of the opmask that count */
	uint8_t index_size;    /* of gathers and scatters */
	uint8_t result;	       /* enum evex_result */
	uint8_t result_at;     /* number of the register */
	bool general;	       /* takes a general register, */
	uint8_t general_at;    /* this one */
	bool reg_is_general, rm_is_general, has_vvvv;
	uint8_t masks;	       /* opmask registers that are read, or written in part */
	uint32_t vectors;      /* registers that are read or merged into */
	bool narrow;	       /* general register of at most 32 bits: W does not count outside 64-bit mode */
	uint32_t code;	       /* where in the buffer; 0: not yet */
	uint16_t insn_at, resume_at; /* in the code: the instruction; where to go on when the host refuses it */
};

/* Between C and the code in the buffer, which knows the offsets. */
struct evex_frame {
	uint8_t memory[64];
	union x86_vreg vector;
	uint64_t mask;
	uint64_t general;
	uint64_t flags;
	uint32_t mxcsr;	     /* for the instruction, and after it */
	uint32_t host_mxcsr; /* before and after */
	uint32_t refused;
} __attribute__((aligned(64)));

/* Fill e from i. False: not one of these, or not one that is ever offered: #UD. */
void evex_shape(struct evex *e, const struct insn *i);
/* The bits of CPUID.7 (EBX, ECX, EDX) that an instruction set stands for. False: AVX-512, but none of those offered. */
bool evex_needs(ZydisISASet set, uint32_t need[3]);
bool evex_offered(const struct cpuid_model *m, const uint32_t need[3]);

/* The code buffer of a CPU, shared by all who execute for it. */
struct evex_unit;
struct evex_unit *evex_unit_create(struct err *e);
void evex_unit_destroy(struct evex_unit *u);
/* The instruction made ready; remembered as long as there is room. */
struct evex *evex_find(struct evex_unit *u, const struct insn *i);
/* Execute on the host, registers read from s. False: the host refuses the instruction. */
bool evex_run(struct evex_unit *u, struct evex *e, const struct insn *i, const struct x86_state *s, struct evex_frame *f);

#endif
