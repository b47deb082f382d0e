/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Differential tests: the host's own CPU is the oracle. A case is a short piece of code with the state
 * it starts from; it runs in a confined child process and in an engine, and what comes out must agree.
 *
 * Everything is a function of a 64-bit seed, so that a failure is reproduced by its seed, and a case
 * can be written down as text (regress.c). Code and data lie at the same linear addresses in both.
 */
#ifndef DIFF_H
#define DIFF_H

#include <stdio.h>
#include "base/base.h"
#include "rng.h"

/*
 * The arena, below 2 GiB so that 32-bit code, absolute and RIP-relative addresses all reach it. Pages around the named
 * ones are unmapped; data and stack are not executable, code is not writable.
 */
#define ARENA_CODE 0x20000000u /* 2 pages */
#define ARENA_DATA 0x20010000u /* pages: rw rw rw ro -- rw */
#define ARENA_STACK 0x20020000u /* 2 pages */
#define PAGE 4096u
#define CODE_PAGES 2u
#define IMAGE_PAGES 7u /* rw rw rw ro rw stack stack */
#define IMAGE_BYTES (IMAGE_PAGES * PAGE)
#define RO_IMAGE_PAGE 3u
#define IMAGES 64u /* different initial contents of memory, made once */

struct arena_page {
	uint32_t at;
	bool writable;
};
extern const struct arena_page arena_pages[IMAGE_PAGES];

enum diff_mode { DIFF_64, DIFF_32 };

/* Registers, as both sides can give them. x87 registers are in stack order, ST0 first. */
struct diff_regs {
	uint64_t gpr[16], rip, rflags;
	uint64_t fs_base, gs_base;
	uint16_t sel[6]; /* es cs ss ds fs gs */
	uint16_t fcw, fsw;
	uint8_t ftw; /* abridged: bit set = in use, by physical register */
	uint32_t mxcsr;
	struct {
		uint64_t mantissa;
		uint16_t exponent;
	} st[8];
	uint64_t ymm[16][4];
};

#define MAX_INSNS 40
#define CODE_MAX 640
#define MAX_IGNORE 4

struct diff_insn {
	uint16_t at, len;   /* within code */
	uint16_t mnemonic;  /* ZydisMnemonic; 0: bytes that are no instruction to Zydis */
	uint16_t undefined; /* flags whose value is undefined before it */
	bool skipped;       /* the minimiser replaced it by NOPs */
};

struct diff_case {
	uint64_t seed;
	uint8_t mode;      /* enum diff_mode */
	uint8_t writable;  /* code pages are writable too */
	uint8_t image;     /* which initial memory */
	uint8_t relaxed;   /* arithmetic flags are not compared after a fault: an engine may know them to be dead */
	uint8_t approx;    /* the last instruction's result is only approximate by definition */
	uint16_t ninsns, code_len;
	uint16_t undefined_end; /* flags undefined after the last */
	uint16_t undefined_any;
	uint16_t code_at;  /* offset of the code within the code pages */
	uint16_t nignore;
	struct { /* bytes of memory that the manuals leave open */
		uint32_t at, len;
	} ignore[MAX_IGNORE];
	struct diff_insn insn[MAX_INSNS];
	uint8_t code[CODE_MAX];
	struct diff_regs in;
};

enum diff_status { DIFF_NOT_RUN, DIFF_DONE, DIFF_TIMEOUT, DIFF_SYSCALL, DIFF_CRASH, DIFF_REFUSED };

struct diff_result {
	uint8_t status; /* enum diff_status */
	uint8_t vector;
	bool has_error;
	uint32_t error;
	uint64_t cr2;
	struct diff_regs out;
	uint8_t memory[IMAGE_BYTES];
	uint8_t code[CODE_PAGES * PAGE]; /* only when the case's code is writable */
};

#define BATCH 256

/* Something that runs cases. */
struct diff_engine {
	const char *name;
	void *(*create)(const char *name);
	void (*destroy)(void *e);
	/* status of every result is set; cases with skip[i] set are left alone */
	void (*run)(void *e, const struct diff_case *cases, struct diff_result *results, unsigned n,
		    const bool *skip);
};
extern const struct diff_engine diff_native, diff_wrong, diff_guest;
bool native_runs_compat(void);

/* image.c: the initial memories, IMAGES * IMAGE_BYTES, and random register contents */
extern const uint64_t special_integers[];
extern const unsigned special_integer_count;
uint8_t *images_create(void);
uint64_t random_integer(struct rng *r);
void random_regs(struct rng *r, enum diff_mode mode, struct diff_regs *out);

/* host.c: what this CPU can do and both sides are to be asked about; by ZydisISASet / ZydisISAExt */
struct host {
	bool avx, avx2, fma, f16c, bmi1, bmi2, adx, movbe, popcnt, lzcnt, aes, pclmul, sha, ssse3, sse41,
		sse42, fsgsbase, cx16, xsave, amd, gfni, vaes, vpclmul, sse4a, clflushopt, clwb;
	bool compat; /* 32-bit code can be run */
};
void host_probe(struct host *h);

/* catalogue.c: every encoding of every instruction under test, by mnemonic */
struct encoding {
	uint16_t mnemonic;
	uint8_t vex;    /* 0 legacy, 1 VEX */
	uint8_t map;    /* 0 one byte, 1 0F, 2 0F38, 3 0F3A */
	uint8_t opcode;
	uint8_t prefix; /* 0, 66, F2, F3 */
	uint8_t w, l;
	uint8_t has_modrm, memory; /* memory: ModRM names memory */
	uint8_t reg, rm;           /* 0xff: any */
};
struct catalogue {
	struct encoding *encodings;
	unsigned count;
	unsigned nmnemonics;
	struct {
		uint16_t mnemonic;
		unsigned first, count;
		unsigned weight;
	} *mnemonics;
	unsigned total_weight;
	unsigned unsupported; /* encodings left out because the host lacks them */
};
struct catalogue *catalogue_create(const struct host *h, enum diff_mode mode);
void catalogue_destroy(struct catalogue *c);

/* gen.c */
struct generator {
	struct host host;
	struct catalogue *catalogue[2];
	uint16_t only; /* mnemonic every case must contain, or 0 */
	int only_mode; /* -1: both */
	bool attack;   /* wild pointers, jumps into instructions, illegal prefixes */
};
void generate_case(const struct generator *g, uint64_t seed, struct diff_case *out);

/* undefined.c: flags left undefined by an instruction, given those undefined before it */
struct ZydisDecodedInstruction_;
#define UNDEFINED_C1 0x2 /* besides EFLAGS bits: C1 of the x87 status word */
uint16_t undefined_after(const struct ZydisDecodedInstruction_ *i, uint16_t before);
uint16_t undefined_tested(const struct ZydisDecodedInstruction_ *i); /* what it makes use of */
/* The same for a whole case, after changes to it. False: an instruction makes use of an undefined flag. */
bool undefined_compute(struct diff_case *c);

/* compare.c */
struct difference {
	bool differs;
	char text[160]; /* the first one */
};
void diff_compare(const struct diff_case *c, const struct diff_result *want,
		  const struct diff_result *got, struct difference *d);
void diff_print(FILE *f, const struct diff_case *c, const struct diff_result *want,
		const struct diff_result *got, const uint8_t *images);

/* minimise.c: fewer instructions, simpler state, still a difference */
struct bench {
	const struct diff_engine *engine[2];
	void *data[2];
	struct diff_result *result[2];
};
bool bench_try(struct bench *b, const struct diff_case *c, struct difference *d);
void diff_minimise(struct bench *b, struct diff_case *c);
/* mnemonic the difference is due to, as far as one can tell: the last instruction that is left */
uint16_t diff_culprit(const struct diff_case *c);

/* regress.c: cases as text */
void case_write(FILE *f, const struct diff_case *c, const char *why);
bool case_read(FILE *f, struct diff_case *c, char *error, size_t size);

const char *mnemonic_name(uint16_t mnemonic);
/* Disassembly of the instruction at code+at; gives its length. */
unsigned disassemble(const struct diff_case *c, unsigned at, char *text, size_t size);

#endif
